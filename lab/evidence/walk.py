# SPDX-License-Identifier: MIT
"""The walk of one packet through the rules of one node, as the kernel's own trace told it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab.evidence.packet import Packet

#: What a rule says that drops what conntrack finds INVALID: iptables' words, and nft's.
_DROPS_INVALID: Final = re.compile(
    r"(?<!! )--(?:ct)?state \S*\bINVALID\b.*-j DROP\b"
    r"|\bct state (?:\{[^}]*\binvalid\b[^}]*\}|\S*\binvalid\b).*\bdrop\b"
)

#: The verdict of a rule behind which nobody asks another one.
DROP: Final = "drop"
ACCEPT: Final = "accept"


class Role(StrEnum):
    """What a packet is in its trial."""

    HANDSHAKE = "handshake"
    JUDGED = "judged"
    RESET = "reset"
    OTHER = "other"


def kin(packet: Packet) -> tuple[object, ...]:
    """Return what a packet has in the trace that address translation leaves as it is: that tells no options of TCP's.

    See :attr:`lab.evidence.packet.Packet.likeness`.
    """
    tcp, message = packet.tcp, packet.icmp
    return (
        packet.protocol,
        packet.identification,
        packet.payload_length,
        tcp and (tcp.sequence, tcp.acknowledgement, tcp.flags, tcp.window),
        message and (message.kind, message.code),
    )


@dataclass(frozen=True)
class Rule:
    """A rule as it is loaded.

    :param position: in its chain, from 1.
    :param text: as it was loaded, or as the kernel's programs list it: without ``-A CHAIN``, counters and handle.
    :param source: and ``line``: where it came from, where that is somebody's file; the line from 1.
    :param owner: who wrote it, by :mod:`lab.rules.owners`.
    """

    position: int
    text: str
    source: str = ""
    line: int | None = None
    owner: str = ""

    @property
    def drops_invalid(self) -> bool:
        """Whether it is for dropping what conntrack finds INVALID."""
        return _DROPS_INVALID.search(self.text) is not None


@dataclass(frozen=True)
class Place:
    """A rule and the chain in which it stands."""

    family: str
    table: str
    chain: str
    rule: Rule

    @property
    def brief(self) -> str:
        """The same in a few words: table, chain, and the line where one is known."""
        rule = self.rule
        return f"{self.table} {self.chain} {f'line {rule.line}' if rule.line else f'rule {rule.position}'}"

    @property
    def words(self) -> str:
        """The same with the file of the line, and the owner."""
        rule = self.rule
        return f"{self.brief}{f' of {rule.source}' if rule.line else ''}{f' ({rule.owner})' if rule.owner else ''}"


@dataclass(frozen=True)
class Step:
    """What one chain did with the packet: the rule that matched, or its end.

    :param rule: None at the chain's end: a base chain's policy, or the way back to who jumped there.
    :param verdict: accept, drop, continue, jump, goto, return, queue or stolen; of rules that reject, drop. At the end
        of a chain that nobody has a policy for, return. Empty where the kernel does not tell (iptables-legacy).
    :param target: the chain that it leads to.
    :param mark: the packet's mark behind it.
    :param missed: the rules that were asked since the step before, and did not match: the last of them.
    :param more: how many there were before those.
    """

    family: str
    table: str
    chain: str
    rule: Rule | None
    verdict: str
    target: str = ""
    mark: int = 0
    missed: tuple[Rule, ...] = ()
    more: int = 0

    @property
    def place(self) -> Place | None:
        """Its rule and chain; None at a chain's end."""
        return Place(self.family, self.table, self.chain, self.rule) if self.rule else None

    @property
    def brief(self) -> str:
        """Where it was, in a few words: the rule, or the chain whose policy it was."""
        return self.place.brief if self.place else f"the policy of {self.table} {self.chain}"

    @property
    def words(self) -> str:
        """The same with the rule's text."""
        return f"{self.place.words}: {self.place.rule.text}" if self.place else self.brief

    @property
    def is_policy(self) -> bool:
        """Whether it is what a base chain does with whatever came to its end."""
        return self.rule is None and self.verdict in (ACCEPT, DROP)


