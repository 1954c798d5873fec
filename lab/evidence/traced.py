# SPDX-License-Identifier: MIT
"""From what the kernel told of a packet, event by event, to its walk: the rules in order say what else was asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from lab.errors import LabError
from lab.evidence.packet import Packet, decoded
from lab.evidence.walk import ACCEPT, DROP, AtHook, Place, Role, Rule, Step, Walk

#: The rules that were asked and did not match, of which a step keeps the last ones.
_KEPT: Final = 24

#: Targets of iptables that are no chains of anybody's; there are more, and a chain of such a name is sought in vain.
_NO_CHAINS: Final = frozenset({"ACCEPT", "DROP", "RETURN", "REJECT", "MARK", "LOG", "NFLOG", "CONNMARK", "TRACE"})

#: How a rule names the chains that it leads to.
_TARGETS: Final = re.compile(r"(?:-[jg]|\bjump|\bgoto) ([^\s,}]+)")


#: How the family of an event begins that iptables-legacy told: its tables have the names of iptables-nft's.
LEGACY: Final = "legacy "


class TraceEvent(NamedTuple):
    """One event of the kernel's trace.

    :param packet_id: the kernel's number for the packet; it is used again.
    :param family: nft's word for it, with :data:`LEGACY` before it where it is of iptables-legacy's table.
    :param handle: the rule's; None at a chain's end.
    :param position: the rule's in its chain, from 1, where that is told instead.
    :param is_policy: whether it is a base chain's policy.
    :param headers: the packet's when the base chain began, told with the first event of each: of IP, and the first 20
        bytes behind that.
    """

    packet_id: int
    family: str
    table: str
    chain: str
    handle: int | None
    is_policy: bool
    verdict: str
    target: str = ""
    mark: int = 0
    headers: bytes = b""
    position: int | None = None

    @property
    def packet(self) -> Packet | None:
        """The packet by its headers, of TCP's without options; None where they are not told."""
        return decoded(self.headers) if self.headers else None


@dataclass(frozen=True)
class Chain:
    """A chain as it is loaded.

    :param handles: of its rules, in their order; empty where they have none.
    """

    rules: Sequence[Rule]
    handles: tuple[int, ...] = ()

    def position(self, event: TraceEvent) -> int:
        """Return the position of an event's rule, from 1.

        :raises LabError: the chain has no such rule, so it was changed since.
        """
        if event.position is not None and event.position <= len(self.rules):
            return event.position
        if event.handle in self.handles:
            return self.handles.index(event.handle) + 1
        raise LabError(f"the trace tells of a rule that the chain {event.chain} does not have any more")


class BaseChain(NamedTuple):
    """Where a base chain hangs: the hook, and the priority as nft counts; of another chain no hook."""

    hook: str
    priority: int


class Rules(Protocol):
    """The rules of a node as they are loaded: chains by family, table and name."""

    def chain(self, family: str, table: str, name: str) -> Chain:
        """Return a chain."""

    def base(self, family: str, table: str, name: str) -> BaseChain:
        """Return where a chain hangs."""

    def drops(self, family: str, table: str) -> Sequence[Place]:
        """Return the rules of a table that are for dropping INVALID packets."""


class _Frame(NamedTuple):
    """A chain that the packet is in, and how many of its rules it has met."""

    name: str
    chain: Chain
    met: int


