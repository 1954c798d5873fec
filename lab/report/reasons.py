# SPDX-License-Identifier: MIT
"""The table of the reasons that conntrack gives: for a terminal, in Markdown, and as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lab.reasons import REASONS, Reason
from lab.vocabulary import Behaviour

#: What the numbers in the words of the table of states are (enum tcp_bit_set and ip_conntrack_dir).
LEGEND: Final = (
    "In `packet (index %d) in dir %d`, the index is 0 for a SYN, 1 SYN,ACK, 2 FIN, 3 ACK, 4 RST and 5 for none of them;"
    " dir is 0 for the side that sent the first packet, and 1 for the other. %u, %d, %x, %s and %pI4 stand for"
    " what differs."
)


@dataclass(frozen=True)
class Words:
    """How kernels write a reason.

    :param text: the format, as the kernel's source has it.
    :param kernels: which ones write it so; empty for all.
    """

    text: str
    kernels: str


@dataclass(frozen=True)
class Row:
    """A row of the table, as programs get it; its members are those of :class:`lab.reasons.Reason`.

    :param by_log_invalid: whether it comes by ``nf_conntrack_log_invalid``.
    """

    name: str
    protocol: str
    wordings: tuple[Words, ...]
    meaning: str
    became: dict[Behaviour, str]
    source: str
    cases: tuple[str, ...]
    why_no_case: str
    fixes: tuple[str, ...]
    by_log_invalid: bool


def became(reason: Reason) -> str:
    """Return what became of a packet, by kernel where that differs."""
    strict, mild = reason.became[Behaviour.STRICT], reason.became[Behaviour.IGNORES_LATE]
    return str(mild) if strict is mild else f"{mild}; up to 6.0 {strict}"


def lines(reasons: Iterable[Reason] = REASONS) -> Iterator[str]:
    """Yield what is printed, line by line: a paragraph for each."""
    protocol = ""
    for one in reasons:
        if one.protocol != protocol:
            protocol = one.protocol
            yield ""
            yield f"{'whatever the protocol' if protocol == 'any' else protocol}:"
        yield f"  {one.name}: {became(one)}"
        for wording in one.wordings:
            where = f" ({wording.kernels})" if wording.kernels else ""
            yield f"    `{wording.text.strip()}`{where}"
        if not one.wordings:
            yield "    Nothing is logged."
        yield f"    {one.meaning}"
        yield f"    {_cases(one)}"
        yield f"    Source: {one.source}"


def _cases(one: Reason) -> str:
    helps = f" Helps: {', '.join(one.fixes)}." if one.fixes else ""
    if one.cases:
        return f"Cases: {', '.join(one.cases)}.{helps}"
    return f"No case: {one.why_no_case}.{helps}"


def markdown() -> Iterator[str]:
    """Yield the table in Markdown, protocol by protocol."""
    protocol = ""
    for one in REASONS:
        if one.protocol != protocol:
            protocol = one.protocol
            title = "Whatever the protocol" if protocol == "any" else protocol
            yield from ("", f"## {title}", "", _row("the kernel says", "the packet is", "what it means", "cases"))
            yield _row(*["---"] * 4)
        said = "<br>".join(
            f"`{wording.text.strip()}`" + (f" ({wording.kernels})" if wording.kernels else "")
            for wording in one.wordings
        )
        cases = ", ".join(one.cases) or f"none: {one.why_no_case}"
        yield _row(said or "nothing", became(one), f"{one.meaning} *{one.source}*", cases)


def _row(*fields: str) -> str:
    return f"| {' | '.join(field.replace('|', chr(92) + '|') for field in fields)} |"


def as_data(reasons: Iterable[Reason] = REASONS) -> tuple[Row, ...]:
    """Return the table for a program."""
    return tuple(
        Row(
            name=one.name,
            protocol=one.protocol,
            wordings=tuple(Words(wording.text, wording.kernels) for wording in one.wordings),
            meaning=one.meaning,
            became={behaviour: str(word) for behaviour, word in one.became.items()},
            source=one.source,
            cases=one.cases,
            why_no_case=one.why_no_case,
            fixes=one.fixes,
            by_log_invalid=one.in_log,
        )
        for one in reasons
    )
