# SPDX-License-Identifier: MIT
"""What `lab watch --json` tells programs, an object a line: each kind's members; the page docs/watch.md explains them.

Times are nanoseconds since the epoch. Addresses with a port are written ``192.168.0.2:80``, ``[fd00::2]:80``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from lab.observed.tally import Answer, Missed

if TYPE_CHECKING:
    from lab.observed.tally import Tally

#: Of the form of the lines; it changes where a program would notice.
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Begin:
    """The first line: what is watched.

    :param only_found: whether packets and entries have no lines, but leaks and resets alone.
    """

    kind: Literal["begin"] = "begin"
    version: Literal[1] = VERSION
    watching: str
    only_found: bool


@dataclass(frozen=True, kw_only=True)
class _OfPacket:
    """What lines about a packet have; what a protocol other than TCP lacks is null."""

    time: int
    host: str
    interface: str
    outgoing: bool
    source: str
    destination: str
    protocol: str
    length: int
    flags: str | None
    sequence: int | None
    acknowledgement: int | None
    window: int | None


@dataclass(frozen=True, kw_only=True)
class PacketSeen(_OfPacket):
    """A packet at an interface."""

    kind: Literal["packet"] = "packet"


@dataclass(frozen=True, kw_only=True)
class EntryTold:
    """What conntrack told of an entry."""

    kind: Literal["entry"] = "entry"
    time: int
    host: str
    event: str
    protocol: str
    state: str | None
    client: str
    target: str
    endpoint: str
    peer: str


@dataclass(frozen=True, kw_only=True)
class _Found(_OfPacket):
    """What lines about a finding have."""

    client: str
    target: str
    endpoint: str
    entry: str
    over: bool


@dataclass(frozen=True, kw_only=True)
class Model:
    """What conntrack is expected to say of a packet."""

    judgement: str
    by: str
    excess: int


@dataclass(frozen=True, kw_only=True)
class LeakFound(_Found):
    """A packet that left untranslated; ``model`` is null where not all packets were seen."""

    kind: Literal["leak"] = "leak"
    model: Model | None


@dataclass(frozen=True, kw_only=True)
class ResetFound(_Found):
    """A RST that answers one; ``leak_time`` is null where the leak was not seen."""

    kind: Literal["reset"] = "reset"
    by_node: bool
    leak_time: int | None


@dataclass(frozen=True, kw_only=True)
class OfService:
    """What was found of one VIP's connections to one endpoint."""

    target: str
    endpoint: str
    leaks: int
    leaks_without_entry: int
    resets: int
    resets_by_node: int
    late: int
    connections: int
    clients: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The last line: what was found."""

    kind: Literal["answer"] = "answer"
    answer: Literal["none", "suffers", "not known"]
    seconds: float
    connections: int
    leaks: int
    resets: int
    missed: Missed
    by_service: tuple[OfService, ...]


Line: TypeAlias = Begin | PacketSeen | EntryTold | LeakFound | ResetFound | Answered

_ANSWERS: Final[dict[Answer, Literal["none", "suffers", "not known"]]] = {
    Answer.NO: "none",
    Answer.SUFFERS: "suffers",
    Answer.UNKNOWN: "not known",
}


def answer(tally: Tally, seconds: float) -> Answered:
    """Return what was found."""
    services = (
        OfService(
            target=target,
            endpoint=endpoint,
            leaks=pair.leaks,
            leaks_without_entry=pair.gone,
            resets=pair.resets,
            resets_by_node=pair.by_node,
            late=pair.late,
            connections=pair.connections,
            clients=dict(pair.clients),
        )
        for (target, endpoint), pair in tally.pairs.items()
    )
    return Answered(
        answer=_ANSWERS[tally.answer],
        seconds=round(seconds, 3),
        connections=tally.connections,
        leaks=tally.total("leaks"),
        resets=tally.total("resets"),
        missed=tally.missed,
        by_service=tuple(services),
    )


def as_data(line: Line) -> dict[str, Any]:
    """Return a line as plain data, its kind first."""
    data = vars(line) if isinstance(line, PacketSeen | EntryTold) else asdict(line)  # of these there are many
    return {"kind": line.kind, **data}
