# SPDX-License-Identifier: MIT
"""The flows that are seen, by packets and by conntrack: who asks whom, as what that arrives, and in which state."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from lab.evidence.entry import Entry
from lab.evidence.packet import Ends, SocketAddress
from lab.evidence.sighting import Sighting
from lab.observed.found import Finding, Leak
from lab.observed.lines import Seen, Told, protocol

_Key: TypeAlias = tuple[str, int, SocketAddress, SocketAddress]

_MOST: Final = 2_000
_FOUND: Final = 4
_PLACES: Final = 64  # interfaces whose packets are counted apart
_ANYWHERE: Final = ""  # in place of a host


class Flow:
    """One flow.

    :ivar client: who began it, and :attr:`target` whom it asks, as far as that was seen.
    :ivar entry: of conntrack; None where no host tells of one.
    :ivar gone: whether the entry is.
    :ivar last: when something of it was seen last, in nanoseconds since the epoch.
    :ivar leaks: and ``resets``: how many were found; ``found``: the last of them.
    """

    def __init__(self, number: int, protocol: int, ends: Ends, entry: Entry | None, time: int) -> None:
        self.number, self.protocol = number, protocol
        self.client, self.target = ends if entry is None else entry.original
        self.entry, self.gone = entry, False
        self.first = self.last = time
        self.leaks = self.resets = 0
        self.found: deque[Finding] = deque(maxlen=_FOUND)
        self.hosts: dict[str, None] = {}
        self._one_with: Flow | None = None
        self._places: Counter[tuple[str, str, bool, bool]] = Counter()

    @property
    def whole(self) -> Flow:
        """The flow that this is a part of, as came out later; or this."""
        return self if self._one_with is None else self._one_with.whole

    def add(self, part: Flow) -> None:
        """Take it that another flow is this one, as it was seen before its entry was known."""
        part._one_with = self
        for (host, interface, outgoing, _side), count in part._places.items():
            self._places[host, interface, outgoing, part.client == self.peer] += count
        self.first = min(self.first, part.first)
        self.hosts |= part.hosts

    @property
    def peer(self) -> SocketAddress:
        """Whom the endpoint takes for its client."""
        return self.client if self.entry is None else self.entry.reply[1]

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
        from_client = seen.packet.source in (self.client, self.peer)
        place = (seen.host, seen.interface, seen.outgoing, from_client)
        if place in self._places or len(self._places) < _PLACES:
            self._places[place] += 1

    def __str__(self) -> str:
        to = f" = {self.arrives}" if self.arrives else ""
        return f"{protocol(self.protocol)} {self.client} > {self.target}{to}"


class Flows:
    """The flows of which something was seen last, each once, on whichever hosts that was.

    :param entries_only: those alone of which conntrack told.
    :ivar forgotten: how many were given up for others.
    """

    def __init__(self, *, entries_only: bool = False) -> None:
        self.forgotten = 0
        self._entries_only = entries_only
        self._made = 0
        self._all: OrderedDict[int, Flow] = OrderedDict()
        self._by_ends: dict[_Key, Flow] = {}
        self._keys: dict[int, list[_Key]] = {}

    def __iter__(self) -> Iterator[Flow]:
        """Yield the flows in the order of their beginnings."""
        return iter(sorted(self._all.values(), key=lambda flow: flow.number))

    def __len__(self) -> int:
        return len(self._all)

    def take(self, seen: Seen) -> Flow | None:
        """Take what was seen into account, and return the flow that it is about; None where that is not wanted."""
        if isinstance(seen, Told):
            flow: Flow | None = self._of_entry(seen)
            host, time = seen.host, seen.time
        else:
            sighting = seen if isinstance(seen, Sighting) else seen.sighting
            flow = self._of_packet(sighting)
            host, time = sighting.host, sighting.time
        if flow is None:
            return None
        if isinstance(seen, Sighting):
            flow.count(seen)
        elif not isinstance(seen, Told):
            flow.leaks += isinstance(seen, Leak)
            flow.resets += not isinstance(seen, Leak)
            flow.found.append(seen)
        flow.last = max(flow.last, time)
        flow.hosts.setdefault(host)
        self._all.move_to_end(flow.number)
        if len(self._all) > _MOST:
            self._forget()
        return flow

    def chosen(self, seen: Sequence[Seen], wanted: Callable[[Flow | None], bool]) -> list[Seen]:
        """Take what was seen into account, and return what is about flows that are wanted.

        Entries first: a packet may have been on its way when conntrack told of its connection.
        """
        flows = {id(one): self.take(one) for one in sorted(seen, key=lambda one: not isinstance(one, Told))}
        return [one for one in seen if wanted(flows[id(one)])]

    def _of_packet(self, seen: Sighting) -> Flow | None:
        packet = seen.packet
        ends = (packet.source, packet.destination)
        known = self._find(seen.host, packet.protocol, ends)
        if known is not None or self._entries_only:
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
        part = self._by_ends.get((_ANYWHERE, entry.protocol, *entry.reply))
        if part is not None and part is not flow and part.entry is None:
            self._join(flow, part)
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

    def _join(self, flow: Flow, part: Flow) -> None:
        flow.add(part)
        del self._all[part.number]
        for key in self._keys.pop(part.number):
            if self._by_ends.get(key) is part:
                self._by_ends[key] = flow
                self._keys.setdefault(flow.number, []).append(key)

    def _forget(self) -> None:
        number, flow = self._all.popitem(last=False)
        self.forgotten += 1
        for key in self._keys.pop(number):
            if self._by_ends.get(key) is flow:
                del self._by_ends[key]
