# SPDX-License-Identifier: MIT
"""Which rule of a host decided about a question's packets, by the kernel's own trace."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from lab.conntrack.nflog import PacketLog, Record
from lab.errors import LabError
from lab.evidence.packet import ACK, SYN
from lab.evidence.reach import Fate, Passage
from lab.evidence.walk import Step, Walk, kin
from lab.fabric.loaded import loaded_on
from lab.netns.nft_chain import has_tables
from lab.netns.xtables import legacy_tables
from lab.scenario import legacy
from lab.scenario.became import acknowledge_again
from lab.scenario.lost import Losses
from lab.scenario.processor import visit_all_processors
from lab.scenario.tracer import Tracer
from lab.scenario.walked import Met, walked

if TYPE_CHECKING:
    from lab.evidence.packet import Ends, Packet
    from lab.evidence.reach import Reached
    from lab.evidence.sighting import Sighting
    from lab.evidence.traced import Told
    from lab.fabric.lab import Lab
    from lab.vocabulary import Family

#: Rules that choose another destination, of iptables and of nft.
_DESTINATION: Final = re.compile(r"-j (?:DNAT|REDIRECT|TPROXY)\b|\b(?:dnat|redirect|tproxy)\b")


class Source(Protocol):
    """What waits may end by."""

    def fileno(self) -> int:
        """Return a descriptor."""
        ...


class Deciding:
    """The traces of a running lab's hosts, question by question: of its nodes, and of others that somebody gave rules.

    Beside others' traffic only the first packets of connections are traced, datagrams, and ICMP.

    """

    def __init__(self, lab: Lab, family: Family) -> None:
        self._is_brief = lab.has_others
        self._untold: dict[str, None] = {}
        names = [node.name for node in lab.topology.nodes]
        if lab.has_others:
            spaces = {name: host.namespace for name, host in lab.hosts.items() if name not in names}
            names += [
                name for name, space in spaces.items() if has_tables(space) or legacy_tables(space, family.version)
            ]
        self._hosts = [_Host(lab, name, family, self._untold) for name in names]

    @property
    def untold(self) -> list[str]:
        """In sentences, of what nothing can be told."""
        return list(self._untold)

    @property
    def sources(self) -> list[Source]:
        """What is readable when more is told."""
        return [source for host in self._hosts for source in host.sources]

    def forget(self) -> None:
        """Forget what was told until now."""
        for host in self._hosts:
            host.forget()

    def follow_acknowledgement(self, asking: socket.socket, passage: Passage, settle: Callable[[], object]) -> None:
        """Have a client send the ACK of its handshake again, where the one that was lost was not traced.

        :param settle: returns when it is not under way any more.
        """
        if self._is_brief:
            for host in self._hosts:
                host.follow({_ends(one.packet) for one in passage.sightings if one.host == host.name})
            acknowledge_again(asking)
            settle()

    def rule(self, passage: Passage) -> str:
        """Return which rule dropped a question's packet, else which chose its destination, and where it vanished.

        Empty where no rule has done anything of the kind.
        """
        # What a node's own rules translate, no capture sees as its client has asked.
        asked = passage.own, passage.question.address
        packet = passage.first or next((its for host in self._hosts for its in host.begun(asked)), None)
        wanted = {kin(packet)} if packet else set()
        walks = [walk for host in self._hosts for walk in host.walks(wanted)] if wanted else []
        for walk in walks:
            if walk.fate:
                return _dropped(walk, walk.fate)
        chosen = [f"led on at {walk.node} by {step.words}" for walk in walks for step in _choices(walk)]
        return "; ".join(dict.fromkeys((*chosen, *(walk.vanishing for walk in walks if walk.vanished))))

    def blaming(self, reached: Reached, sightings: Sequence[Sighting]) -> Reached:
        """Return what became of a question, where it failed with the rule that dropped it or what answered it.

        :param sightings: since it was asked.
        """
        if reached.fate is Fate.CONNECTED or reached.own is None:
            return reached
        by = self.drop(Passage(reached.question, reached.own, sightings))
        return reached if by in reached.rule else replace(reached, rule="; ".join(filter(None, (reached.rule, by))))

    def drop(self, passage: Passage) -> str:
        """Return which rule dropped one of a question's packets or of what answered them; empty where none did."""
        # What a rule drops where it was made is seen nowhere: it is known by its ends.
        asked = passage.own, passage.question.address
        packets = [one.packet for one in passage.sightings]
        first = kin(passage.first) if passage.first else None
        wanted = {kin(packet) for packet in packets}
        for host in self._hosts:
            for walk in host.walks(wanted, asked):
                if walk.fate:
                    is_question = kin(walk.packet) == first or (_ends(walk.packet) == asked and _begins(walk.packet))
                    what = "" if is_question else f"{_name(walk.packet)} "
                    return what + _dropped(walk, walk.fate)
        return ""


