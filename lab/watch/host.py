# SPDX-License-Identifier: MIT
"""One host that is looked at: its packets, its conntrack, and as much of both as it has processor time for."""

from __future__ import annotations

import time
from bisect import bisect_right
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.conntrack.listener import Listener
from lab.conntrack.netlink import ConntrackTable
from lab.evidence.entry import EntryEvent
from lab.evidence.packet import BARRIER_PORT, TCP, UDP
from lab.observed.leaks import Finder
from lab.observed.lines import Told
from lab.wire import filter as filters
from lab.wire.filter import Candidates
from lab.wire.heads import Heads

if TYPE_CHECKING:
    from lab.evidence.entry import Entry
    from lab.evidence.packet import Ends
    from lab.evidence.sighting import Sighting
    from lab.netns import Namespace
    from lab.observed.lines import Seen
    from lab.vocabulary import Behaviour

#: Packets of data a second of which each is looked at: some 25 us each. Where there are more, none is.
_MOST: Final = 4_000
_TURN: Final = 0.25  # seconds over which they are counted
_BATCH: Final = 256  # packets that are read at a time, so that others have their turn
_CALM: Final = 2.0  # seconds with no more than half of them, before each is looked at again
_AGAIN: Final = 10.0  # seconds between two listings of conntrack's table, which has all namespaces' entries to walk


