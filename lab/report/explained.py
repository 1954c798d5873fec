# SPDX-License-Identifier: MIT
"""What captures tell, for a person: a paragraph for each connection that has something to tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from lab.capture.explanation import Counted, Explained, Explanation, Finding, Hop, Remark
from lab.capture.naming import Naming
from lab.capture.replayed import Replayed
from lab.report.replayed import lines as of_replayed
from lab.vocabulary import Behaviour

_NAMES: Final = {"TCP": ("connection", "connections"), "UDP": ("exchange by UDP", "exchanges by UDP")}


def lines(told: Explanation, *, assumed: bool, replayed: Iterable[Replayed] = ()) -> Iterator[str]:
    """Yield what is printed, line by line.

    :param assumed: nobody said which kernel judges.
    :param replayed: the connections that were sent again.
    """
    again = {(one.client, one.target): one for one in replayed}
    named = Naming(told.files, told.printed)
    blocks = []
    for one in told.connections:
        if one.findings:
            blocks.append([*_connection(one, named), *_again(one, again.get((one.client, one.target)), named)])
    if told.counted:
        blocks.append([*map(_counted, told.counted)])
    fine = [one for one in told.connections if not one.findings]
    ordinary = [f"{one.client} > {one.target}. {one.entry}" for one in fine if one.entry]
    ordinary = [*_fine(told), *ordinary]
    for file, remarks in itertools.groupby(told.remarks, lambda one: one.file):
        blocks.append([f"{file}:", *_remarks(remarks)])
    if not told.connections and not told.remarks:
        ordinary.append("There is no TCP connection in it, and no datagram of UDP.")
    if told.connections or not told.remarks:
        ordinary.append(_judged(told.behaviour, assumed=assumed))
    blocks.append([*ordinary, *told.notes])
    for number, block in enumerate(block for block in blocks if block):
        if number:
            yield ""
        yield from block


def _counted(one: Counted) -> str:
    """Return what is said of connections that are not told one by one."""
    names = _NAMES[one.protocol][one.connections > 1]
    found = ", ".join(f"{kind} ({count:,} findings)" for kind, count in one.findings.items())
    return (
        f"And {one.connections:,} {names} more are only counted, as of each kind {one.told:,} findings are told one by"
        f" one: {found}."
    )


def _fine(told: Explanation) -> Iterator[str]:
    for protocol, names in _NAMES.items():
        kind = [bool(one.findings) for one in told.connections if one.protocol == protocol]
        fine, other = kind.count(False), "other " if any(kind) else ""
        if fine:
            yield f"{fine:,} {other}{names[fine > 1]}: nothing wrong."


def _again(one: Explained, replayed: Replayed | None, named: Naming) -> Iterator[str]:
    if replayed is not None:
        judged = [finding for finding in one.findings if finding.packets and (finding.judgement or finding.case)]
        found = {(finding.packets[0].file, finding.packets[0].number): finding for finding in judged}
        yield from of_replayed(replayed, found, named)


def _remarks(remarks: Iterable[Remark]) -> Iterator[str]:
    """Yield what the text of one file tells."""
    for one in remarks:
        yield f"  * {_lines_of(one)}{one.words}"
        for words in one.further:
            yield f"    {words}"
        if one.cases:
            helps = f" Helps: {', '.join(one.fixes)}." if one.fixes else ""
            shows = " ".join(("lab show", *one.cases))
            yield f"    `{shows}` tells more.{helps}"


def _lines_of(one: Remark) -> str:
    """Return where a remark comes from, where it is of some lines and not of the whole."""
    if one.kind in ("counter", "counters", "table", "translation", "sysctls"):
        return ""
    if one.count == 1:
        return f"line {one.lines[0]}: "
    numbers = ", ".join(f"{number:,}" for number in one.lines)
    return f"{one.count:,} lines ({numbers}{', and more' if one.count > len(one.lines) else ''}): "


def _judged(behaviour: Behaviour, *, assumed: bool) -> str:
    why = ", as --kernel was not given" if assumed else ""
    return f"Judged as conntrack does by the rule that {behaviour.words}{why}."


def _connection(one: Explained, named: Naming) -> Iterator[str]:
    to = f"{one.target}" + (f", which is {one.endpoint}" if one.endpoint else "")
    masked = f", masqueraded as {one.peer}" if one.peer != one.client else ""
    by = "" if one.protocol == "TCP" else f"{one.protocol} "
    yield f"{by}{one.client}{masked} > {to}: {one.outcome}"
    where = f" at {', '.join(dict.fromkeys(one.points))}" if one.points else ""
    packets = "1 packet" if one.packets == 1 else f"{one.packets:,} packets"
    section = f", in section {one.section + 1} of the file" if one.section else ""
    yield f"  {packets}{where}{section}"
    shown = next((finding for finding in one.findings if finding.hops), None)  # of the others it is as much
    for finding in one.findings:
        numbered = bool(finding.judgement) or (one.protocol == "TCP" and finding.kind in ("leak", "odd"))
        yield from _finding(finding, named if numbered else None)
        if finding is shown:
            yield from _hops(finding.hops, named)
    if one.entry:
        yield f"  {one.entry}"
    for words in one.untold:
        yield f"  {words}"


def _finding(finding: Finding, named: Naming | None) -> Iterator[str]:
    number = f"{named.first(finding.packets[0])}: " if named and finding.packets else ""
    yield f"  * {number}{finding.words}"
    if finding.case:
        helps = f" Helps: {', '.join(finding.fixes)}." if finding.fixes else ""
        yield f"    `lab show {finding.case}` tells of it.{helps}"


def _hops(hops: Iterable[Hop], named: Naming) -> Iterator[str]:
    """Yield where a packet was seen, hop by hop, and as what."""
    yield "    hop by hop:"
    for hop in hops:
        point = hop.place.point if hop.place.point != "any" else ""  # all interfaces in one
        where = " ".join(word for word in (hop.way, "at" * bool(point), point) if word)
        words = f": {hop.words}" if hop.words else ""
        yield f"      {named.first(hop.place)}{where and ' '}{where}: {hop.source} > {hop.destination}{words}"
