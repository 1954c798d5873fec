# SPDX-License-Identifier: MIT
"""What is expected of a question to a Service, and whether what was seen is that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.evidence.reach import Fate, Reached


@dataclass(frozen=True)
class Allowed:
    """An endpoint that may answer.

    :param host: that has it.
    :param source: the address that it has to see the client by; None for the client's own.
    """

    host: str
    source: str | None = None

    def __str__(self) -> str:
        return f"{self.host}, as {self.source or 'the client itself'}"


@dataclass(frozen=True)
class Expected:
    """What is to become of a question.

    :param fates: any of these; where it is to connect, that alone.
    :param answers: who may answer, where it is to connect.
    :param at: the host that is to refuse or to drop it; empty where that is open.
    :param why: whose rule that is, with its source.
    :param sticks: whether one client always gets the same endpoint (session affinity).
    """

    fates: tuple[Fate, ...]
    answers: tuple[Allowed, ...] = ()
    at: str = ""
    why: str = ""
    sticks: bool = False

    def __str__(self) -> str:
        failing = (fate for fate in self.fates if fate is not Fate.CONNECTED)
        words = " or ".join(dict.fromkeys((*map(str, self.answers), *failing)))
        return f"{words}{f' at {self.at}' if self.at else ''}"


def surprises(expected: Expected, seen: Sequence[Reached], enough: int) -> Iterator[str]:
    """Yield what was seen and is not expected, and what is expected and was never seen.

    :param enough: after how many questions each of the endpoints would have answered.
    """
    told: dict[str, None] = {}
    for one in seen:
        if not _is_expected(expected, one):
            told[one.words] = None
    yield from told
    hosts = {one.server for one in seen if one.fate is Fate.CONNECTED}
    if expected.sticks and len(hosts) > 1:
        yield f"one client, and yet {' and '.join(sorted(hosts))}"
    elif not told and len(seen) >= enough and not expected.sticks:
        for host in dict.fromkeys(one.host for one in expected.answers):
            if hosts and host not in hosts:
                yield f"never {host}"


def _is_expected(expected: Expected, seen: Reached) -> bool:
    if seen.fate not in expected.fates:
        return False
    if seen.fate is not Fate.CONNECTED:
        return not expected.at or not seen.at or seen.at == expected.at
    return any(
        one.host == seen.server and (seen.is_kept if one.source is None else _source(seen) == one.source)
        for one in expected.answers
    )


def _source(seen: Reached) -> str | None:
    return seen.seen_as.address if seen.seen_as else None