class _Host:
    """The trace of one host.

    :param untold: where it is noted what cannot be told.
    """

    def __init__(self, lab: Lab, name: str, family: Family, untold: dict[str, None]) -> None:
        running = lab.hosts[name]
        self._name, self._family, self._untold = name, family, untold
        is_legacy = legacy.is_told(running, family)
        self._log: PacketLog | None = None
        if is_legacy:
            lab.undo(partial(running.namespace.set_sysctls, PacketLog.settings(running.namespace)))
            self._log = lab.keep(PacketLog(running.namespace))
        self._tracer = lab.keep(Tracer(running, marks=is_legacy, brief=lab.has_others))
        lab.undo(self._tracer.remove)
        self._loaded = loaded_on(running, self._tracer.chains, family, lab.changes)
        self._losses = Losses(lab, name) if lab.traced else None
        self._told: list[Told] = []
        self._records: list[Record] = []

    @property
    def name(self) -> str:
        """The host's."""
        return self._name

    def follow(self, ends: set[Ends]) -> None:
        """Trace every TCP packet between some ends from here on."""
        if ends:
            self._tracer.follow(sorted(ends, key=str))

    @property
    def sources(self) -> list[Source]:
        """What is readable when more is told."""
        return [self._tracer, *([self._log] if self._log else [])]

    def forget(self) -> None:
        """Forget what was told until now."""
        self._told, self._records = [], []
        self._tracer.forget()
        if self._log:
            self._log.skip()
        if self._losses:
            self._losses.forget()

    def walks(self, wanted: set[tuple[object, ...]], ends: Ends | None = None) -> Iterator[Walk]:
        """Yield the walks of the packets that are kin to those that are wanted, or go from one end to another."""
        found = self._found(wanted, ends)
        if any(isinstance(one, LabError) or one.vanished for one in found):
            visit_all_processors()  # what a timer has sent may be on its way still
            found = self._found(wanted, ends)
        if found and (why := legacy.why_silent(self._name, self._loaded, self._records)):
            self._untold[f"Of rules nothing is told: {why}."] = None
        for one in found:
            if isinstance(one, LabError):
                self._untold[f"Not traced at {self._name}: {one}."] = None
            else:
                yield self._losses.told(one) if self._losses else one

    def begun(self, ends: Ends) -> Iterator[Packet]:
        """Yield the packets that may be a question from one end to another, as they came to this host's rules."""
        self._read()
        return (told.packet for told in self._told if _ends(told.packet) == ends and _begins(told.packet))

    def _found(self, wanted: set[tuple[object, ...]], ends: Ends | None) -> list[Walk | LabError]:
        """Read what is told by now, and put the walks together."""
        self._read()
        met = [Met(told, self._loaded) for told in self._told]
        places = [
            place for place, one in enumerate(self._told) if kin(one.packet) in wanted or _ends(one.packet) == ends
        ]
        return list(walked(self._name, met, self._records, self._family, places))

    def _read(self) -> None:
        self._told = self._tracer.read()
        self._records += self._log.read() if self._log else []
        if self._tracer.lost or (self._log and self._log.lost):
            self._untold[f"The kernel lost a part of the trace at {self._name}."] = None


def _ends(packet: Packet) -> Ends:
    return packet.source, packet.destination


def _begins(packet: Packet) -> bool:
    """Check whether a packet may be a question: of TCP only a SYN is."""
    return packet.tcp is None or packet.tcp.flags & (SYN | ACK) == SYN


def _dropped(walk: Walk, fate: Step) -> str:
    return f"dropped at {walk.node} by {fate.words}"


def _name(packet: Packet) -> str:
    return packet.tcp.flag_names if packet.tcp else "what was said to it"


def _choices(walk: Walk) -> Iterator[Step]:
    return (step for step in walk.steps if step.rule and _DESTINATION.search(step.rule.text))
