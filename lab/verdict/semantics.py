# SPDX-License-Identifier: MIT
"""What Kubernetes documents of a Service's addresses: who may answer whom, and as whom the client is seen.

Written from the documentation and from the enhancement proposals, not from the rules that kube-proxy writes, which the
lab's own renderer makes; where releases of kube-proxy differ, that was measured on rules of each
(tests/fabric/services) or stands in docs/releases.md under the change's name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from lab.evidence.reach import Fate, Question, Target
from lab.kubeproxy import changes
from lab.topology.routes import next_hop
from lab.topology.ways import step, way, way_out
from lab.verdict.reach import Allowed, Expected
from lab.verdict.standpoint import OpenError, Standpoint
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubernetes.objects import Endpoint, Service, ServicePort
    from lab.topology.model import Topology

_DOCS: Final = "kubernetes.io/docs"
_NOBODY: Final = f"no endpoint: refused ({_DOCS}/reference/networking/virtual-ips)"
_UNREFUSED: Final = "no endpoint, and this release refuses none by external IPs"
_INTERNAL: Final = f"internalTrafficPolicy Local ({_DOCS}/concepts/services-networking/service-traffic-policy)"
_EXTERNAL: Final = f"externalTrafficPolicy Local ({_DOCS}/reference/networking/virtual-ips#external-traffic-policy)"
_SHORTCUT: Final = "externalTrafficPolicy Local is for who comes from outside (kubernetes #77523)"
_RANGES: Final = f"loadBalancerSourceRanges ({_DOCS}/reference/kubernetes-api/service-resources/service-v1)"
_LOCALHOST: Final = "--iptables-localhost-nodeports: iptables mode and IPv4 alone (kubernetes #108250)"
_NODE_ADDRESSES: Final = "--nodeport-addresses (KEP-3866: in nftables mode the primary address)"
_PROXY: Final = "ipMode Proxy leaves the address to the load balancer (KEP-1860)"
_MASQUERADED: Final = f"{_DOCS}/tutorials/services/source-ip"
_HAIRPIN: Final = "nftables mode from v1.36 on masquerades a hairpin where the EndpointSlice has its nodeName alone"
_PAST: Final = "the answer goes past the node that translated, and nobody translates it back (kubernetes #74383)"
_LIMIT: Final = "ip_error, net/ipv4/route.c"
_INPUT_FORWARD: Final = "iptables mode refuses it in INPUT and FORWARD alone, and not what the node itself sends"
_LABELLED: Final = f"a label leaves it to another proxy ({_DOCS}/reference/labels-annotations-taints)"
_NOT_SERVED: Final = "this release does not serve it"

#: Whatever becomes of what the node leaves alone: no endpoint gets it.
_LEFT_ALONE: Final = (Fate.TIMES_OUT, Fate.NO_WAY, Fate.REFUSED)


def expected(
    topology: Topology, family: Family, service: Service, port: ServicePort, asked: Question
) -> Expected | None:
    """Return what is to become of a question to a port of a Service; None where nobody says.

    :param asked: with the address that the client asks from, where that is no node.
    """
    try:
        return _Case(topology, family, service, port, asked).expected
    except OpenError:
        return None


@dataclass(frozen=True)
class _Case(Standpoint):
    """One question, and the node that decides of it."""

    @property
    def expected(self) -> Expected | None:
        """What is to become of it; None where nobody says."""
        asked = self.asked
        if asked.target is Target.ENDPOINT:
            return self._without_way() or self._direct()
        if self.node is None:
            is_whole = not any(node.given for node in self.topology.nodes)
            return self._without_way() if is_whole else None  # a real node's network is a stand-in
        if self.node.given is not None:
            return None  # its Services are read off its rules, which say nothing of what they were made of
        is_own = asked.target is Target.LOCALHOST or self.topology.host_of(self.address) == self.client
        if self.node == self.client and not is_own and way_out(self.topology, asked.client, self.address) is None:
            return self._without_way()
        return self._by_node()

    def _without_way(self) -> Expected | None:
        """Return what is to become of what no route leads on: at the client itself, or at a host that forwards."""
        owner, passed = self.topology.host_of(self.address), way(self.topology, self.asked.client, self.address)
        last = passed[-1]
        if (owner and owner.name == last) or way_out(self.topology, last, self.address) is not None:
            return None
        if last == self.asked.client:
            return Expected((Fate.NO_WAY,), at=last, why=f"{last} has no route to {self.address}")
        why = f"{last} has no route to {self.address}, and tells of five packets, then of one a second ({_LIMIT})"
        return (
            Expected((Fate.NO_WAY, Fate.TIMES_OUT), at=last, why=why) if self.topology.host(last).forwarding else None
        )

    # --- what is to become of it --------------------------------------------------------------------

    def _direct(self) -> Expected | None:
        """To an endpoint itself: no rule has a say, as long as the same nodes see both directions."""
        owner = self.topology.host_of(self.asked.address.address)
        if owner is None:
            return None
        there = way(self.topology, self.asked.client, self.asked.address.address)
        source = self.asked.source or self.sent_from(self.asked.address.address)
        back = way(self.topology, owner.name, source) if source else ()
        nodes = {node.name for node in self.topology.nodes}
        if there[-1] != owner.name or nodes & set(there) != nodes & set(back) or back[-1:] != (self.asked.client,):
            return None
        return Expected((Fate.CONNECTED,), (Allowed(owner.name),), why="an endpoint's own address")

    def _by_node(self) -> Expected | None:
        if not self.is_served:
            return self._left_alone(_LABELLED)
        takes_unready = self.has(changes.TAKES_UNREADY) and not self.has(changes.REFUSES_UNREADY)
        if takes_unready and not any(one.ready for one in self.endpoints):
            return None
        if self.asked.target is Target.VIP:
            return self._internal()
        return self._unserved() or self._external()

    def _internal(self) -> Expected | None:
        spec = self.service.spec
        is_known = self.has(changes.CLUSTER_IPS) or self.options.own_cluster
        if not is_known and self.address != spec.all_cluster_ips[0]:
            return self._left_alone(_NOT_SERVED)
        local = spec.internal_traffic_policy == "Local" and self.has(changes.INTERNAL_POLICY)
        pool = self.local if local else self.everywhere
        if not pool:
            if not local or not self.usable(self.endpoints) or not self.has(changes.EXTERNAL_CHAINS):
                return self._stopped(Fate.REFUSED, _NOBODY)
            # v1.24 marks it for the drop that the kubelet's rules make, in INPUT and OUTPUT alone.
            at_node = self.is_nftables or self.has(changes.PROXY_FIREWALL)
            return self._stopped(Fate.TIMES_OUT, _INTERNAL) if at_node else self._left_alone(_INTERNAL)
        everybody = self.options.masquerade_all
        strangers = self.options.pods_match is not None and self.who != "pod"
        return self._answered(pool, masqueraded=everybody or strangers, why=_INTERNAL if local else _MASQUERADED)

    def _unserved(self) -> Expected | None:
        """Return what is to become of an address of the node or of outside that is not served at all."""
        target, options = self.asked.target, self.options
        if target is Target.LOCALHOST and not self.takes_localhost:
            if not self.is_nftables and self._is_external_local and not self.local and self.usable(self.endpoints):
                return self._stopped(Fate.TIMES_OUT, _EXTERNAL)  # in INPUT, by whichever local address
            if not self.is_nftables and not self.usable(self.endpoints):
                return self._stopped(Fate.REFUSED, _NOBODY)
            caught = self.family is Family.IPV6 and not self.is_nftables and not self.has(changes.LOOPBACK_NODE_PORTS)
            return self._stopped(Fate.TIMES_OUT if caught else Fate.REFUSED, _LOCALHOST)
        taken = options.node_port_ips
        if target is Target.NODE_PORT and taken is not None and self.asked.address.address not in taken:
            return self._stopped(Fate.REFUSED, _NODE_ADDRESSES)
        if target is Target.EXTERNAL_IP:
            off = self.has(changes.EXTERNAL_IPS_GATE) and not options.gate("AllowServiceExternalIPs", default=True)
            if off or (self.who == "node" and not self.is_nftables and not self.has(changes.EXTERNAL_IP_PLAIN)):
                return self._left_alone(_NOT_SERVED)
        if target is Target.LOAD_BALANCER:
            modes = [one.ip_mode for one in self.service.status.load_balancer.ingress if one.ip == self.address]
            if "Proxy" in modes and options.gate("LoadBalancerIPMode", default=self.has(changes.IP_MODE)):
                return self._left_alone(_PROXY)
            return self._kept_out()
        return None

    def _kept_out(self) -> Expected | None:
        """Return what is to become of who is in none of the load balancer's source ranges."""
        spec, source = self.service.spec, self.asked.source or self.sent_from(self.address)
        ranges = [cidr.strip() for cidr in spec.load_balancer_source_ranges if self.options.of_family(cidr)]
        if self.has(changes.ANY_RANGE) and any(cidr.endswith("/0") for cidr in ranges):
            return None
        if not self.is_nftables and not self.usable(self.endpoints):
            return None  # refused: the chain that keeps out is there for endpoints alone (syncProxyRules, usesFWChain)
        if self.is_nftables and not self.has(changes.NFT_MAPS) and self.who != "node":
            return None  # the first alpha looks for the address in FORWARD, where DNAT has replaced it
        if not ranges or any(source and ip_address(source) in ip_network(cidr) for cidr in ranges):
            return None
        # Before, a mark asked for the drop, which the kubelet's rules made, in INPUT and OUTPUT alone.
        at_node = self.is_nftables or self.has(changes.PROXY_FIREWALL)
        return self._stopped(Fate.TIMES_OUT, _RANGES) if at_node else self._left_alone(_RANGES)

    @property
    def _is_external_local(self) -> bool:
        spec = self.service.spec
        if self.asked.target is Target.EXTERNAL_IP:
            return spec.external_traffic_policy == "Local" and self.has(changes.EXTERNAL_IP_LOCAL)
        return spec.external_traffic_policy == "Local" and spec.type in ("NodePort", "LoadBalancer")

    def _external(self) -> Expected | None:
        spec = self.service.spec
        by_internal = spec.internal_traffic_policy == "Local" and self.has(changes.INTERNAL_POLICY)
        if by_internal and not self.has(changes.EXTERNAL_CHAINS):  # v1.22 and v1.23: whoever asks
            return None
        if not self.usable(self.endpoints):
            of_others = self.asked.target in (Target.EXTERNAL_IP, Target.LOAD_BALANCER)
            if self.who == "node" and of_others and not self.is_nftables:
                return self._left_alone(_INPUT_FORWARD)
            unknown = self.asked.target is Target.EXTERNAL_IP and not self.has(changes.FORWARD_EXTERNAL)
            return self._left_alone(_UNREFUSED) if unknown else self._stopped(Fate.REFUSED, _NOBODY)
        if not self._is_external_local:
            # v1.21 to v1.23 leave pods that ask an external IP as they are (kubernetes #96296).
            plain = self.has(changes.EXTERNAL_IP_PLAIN) and not self.has(changes.EXTERNAL_CHAINS)
            kept = plain and not self.is_nftables and self.asked.target is Target.EXTERNAL_IP and self.who == "pod"
            return self._answered(self.everywhere, masqueraded=not kept, why=_MASQUERADED)
        return self._by_local_policy()

    def _by_local_policy(self) -> Expected | None:
        who = self.who
        from_node = self.has(changes.XLB_FROM_NODE)
        by_host_name = self.asked.target not in (Target.NODE_PORT, Target.LOCALHOST)
        early = self.is_nftables and not self.has(changes.FILTERS_AFTER_DNAT)
        early = early and (by_host_name or not self.has(changes.NFT_MAPS))
        if who == "node" and early and not self.local:
            return self._stopped(Fate.TIMES_OUT, "before v1.34 nftables mode refuses before DNAT (kubernetes #132456)")
        if who == "pod" or (who == "node" and from_node):
            return self._answered(self.everywhere, masqueraded=who == "node", why=_SHORTCUT)
        if self.asked.target is Target.LOCALHOST:
            return None
        if self.local:
            return self._answered(self.local, masqueraded=False, why=_EXTERNAL)
        # Before, a mark asked for the drop, which the kubelet's rules made, in INPUT and OUTPUT alone.
        at_node = self.is_nftables or self.has(changes.PROXY_FIREWALL) or not by_host_name
        return self._stopped(Fate.TIMES_OUT, _EXTERNAL) if at_node else self._left_alone(_EXTERNAL)

    def _left_alone(self, why: str) -> Expected:
        """Return what is to become of what the node does not serve: nothing is said where another node comes behind."""
        assert self.node is not None
        passed = way(self.topology, self.node.name, self.address)[1:]
        beyond = any(self.topology.host(name).proxy_mode is not None for name in passed)
        if beyond:
            raise OpenError
        return Expected(_LEFT_ALONE, why=why)

    def _stopped(self, fate: Fate, why: str) -> Expected:
        """Return what is to become of what a rule refuses or drops: in INPUT, OUTPUT or FORWARD, behind the routes.

        Where the node has no route for what it forwards, that comes first; what is dropped may be dropped before.
        """
        assert self.node is not None
        without = self._without_way()
        if without is not None and without.at == self.node.name:
            return replace(without, why=f"{without.why}; the rule would come behind the routes: {why}")
        return Expected((fate,), at=self.node.name, why=why)

    def _answered(self, pool: tuple[Endpoint, ...], *, masqueraded: bool, why: str) -> Expected | None:
        """Return who may answer; None where the routes alone decide what becomes of a packet or of its answer."""
        assert self.node is not None
        node, answers = self.node.name, list[Allowed]()
        others: tuple[Fate, ...] = ()
        sticks = self.service.spec.affinity_seconds > 0
        if self.asked.source is not None and way(self.topology, node, self.asked.source)[-1] != self.asked.client:
            return None
        for endpoint in pool:
            address = endpoint.addresses[0]
            owner = self.topology.host_of(address)
            if owner is None or way(self.topology, node, address)[-1] != owner.name:
                return None
            hairpin = owner.name == self.asked.client
            by_name = self.is_nftables and self.has(changes.ENDPOINT_MAPS)
            if hairpin and not masqueraded and by_name and endpoint.node_name != node:
                others, why = (Fate.TIMES_OUT, Fate.STRANGER), _HAIRPIN  # it comes from its own address
                continue
            hop = next_hop(self.topology, node, address)
            if (masqueraded or hairpin) and hop is not None and owner.name != node:
                answers.append(Allowed(owner.name, str(hop.source)))
                continue
            if self._passes_by(owner.name):
                others, why = (Fate.TIMES_OUT, Fate.STRANGER), _PAST
                continue
            answers.append(Allowed(owner.name))
            if masqueraded and owner.name == node == self.asked.client:
                # By the loopback, which has no address for that: any of the node's (inet_select_addr, devinet.c).
                answers += [Allowed(node, str(own)) for own in self.topology.addresses(node, self.family)]
        fates = (*((Fate.CONNECTED,) if answers else ()), *others)
        return Expected(fates, tuple(answers), why=why, sticks=sticks)

    def _passes_by(self, server: str) -> bool:
        """Check whether what a server answers its client itself passes the node by.

        What the node's own bridge passes on does not: kube-proxy wants br_netfilter, so that its rules see that.
        """
        assert self.node is not None
        source, node = self.asked.source, self.node.name
        if source is None or node in way(self.topology, server, source):
            return False
        taken = step(self.topology, server, source)
        return taken is None or node not in taken.bridging
