# SPDX-License-Identifier: MIT
"""Leaks and the resets that answer them, found in what a node sees: its packets, and what conntrack tells of entries.

A leak is a packet that leaves the node with an endpoint's address as its source, though its client has asked a VIP and
knows nothing else: step (4) of the report on kubernetes#74839. The client answers it with a RST to that address, which
comes to the node as it is, and whose number is what the leaked packet acknowledges (RFC 9293, 3.5.2): step (5). Where
the client is the node itself, or is masqueraded by it, nothing leaves: the node's own RST does, which the entry of its
connection knows nothing of.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from lab.capture.judging import Word
from lab.evidence.entry import Entry, EntryEvent
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, RST, SYN, TCP, Ends
from lab.evidence.sighting import Sighting
from lab.observed.followed import FEW, OVER, Followed
from lab.observed.found import GONE, Finding, Leak, Reset
from lab.vocabulary import Behaviour

_Key = TypeVar("_Key")
#: Asks conntrack for the entry of an original tuple; None where there is none.
Look: TypeAlias = Callable[[Ends], Entry | None]

#: Flows that are followed, and of those whose entries are gone.
_MOST: Final = 16_384
_MOST_GONE: Final = 4_096
_SYNS: Final = 1_024  # which came before conntrack told of their entries
_ASKED: Final = 16  # questions to conntrack about one flow
_KEPT: Final = 65_536  # packets of all flows that are kept for when one of them leaks, some 500 bytes each


class Finder:
    """Follows what one node sees, and finds leaks and resets in it.

    :param look: asks the node's conntrack.
    :param remembered: packets of each connection that are kept for when one of them leaks.
    :ivar connections: connections to VIPs of which packets were seen; an entry alone, such as one that was listed, is
        none: of a connection that is idle nothing can leak.
    :ivar forgotten: connections that were given up for memory while their entries lived.
    :ivar changes: of the sets by which a filter goes: :attr:`endpoints`, :attr:`ports`, :attr:`clients`.
    :ivar to_save: packets of connections that leaked, since somebody last took them from here.
    """

    def __init__(self, behaviour: Behaviour, look: Look, *, remembered: int = 0) -> None:
        self.connections = self.forgotten = self.changes = 0
        self.to_save: list[Sighting] = []
        #: How many connections each has.
        self.endpoints: Counter[str] = Counter()
        self.ports: Counter[int] = Counter()
        self.clients: Counter[str] = Counter()
        self._behaviour, self._look, self._remembered = behaviour, look, remembered
        self._by_reply: OrderedDict[Ends, Followed] = OrderedDict()
        self._by_original: dict[Ends, Followed] = {}
        self._gone: OrderedDict[Ends, Followed] = OrderedDict()
        self._syns: OrderedDict[Ends, Sighting] = OrderedDict()
        self._keepers: OrderedDict[Followed, None] = OrderedDict()
        self._kept = 0
        self._has_all = True

    def tell(self, event: EntryEvent) -> None:
        """Take what conntrack tells of an entry into account; of a listing each entry as ``listed``."""
        entry = event.entry
        if entry.protocol != TCP or entry.reply[0] == entry.original[1]:
            return
        known = self._by_reply.get(entry.reply)
        if event.kind == "destroy":
            if known is not None and known.entry.original == entry.original:
                known.gone = True
                self._gone[entry.reply] = known
        elif known is None or event.kind == "new" or known.entry.original != entry.original:
            self._follow(entry)
        else:
            known.tell(entry)
            self._gone.pop(entry.reply, None)
        while len(self._gone) > _MOST_GONE or (self._gone and len(self._by_reply) > _MOST):
            self._drop(next(iter(self._gone.values())))
        while len(self._by_reply) > _MOST:
            self._drop(next(iter(self._by_reply.values())))
            self.forgotten += 1

    def follow_all(self, *, whether: bool) -> None:
        """Take it that from now on all packets are seen, or only some of them, so that windows cannot be followed."""
        self._has_all = whether
        if not whether:
            for flow in self._by_reply.values():
                flow.model = None
                self._forget(flow)
            self._syns.clear()

    def _follow(self, entry: Entry) -> None:
        before = self._by_reply.get(entry.reply)
        if before is not None:
            self._drop(before)
        made = self._by_reply[entry.reply] = self._by_original[entry.original] = Followed(entry, self._remembered)
        self._count(made, 1)
        seen = self._syns.pop(entry.original, None)
        if seen is not None:
            self._from_client(made, seen)
            self._pass(made)
            if self._remembered:
                self._remember(made, seen)

    def _drop(self, flow: Followed) -> None:
        self._forget(flow)
        del self._by_reply[flow.entry.reply]
        self._gone.pop(flow.entry.reply, None)
        if self._by_original.get(flow.entry.original) is flow:
            del self._by_original[flow.entry.original]
        self._count(flow, -1)

    def _count(self, flow: Followed, by: int) -> None:
        endpoint, client = flow.ends
        self.changes += _changed(self.endpoints, endpoint.address, by)
        self.changes += _changed(self.ports, endpoint.port, by)
        self.changes += _changed(self.clients, client.address, by)

    def see(self, seen: Sighting) -> Sequence[Finding]:
        """Take a packet at one interface into account, and return what it is found to be."""
        packet = seen.packet
        if packet.tcp is None:
            return ()
        ends = (packet.source, packet.destination)
        found: Sequence[Finding] = ()
        through = True  # the Service; what has missed its translation may be another connection's
        if (flow := self._by_reply.get(ends)) is not None:
            found, through = self._from_endpoint(flow, seen), not seen.outgoing
        elif (flow := self._by_reply.get(ends[::-1])) is not None:
            found, through = self._to_endpoint(flow, seen), seen.outgoing
        elif (flow := self._by_original.get(ends)) is not None:
            if not seen.outgoing:
                self._from_client(flow, seen)
        elif (flow := self._by_original.get(ends[::-1])) is None:
            if packet.tcp.flags & (SYN | ACK) == SYN and not seen.outgoing and self._has_all:
                self._syns[ends] = seen
                if len(self._syns) > _SYNS:
                    self._syns.popitem(last=False)
            return ()
        if found or through:
            self._pass(flow)
        if self._remembered:
            self._keep(flow, seen, found)
        return found

    def _pass(self, flow: Followed) -> None:
        """Take it that a packet of a connection was seen."""
        self.connections += not flow.passed
        flow.passed = True

    def _keep(self, flow: Followed, seen: Sighting, found: Sequence[Finding]) -> None:
        if flow.found > len(found):  # it leaked before
            self.to_save.append(seen)
            return
        if self._has_all or found:
            self._remember(flow, seen)
        if found:
            self.to_save += flow.kept
            self._forget(flow)

    def _remember(self, flow: Followed, seen: Sighting) -> None:
        """Keep a packet, and of those whose connections were quiet for longest none any more where there are many."""
        self._kept += len(flow.kept) < self._remembered
        flow.kept.append(seen)
        self._keepers[flow] = None
        self._keepers.move_to_end(flow)
        while self._kept > _KEPT:
            self._forget(next(iter(self._keepers)))

    def _forget(self, flow: Followed) -> None:
        self._kept -= len(flow.kept)
        flow.kept.clear()
        self._keepers.pop(flow, None)

    def _from_client(self, flow: Followed, seen: Sighting) -> None:
        """Take into account what a client sends to a VIP, as it comes to the node."""
        tcp = seen.packet.tcp
        assert tcp is not None
        if tcp.flags & (SYN | ACK) == SYN and self._has_all:
            flow.begin(self._behaviour, local=False)
        flow.local = False
        if tcp.flags & RST:
            flow.resets.setdefault(tcp.sequence, set())
        flow.take(seen.packet, from_client=True)

    def _from_endpoint(self, flow: Followed, seen: Sighting) -> Sequence[Finding]:
        packet = seen.packet
        if not seen.outgoing:
            flow.take(packet, from_client=False)
            return ()
        if flow.masqueraded:
            return ()
        copy = flow.leaks.get(packet.likeness)
        if copy is not None and seen.interface not in copy[1]:
            copy[1].add(seen.interface)
            return ()
        flow.leaked(packet)
        word = flow.word(packet)
        state = self._state(flow, word)
        if state is None:
            self._drop(flow)
            return ()
        client, target = flow.entry.original
        leak = Leak(seen, client, target, packet.source, state, word, flow.over, not flow.found)
        flow.found += 1
        flow.leaks[packet.likeness] = leak, {seen.interface}
        if len(flow.leaks) > FEW:
            flow.leaks.popitem(last=False)
        return (leak,)

    def _state(self, flow: Followed, word: Word | None) -> str | None:
        """Return the state that a connection's entry was in; None where its addresses are another connection's now.

        That is one which its client opened to the endpoint itself.

        :param word: what the model made of the packet that this is about.
        """
        told = flow.entry.tcp_state or "" if flow.over else flow.state
        if word is not None and word.judgement is Judgement.INVALID:
            return told  # there was an entry, by which it is so
        if flow.asked >= _ASKED:
            return GONE if flow.gone else told
        flow.asked += 1
        entry = self._look(flow.entry.original)
        if entry is not None and entry.reply == flow.entry.reply:
            return told or entry.tcp_state or ""
        return None if self._look(flow.ends[::-1]) is not None else GONE

    def _to_endpoint(self, flow: Followed, seen: Sighting) -> Sequence[Finding]:
        packet, tcp = seen.packet, seen.packet.tcp
        assert tcp is not None
        if seen.outgoing and flow.local is not False and not tcp.flags & RST:
            if tcp.flags & (SYN | ACK) == SYN and self._has_all:
                flow.begin(self._behaviour, local=True)
            if flow.local:
                flow.take(packet, from_client=True)
        if not tcp.flags & RST:
            return ()
        return self._reset(flow, seen, tcp.sequence)

    def _reset(self, flow: Followed, seen: Sighting, number: int) -> Sequence[Finding]:
        """Return what a RST to the endpoint is, unless it is its client's word on the connection."""
        known = flow.resets.get(number)
        tcp = seen.packet.tcp
        assert tcp is not None
        if known is not None and (seen.outgoing or seen.interface not in known):
            known.add(seen.interface)  # on its way through the node, translated or not
            return ()
        if seen.outgoing and (tcp.flags & ACK or (flow.answered(number) is None and self._is_own(flow))):
            flow.over = True
            return ()
        answered = (leak for leak, _where in reversed(flow.leaks.values()) if _acknowledged(leak) == number)
        leak = next(answered, None)
        state = leak.state if leak is not None else self._state(flow, flow.answered(number))
        if state is None:
            self._drop(flow)
            return ()
        client, target = flow.entry.original
        over = flow.over if leak is None else leak.over
        reset = Reset(seen, client, target, flow.ends[0], state, leak, seen.outgoing, over, not flow.found)
        flow.found += 1
        flow.resets.setdefault(number, set()).add(seen.interface)
        if len(flow.resets) > FEW:
            flow.resets.popitem(last=False)
        return (reset,)

    def _is_own(self, flow: Followed) -> bool:
        """Check by its entry whether a RST that the node sends is a client's on it: conntrack takes note of that."""
        if flow.local is False:  # it would have come to the node before
            return flow.over
        if flow.over or flow.gone or flow.asked >= _ASKED:
            return True
        flow.asked += 1
        entry = self._look(flow.entry.original)
        return entry is None or entry.tcp_state in (None, *OVER)


def _acknowledged(leak: Leak) -> int | None:
    tcp = leak.sighting.packet.tcp
    return tcp.acknowledgement if tcp is not None and tcp.flags & ACK else None


def _changed(counter: Counter[_Key], key: _Key, by: int) -> bool:
    """Count, and return whether a key has come or gone."""
    counter[key] += by
    if counter[key]:
        return counter[key] == by
    del counter[key]
    return True
