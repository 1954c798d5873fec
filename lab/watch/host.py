# SPDX-License-Identifier: MIT
"""One host that is looked at: its packets, its conntrack, and as much of both as it has processor time for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.conntrack.listener import Listener
from lab.conntrack.netlink import ConntrackTable
from lab.evidence.entry import EntryEvent
from lab.evidence.packet import BARRIER_PORT, TCP, UDP
from lab.observed.leaks import Finder
from lab.observed.lines import Told
from lab.wire import filter as filters
from lab.wire.heads import Heads

if TYPE_CHECKING:
    from lab.evidence.entry import Entry
    from lab.netns import Namespace
    from lab.observed.leaks import Ends
    from lab.observed.lines import Seen
    from lab.vocabulary import Behaviour

#: Packets a second of which each is looked at: some 25 us each. Where there are more, only candidates are.
_MOST: Final = 4_000
_TURN: Final = 0.25  # seconds over which they are counted
_BATCH: Final = 512  # packets that are read at a time, so that others have their turn
_CALM: Final = 2.0  # seconds with no more than half of them, before each is looked at again
_AGAIN: Final = 10.0  # seconds between two listings of conntrack's table, which has all namespaces' entries to walk
_START: Final = 1.0  # seconds in which how busy the host is may come out


class WatchedHost:
    """What one host sees from the moment on at which this is made. It only listens.

    :param services_only: of conntrack, TCP connections to VIPs alone; of packets, TCP alone.
    :param remembered: packets of each connection to a VIP that are kept for when one of them leaks.
    :ivar lean: whether only packets are looked at that begin or end a connection, or may have leaked.
    :raises MissingError: conntrack tells of no entries there.
    :raises OSError: EPERM without CAP_NET_RAW or CAP_NET_ADMIN in the namespace.
    """

    def __init__(
        self, name: str, namespace: Namespace, behaviour: Behaviour, *, services_only: bool, remembered: int = 0
    ) -> None:
        self.name, self.lean, self._lost = name, False, 0
        self._namespace = namespace
        self._everything = filters.every_tcp() if services_only else filters.everything()
        self._listener = Listener(namespace, services_only=services_only)
        self._heads = Heads(name, namespace, self._everything)
        self._table = ConntrackTable(namespace)
        self.finder = Finder(behaviour, self._look, remembered=remembered)
        self._chosen = 0  # of the finder's changes, those that the filter has
        self._lost_events = 0
        self._begun = self._turn = time.monotonic()
        self._in_turn = 0
        self._counted = (self._turn, self._passed())
        self._calm_since = self._turn
        self._listed = self._turn
        self._known: list[Told] = []  # by a listing, and not given on yet
        self._list()

    def lost(self) -> int:
        """Return how many packets the kernel could not hand over so far."""
        self._lost += self._heads.lost()
        return self._lost

    @property
    def lost_events(self) -> int:
        """How often the kernel threw away what conntrack told."""
        return self._listener.lost

    def filenos(self) -> tuple[int, int]:
        """Return the descriptors that are readable when something waits."""
        return self._heads.fileno(), self._listener.fileno()

    def read(self) -> list[Seen]:
        """Return what has come: packets, what conntrack told, and after each packet what was found of it."""
        packets = self._heads.read(_BATCH)
        # Behind the packets, so that those have their entries.
        events = [one for one in self._listener.read() if not _is_barrier(one)]
        now = time.time_ns()
        for event in events:
            self.finder.tell(event)
        seen: list[Seen] = [*self._known]
        self._known.clear()
        for packet in packets:
            seen.append(packet)
            seen += self.finder.see(packet)
        seen += [Told(now, self.name, event) for event in events]
        self._keep_pace(len(packets))
        return seen

    def _look(self, ends: Ends) -> Entry | None:
        return self._table.entry(TCP, *ends)

    def _keep_pace(self, count: int) -> None:
        """Look at fewer packets where there are too many, and at all of them again when it has become calm."""
        now = time.monotonic()
        self._in_turn += count
        if not self.lean and self._in_turn > _MOST * _TURN:
            self._set_lean(now)
        if now - self._turn >= _TURN:
            self._turn, self._in_turn = now, 0
            self._look_after(now)
        if self.lean and self._chosen != self.finder.changes:
            self._choose()

    def _set_lean(self, now: float) -> None:
        self.lean, self._calm_since = True, now
        self.finder.follow_all(whether=False)
        self._choose()
        if now - self._begun >= _START:
            return
        while self._heads.read(_BATCH):
            pass  # what came before it was known how busy the host is: the watch begins now
        self._heads.lost()

    def _look_after(self, now: float) -> None:
        if self._listener.lost > self._lost_events and now - self._listed >= _AGAIN:
            self._lost_events, self._listed = self._listener.lost, now
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
            self._heads.choose(self._everything)
            self.finder.follow_all(whether=True)

    def _choose(self) -> None:
        """Have the kernel's filter follow the endpoints and the clients that there are."""
        finder = self.finder
        chosen = filters.Candidates(frozenset(finder.endpoints), frozenset(finder.ports), frozenset(finder.clients))
        self._chosen = finder.changes
        self._heads.choose(filters.candidates(chosen))

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
        self._heads.close()
        self._listener.close()
        self._table.close()


def _is_barrier(event: EntryEvent) -> bool:
    """Check whether an entry is of the lab's own datagrams, which are not shown either."""
    ports = {end.port for end in event.entry.original}
    return event.entry.protocol == UDP and BARRIER_PORT in ports
