# SPDX-License-Identifier: MIT
"""Trials as a capture that Wireshark opens: every packet at every interface, with the lab's findings as comments.

There is a section a trial, and in it an interface block for each interface of each host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lab.evidence.packet import IcmpHeader
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Timeline
from lab.report.cells import rows
from lab.report.hops import Hop, hops
from lab.report.pcapng_blocks import LATEST, interface, packet, section
from lab.results.matrix import Column, Matrix, alone
from lab.results.places import place
from lab.results.result import Report, Result


def pcapng(matrix: Matrix) -> bytes:
    """Return the capture: a section for each trial, in the order of the table; empty where packets were not kept."""
    return b"".join(_blocks(matrix))


def without_packets(found: Report | Matrix) -> Iterator[str]:
    """Yield a sentence where trials have no packets that a capture could be made from."""
    results = [result for _column, _name, result in _results(alone(found) if isinstance(found, Report) else found)]
    empty = sum(not _captured(result.timeline) for result in results)
    left_out = any(result.timeline.left_out for result in results)
    if empty:
        why = "they were left out of the file: `--packets` would have kept them" if left_out else "none was kept"
        yield f"{empty} of {len(results)} trials come without packets: {why}"


def _results(matrix: Matrix) -> Iterator[tuple[Column, str, Result]]:
    for trial, name, cells in rows(matrix):
        for column, cell in zip(matrix.columns, cells, strict=True):
            if cell.result is not None:
                yield column, f"{name}, fix {trial.fix}", cell.result


def _captured(timeline: Timeline) -> list[Sighting]:
    """Return the packets whose bytes are there, by their times: what a socket got was at an interface before."""
    kept = [one for one in timeline.sightings if one.data and one.interface != LOCAL and 0 <= one.time < LATEST]
    return sorted(kept, key=lambda sighting: sighting.time)


def _blocks(matrix: Matrix) -> Iterator[bytes]:
    for column, name, result in _results(matrix):
        seen = _captured(result.timeline)
        verdict = result.verdict
        told = f"{name}: {verdict.outcome}: {'; '.join(verdict.because)}. {place(result.trial)}"
        if not seen:
            told += ". Its packets were not kept."
        yield section(matrix.lab, column.release, told)
        ends = list(dict.fromkeys((sighting.host, sighting.interface) for sighting in seen))
        for host, end in ends:
            yield interface(host, end, _role(result.timeline, host), column.release)
        comments = _comments(hops(result.timeline))
        for sighting in seen:
            number = ends.index((sighting.host, sighting.interface))
            words = comments.get(id(sighting)) or tuple(_of_the_lab(sighting))
            yield packet(number, sighting.time, sighting.data, outgoing=sighting.outgoing, comments=words)


def _comments(told: Iterable[Hop]) -> dict[int, tuple[str, ...]]:
    """Return what is known of each packet, by the sighting that it is told of: the last one of its link."""
    found: dict[int, tuple[str, ...]] = {}
    for hop in told:
        if hop.translation and hop.leaving is not None:
            found[id(hop.leaving)] = (hop.translation,)
        last = hop.arriving if hop.arriving is not None and hop.arriving.interface != LOCAL else hop.leaving
        words = tuple(_words(hop))
        if last is not None and words:
            found[id(last)] = (*found.get(id(last), ()), *words)
    return found


def _words(hop: Hop) -> Iterator[str]:
    if hop.number:
        yield f"{hop.number} of the report's figure: {hop.route}"
    if hop.judged is not None:
        changed = f", entry {hop.change}" if hop.change else ""
        yield f"ctstate {hop.judged.state.upper()} at {hop.judged.host}{changed}"
    yield from (note.words for note in hop.notes)
    if hop.arriving is None:
        yield "seen at no other interface"


def _of_the_lab(sighting: Sighting) -> Iterator[str]:
    packet = sighting.packet
    if packet.is_barrier:
        yield "the lab's own datagram: it proves that nothing before it is still under way"
    elif isinstance(packet.icmp, IcmpHeader) and packet.icmp.quoted is None:
        yield "no part of the trial: neighbours, or the link"


def _role(timeline: Timeline, host: str) -> str:
    roles = {timeline.client: "the client", timeline.server: "the server"}
    roles |= dict.fromkeys(timeline.bystanders, "a bystander: what comes here went astray")
    roles[timeline.node] = "the node whose conntrack is followed"
    return roles.get(host, "on the way")
