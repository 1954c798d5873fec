# SPDX-License-Identifier: MIT
"""What a capture tells, as plain data: its connections, and of each what was found, by the numbers of its packets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeAlias

from lab.evidence.judgement import Judgement
from lab.evidence.packet import Ends, SocketAddress
from lab.verdict import Outcome
from lab.vocabulary import Behaviour

#: Where packets are captured: a file, and an interface of it.
Point: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """One packet of one file.

    :param number: as Wireshark counts, from 1 on; of what tcpdump printed as text, its line's.
    :param point: the interface, as the file names it; empty where it does not.
    """

    file: str
    number: int
    time: int
    point: str


@dataclass(frozen=True)
class Hop:
    """One copy of a packet that a finding is about, or of the RST that answers it.

    :param way: ``in`` or ``out``, to the machine that captured; empty where the capture does not tell.
    :param source: as this copy has it, as ``destination``.
    :param words: what there is to say of this copy; empty where nothing is.
    """

    place: Place
    way: str
    source: SocketAddress
    destination: SocketAddress
    words: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is out of the ordinary.

    :param kind: in a word, for programs.
    :param words: in a sentence, for a person.
    :param packets: those that it is about.
    :param judgement: conntrack's of the first of them; None where the finding is about something else.
    :param condition: of the window check, I to IV, which it breaks; empty where it breaks none.
    :param excess: by how many bytes it breaks it.
    :param case: the case of the catalogue that it is; empty where it is none.
    :param fixes: those that help there.
    :param hops: the packet's copies, in the order of their times, and those of the RSTs that answer it.
    """

    kind: str
    words: str
    packets: tuple[Place, ...]
    judgement: Judgement | None = None
    condition: str = ""
    excess: int = 0
    case: str = ""
    fixes: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()


@dataclass(frozen=True)
class Explained:
    """One connection; or by UDP, what one port of a client asked of one address, and what came back.

    :param target: whom the client asked: the VIP where there is one.
    :param endpoint: who answered; None where no translation was seen.
    :param peer: the client as the endpoint knows it.
    :param begins: whether its SYN is in the capture.
    :param packets: how many there are, each counted once however often it was captured.
    :param points: where it was seen.
    :param outcome: as a trial's.
    :param untold: what the capture cannot tell, in sentences.
    :param protocol: ``TCP`` or ``UDP``.
    :param entry: what a listing of conntrack's says of it, in a sentence; empty where there is none.
    :param asked: when its SYN was seen, in nanoseconds; None where it was not, or by UDP.
    """

    client: SocketAddress
    target: SocketAddress
    endpoint: SocketAddress | None
    peer: SocketAddress
    begins: bool
    packets: int
    points: tuple[str, ...]
    section: int
    outcome: Outcome
    findings: tuple[Finding, ...]
    untold: tuple[str, ...]
    protocol: str = "TCP"
    entry: str = ""
    asked: int | None = None

    @classmethod
    def uneventful(
        cls,
        ends: Ends,
        point: str,
        section: int,
        packets: int,
        outcome: Outcome,
        *,
        protocol: str = "TCP",
        asked: int | None = None,
    ) -> Self:
        """Return one of which there is nothing to tell: untranslated, and seen from its beginning on.

        :param ends: the client, and whom it asked.
        :param point: the only one at which it was seen; empty where that has no name.
        """
        client, target = ends
        return cls(
            client=client,
            target=target,
            endpoint=None,
            peer=client,
            begins=True,
            packets=packets,
            points=(point,) if point else (),
            section=section,
            outcome=outcome,
            findings=(),
            untold=(),
            protocol=protocol,
            asked=asked,
        )


@dataclass(frozen=True)
class Counted:
    """Connections that are only counted, as there are too many of which nothing else was found.

    :param connections: how many they are, and ``findings``: how many of each kind.
    :param told: findings of one kind that are told one by one.
    """

    protocol: str
    connections: int
    findings: dict[str, int]
    told: int


@dataclass(frozen=True)
class Remark:
    """One thing that lines of text tell: of the kernel's log, of conntrack's entries or of its counters.

    :param kind: ``reason``, ``rule``, ``entry``, ``event``, ``counter`` or ``table``, for programs.
    :param words: in a sentence, for a person; ``further``: what more there is to say, in sentences.
    :param lines: the numbers of the first that tell it; ``count``: of how many.
    :param is_wrong: whether something did not go as it should.
    :param became: what became of a packet that a reason is about: INVALID, ignored or dropped; empty of others.
    :param cases: of the catalogue, that make it.
    :param fixes: those that help there.
    """

    file: str
    kind: str
    words: str
    lines: tuple[int, ...]
    count: int
    is_wrong: bool
    became: str = ""
    further: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Everything that was found in captures and in text.

    :param behaviour: the kernel's that is assumed.
    :param notes: what has to be known of the files, in sentences.
    :param remarks: what text tells that is of no packets itself.
    :param files: those that have packets, and ``printed``: those of them that are text.
    :param counted: of the connections those that are told no more one by one.
    """

    behaviour: Behaviour
    packets: int
    connections: tuple[Explained, ...]
    notes: tuple[str, ...]
    remarks: tuple[Remark, ...] = ()
    files: tuple[str, ...] = ()
    printed: tuple[str, ...] = ()
    counted: tuple[Counted, ...] = ()

    @property
    def found(self) -> bool:
        """Whether anything is out of the ordinary."""
        return (
            bool(self.counted)
            or any(one.findings for one in self.connections)
            or any(one.is_wrong for one in self.remarks)
        )
