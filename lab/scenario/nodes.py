# SPDX-License-Identifier: MIT
"""The nodes of a running lab: their sysctls, rules, conntrack tables and counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from lab.conntrack.fill import Filler
from lab.conntrack.netlink import ConntrackTable, creation
from lab.conntrack.witness import counters
from lab.errors import InputError, MissingError
from lab.evidence.packet import BARRIER_PORT, UDP, Packet, SocketAddress
from lab.evidence.timeline import Counters
from lab.fabric.dropped import counted_drops, dropped_as_invalid
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.scenario.recorder import Recorder
from lab.scenario.roles import Roles
from lab.topology.ways import way
from lab.vocabulary import Family

_ROUNDS: Final = 10  # retransmissions come further and further apart
_AN_HOUR: Final = 3600  # seconds; longer than any trial


def spare_others(lab: Lab, what: str) -> None:
    """Refuse what would end others' connections in a lab where there are some.

    :raises InputError: there are.
    """
    if lab.has_others:
        message = f"the case {what}, and others have connections here"
        raise InputError(message, cure="`lab run` tries it in a lab of its own")


class Nodes:
    """The nodes of a lab. The first is the one whose conntrack is followed.

    :ivar names: the hosts.
    """

    def __init__(self, lab: Lab, roles: Roles, family: Family) -> None:
        others = (node.name for node in lab.topology.nodes if node.name != roles.node)
        self.names = (roles.node, *others)
        self._lab, self._roles, self._family = lab, roles, family
        self._tables: list[ConntrackTable] = []
        self._before: list[dict[str, int]] = []  # what was counted when the trial began
        self._dropped_before: dict[str, int] = {}
        self._others_before: dict[str, int] = {}
        self._filler: Filler | None = None

    def open_tables(self) -> None:
        """Open each node's conntrack table; the instruments come before, for they bring conntrack."""
        self._tables = [self._lab.keep(ConntrackTable(host.namespace)) for host in self._hosts]
        if self._lab.trials:  # in a fresh lab nothing was counted
            self._before = [table.statistics() for table in self._tables]
            self._dropped_before = {host.name: self._dropped(host) or 0 for host in self._hosts}
        if self._lab.has_others:
            self._others_before = self._others_dropped()

    @property
    def _hosts(self) -> list[RunningHost]:
        return [self._lab.hosts[name] for name in self.names]

    @property
    def followed(self) -> ConntrackTable:
        """The table of the node whose conntrack is followed."""
        return self._tables[0]

    def table(self, node: str) -> ConntrackTable:
        """Return a node's table."""
        return self._tables[self.names.index(node)]

    def set_sysctl(self, key: str, value: str | int, *, followed_alone: bool = False) -> None:
        """Set a sysctl of every node's namespace, named with slashes below ``/proc/sys``.

        :param followed_alone: only of the node whose conntrack is followed, as where it names one of its interfaces.
        :raises MissingError: this kernel has none of that name.
        """
        try:
            for host in self._hosts[: 1 if followed_alone else None]:
                self._lab.undo(partial(host.namespace.set_sysctls, {key: host.namespace.sysctl(key)}))
                host.namespace.set_sysctls({key: value})
        except FileNotFoundError:
            raise MissingError(f"this kernel has no sysctl {key}", "boot a kernel that has it") from None

    @contextmanager
    def past_conntrack(self, port: int) -> Iterator[None]:
        """Have what goes to or comes from a TCP port pass the nodes' conntrack by, for as long as the block lasts."""
        rules = f"tcp dport {port} notrack\ntcp sport {port} notrack"
        with ExitStack() as given:
            for host in self._hosts:
                given.enter_context(extra_rules(host, "prerouting", "raw", rules))
            yield

    def fill_table(self, *, assured: bool) -> None:
        """Fill the first node's table to the limit; called again, fill what has become free.

        A full table refuses the barriers' datagrams as it does others, so they get entries of their own beforehand.

        :param assured: as by flows that go on; otherwise as by datagrams that nobody answers, which make room.
        :raises MissingError: see :class:`lab.conntrack.fill.Filler`.
        :raises InputError: others have connections in the lab.
        """
        spare_others(self._lab, "fills the node's conntrack table")
        if self._filler is None:
            self._lab.is_altered = True
            self._filler = self._lab.keep(Filler(self._hosts[0].namespace, assured=assured))
            client = SocketAddress(self._roles.client_address.address, BARRIER_PORT)
            for _host, address in self._roles.servers:
                server = SocketAddress(address.address, BARRIER_PORT)
                if before := self.followed.entry(UDP, client, server):
                    self.followed.delete(before)
                self.followed.create(creation(UDP, client, server, assured=True, timeout=_AN_HOUR))
        self._filler.fill()

    # --- ways ---------------------------------------------------------------------------------------

    def passed(self, host: str, destination: str) -> tuple[str, ...]:
        """Return the nodes on the way to an address; what comes to a masquerading node's goes on to the client."""
        topology, client = self._lab.topology, self._roles.client
        hosts = way(topology, host, destination)
        if host != client and hosts[-1] in self.names and hosts[-1] != client:
            hosts += way(topology, hosts[-1], self._roles.client_address.address)[1:]
        return tuple(one for one in dict.fromkeys(hosts) if one in self.names)

    def bypasses(self, server: str, server_address: str, peer: str) -> list[str]:
        """Report each node that is on the way of one direction alone: half of the connection passes it by.

        Where an end has no way at all, nothing of its passes anywhere.

        :param peer: the client's address as the server knows it.
        """
        topology, client = self._lab.topology, self._roles.client
        there, back = self.passed(client, server_address), self.passed(server, peer)
        hosts = {client: way(topology, client, server_address), server: way(topology, server, peer)}
        return [
            f"{node} sees only what {sees} sends: from {other} to {sees} it goes {' > '.join(hosts[other])}"
            for sees, other, nodes, others in ((client, server, there, back), (server, client, back, there))
            for node in nodes
            if node not in others and len(hosts[other]) > 1
        ]

    def translated(self, packet: Packet) -> tuple[SocketAddress, SocketAddress]:
        """Return source and destination of a client's packet as its server should see them, by the nodes' entries."""
        source, destination = packet.source, packet.destination
        hosts = (*way(self._lab.topology, self._roles.client, destination.address), *self.names)
        for node in dict.fromkeys(hosts):
            if node in self.names and (entry := self.table(node).entry(packet.protocol, source, destination)):
                source, destination = entry.translated
        return source, destination

    # --- counters -----------------------------------------------------------------------------------

    def other_drops(self) -> tuple[str, ...]:
        """Return the other rules that dropped or rejected something since the trial began, each with its count."""
        counts = {rule: count - self._others_before.get(rule, 0) for rule, count in self._others_dropped().items()}
        return tuple(f"{rule} counted {count}" for rule, count in counts.items() if count > 0)

    def _others_dropped(self) -> dict[str, int]:
        return {rule: n for host in self._hosts for rule, n in counted_drops(host, self._family.version).items()}

    def count(self, recorder: Recorder) -> Counters:
        """Read what all nodes counted, when the log tells the same: a stack may send again meanwhile.

        A packet is counted by conntrack first, then by the lab's rules, and logged last.
        """
        recorder.read()
        for _ in range(_ROUNDS):
            judged = len(recorder.judged)
            counted = self._read_counters()
            recorder.read()
            if len(recorder.judged) == judged and _is_logged(recorder, counted):
                break
        return counted

    def statistics(self, node: int = 0) -> dict[str, int]:
        """Return what a node's conntrack has counted in this trial, as ``conntrack -S`` shows it.

        :param node: by its place among the names; the first is the one that is followed.
        """
        now, before = self._tables[node].statistics(), self._before[node] if self._before else {}
        return {name: count - before.get(name, 0) for name, count in now.items()}

    def dropped(self, host: RunningHost) -> int | None:
        """Return how many packets a node's rules have dropped in this trial for being INVALID; None without a rule."""
        count = self._dropped(host)
        return None if count is None else count - self._dropped_before.get(host.name, 0)

    def _dropped(self, host: RunningHost) -> int | None:
        return dropped_as_invalid(host, self._family.version)

    def _read_counters(self) -> Counters:
        by_rule = [count for host in self._hosts if (count := self.dropped(host)) is not None]
        return Counters(
            _added(counters(host.namespace) for host in self._hosts),
            _added(map(self.statistics, range(len(self._tables)))),
            sum(by_rule) if by_rule else None,
        )


@contextmanager
def extra_rules(host: RunningHost, hook: str, priority: str, rules: str) -> Iterator[None]:
    """Give a host some rules of the case's own, and take them away again."""
    head = f"type filter hook {hook} priority {priority}; policy accept;"
    host.nft.run(f"table inet lab_case {{\nchain {hook} {{\n{head}\n{rules}\n}}\n}}\n")
    try:
        yield
    finally:
        host.begin_change()
        host.nft.run("delete table inet lab_case\n")


def _is_logged(recorder: Recorder, counted: Counters) -> bool:
    """Check whether the log has as many INVALID packets as were counted."""
    invalid = [one for one in recorder.judged if one.state == "invalid"]
    numbers = (counted.states.get("invalid", 0), counted.statistics.get("invalid", 0))
    return (len(invalid), sum(one.counts_as_invalid for one in invalid)) == numbers


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)
