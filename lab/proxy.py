"""The kube-proxy of a running node: it loads the first rules, and afterwards what changes.

A namespace has a proxier a family, as kube-proxy has. What is loaded is what kube-proxy would give to
iptables-restore or nft; :mod:`lab.kubeproxy` writes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from lab.conntrack.netlink import ConntrackTable
from lab.conntrack.window import BE_LIBERAL
from lab.conntrack.witness import load_conntrack
from lab.features import require
from lab.host import RunningHost
from lab.kubeproxy import ProxyOptions, Release, find_release, iptables, nftables
from lab.kubeproxy.conntrack import NOTHING, IsStale, State, flows_to_opened_ports, stale_flows
from lab.kubeproxy.notes import notes
from lab.kubeproxy.services import ServicePort, service_ports
from lab.kubeproxy.settings import DEFAULT_VERSIONS, plain
from lab.kubeproxy.sysctls import Sysctl, sysctls
from lab.netns import Namespace, NftError, ProgramError, nfacct
from lab.netns.xtables import PartlyLoadedError, Restore
from lab.topology.routes import node_address
from lab.wire.packet import UDP
from lab.words import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.topology.kubernetes import EndpointSlice, Service
    from lab.topology.model import Host, IPNetwork, Topology

# What the programs of each backend need of the kernel.
_NEEDS: Final[Mapping[tuple[Backend, Family], str]] = {
    (Backend.NFT, Family.IPV4): "nft_compat",
    (Backend.NFT, Family.IPV6): "nft_compat",
    (Backend.LEGACY, Family.IPV4): "ip_tables",
    (Backend.LEGACY, Family.IPV6): "ip6_tables",
}


@dataclass(frozen=True)
class NodeChange:
    """What a fix changes on every node.

    :param sysctls: set before kube-proxy starts, keys with slashes below ``/proc/sys``.
    :param iptables: an iptables-restore input that is loaded after kube-proxy's rules. A rule with PODS is loaded once
        for each pair of networks that pods are in.
    :param nftables: an nft script that is loaded with kube-proxy's rules. TABLE stands for their table, NETWORK for ip
        or ip6, and PODS for the networks that pods are in, with commas.
    :param script: a shell script that runs on the node when kube-proxy has started.
    """

    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    iptables: str = ""
    nftables: str = ""
    script: str = ""


class KubeProxy:
    """The kube-proxy of one node, made with its first rules on their way; :meth:`finish` waits for them.

    What it needs of the kernel is set up here: its sysctls, and nfacct's objects where rules count by them.

    :param families: one proxier each.
    :param change: what a fix changes; it is kept through every later change of the rules.
    :raises InputError: for services that claim the same address and port, and an unknown version.
    :raises MissingError: iptables or libnftables is not installed, or the kernel lacks what the backend needs.
    """

    def __init__(self, node: RunningHost, topology: Topology, families: Sequence[Family], change: NodeChange) -> None:
        mode = node.host.proxy_mode or ProxyMode.IPTABLES
        make = _IptablesProxier if mode is ProxyMode.IPTABLES else _NftablesProxier
        self._proxiers: list[_Proxier] = []
        if mode is ProxyMode.IPTABLES:
            for family in families:
                require(_NEEDS[node.host.backend, family])
        settings = [proxy_options(topology, node.host, family, change) for family in families]
        self._node, self._sysctls = node, sysctls(settings[0], mode)
        _set_sysctls(node, self._sysctls)
        for options in settings:
            proxier = make(node, options, change, topology)
            proxier.start(render_rules(topology, proxier.options, change, node.host.proxy_mode))
            self._proxiers.append(proxier)

    def finish(self) -> None:
        """Wait until the first rules are loaded.

        :raises LabError: they were refused.
        """
        for proxier in self._proxiers:
            proxier.jump()
        for proxier in self._proxiers:
            proxier.finish()

    def sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], *, clean_conntrack: bool = True
    ) -> None:
        """Bring the rules to what the services and endpoints are now, by what kube-proxy writes for a change.

        A family in which nothing changed is left alone. There is no moment without rules; but see in nftables mode that
        the kernel itself loses some packet in thousands of changes, where it works on several processors: a packet that
        began its way through the old rules finds the elements of their vmap gone when it comes there.

        An ordinary user's change comes in parts where the kernel takes no more of it at once (see
        :mod:`lab.netns.parts`): each Service's chains and, in iptables mode, KUBE-SERVICES are replaced at once as
        long as each fits into a part (KUBE-SERVICES with some 300 Services); beyond, its rules come one part after the
        other.

        It may be called in a thread of its own, so that traffic of this process goes on meanwhile; two calls at a time
        are the caller's to prevent.

        :param clean_conntrack: delete entries of UDP flows that went stale, as kube-proxy does; without, they are left
            in the way of what comes by the same ports (kubernetes #105657, #91236).
        :raises InputError: as for the first rules; then no rule is touched.
        :raises LabError: the kernel refused the change; the rules of the family are what they were, but for a change
            in parts in nftables mode, of which the error says how many are loaded.
        """
        for proxier, state in [(proxier, proxier.state(services, slices)) for proxier in self._proxiers]:
            proxier.sync(state, clean_conntrack=clean_conntrack)

    def full_sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], service_cidrs: Sequence[IPNetwork]
    ) -> None:
        """Write all rules anew, as kube-proxy does when it has started, and from time to time.

        Nothing but this has the ServiceCIDRs heeded: when they change kube-proxy remembers them, and no sync follows.

        :param service_cidrs: what it has heard of them by now.
        """
        for proxier in self._proxiers:
            proxier.full_sync(services, slices, service_cidrs)

    def restart(self) -> None:
        """Do what kube-proxy does when it is started anew, by its own rules as it left them.

        It sets its sysctls. To its first sync all Services are new: up to v1.31 that ends all flows of those by UDP
        (kubernetes #122740), from v1.32 on those that lead to none of their endpoints.
        """
        _set_sysctls(self._node, self._sysctls)
        for proxier in self._proxiers:
            proxier.restart()


class _Proxier:
    """One family's rules on one node."""

    def __init__(self, node: RunningHost, options: ProxyOptions, change: NodeChange, topology: Topology) -> None:
        self._node = node
        self._change = change
        self._topology = topology
        self.options = _prepared(node.namespace, options) if node.host.proxy_mode is ProxyMode.IPTABLES else options

    @cached_property
    def _state(self) -> State:
        """What the rules are for. Not asked for before the first change: most labs see none."""
        return self.state(self._topology.services, self._topology.endpoint_slices)

    def state(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> State:
        """Return what rules are made for."""
        return service_ports(services, slices, self.options), slices

    def start(self, rules: tuple[str, ...]) -> None:
        """Begin to load the first rules."""
        raise NotImplementedError

    def jump(self) -> None:
        """Have them used, as soon as they are there."""

    def finish(self) -> None:
        """Wait for it."""

    def _load(self, before: Sequence[ServicePort], after: Sequence[ServicePort]) -> None:
        raise NotImplementedError

    def full_sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], service_cidrs: Sequence[IPNetwork]
    ) -> None:
        """Write all rules anew. In iptables mode they are the same that there are."""

    def sync(self, state: State, *, clean_conntrack: bool) -> None:
        """Load what differs between ``state`` and what the rules are for."""
        before = self._state
        if clean_conntrack:
            self._delete(flows_to_opened_ports(before, state, self.options))
        if state[0] != before[0]:
            self._load(before[0], state[0])
        self._state = state
        if clean_conntrack:
            self._delete(stale_flows(before, state, self.options))

    def restart(self) -> None:
        """Delete what the first sync of a new program deletes; the rules that it writes are those that there are."""
        self._delete(flows_to_opened_ports(NOTHING, self._state, self.options))
        self._delete(stale_flows(NOTHING, self._state, self.options))

    def _delete(self, is_stale: IsStale | None) -> None:
        """Delete entries of the family's UDP flows."""
        if is_stale is None:
            return
        with closing(ConntrackTable(self._node.namespace)) as table:
            for entry in table.entries():
                destination, endpoint = entry.original[1], entry.reply[0]
                if (
                    entry.protocol == UDP
                    and self.options.of_family(destination.address)
                    and is_stale((destination.address, destination.port), (endpoint.address, endpoint.port))
                ):
                    table.delete(entry)


class _IptablesProxier(_Proxier):
    """iptables mode: iptables-restore is a program, so it works while the lab is built."""

    def start(self, rules: tuple[str, ...]) -> None:
        restore, self._jumps = rules
        self._node.rules += rules
        self._under_way = self._restore(restore, unused=True)

    def jump(self) -> None:
        self._under_way.finish()
        self._under_way = self._restore(self._jumps)

    def finish(self) -> None:
        self._under_way.finish()

    def _restore(self, text: str, *, unused: bool = False) -> Restore:
        return self._node.xtables.start_restore(self.options.family.version, text, unused=unused)

    def _load(self, before: Sequence[ServicePort], after: Sequence[ServicePort]) -> None:
        change = self._change.iptables
        try:
            self._restore(_iptables_with(iptables.sync(before, after, self.options), change)).finish()
        except ProgramError as error:
            # The filter table is committed before the nat table, which is the one that can refuse: a chain that
            # is to go may be in use by somebody else's rule.
            back = _iptables_with(iptables.sync(after, before, self.options), change)
            whole = isinstance(error, PartlyLoadedError)
            self._restore(back if whole else back[: back.index("*nat\n")]).finish()
            raise


class _NftablesProxier(_Proxier):
    """nftables mode: libnftables is quick, and works when its turn has come."""

    _leftover: tuple[str, ...] = ()  # deletions of chains that could not be deleted yet

    def full_sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], service_cidrs: Sequence[IPNetwork]
    ) -> None:
        options = dataclasses.replace(self.options, service_cidrs=tuple(map(str, service_cidrs)))
        self._node.nft.run(_nftables_script(self._topology, services, slices, options, self._change))
        self.options = options

    def start(self, rules: tuple[str, ...]) -> None:
        (self._script,) = rules
        self._node.rules += rules

    def finish(self) -> None:
        self._node.nft.run(self._script)

    def _load(self, before: Sequence[ServicePort], after: Sequence[ServicePort]) -> None:
        written = nftables.sync(before, after, self.options)
        self._node.nft.run(written.script)  # it leaves the base chains alone, and so what a fix added to them
        lines = written.script.splitlines()
        used = {line.replace("add", "delete", 1) for line in lines if line.startswith("add chain")}
        deletions = (*self._leftover, *written.afterwards.splitlines())
        self._leftover = tuple(line for line in deletions if line not in used)
        if self._leftover:
            # Before Linux 6.2 the kernel takes a moment to see that no map leads to them: then with the next change.
            with suppress(NftError):
                self._node.nft.run("\n".join((*self._leftover, "")))
                self._leftover = ()