@dataclass(frozen=True)
class AtHook:
    """A base chain at a hook, and what the packet met in it and in the chains that it led to.

    :param hook: prerouting, input, forward, output or postrouting; :param priority: as nft counts.
    :param before: the packet as it came there; :param after: as it went on, None where it did not.
    :param behind: rules for dropping INVALID packets that stand in this hook behind the rule that decided, and so did
        not see the packet; sought for packets that are INVALID alone.
    """

    hook: str
    priority: int
    family: str
    table: str
    chain: str
    steps: tuple[Step, ...]
    before: Packet
    after: Packet | None
    behind: tuple[Place, ...] = ()

    @property
    def decided(self) -> Step | None:
        """The step that ended it: the last one."""
        return self.steps[-1] if self.steps else None


@dataclass(frozen=True)
class Walk:
    """The walk of one packet through one node.

    :param role: what it is in its trial.
    :param state: what conntrack called it, in nft's words; empty where it did not come so far.
    :param packet: as it arrived, or as the node sent it.
    :param hooks: the base chains that it came to, in their order, but for the lab's own.
    :param last_hook: the last one that it came to, with rules or without.
    :param left: the packet behind the last hook; None where it did not get there.
    :param unsent: whether it came past the last hook, and left by no link.
    :param counted: of one that vanished, what the node's stack counted meanwhile of packets that it lost without a
        rule, as nstat(8) names it; of the judged one that came to the node's own sockets, what TCP or UDP counted of
        packets with a wrong checksum, which they drop.
    :param by_conntrack: of one that vanished, what conntrack counted meanwhile of packets that it lost, as
        ``conntrack -S`` names it; empty where it counted none.
    :param unread: whose rules are loaded there and are not traced; empty where all are.
    """

    node: str
    role: Role
    state: str
    packet: Packet
    hooks: tuple[AtHook, ...]
    last_hook: str
    left: Packet | None
    unsent: bool = False
    counted: tuple[str, ...] = ()
    by_conntrack: str = ""
    unread: str = ""

    @property
    def steps(self) -> Iterator[Step]:
        """All steps, hook by hook."""
        return (step for at in self.hooks for step in at.steps)

    @property
    def fate(self) -> Step | None:
        """The step that dropped or rejected it; None where none did."""
        return next((step for step in self.steps if step.verdict == DROP), None)

    @property
    def vanished(self) -> bool:
        """Whether it came to no end, and no rule that is traced has dropped it."""
        return (self.unsent or self.left is None) and self.fate is None and self.queued is None

    @property
    def came_to_sockets(self) -> bool:
        """Whether it came past all rules to the node's own TCP or UDP."""
        return self.last_hook == "input" and self.left is not None and not self.fate and not self.queued

    @property
    def queued(self) -> Step | None:
        """The step that gave it to a program, of what comes behind which nothing is traced; None where none did."""
        return next((step for step in self.steps if step.verdict == "queue"), None)

    @property
    def vanishing(self) -> str:
        """Where it vanished, and what was counted there meanwhile."""
        where = f"gone behind {self.last_hook} at {self.node}"
        traced = f" that is traced (those of {self.unread} are not)" if self.unread else ""
        if self.unsent and (self.by_conntrack or traced):
            why = f"past every rule{traced}"
        elif self.unsent:
            why = "past every rule: no neighbour has its address, or conntrack lost it at its last step"
        elif not self.state:
            why = f"before or in conntrack, and no rule{traced} has dropped it"
        else:
            why = f"and no rule{traced} has dropped it"
        by_conntrack = (f"conntrack's {self.by_conntrack}",) if self.by_conntrack else ()
        return "; ".join((f"{where}, {why}", *by_conntrack, *self.counted))

    @property
    def unseen_drops(self) -> tuple[Place, ...]:
        """The rules for dropping INVALID packets that stand behind the rule that decided, and never saw this one."""
        return tuple(place for at in self.hooks for place in at.behind)

    @property
    def accepted_by(self) -> tuple[Step, ...]:
        """The rules that let an INVALID packet pass before a rule that drops such could see it."""
        if self.state != "invalid":
            return ()
        return tuple(
            at.decided for at in self.hooks if at.behind and at.decided is not None and at.decided.verdict == ACCEPT
        )
