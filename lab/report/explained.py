# SPDX-License-Identifier: MIT
"""What captures tell, for a person: a paragraph for each connection that has something to tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lab.capture.explanation import Explained, Explanation, Finding
from lab.vocabulary import Behaviour

_NAMES: Final = {"TCP": ("connection", "connections"), "UDP": ("exchange by UDP", "exchanges by UDP")}


def lines(told: Explanation, *, assumed: bool) -> Iterator[str]:
    """Yield what is printed, line by line.

    :param assumed: nobody said which kernel judges.
    """
    odd = [one for one in told.connections if one.findings]
    for number, one in enumerate(odd):
        if number:
            yield ""
        yield from _connection(one)
    if odd:
        yield ""
    for protocol, what in _NAMES.items():
        fine = sum(one.protocol == protocol and not one.findings for one in told.connections)
        other = "other " if any(one.protocol == protocol for one in odd) else ""
        if fine:
            yield f"{fine:,} {other}{what[fine > 1]}: nothing wrong."
    if not told.connections:
        yield "There is no TCP connection in it, and no datagram of UDP."
    yield _judged(told.behaviour, assumed=assumed)
    yield from told.notes


def _judged(behaviour: Behaviour, *, assumed: bool) -> str:
    why = ", as --kernel was not given" if assumed else ""
    return f"Judged as conntrack does by the rule that {behaviour.words}{why}."


def _connection(one: Explained) -> Iterator[str]:
    to = f"{one.target}" + (f", which is {one.endpoint}" if one.endpoint else "")
    masked = f", masqueraded as {one.peer}" if one.peer != one.client else ""
    by = "" if one.protocol == "TCP" else f"{one.protocol} "
    yield f"{by}{one.client}{masked} > {to}: {one.outcome}"
    where = f" at {', '.join(dict.fromkeys(one.points))}" if one.points else ""
    packets = "1 packet" if one.packets == 1 else f"{one.packets:,} packets"
    section = f", in section {one.section + 1} of the file" if one.section else ""
    yield f"  {packets}{where}{section}"
    for finding in one.findings:
        yield from _finding(finding)
    for words in one.untold:
        yield f"  {words}"


def _finding(finding: Finding) -> Iterator[str]:
    number = f"{finding.packets[0].number}: " if finding.judgement and finding.packets else ""
    yield f"  * {number}{finding.words}"
    if finding.case:
        helps = f" Helps: {', '.join(finding.fixes)}." if finding.fixes else ""
        yield f"    `lab show {finding.case}` tells of it.{helps}"