def proxy_options(topology: Topology, node: Host, family: Family, change: NodeChange) -> ProxyOptions:
    """Return the settings of a node's kube-proxy."""
    said = {field: plain(value) for field, value in node.settings.items()}
    if change.sysctls.get(BE_LIBERAL, "0") != "0":
        said["conntrack_tcp_be_liberal"] = True  # kube-proxy finds it set, and leaves it so
    return ProxyOptions(
        family=family,
        version=node_release(node).name,
        service_cidrs=tuple(str(cidr) for cidr in topology.service_cidrs),
        node_name=node.name,
        node_addresses=_node_addresses(topology, node, family),
        own_cluster=True,
        **said,
    )


def topology_notes(topology: Topology, family: Family) -> Iterator[str]:
    """Yield what has to be known of the kube-proxies of a topology's nodes beside their rules."""
    for node in topology.nodes:
        options = proxy_options(topology, node, family, NodeChange())
        mode = node.proxy_mode or ProxyMode.IPTABLES
        objects = topology.services, topology.endpoint_slices
        yield from notes(*objects, options, mode, zone="node-zone", name="the host's name")


def node_release(node: Host) -> Release:
    """Return which kube-proxy a node has."""
    return find_release(node.proxy_version or DEFAULT_VERSIONS[node.proxy_mode or ProxyMode.IPTABLES])