class _Walker:
    """Puts the steps of one base chain together."""

    def __init__(self, rules: Rules, first: TraceEvent) -> None:
        self._rules, self._family, self._table = rules, first.family, first.table
        self.base = rules.base(first.family, first.table, first.chain)
        self.chain = first.chain
        self.before = _seen(first)
        self.steps: list[Step] = []
        self._mark = 0
        self._stack = [self._enter(first.chain)]

    def take(self, event: TraceEvent) -> None:
        """Take the next event."""
        self._mark = event.mark
        while self._stack[-1].name != event.chain:
            if len(self._stack) == 1:
                raise LabError(f"the trace is in {event.chain}, where no rule that it told of leads")
            self._end("return")
        if event.is_policy:
            self._end(event.verdict)
            return
        if event.handle is None and event.position is None:  # a chain's end; what follows tells where it came back to
            return
        frame = self._stack[-1]
        position = frame.chain.position(event)
        self._step(frame, position, event.verdict, event.target)
        # From a base chain a packet goes back to nobody: its policy comes next, and none of the rules behind.
        is_left = event.verdict in ("goto", "return")
        self._stack[-1] = frame._replace(met=len(frame.chain.rules) if is_left else position)
        if is_left and len(self._stack) > 1:
            self._stack.pop()
        if event.verdict in ("jump", "goto"):
            self._stack.append(self._enter(event.target))

    def _enter(self, chain: str) -> _Frame:
        return _Frame(chain, self._rules.chain(self._family, self._table, chain), 0)

    def _end(self, verdict: str) -> None:
        frame = self._stack[-1]
        self._step(frame, len(frame.chain.rules) + 1, verdict, "")
        if len(self._stack) > 1:
            self._stack.pop()

    def _step(self, frame: _Frame, position: int, verdict: str, target: str) -> None:
        missed, rules = position - 1 - frame.met, frame.chain.rules
        rule = rules[position - 1] if position <= len(rules) else None
        if rule is None and verdict == "return" and missed <= 0 and frame.met:
            return  # it went back behind its last rule
        kept = tuple(rules[max(frame.met, position - 1 - _KEPT) : position - 1]) if missed > 0 else ()
        more = max(0, missed - _KEPT)
        family = self._family.removeprefix(LEGACY)
        self.steps.append(Step(family, self._table, frame.name, rule, verdict, target, self._mark, kept, more))

    @property
    def is_decided(self) -> bool:
        """Whether a rule decided, so that others behind it did not see the packet."""
        return bool(self.steps) and self.steps[-1].rule is not None and self.steps[-1].verdict in (ACCEPT, DROP)

    def finish(self, after: Packet | None, drops: Sequence[Place]) -> AtHook:
        """Return what became of it.

        :param drops: the rules of this table that are for dropping INVALID packets, where those matter.
        """
        is_over = bool(self.steps) and self.steps[-1].verdict == DROP
        base = self.base
        return AtHook(
            base.hook,
            base.priority,
            self._family.removeprefix(LEGACY),
            self._table,
            self.chain,
            tuple(self.steps),
            self.before,
            None if is_over else after,
            tuple(self._behind(drops)) if drops else (),
        )

    def _behind(self, drops: Sequence[Place]) -> list[Place]:
        """Return those of the rules to which the packet would have come behind the last one that it met."""
        wanted = {place.chain for place in drops}
        reached: dict[str, int] = {}
        left = [(frame.name, frame.met) for frame in reversed(self._stack)]
        while left and not wanted <= set(reached):
            chain, met = left.pop(0)
            if chain not in reached:
                reached[chain] = met
                rules = self._enter(chain).chain.rules[met:]
                left += [(target, 0) for rule in rules for target in _targets(rule.text)]
        return [one for one in drops if one.chain in reached and one.rule.position > reached[one.chain]]


def _seen(event: TraceEvent) -> Packet:
    packet = event.packet
    if packet is None:
        raise LabError("the trace tells of a packet whose headers nobody can read")
    return packet


def _targets(text: str) -> list[str]:
    """Return the chains that a rule may lead to; iptables' targets that are none are written in capitals likewise."""
    return [target for target in _TARGETS.findall(text) if target not in _NO_CHAINS]


@dataclass(frozen=True)
class Told:
    """What the kernel told of one packet, from the lab's first chain on.

    :param state: conntrack's, in nft's words; empty where it did not come so far.
    :param end: the packet in the lab's last chain; None where it did not get there.
    :param is_copy: whether a bridge made it on the way, so that nothing is told of the way until there.
    :param is_early: whether it has come to no hook behind the ingress of its device.
    """

    events: tuple[TraceEvent, ...]
    state: str = ""
    end: Packet | None = None
    is_copy: bool = False
    is_early: bool = False

    @property
    def packet(self) -> Packet:
        """The packet as it came, or as the node sent it; of one that came in fragments the whole."""
        return _seen(next(one for one in self.events if one.headers))

    @property
    def is_over(self) -> bool:
        """Whether its walk has come to an end, as far as nftables tells."""
        return self.end is not None or self.events[-1].verdict in (DROP, "queue", "stolen")


def walk_of(node: str, told: Told, rules: Rules, own_hook: Callable[[str, str], str]) -> Walk:
    """Put the walk of a packet together.

    :param own_hook: where a chain of a table hangs that is the lab's own, by table and chain; empty of others. Such a
        chain is no part of the walk, but shows what the packet had become.
    :raises LabError: the rules are no longer those that the trace tells of.
    """
    starts = [(index, one) for index, one in enumerate(told.events) if one.headers]
    hooks: list[AtHook] = []
    last_hook = ""
    for (index, first), following in zip(starts, [*starts[1:], None], strict=True):
        if own := own_hook(first.table, first.chain):
            last_hook = own
            continue
        walker = _Walker(rules, first)
        for event in told.events[index : following[0] if following else None]:
            walker.take(event)
        after = _seen(following[1]) if following else None
        is_sought = told.state == "invalid" and walker.is_decided
        hooks.append(walker.finish(after, rules.drops(first.family, first.table) if is_sought else ()))
        last_hook = walker.base.hook
    return Walk(node, Role.OTHER, told.state, told.packet, tuple(hooks), last_hook, told.end)
