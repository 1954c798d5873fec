# SPDX-License-Identifier: MIT
"""The kube-proxy of a running node: it loads the first rules, and afterwards what changes.

A namespace has a proxier a family, as kube-proxy has. What is loaded is what kube-proxy would give to
iptables-restore or nft; :mod:`lab.kubeproxy` writes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final

from lab.conntrack.netlink import ConntrackTable
from lab.conntrack.witness import load_conntrack
from lab.evidence.packet import UDP
from lab.fabric.host import RunningHost
from lab.fabric.own_fix import run_change, set_sysctls
from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.kubeproxy.services import ServicePort, service_ports
from lab.kubeproxy.stale_flows import NOTHING, IsStale, State, flows_to_opened_ports, stale_flows
from lab.kubeproxy.sysctls import Sysctl, sysctls
from lab.netns import Namespace, NftError, ProgramError, nfacct
from lab.netns.features import require
from lab.netns.xtables import PartlyLoadedError, Restore
from lab.topology.kube_proxy import NodeProxy, first_rules, nftables_script
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.topology.values import IPNetwork

# What the programs of each backend need of the kernel.
_NEEDS: Final[Mapping[tuple[Backend, Family], str]] = {
    (Backend.NFT, Family.IPV4): "nft_compat",
    (Backend.NFT, Family.IPV6): "nft_compat",
    (Backend.LEGACY, Family.IPV4): "ip_tables",
    (Backend.LEGACY, Family.IPV6): "ip6_tables",
}


class KubeProxy:
    """The kube-proxy of one node, made with its first rules on their way; :meth:`finish` waits for them.

    What it needs of the kernel is set up here: sysctls, and nfacct's objects where rules count by them.

    :param given: all that it is to know. What a fix changes is kept through every later change of the rules.
    :raises InputError: for services that claim the same address and port, and an unknown version.
    :raises MissingError: iptables or libnftables is not installed, or the kernel lacks what the backend needs.
    """

    def __init__(self, node: RunningHost, given: NodeProxy) -> None:
        self._node, self._change = node, given.change
        self._families = [one.family for one in given.options]
        if given.mode is ProxyMode.IPTABLES:
            for options in given.options:
                require(_NEEDS[node.host.backend, options.family])
        if given.change.sysctls:
            load_conntrack(node.nft)
            set_sysctls(node.namespace, given.change)
        self._sysctls = sysctls(given.options[0], given.mode)
        _set_sysctls(node, self._sysctls)
        make = _IptablesProxier if given.mode is ProxyMode.IPTABLES else _NftablesProxier
        self._proxiers: list[_Proxier] = []
        for options, added in zip(given.options, given.additions, strict=True):
            proxier = make(node, options, added, given.services, given.endpoint_slices)
            proxier.start()
            self._proxiers.append(proxier)

    def finish(self) -> None:
        """Wait until the first rules are loaded, and run the script of the node's fix.

        :raises LabError: they were refused, or the script failed.
        """
        for proxier in self._proxiers:
            proxier.jump()
        for proxier in self._proxiers:
            proxier.finish()
        run_change(self._node, self._change, self._families)

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

    def restart(self) -> int:
        """Do what kube-proxy does when it is started anew, and return how many conntrack entries it has deleted.

        That is by its own rules as it left them. It sets its sysctls. To its first sync all Services are new: up to
        v1.31 that ends all flows of those by UDP (kubernetes #122740), from v1.32 on those that lead to none of their
        endpoints.
        """
        _set_sysctls(self._node, self._sysctls)
        return sum(proxier.restart() for proxier in self._proxiers)

    def stop(self) -> None:
        """Do nothing: a kube-proxy that is stopped leaves its rules as they are."""

    def resume(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> int:
        """Do what kube-proxy does when it is started after other Services and EndpointSlices have come.

        Return how many conntrack entries it has deleted.

        It writes rules for those, and deletes the entries that :meth:`restart` deletes: what there was before it was
        stopped it does not know.

        :raises InputError: as for :meth:`sync`.
        :raises LabError: likewise.
        """
        self.sync(services, slices, clean_conntrack=False)
        return self.restart()


class _Proxier:
    """One family's rules on one node."""

    mode: ClassVar[ProxyMode]

    def __init__(
        self,
        node: RunningHost,
        options: ProxyOptions,
        added: str,
        services: Sequence[Service],
        slices: Sequence[EndpointSlice],
    ) -> None:
        self.options = nfacct.provide(node.namespace, options) if self.mode is ProxyMode.IPTABLES else options
        self._node = node
        self._added = added
        self._first = services, slices

    @cached_property
    def _state(self) -> State:
        """What the rules are for. Not asked for before the first change: most labs see none."""
        return self.state(*self._first)

    def state(self, services: Sequence[Service], slices: Sequence[EndpointSlice]) -> State:
        """Return what rules are made for."""
        return service_ports(services, slices, self.options), slices

    def start(self) -> None:
        """Begin to load the first rules."""
        rules = first_rules(*self._first, self.options, self._added, self.mode)
        self._node.rules += rules
        self._begin(rules)

    def _begin(self, rules: tuple[str, ...]) -> None:
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

    def restart(self) -> int:
        """Delete what the first sync of a new program deletes, and return how many entries that were.

        The rules that it writes are those that there are.
        """
        opened = self._delete(flows_to_opened_ports(NOTHING, self._state, self.options))
        return opened + self._delete(stale_flows(NOTHING, self._state, self.options))

    def _delete(self, is_stale: IsStale | None) -> int:
        """Delete entries of the family's UDP flows, and return how many there were."""
        if is_stale is None:
            return 0
        deleted = 0
        with closing(ConntrackTable(self._node.namespace)) as table:
            for entry in table.entries():
                destination, endpoint = entry.original[1], entry.reply[0]
                if (
                    entry.protocol == UDP
                    and self.options.of_family(destination.address)
                    and is_stale((destination.address, destination.port), (endpoint.address, endpoint.port))
                ):
                    deleted += table.delete(entry)
        return deleted


class _IptablesProxier(_Proxier):
    """iptables mode: iptables-restore is a program, so it works while the lab is built."""

    mode = ProxyMode.IPTABLES

    def _begin(self, rules: tuple[str, ...]) -> None:
        restore, self._jumps = rules
        self._under_way = self._restore(restore, unused=True)

    def jump(self) -> None:
        self._under_way.finish()
        self._under_way = self._restore(self._jumps)

    def finish(self) -> None:
        self._under_way.finish()

    def _restore(self, text: str, *, unused: bool = False) -> Restore:
        return self._node.xtables.start_restore(self.options.family.version, text, unused=unused)

    def _load(self, before: Sequence[ServicePort], after: Sequence[ServicePort]) -> None:
        try:
            self._restore(_iptables_with(iptables.sync(before, after, self.options), self._added)).finish()
        except ProgramError as error:
            # The filter table is committed before the nat table, which is the one that can refuse: a chain that
            # is to go may be in use by somebody else's rule.
            back = _iptables_with(iptables.sync(after, before, self.options), self._added)
            whole = isinstance(error, PartlyLoadedError)
            self._restore(back if whole else back[: back.index("*nat\n")]).finish()
            raise


class _NftablesProxier(_Proxier):
    """nftables mode: libnftables is quick, and works when its turn has come."""

    mode = ProxyMode.NFTABLES
    _leftover: tuple[str, ...] = ()  # deletions of chains that could not be deleted yet

    def full_sync(
        self, services: Sequence[Service], slices: Sequence[EndpointSlice], service_cidrs: Sequence[IPNetwork]
    ) -> None:
        options = dataclasses.replace(self.options, service_cidrs=tuple(map(str, service_cidrs)))
        self._node.nft.run(nftables_script(services, slices, options, self._added))
        self.options = options

    def _begin(self, rules: tuple[str, ...]) -> None:
        (self._script,) = rules

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


def _set_sysctls(node: RunningHost, settings: Sequence[Sysctl]) -> None:
    namespace = node.namespace
    try:
        namespace.set_sysctls(_to_set(namespace, settings))
    except FileNotFoundError:  # on a fresh machine no rule has asked for conntrack yet
        load_conntrack(node.nft)
        namespace.set_sysctls(_to_set(namespace, settings))


def _to_set(namespace: Namespace, settings: Sequence[Sysctl]) -> dict[str, str | int]:
    return {one.key: one.of(int(namespace.sysctl(one.key))) if one.only_raised else one.value for one in settings}


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