def _node_addresses(topology: Topology, node: Host, family: Family) -> tuple[str, ...]:
    """Return the node's addresses, the one that it is known by first."""
    primary = node_address(topology, node.name, family)
    others = (address for address in topology.addresses(node.name) if address != primary)
    return tuple(str(address) for address in (primary, *others) if address is not None)


def render_rules(
    topology: Topology, options: ProxyOptions, change: NodeChange, mode: ProxyMode | None = ProxyMode.IPTABLES
) -> tuple[str, ...]:
    """Return what a node is given, in the order in which it is loaded.

    :returns: in iptables mode two inputs of iptables-restore, the kubelet's and kube-proxy's rules and the jumps to
        them; in nftables mode one script. What ``change`` adds comes last.
    """
    if mode is not ProxyMode.NFTABLES:
        rules = iptables.render(topology.services, topology.endpoint_slices, options)
        last = rules.jumps + _for_each_pair(change.iptables, _pods(topology, options.family))
        return rules.kubelet + rules.restore, last
    return (_nftables_script(topology, topology.services, topology.endpoint_slices, options, change),)


def _nftables_script(
    topology: Topology,
    services: Iterable[Service],
    slices: Iterable[EndpointSlice],
    options: ProxyOptions,
    change: NodeChange,
) -> str:
    """Return all rules of nftables mode, and what a fix adds to kube-proxy's table."""
    script = nftables.render(services, slices, options)
    # v1.29 drops what is INVALID and does not count it; the lab's verdicts rest on what rules counted.
    script = script.replace(" ct state invalid drop\n", " ct state invalid counter drop\n")
    words = {
        "TABLE": _table(options),
        "NETWORK": "ip" if options.family is Family.IPV4 else "ip6",
        "PODS": ", ".join(_pods(topology, options.family)),
    }
    addition = change.nftables
    for word, meaning in words.items():
        addition = addition.replace(word, meaning)
    return script + addition