class WatchedHost:
    """What one host sees from the moment on at which this is made. It only listens.

    There are two sockets for packets. One has what leaks and resets are found by: what begins or ends a connection,
    and what may have missed its translation. The other has the rest, most of it data, by which windows are followed;
    where that is too much, it has nothing.

    :param services_only: of conntrack, TCP connections to VIPs alone; of packets, TCP alone.
    :param remembered: packets of each connection to a VIP that are kept for when one of them leaks.
    :ivar lean: whether there is too much to look at the rest.
    :raises MissingError: conntrack tells of no entries there.
    :raises OSError: EPERM without CAP_NET_RAW or CAP_NET_ADMIN in the namespace.
    """

    def __init__(
        self, name: str, namespace: Namespace, behaviour: Behaviour, *, services_only: bool, remembered: int = 0
    ) -> None:
        self.name, self.lean, self._lost, self._skipped = name, False, 0, 0
        self._namespace, self._services_only = namespace, services_only
        self._chosen = Candidates()
        with ExitStack() as opening:
            self._listener = Listener(namespace, services_only=services_only)
            opening.callback(self._listener.close)
            self._marks = Heads(name, namespace, filters.candidates(self._chosen))
            opening.callback(self._marks.close)
            self._rest = Heads(name, namespace, filters.rest(self._chosen, tcp_only=services_only))
            opening.callback(self._rest.close)
            self._table = ConntrackTable(namespace)
            opening.callback(self._table.close)
            self.finder = Finder(behaviour, self._look, remembered=remembered)
            self._changes = 0  # of the finder, those that the filters have
            self._early: list[Sighting] = []  # behind what the other socket has told so far
            self._turn = self._calm_since = self._listed = time.monotonic()
            self._in_turn, self._listed_losses = 0, 0
            self._counted = (self._turn, self._passed())
            self._known: list[Told] = []  # by a listing, and not given on yet
            self._list()
            self._open = opening.pop_all()

    def lost(self) -> int:
        """Return how many packets the kernel could not hand over so far, of those that leaks are found by."""
        self._lost += self._marks.lost()
        return self._lost

    def skipped(self) -> int:
        """Return how many of the others."""
        lost = self._rest.lost()
        if lost and not self.lean:  # windows are no longer known
            self.finder.follow_all(whether=False)
            self.finder.follow_all(whether=True)
        self._skipped += lost
        return self._skipped

    @property
    def lost_events(self) -> int:
        """How often the kernel threw away what conntrack told."""
        return self._listener.lost

    @property
    def has_more(self) -> bool:
        """Whether something was read that waits for the next turn."""
        return bool(self._early)

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors that are readable when something waits."""
        return self._marks.fileno(), self._rest.fileno(), self._listener.fileno()

    def read(self) -> list[Seen]:
        """Return what has come: packets, what conntrack told, and after each packet what was found of it."""
        begun = time.time_ns()
        rest = self._rest.read(_BATCH)
        marks = self._marks.read(_BATCH)
        # Behind the packets, so that those have their entries.
        events = [one for one in self._listener.read() if not _is_barrier(one)]
        now = time.time_ns()
        for event in events:
            self.finder.tell(event)
        seen: list[Seen] = [*self._known]
        self._known.clear()
        for packet in self._in_order(marks, rest, begun):
            seen.append(packet)
            seen += self.finder.see(packet)
        seen += [Told(now, self.name, event) for event in events]
        self._keep_pace(len(rest))
        return seen

    def _in_order(self, marks: list[Sighting], rest: list[Sighting], begun: int) -> list[Sighting]:
        """Return the packets of both sockets by their times, as far as neither can have anything older.

        What both have is the same: filters are not changed at the same moment. Its times differ by some microseconds,
        as each socket notes its own (skb_clear_delivery_time, include/linux/skbuff.h).
        """
        last = [packets[-1].time for packets in (marks, rest) if len(packets) == _BATCH]  # more of it may wait
        if marks and rest:
            known = {(one.interface, one.outgoing, one.data) for one in marks}
            rest = [one for one in rest if (one.interface, one.outgoing, one.data) not in known]
        packets = sorted(chain(self._early, marks, rest), key=lambda one: one.time)
        edge = bisect_right(packets, min([begun, *last]), key=lambda one: one.time)
        due, self._early = packets[:edge], packets[edge:]
        return due

    def _look(self, ends: Ends) -> Entry | None:
        return self._table.entry(TCP, *ends)

    def _keep_pace(self, count: int) -> None:
        """Look at fewer packets where there are too many, and at all of them again when it has become calm."""
        now = time.monotonic()
        self._in_turn += count
        if not self.lean and (self._in_turn > _MOST * _TURN or count == _BATCH):
            self.lean, self._calm_since = True, now
            self._rest.choose(filters.nothing())
            self.finder.follow_all(whether=False)
        if now - self._turn >= _TURN:
            self._turn, self._in_turn = now, 0
            self._look_after(now)
        if self._changes != self.finder.changes:
            self._choose()

    def _look_after(self, now: float) -> None:
        if self._listener.lost > self._listed_losses and now - self._listed >= _AGAIN:
            self._listed_losses, self._listed = self._listener.lost, now
            self._list()
        if not self.lean:
            return
        before, passed = self._counted
        total = self._passed()
        self._counted = now, total
        if now > before and (total - passed) / (now - before) > _MOST / 2:
            self._calm_since = now
        elif now - self._calm_since >= _CALM:
            self.lean = False
            self.skipped()  # so far
            self._rest.choose(filters.rest(self._chosen, tcp_only=self._services_only))
            self.finder.follow_all(whether=True)

    def _choose(self) -> None:
        """Have the kernel's filters follow the endpoints and the clients that there are; no packet falls between."""
        finder = self.finder
        self._changes = finder.changes
        self._chosen = Candidates(frozenset(finder.endpoints), frozenset(finder.ports), frozenset(finder.clients))
        if not self.lean:
            self._rest.choose(filters.everything())
        self._marks.choose(filters.candidates(self._chosen))
        if not self.lean:
            self._rest.choose(filters.rest(self._chosen, tcp_only=self._services_only))

    def _list(self) -> None:
        now = time.time_ns()
        for event in (EntryEvent("listed", entry) for entry in self._listener.table()):
            self.finder.tell(event)
            self._known.append(Told(now, self.name, event))

    def _passed(self) -> int:
        """Return how many packets have passed the interfaces since they were made, the loopback aside."""
        with self._namespace.entered():
            rows = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        counts = [row.partition(":")[2].split() for row in rows if row.partition(":")[0].strip() != "lo"]
        return sum(int(count[1]) + int(count[9]) for count in counts)

    def close(self) -> None:
        """Close its sockets."""
        self._open.close()


def _is_barrier(event: EntryEvent) -> bool:
    """Check whether an entry is of the lab's own datagrams, which are not shown either."""
    ports = {end.port for end in event.entry.original}
    return event.entry.protocol == UDP and BARRIER_PORT in ports
