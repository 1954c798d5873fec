# SPDX-License-Identifier: MIT
"""The flows that are seen, by packets and by conntrack: who asks whom, as what that arrives, and in which state."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final, TypeAlias

from lab.evidence.entry import Entry
from lab.evidence.packet import SocketAddress
from lab.evidence.sighting import Sighting
from lab.observed.leaks import Leak
from lab.observed.lines import Seen, Told, protocol

Ends: TypeAlias = tuple[SocketAddress, SocketAddress]
_Key: TypeAlias = tuple[str, int, SocketAddress, SocketAddress]

_MOST: Final = 2_000
_PLACES: Final = 64  # interfaces whose packets are counted apart
_ANYWHERE: Final = ""  # in place of a host


class Flow:
    """One flow.

    :ivar client: who began it, and :attr:`target` whom it asks, as far as that was seen.
    :ivar entry: of conntrack; None where no host tells of one.
    :ivar gone: whether the entry is.
    :ivar last: when something of it was seen last, in nanoseconds since the epoch.
    :ivar leaks: and ``resets``: what was found.
    """

    def __init__(self, number: int, protocol: int, ends: Ends, entry: Entry | None, time: int) -> None:
        self.number, self.protocol = number, protocol
        self.client, self.target = ends if entry is None else entry.original
        self.entry, self.gone = entry, False
        self.first = self.last = time
        self.leaks = self.resets = 0
        self.hosts: dict[str, None] = {}
        self._places: Counter[tuple[str, str, bool, bool]] = Counter()

    @property
    def state(self) -> str:
        """The entry's state; in words where it has none, is gone, or there is none."""
        if self.entry is None:
            return "-"
        return "gone" if self.gone else self.entry.tcp_state or "entry"

    @property
    def ends(self) -> frozenset[SocketAddress]:
        """All the addresses that its packets have."""
        return frozenset((self.client, self.target, *(self.entry.reply if self.entry is not None else ())))

    @property
    def arrives(self) -> str:
        """As what it arrives where it is translated; else empty."""
        if self.entry is None:
            return ""
        endpoint, peer = self.entry.reply
        to = str(endpoint) if endpoint != self.target else ""
        return f"{to} as {peer}".strip() if peer != self.client else to

    def packets(self, *, from_client: bool) -> int:
        """Return how many packets of one side were seen where most of them were."""
        return max((count for (*_place, side), count in self._places.items() if side == from_client), default=0)

    def count(self, seen: Sighting) -> None:
        """Count a packet at one interface."""
        from_client = seen.packet.source in (self.client, self.entry.reply[1] if self.entry is not None else None)
        place = (seen.host, seen.interface, seen.outgoing, from_client)
        if place in self._places or len(self._places) < _PLACES:
            self._places[place] += 1

    def __str__(self) -> str:
        to = f" = {self.arrives}" if self.arrives else ""
        return f"{protocol(self.protocol)} {self.client} > {self.target}{to}"


class Flows:
    """The flows of which something was seen last, each once, on whichever hosts that was.

    :ivar forgotten: how many were given up for others.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        self._made = 0
        self._all: OrderedDict[int, Flow] = OrderedDict()
        self._by_ends: dict[_Key, Flow] = {}
        self._keys: dict[int, list[_Key]] = {}

    def __iter__(self) -> Iterator[Flow]:
        """Yield the flows in the order of their beginnings."""
        return iter(sorted(self._all.values(), key=lambda flow: flow.number))

    def __len__(self) -> int:
        return len(self._all)

    def take(self, seen: Seen) -> Flow:
        """Take what was seen into account, and return the flow that it is about."""
        if isinstance(seen, Sighting):
            flow = self._of_packet(seen)
            flow.count(seen)
            host, time = seen.host, seen.time
        elif isinstance(seen, Told):
            flow = self._of_entry(seen)
            host, time = seen.host, seen.time
        else:
            flow = self._of_packet(seen.sighting)
            flow.leaks += isinstance(seen, Leak)
            flow.resets += not isinstance(seen, Leak)
            host, time = seen.sighting.host, seen.sighting.time
        flow.last = max(flow.last, time)
        flow.hosts.setdefault(host)
        self._all.move_to_end(flow.number)
        if len(self._all) > _MOST:
            self._forget()
        return flow

    def _of_packet(self, seen: Sighting) -> Flow:
        packet = seen.packet
        ends = (packet.source, packet.destination)
        known = self._find(seen.host, packet.protocol, ends)
        if known is not None:
            return known
        made = self._make(packet.protocol, ends, None, seen.time)
        self._name(made, seen.host, ends)
        return made

    def _of_entry(self, told: Told) -> Flow:
        entry = told.event.entry
        flow = self._by_ends.get((told.host, entry.protocol, *entry.original))
        if (
            flow is not None
            and flow.entry is not None
            and (told.event.kind == "new" or flow.entry.reply != entry.reply)
        ):
            flow = None  # the same ports once more
        elif flow is None:  # a packet may have been seen before
            flow = self._find(told.host, entry.protocol, entry.original)
            if flow is not None and flow.entry is not None and flow.entry.original != entry.original:
                flow = None
        if flow is None:
            flow = self._make(entry.protocol, entry.original, entry, told.time)
        if flow.entry is None:
            flow.client, flow.target = entry.original
        if flow.entry is None or told.event.kind != "destroy":
            flow.entry = entry
        flow.gone = told.event.kind == "destroy"
        self._name(flow, told.host, entry.original)
        self._name(flow, told.host, entry.reply)
        return flow

    def _find(self, host: str, protocol: int, ends: Ends) -> Flow | None:
        return self._by_ends.get((host, protocol, *ends)) or self._by_ends.get((_ANYWHERE, protocol, *ends))

    def _make(self, protocol: int, ends: Ends, entry: Entry | None, time: int) -> Flow:
        self._made += 1
        made = self._all[self._made] = Flow(self._made, protocol, ends, entry, time)
        return made

    def _name(self, flow: Flow, host: str, ends: Ends) -> None:
        """Have packets of these addresses, either way, be the flow's: on this host, and on those without one."""
        keys = self._keys.setdefault(flow.number, [])
        for place in (host, _ANYWHERE):
            for key in ((place, flow.protocol, *ends), (place, flow.protocol, *ends[::-1])):
                if self._by_ends.get(key) is not flow:
                    self._by_ends[key] = flow
                    keys.append(key)

    def _forget(self) -> None:
        number, flow = self._all.popitem(last=False)
        self.forgotten += 1
        for key in self._keys.pop(number):
            if self._by_ends.get(key) is flow:
                del self._by_ends[key]