def _pods(topology: Topology, family: Family) -> list[str]:
    """Return the networks that the pods of a topology are in.

    The cluster's CIDRs where a node knows them, else those of every host that is neither a node nor where a node sends
    whatever it does not know.
    """
    cidrs = (cidr for node in topology.nodes for cidr in node.cluster_cidrs if Family.of(cidr) is family)
    if known := list(dict.fromkeys(map(str, cidrs))):
        return known
    nodes = {node.name for node in topology.nodes}
    gateways = {route.via for node in topology.nodes for route in node.routes if route.to == "default"}
    networks = (
        own.network
        for host in topology.hosts
        if host.name not in nodes and (host.forwarding or gateways.isdisjoint(topology.addresses(host.name)))
        for end in topology.ends(host.name)
        for own in end.addresses
        if Family.of(own) is family
    )
    return list(dict.fromkeys(map(str, networks)))


def _for_each_pair(rules: str, networks: Sequence[str]) -> str:
    lines: list[str] = []
    for line in rules.splitlines():
        if "PODS" not in line:
            lines.append(line)
            continue
        lines += [
            line.replace("PODS", source, 1).replace("PODS", destination, 1)
            for source in networks
            for destination in networks
        ]
    return "".join(f"{line}\n" for line in lines)


def _table(options: ProxyOptions) -> str:
    return f"{'ip' if options.family is Family.IPV4 else 'ip6'} {nftables.TABLE}"


def _set_sysctls(node: RunningHost, settings: Sequence[Sysctl]) -> None:
    namespace = node.namespace
    try:
        namespace.set_sysctls(_to_set(namespace, settings))
    except FileNotFoundError:  # on a fresh machine no rule has asked for conntrack yet
        load_conntrack(node.nft)
        namespace.set_sysctls(_to_set(namespace, settings))


def _to_set(namespace: Namespace, settings: Sequence[Sysctl]) -> dict[str, str | int]:
    return {one.key: one.of(int(namespace.sysctl(one.key))) if one.only_raised else one.value for one in settings}


def _prepared(namespace: Namespace, options: ProxyOptions) -> ProxyOptions:
    """Make what rules count by; return kube-proxy's settings as this kernel lets them be."""
    if not nfacct.create_all(namespace, options.accounts):
        return dataclasses.replace(options, nfacct=False)
    return options


def _iptables_with(text: str, addition: str) -> str:
    """Put into an input what a fix added to chains that the input writes anew: a sync would lose it otherwise.

    It goes into the same tables and not after them, so that there is no moment without it.
    """
    table = ""
    for line in addition.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith("-") and f"\n:{line.split()[1]} " in text:
            end = text.index("COMMIT\n", text.index(f"{table}\n"))
            text = f"{text[:end]}{line}\n{text[end:]}"
    return text
