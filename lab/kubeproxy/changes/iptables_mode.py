# SPDX-License-Identifier: MIT
"""Changes of iptables mode's rules, and of both modes'."""

from __future__ import annotations

from typing import Final

from lab.kubeproxy.changes.change import BOTH, Area, Change

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
    modes=BOTH,
    pulls=(
        99522,
        108747,
    ),
)
TOPOLOGY_MODE: Final = Change(
    "topology-mode",
    27,
    "the annotation service.kubernetes.io/topology-mode asks for hints as well",
    modes=BOTH,
    pulls=(116522,),
)
HINTS_ALWAYS: Final = Change(
    "hints-always", 31, "hints for zones are heeded without an annotation", modes=BOTH, pulls=(125838,)
)
HINTS_NODES: Final = Change(
    "hints-nodes",
    34,
    "hints for nodes are heeded, before those for zones",
    modes=BOTH,
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
    modes=BOTH,
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
    modes=BOTH,
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
    modes=BOTH,
    pulls=(132722,),
)
SERVING_SLICE_WINS: Final = Change(
    "serving-slice-wins",
    36,
    "of several slices with one endpoint, one that does not call it terminating wins; before one that calls it local",
    modes=BOTH,
    pulls=(135593,),
)
SELECTORS_APART: Final = Change(
    "selectors-apart",
    36,
    "a Service labelled headless is served where it has a VIP, and a slice labelled service-proxy-name is used",
    modes=BOTH,
    read=True,
    pulls=(134623,),
)
EXTERNAL_IPS_GATE: Final = Change(
    "external-ips-gate",
    36,
    "the feature gate AllowServiceExternalIPs, on, decides of external IPs",
    modes=BOTH,
    read=True,
)
