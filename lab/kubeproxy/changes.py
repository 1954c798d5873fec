"""What changed in kube-proxy's rules, release by release: each change has a name, a first release and a reason.

A release is the set of the changes that it has (:mod:`lab.kubeproxy.releases`), and what writes rules asks for a
change by its name here. ``docs/releases.md`` is made of this table.

Source: rules that real kube-proxies of 26 releases wrote for the same objects (``tests/kubeproxy/dumps.md``), laid
beside each other; where a change says so, upstream's source alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab.vocabulary import ProxyMode

_BOTH: Final = (ProxyMode.IPTABLES, ProxyMode.NFTABLES)
_IPTABLES: Final = (ProxyMode.IPTABLES,)
_NFTABLES: Final = (ProxyMode.NFTABLES,)


class Area(StrEnum):
    """What a change between releases is about."""

    TRAFFIC = "where packets go"
    NODE = "what the node is set to"
    ENTRIES = "which conntrack entries of UDP flows are deleted"
    FORM = "how the same is written"


@dataclass(frozen=True, eq=False)
class Change:
    """One difference between kube-proxy's releases.

    :param name: unique, in lower case with hyphens.
    :param minor: the first minor release that has it, N of v1.N.
    :param what: what it does, in one sentence.
    :param area: what it changes.
    :param modes: the proxy modes in which it shows.
    :param patches: patch releases of earlier minors from which they have it too, or of ``minor`` itself where its
        first patches lack it, as (minor, patch).
    :param pulls: upstream's pull requests, where known.
    :param read: no dump shows it: it was read in upstream's source, or seen with other objects or settings.
    """

    name: str
    minor: int
    what: str
    area: Area = Area.TRAFFIC
    modes: tuple[ProxyMode, ...] = _IPTABLES
    patches: tuple[tuple[int, int], ...] = ()
    pulls: tuple[int, ...] = ()
    read: bool = False

    @property
    def shapes_rules(self) -> bool:
        """Whether it is about the rules; others are about what else a node is."""
        return self.area in (Area.TRAFFIC, Area.FORM)

    @property
    def releases(self) -> tuple[str, ...]:
        """The first releases that have it: of earlier minors the patch from which on they do, and of its own."""
        patches = dict(self.patches)
        first = () if self.minor in patches else (f"v1.{self.minor}",)
        return (*(f"v1.{minor}.{patch}" for minor, patch in patches.items()), *first)

    def within(self, minor: int, patch: int | None) -> bool:
        """Say whether a release has it.

        :param patch: None stands for the newest patch of the minor.
        """
        first = dict(self.patches).get(minor, 0 if minor >= self.minor else None)
        return first is not None and (patch is None or patch >= first)


DROPS_INVALID: Final = Change(
    "drops-invalid", 15, "KUBE-FORWARD begins with a drop of what conntrack calls INVALID", pulls=(74840,)
)
XLB_FROM_NODE: Final = Change(
    "xlb-from-node",
    15,
    "KUBE-XLB masquerades what the node itself sends, and sends it to endpoints on any node",
    pulls=(77523,),
)
XLB_PODS_FIRST: Final = Change(
    "xlb-pods-first", 16, "in KUBE-XLB the rule for pods comes before those for what the node itself sends", Area.FORM
)
RANDOM_FULLY: Final = Change(
    "random-fully", 16, "masquerading chooses source ports at random (MASQUERADE --random-fully)", pulls=(78547,)
)
CANARIES: Final = Change(
    "canaries",
    17,
    "an empty chain KUBE-PROXY-CANARY in each table shows whether others flushed it",
    Area.FORM,
    pulls=(81517,),
)
TEN_DIGITS: Final = Change(
    "ten-digits", 17, "probabilities of endpoints have ten digits, before five", Area.FORM, pulls=(83599,)
)
ENDPOINT_COMMENTS: Final = Change(
    "endpoint-comments",
    18,
    "rules of endpoints carry the port's name as a comment, up to 1,000 endpoints",
    Area.FORM,
)
ACCEPTS_ESTABLISHED: Final = Change(
    "accepts-established",
    18,
    "KUBE-FORWARD accepts RELATED,ESTABLISHED packets whatever their addresses; before only with a cluster CIDR,"
    " to or from it",
    pulls=(87748,),
)
CLEARS_MARK: Final = Change(
    "clears-mark",
    19,
    "KUBE-POSTROUTING takes the mark away before it masquerades, so that a packet in a tunnel is masqueraded once",
    patches=((16, 13), (17, 9), (18, 6)),
    pulls=(92035,),
)
PORT_WITHOUT_COLON: Final = Change(
    "port-without-colon",
    19,
    "a port without a name is called ns/name, before ns/name: (in comments and in the hash of every chain)",
    Area.FORM,
)
OTHER_BALANCERS: Final = Change(
    "other-balancers",
    18,
    "a load balancer's address of the other family is left out; before, it makes the load of all rules fail",
    patches=((16, 8), (17, 4)),
    pulls=(87117, 88366, 88396),
)
KUBELET_GUARDS_LOCALHOST: Final = Change(
    "kubelet-guards-localhost",
    19,
    "the kubelet of the node keeps others from 127.0.0.0/8 in its KUBE-FIREWALL (CVE-2020-8558)",
    patches=((16, 11), (17, 7), (18, 4)),
    pulls=(91569,),
    read=True,
)
EXTERNAL_IP_LOCAL: Final = Change(
    "external-ip-local",
    19,
    "with externalTrafficPolicy Local, external IPs keep the client's address and go to local endpoints",
    pulls=(
        88786,
        90537,
    ),
)
SLICES: Final = Change(
    "slices",
    19,
    "endpoints come from EndpointSlices, before from Endpoints, where what terminates is unready, and labels do not"
    " matter",
    pulls=(
        86137,
        92736,
    ),
)
TRIMS_RANGES: Final = Change(
    "trims-ranges",
    20,
    "blanks around loadBalancerSourceRanges are cut off; before, a leading one ends the program",
    patches=((17, 14), (18, 11), (19, 4)),
    pulls=(94107, 94979),
)
DUAL_STACK: Final = Change(
    "dual-stack",
    21,
    "one kube-proxy serves both families (v1.18 to v1.20 with the feature gate IPv6DualStack)",
    Area.NODE,
    pulls=(
        82462,
        98969,
    ),
)
CLUSTER_IPS: Final = Change(
    "cluster-ips", 20, "a Service has a cluster IP of each family (clusterIPs); before of one alone"
)
FORWARD_EXTERNAL: Final = Change(
    "forward-external",
    20,
    "FORWARD jumps to KUBE-EXTERNAL-SERVICES, where load balancers' addresses without endpoints are refused now;"
    " INPUT no more to KUBE-SERVICES",
    pulls=(95252,),
)
OWN_MARK_DROP: Final = Change(
    "own-mark-drop",
    20,
    "KUBE-MARK-DROP is declared; before, the load fails where the kubelet has not made it",
    pulls=(94591,),
)
HEALTH_PORTS: Final = Change(
    "health-ports", 21, "health check node ports are accepted in INPUT (filter KUBE-NODEPORTS)", pulls=(97824,)
)
EXTERNAL_IP_PLAIN: Final = Change(
    "external-ip-plain",
    21,
    "external IPs are served whoever sends; before not for what comes over a bridge and not from the node",
    pulls=(96296,),
)
COUNTS_UNREADY: Final = Change(
    "counts-unready", 21, "endpoints that are not ready count for the limit of 1,000", Area.FORM, read=True
)
MARKS_IN_SERVICE: Final = Change(
    "marks-in-service",
    22,
    "rules that mark for masquerading stand in KUBE-SVC, before in KUBE-SERVICES and KUBE-NODEPORTS",
    Area.FORM,
    pulls=(96959,),
)
INTERNAL_POLICY: Final = Change(
    "internal-policy",
    22,
    "internalTrafficPolicy Local is heeded; up to v1.23 for traffic from outside as well",
    pulls=(
        96600,
        103462,
    ),
)
TAKES_UNREADY: Final = Change(
    "takes-unready",
    22,
    "a Service whose endpoints are all unready is served as if it had some, and nothing answers (see refuses-unready)",
)
REFUSES_UNREADY: Final = Change(
    "refuses-unready",
    23,
    "a Service whose endpoints are all unready is refused, as up to v1.21",
    patches=((22, 4),),
    pulls=(106030, 106373),
)
ONE_CONNTRACK_RULE: Final = Change(
    "one-conntrack-rule", 23, "KUBE-FORWARD accepts RELATED,ESTABLISHED by one rule, before by two", Area.FORM
)
XLB_COMMENTS: Final = Change(
    "xlb-comments",
    23,
    "KUBE-XLB's rules of endpoints carry the port's name, before a sentence",
    Area.FORM,
    pulls=(106269,),
)
EXTERNAL_CHAINS: Final = Change(
    "external-chains",
    24,
    "KUBE-EXT and KUBE-SVL instead of KUBE-XLB; KUBE-FW only with source ranges; internalTrafficPolicy Local is for"
    " internal traffic alone; comments say which endpoint",
    pulls=(
        106497,
        109060,
    ),
)
HINTS_ANNOTATED: Final = Change(
    "hints-annotated",
    24,
    "hints for zones are heeded with the annotation service.kubernetes.io/topology-aware-hints",
    modes=_BOTH,
    pulls=(
        99522,
        108747,
    ),
)
TOPOLOGY_MODE: Final = Change(
    "topology-mode",
    27,
    "the annotation service.kubernetes.io/topology-mode asks for hints as well",
    modes=_BOTH,
    pulls=(116522,),
)
HINTS_ALWAYS: Final = Change(
    "hints-always", 31, "hints for zones are heeded without an annotation", modes=_BOTH, pulls=(125838,)
)
HINTS_NODES: Final = Change(
    "hints-nodes",
    34,
    "hints for nodes are heeded, before those for zones",
    modes=_BOTH,
    pulls=(
        130844,
        132127,
    ),
)
PROXY_FIREWALL: Final = Change(
    "proxy-firewall",
    25,
    "KUBE-PROXY-FIREWALL drops what a load balancer's source ranges refuse, and the filter table what has no local"
    " endpoint, instead of a mark",
    pulls=(
        109826,
        110289,
    ),
)
DELETES_LATER: Final = Change(
    "deletes-later",
    25,
    "with over 1,000 endpoints, unused chains are deleted in a sync at least 30 s after the last deletion; before at"
    " once",
    Area.FORM,
    read=True,
)
TERMINATING: Final = Change(
    "terminating",
    26,
    "endpoints that terminate but serve are used where none is ready",
    modes=_BOTH,
    pulls=(
        97238,
        113363,
    ),
)
LOOPBACK_NODE_PORTS: Final = Change(
    "loopback-node-ports",
    26,
    "node ports are closed for the loopback range in IPv6, and in IPv4 where --iptables-localhost-nodeports is off",
    pulls=(108250,),
)
OWN_FIREWALL: Final = Change(
    "own-firewall",
    27,
    "KUBE-FIREWALL, which keeps others from 127.0.0.0/8, is written by kube-proxy; before by the kubelet alone",
    pulls=(114470,),
)
FIREWALL_COMMENT: Final = Change("firewall-comment", 27, "KUBE-FW ends with a rule that is a comment alone", Area.FORM)
NODE_IP_OF_FAMILY: Final = Change(
    "node-ip-of-family",
    28,
    "a node of both families knows its address; before it is taken for 0.0.0.0, and what it sends itself by a load"
    " balancer with source ranges may be dropped",
    pulls=(118513,),
)
HEEDS_BE_LIBERAL: Final = Change(
    "heeds-be-liberal",
    29,
    "the drop of INVALID is left out where nf_conntrack_tcp_be_liberal is set when kube-proxy starts",
    read=True,
    pulls=(120412,),
)
IP_MODE: Final = Change(
    "ip-mode",
    30,
    "a load balancer's address with ipMode Proxy is left to the load balancer",
    modes=_BOTH,
    pulls=(
        119937,
        123418,
    ),
)
COUNTS_INVALID: Final = Change(
    "counts-invalid", 31, "the drop of INVALID counts by nfacct, for a metric", Area.FORM, pulls=(122812,)
)
COUNTS_LOCALHOST: Final = Change(
    "counts-localhost", 31, "node ports by 127.0.0.0/8 count by nfacct, for a metric", Area.FORM, pulls=(125015,)
)
ANY_RANGE: Final = Change(
    "any-range",
    34,
    "a source range of /0 is no range; before it is one like others, of its family alone",
    modes=_BOTH,
    pulls=(132722,),
)
SERVING_SLICE_WINS: Final = Change(
    "serving-slice-wins",
    36,
    "of several slices with one endpoint, one that does not call it terminating wins; before one that calls it local",
    modes=_BOTH,
    pulls=(135593,),
)
SELECTORS_APART: Final = Change(
    "selectors-apart",
    36,
    "a Service labelled headless is served where it has a VIP, and a slice labelled service-proxy-name is used",
    modes=_BOTH,
    read=True,
    pulls=(134623,),
)
EXTERNAL_IPS_GATE: Final = Change(
    "external-ips-gate",
    36,
    "the feature gate AllowServiceExternalIPs, on, decides of external IPs",
    modes=_BOTH,
    read=True,
)

NFT_ALPHA: Final = Change(
    "nft-alpha", 29, "nftables mode, by the feature gate NFTablesProxyMode", modes=_NFTABLES, pulls=(121046,)
)
NFT_FORGETS_INVALID: Final = Change(
    "nft-forgets-invalid",
    30,
    "what is INVALID is no more dropped, as the first alpha did where be_liberal was not set",
    modes=_NFTABLES,
    pulls=(122663,),
)
NFT_MAPS: Final = Change(
    "nft-maps",
    30,
    "the table's layout of today: maps of services, of firewalls and of what has no endpoints; other ports of a cluster"
    " IP are refused",
    modes=_NFTABLES,
    pulls=(122296, 122614, 122692, 123162),
)
NFT_BETA: Final = Change(
    "nft-beta",
    31,
    "nftables mode without a gate; elements of firewall-ips without a comment",
    modes=_NFTABLES,
    pulls=(124383,),
)
DROPS_UNALLOCATED: Final = Change(
    "drops-unallocated",
    33,
    "what goes to a cluster IP that no Service has is dropped, by the ServiceCIDRs of the API server",
    modes=_NFTABLES,
)
FILTERS_AFTER_DNAT: Final = Change(
    "filters-after-dnat",
    34,
    "refusals come after DNAT, at priority 0; before they come at -110",
    modes=_NFTABLES,
    patches=((33, 6),),
    pulls=(132456, 133969),
)
MARKS_ANY_PORT: Final = Change(
    "marks-any-port",
    34,
    "the rule that marks for masquerading in service- and local- chains matches the cluster IP whatever the port",
    Area.FORM,
    modes=_NFTABLES,
    pulls=(131492,),
)
INTERFACE_BY_NAME: Final = Change(
    "interface-by-name",
    35,
    "pods are told by their interface's name (iifname); before by its index, and a prefix of names never loads",
    modes=_NFTABLES,
    patches=((33, 6), (34, 2)),
    read=True,
    pulls=(
        134024,
        134099,
        134117,
        134118,
    ),
)
ENDPOINT_MAPS: Final = Change(
    "endpoint-maps",
    36,
    "endpoints are chosen by a map of addresses, and hairpins by a set; no mark-for-masquerade",
    modes=_NFTABLES,
    pulls=(135800, 136499),
)

RAISES_TIMEOUTS: Final = Change(
    "raises-timeouts",
    23,
    "conntrack's time-outs of established and close-wait connections are only raised: the kernel's five days stay",
    Area.NODE,
    modes=_BOTH,
    pulls=(103174,),
)
SETS_TIMEOUTS: Final = Change(
    "sets-timeouts",
    29,
    "conntrack's time-outs of established (one day) and close-wait connections (an hour) are set as up to v1.22",
    Area.NODE,
    modes=_BOTH,
    pulls=(120448,),
)
SETS_BE_LIBERAL: Final = Change(
    "sets-be-liberal",
    29,
    "nf_conntrack_tcp_be_liberal is set with --conntrack-tcp-be-liberal",
    Area.NODE,
    modes=_BOTH,
    pulls=(120354,),
)
LOCALNET_BY_ADDRESSES: Final = Change(
    "localnet-by-addresses",
    24,
    "route_localnet is set only where --nodeport-addresses hold a loopback address",
    Area.NODE,
    pulls=(107684,),
)
LOCALNET_BY_OPTION: Final = Change(
    "localnet-by-option",
    26,
    "route_localnet is set only with --iptables-localhost-nodeports",
    Area.NODE,
    pulls=(108250,),
)
DETECTS_LOCAL: Final = Change(
    "detects-local",
    18,
    "--detect-local-mode says how local pods are told: by ClusterCIDR, as before, or by NodeCIDR",
    Area.NODE,
    modes=_BOTH,
    pulls=(87748,),
    read=True,
)
DETECTS_BY_INTERFACE: Final = Change(
    "detects-by-interface",
    24,
    "--detect-local-mode knows BridgeInterface and InterfaceNamePrefix",
    Area.NODE,
    modes=_BOTH,
    pulls=(95400,),
    read=True,
)
PRIMARY_NODE_PORTS: Final = Change(
    "primary-node-ports",
    31,
    "--nodeport-addresses knows primary, the node's own address",
    Area.NODE,
    modes=_BOTH,
    pulls=(123105,),
    read=True,
)
LOSES_ZONE: Final = Change(
    "loses-zone",
    34,
    "the node's zone can be lost when kube-proxy starts (2 of 40 starts): hints for zones are not heeded then",
    Area.NODE,
    modes=_BOTH,
    read=True,
)

ENTRIES_OF_CLUSTER_IP: Final = Change(
    "entries-of-cluster-ip",
    20,
    "where an endpoint of a UDP Service with a node port is gone, entries by its cluster IP are deleted as well",
    Area.ENTRIES,
    modes=_BOTH,
    pulls=(71573,),
)
ENTRIES_OF_NODE_PORT: Final = Change(
    "entries-of-node-port",
    21,
    "a UDP Service's first endpoint has entries to its node port's number deleted; before, they are when kube-proxy"
    " opens the port, and before the rules are there",
    Area.ENTRIES,
    modes=_BOTH,
    patches=((20, 5),),
    pulls=(98305,),
)
ENTRIES_OF_GONE: Final = Change(
    "entries-of-gone",
    21,
    "entries of an endpoint are deleted once it is in no slice; before (and later, see entries-of-unready) once it is"
    " not ready",
    Area.ENTRIES,
    modes=_BOTH,
)
ENTRIES_OF_BALANCER: Final = Change(
    "entries-of-balancer",
    23,
    "a UDP Service's first endpoint has entries to its load balancer's addresses deleted",
    Area.ENTRIES,
    modes=_BOTH,
    patches=((20, 11), (21, 5), (22, 1)),
    pulls=(104009, 104149, 104151, 104152),
)
ENTRIES_OF_UNREADY: Final = Change(
    "entries-of-unready",
    23,
    "entries of an endpoint are deleted once it is not ready, as up to v1.20, though it may still serve",
    Area.ENTRIES,
    modes=_BOTH,
    patches=((22, 4),),
    pulls=(106163, 106239),
)
ENTRIES_BY_SERVING: Final = Change(
    "entries-by-serving",
    29,
    "entries of an endpoint that terminates stay as long as it serves; those of one that stops serving before it is"
    " gone stay for good (see entries-of-stopped)",
    Area.ENTRIES,
    modes=_BOTH,
    pulls=(119394,),
)
ENTRIES_OF_STOPPED: Final = Change(
    "entries-of-stopped",
    32,
    "entries of an endpoint that stops serving are deleted",
    Area.ENTRIES,
    modes=_BOTH,
    patches=((29, 10), (30, 6), (31, 2)),
    pulls=(127780, 127806, 127807, 127808),
)
ENTRIES_RECONCILED: Final = Change(
    "entries-reconciled",
    32,
    "where slices of a UDP Service change, entries of all UDP Services with serving endpoints are deleted that lead to"
    " none of these; those of a Service without any stay, and a restart cuts no flow",
    Area.ENTRIES,
    modes=_BOTH,
    pulls=(126847, 127318),
)
ENTRIES_BY_PORT: Final = Change(
    "entries-by-port",
    33,
    "only flows to a Service's own port are looked at, before all to its addresses",
    Area.ENTRIES,
    modes=_BOTH,
    patches=((32, 3),),
    pulls=(130484, 130505),
)
ENTRIES_BY_TARGET: Final = Change(
    "entries-by-target",
    34,
    "entries that lead to another port of an endpoint are deleted",
    Area.ENTRIES,
    modes=_BOTH,
    pulls=(130542,),
)

CHANGES: Final = {change.name: change for change in globals().copy().values() if isinstance(change, Change)}
"""All changes by name, in the order of this page."""
