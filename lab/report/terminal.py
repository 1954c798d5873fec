"""Timelines and tables for a terminal, made from results alone."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lab.evidence.follow import distance
from lab.evidence.judgement import Judged
from lab.evidence.packet import ACK, FIN, ICMP, RST, SYN, TCP, UDP, Packet
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import (
    ConnectionTimeline,
    DownloadsTimeline,
    PacketTimeline,
    Timeline,
)
from lab.report.downloads import load_lines
from lab.report.ending import about, ending
from lab.report.tone import style_of
from lab.results.places import names
from lab.results.result import Result, Tally
from lab.verdict.packet import leaked

_OOPS: Final = "bold red"
_QUIET: Final = "dim"
_INDENT: Final = " " * 13  # below the times
_STATE_STYLES: Final = {"invalid": _OOPS, "new": "cyan"}

_WIDE: Final = 4  # fixes; with more, a cell has room for two words only
_BRIEF: Final = 11  # columns of a fix's name that can be broken

# Which packets bring an entry into which state (net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks).
_CAUSES: Final = {
    "SYN_SENT": SYN,
    "SYN_RECV": SYN | ACK,
    "ESTABLISHED": ACK,
    "FIN_WAIT": FIN,
    "CLOSE_WAIT": ACK,
    "LAST_ACK": FIN,
    "TIME_WAIT": ACK,
    "CLOSE": RST,
}


@dataclass(frozen=True)
class _Crossing:
    """One packet on one link: leaving one interface, and arriving at the other unless it was lost between."""

    leaving: Sighting | None
    arriving: Sighting | None

    @property
    def sighting(self) -> Sighting:
        seen = self.leaving or self.arriving
        assert seen is not None
        return seen

    @property
    def place(self) -> str:
        if self.arriving and self.arriving.interface == LOCAL:
            return f"{self.arriving.host} > {LOCAL}"
        ends = (f"{end.host} {end.interface}" if end else "?" for end in (self.leaving, self.arriving))
        return " > ".join(ends)


def _crossings(sightings: Iterable[Sighting]) -> list[_Crossing]:
    """Pair the sightings of segments, datagrams and ICMP errors link by link, in the order in which they were seen."""
    crossings: list[_Crossing] = []
    waiting: list[tuple[int, Sighting]] = []
    for sighting in sightings:
        if not _is_drawn(sighting.packet):
            continue
        if sighting.outgoing:
            waiting.append((len(crossings), sighting))
            crossings.append(_Crossing(sighting, None))
            continue
        # A link changes nothing: what arrives is, to the last field, what left the other end. A socket is on no link.
        on_link = sighting.interface != LOCAL
        match = next((item for item in waiting if item[1].packet == sighting.packet), None) if on_link else None
        if match is None:
            crossings.append(_Crossing(None, sighting))
        else:
            waiting.remove(match)
            crossings[match[0]] = _Crossing(match[1], sighting)
    return crossings


def _is_drawn(packet: Packet) -> bool:
    is_error = packet.icmp is not None and packet.icmp.quoted is not None
    return packet.tcp is not None or is_error or (packet.protocol == UDP and not packet.is_barrier)


class _Drawing:
    """Draws one timeline, crossing by crossing, and remembers what it has told already."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._crossings = _crossings(timeline.sightings)
        self._start = self._crossings[0].sighting.time if self._crossings else 0
        self._places = max((len(crossing.place) for crossing in self._crossings), default=0)
        self._routes = max((len(_route(crossing.sighting.packet)) for crossing in self._crossings), default=0)
        of_packet = timeline if isinstance(timeline, PacketTimeline) else None
        self._injected = of_packet.injected if of_packet else None
        self._leak = leaked(of_packet) if of_packet else None
        self._first = of_packet.first_numbers if of_packet else {}
        self._judged = list(timeline.judged)
        self._changes = [
            event.entry.tcp_state
            for event in timeline.entry_events
            if event.entry.protocol == TCP and event.entry.tcp_state and event.kind != "destroy"
        ]
        self._marked: set[str] = set()
        # Each connection's own, by the client's port: there may be several, one after the other.
        self._firsts: dict[int, dict[str, int]] = {}
        for crossing in self._crossings:
            packet = crossing.sighting.packet
            if packet.tcp is not None and packet.tcp.flags & SYN:
                of_client = packet.source not in (timeline.server_address, timeline.target)
                port = (packet.source if of_client else packet.destination).port
                side = timeline.client if of_client else timeline.server
                self._firsts.setdefault(port, {}).setdefault(side, packet.tcp.sequence)

    def lines(self) -> Iterator[Text]:
        """Draw every packet on every link, with what is to be said about it below."""
        for crossing in self._crossings:
            note = _take(self._judged, crossing.arriving) if crossing.arriving else None
            yield self._line(crossing, note)
            for remark, style in self._remarks(crossing, note):
                yield Text(f"{_INDENT}{remark}", style)

    def _line(self, crossing: _Crossing, note: Judged | None) -> Text:
        packet = crossing.sighting.packet
        line = Text()
        line.append(f"{(crossing.sighting.time - self._start) / 1e6:8.3f} ms  ", _QUIET)
        line.append(f"{crossing.place:{self._places}}  ")
        line.append(f"{_route(packet):{self._routes}}  ", _OOPS if self._is_leak(crossing) else "")
        line.append(self._numbers(packet), "bold" if self._is_injected(packet) else "")
        if note is not None:
            line.append("  ")
            line.append(note.state.upper(), _STATE_STYLES.get(note.state, "green"))
            if state := self._change(note):
                line.append(f", entry {state}", "cyan")
        if number := self._mark(crossing):
            line.append(f"  {number}", "bold magenta")
        return line

    def _remarks(self, crossing: _Crossing, note: Judged | None) -> Iterator[tuple[str, str]]:
        timeline, packet, arriving = self._timeline, crossing.sighting.packet, crossing.arriving
        injected = self._injected
        if injected is not None and self._is_injected(packet) and crossing.sighting.host == injected.host:
            yield about(injected), "bold"
        if note is not None and note.reason:
            yield f"kernel: {note.reason}", _OOPS if note.state == "invalid" else "yellow"
        if arriving is not None and self._is_leak(crossing):
            knows = f"from the pod's address; the client only knows {timeline.target}"
            strange = f"not translated; {arriving.host} has no such connection"
            yield f"OOPS: {knows if arriving.host == timeline.client else strange}", _OOPS
        if arriving is not None and packet.tcp is not None and packet.tcp.flags & RST and self._is_end(arriving):
            end = timeline.end_of(arriving.host) if isinstance(timeline, ConnectionTimeline) else None
            if end is not None and end.error is not None:
                yield f"{end.host}'s socket: {end.error}", _OOPS

    def _is_injected(self, packet: Packet) -> bool:
        injected = self._injected
        return injected is not None and packet.likeness == injected.packet.likeness

    def _is_end(self, arriving: Sighting) -> bool:
        """Tell whether a packet is where a socket takes it: a node's interfaces come before its translation."""
        return arriving.interface == LOCAL or arriving.host != self._timeline.node

    def _is_leak(self, crossing: _Crossing) -> bool:
        arriving, timeline = crossing.arriving, self._timeline
        if arriving is None or arriving == self._leak:
            return arriving is not None
        # Others leak as well: what comes of the injected packet later, and what is sent again.
        from_pod = arriving.packet.source == timeline.server_address != timeline.target
        return from_pod and arriving.host == timeline.client and self._is_end(arriving)

    def _numbers(self, packet: Packet) -> str:
        """Flags and numbers of a segment, relative to its connection's first; what else there is to tell of others."""
        tcp, timeline = packet.tcp, self._timeline
        if packet.protocol == UDP:
            return f"UDP len {packet.payload_length}"
        if tcp is None:
            return _error(packet)
        first = self._first_numbers(packet)
        own, other = timeline.client, timeline.server
        if packet.source in (timeline.server_address, timeline.target):
            own, other = other, own
        words = [tcp.flag_names, f"seq {distance(first[own], tcp.sequence) if own in first else tcp.sequence}"]
        if packet.payload_length:
            words.append(f"len {packet.payload_length}")
        if tcp.flags & ACK:
            number = tcp.acknowledgement
            words.append(f"ack {distance(first[other], number) if other in first else number}")
        return " ".join(words)

    def _first_numbers(self, packet: Packet) -> dict[str, int]:
        """Return both sides' initial sequence numbers of a segment's connection."""
        for port in (packet.source.port, packet.destination.port):
            if port in self._firsts:
                return self._first | self._firsts[port]
        return self._first

    def _change(self, note: Judged) -> str | None:
        """Take the entry's next change if this packet can bring it about: events come in the packets' order."""
        tcp = note.packet.tcp
        if not self._changes or note.state == "invalid" or note.host != self._timeline.node or tcp is None:
            return None
        cause = _CAUSES.get(self._changes[0], 0)
        looked_at = SYN | ACK if cause == SYN else cause
        return self._changes.pop(0) if cause and tcp.flags & looked_at == cause else None

    def _mark(self, crossing: _Crossing) -> str:
        """Return the figure's number for a crossing, empty for packets that it does not show."""
        timeline, packet = self._timeline, crossing.sighting.packet
        clients = (timeline.client_address, timeline.peer_address)
        number = ""
        if self._leak is not None and self._is_injected(packet):
            number = "(4)" if self._is_leak(crossing) else "(3)"
        elif packet.tcp is not None and packet.tcp.flags & RST and packet.source in clients:
            number = "(5)"
        elif packet.tcp is not None and packet.source == timeline.client_address and packet.payload_length:
            number = "(1)" if packet.destination == timeline.target else "(2)"
        if number in self._marked:
            return ""
        self._marked.add(number)
        return number


def _error(packet: Packet) -> str:
    message = packet.icmp
    assert message is not None
    assert message.quoted is not None
    protocol = "ICMP" if packet.protocol == ICMP else "ICMPv6"
    source, destination = message.quoted
    return f"{protocol} type {message.kind} code {message.code} about {source} > {destination}"


def timeline_lines(timeline: Timeline) -> list[Text]:
    """Draw a timeline: segments, datagrams and ICMP errors on every link, what conntrack said, how the sockets ended.

    Of downloads under load: how each ended, and what was counted.
    """
    if isinstance(timeline, DownloadsTimeline) and timeline.load is not None:
        lines = load_lines(timeline, timeline.load)
    else:
        lines = [*_Drawing(timeline).lines(), *ending(timeline)]
    disturbed = [Text(timeline.disturbed, _OOPS)] if timeline.disturbed else []
    return [*lines, *disturbed, *(Text(f"found: {finding}") for finding in timeline.findings)]


def _route(packet: Packet) -> str:
    if packet.icmp is not None:
        return f"{packet.source.address} > {packet.destination.address}"
    return f"{packet.source} > {packet.destination}"


def _take(judged: list[Judged], arriving: Sighting) -> Judged | None:
    """Take the judgement of a packet where it arrived out of those that are left: the same packet may come twice."""
    for index, note in enumerate(judged):
        if note.host == arriving.host and note.packet == arriving.packet:
            return judged.pop(index)
    return None


def timeline_text(timeline: Timeline) -> str:
    """Return a timeline as plain text."""
    return "\n".join(line.plain.rstrip() for line in timeline_lines(timeline))


def heading(result: Result) -> Text:
    """Return the line above a timeline: what was tried, and what became of it."""
    service = f", Service {result.trial.service}" if result.trial.service else ""
    text = Text(f"{result.trial.case}, fix {result.trial.fix}{service}: ", "bold")
    text.append(result.verdict.outcome, style_of(result.verdict.outcome))
    return text


def tables(tallies: Sequence[Tally], width: int) -> Iterator[Table]:
    """Yield the verdicts, case by fix: with what decided each while fixes are few, else in as few words as can be.

    :param width: of the terminal, in columns.
    """
    fixes = list(dict.fromkeys(tally.trial.fix for tally in tallies))
    if len(fixes) <= _WIDE:
        yield _table(tallies, fixes)
    else:
        yield from _brief_tables(tallies, fixes, width)


def _by_name(tallies: Sequence[Tally]) -> dict[tuple[str, str], Tally]:
    """Return what came of each case with each fix; a case that was tried in several places has a name for each."""
    named = names(tally.trial for tally in tallies)
    return {(named[tally.trial], tally.trial.fix): tally for tally in tallies}


def _table(tallies: Sequence[Tally], fixes: Sequence[str]) -> Table:
    cells = _by_name(tallies)
    drawn = Table(show_lines=True, highlight=False)
    drawn.add_column("case", no_wrap=True)
    for fix in fixes:
        drawn.add_column(f"fix: {fix}", overflow="fold")
    for case in dict.fromkeys(name for name, _fix in cells):
        drawn.add_row(case, *(_cell(cells.get((case, fix))) for fix in fixes))
    return drawn


def _brief_tables(tallies: Sequence[Tally], fixes: Sequence[str], width: int) -> Iterator[Table]:
    """Yield tables with a column for all fixes that came out alike, as many side by side as the terminal has room for.

    Conntrack's word is told once, as the first fix has it; other cells name theirs where it is another one.
    """
    cells = _by_name(tallies)
    cases = list(dict.fromkeys(name for name, _fix in cells))
    words = [_word(cells.get((case, fixes[0]))) for case in cases]
    alike: dict[tuple[str, ...], list[str]] = {}
    columns: list[list[Text]] = []
    for fix in fixes:
        column = [_cell(cells.get((case, fix)), word) for case, word in zip(cases, words, strict=True)]
        key = tuple(cell.plain for cell in column)
        if key not in alike:
            columns.append(column)
        alike.setdefault(key, []).append(fix)
    headings = [
        (Text("case"), [Text(textwrap.fill(case, width // 3)) for case in cases]),
        (Text("conntrack's\nword"), [Text(word, _QUIET) for word in words]),
    ]
    parts = list(zip((_heading(names) for names in alike.values()), columns, strict=True))
    while parts:
        taken = itertools.accumulate(map(_width, parts), initial=sum(map(_width, headings)))
        room = max(1, sum(columns <= width for columns in taken) - 1)
        drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, highlight=False)
        shown, parts = [*headings, *parts[:room]], parts[room:]
        for heading, _cells in shown:
            drawn.add_column(heading, vertical="top", no_wrap=True)
        for index in range(len(cases)):
            drawn.add_row(*(column[index] for _heading, column in shown))
        yield drawn


def _heading(fixes: Sequence[str]) -> Text:
    """Name the fixes of one column, below each other, the long ones in two lines."""
    names = (textwrap.fill(fix, _BRIEF, break_long_words=False) for fix in fixes)
    return Text(",\n".join(names))


def _width(part: tuple[Text, list[Text]]) -> int:
    heading, cells = part
    return 2 + max(len(line) for text in (heading, *cells) for line in text.plain.splitlines())


def _word(tally: Tally | None) -> str:
    """Return what conntrack made of the packet; a dash where there was nothing to judge."""
    result = tally.sample if tally else None
    return str(result.verdict.judgement or "-") if result else "-"


def _after(text: Text, tally: Tally, words: str) -> str:
    return f"{chr(10) if text else ''}{'then ' if tally.runs else ''}{words}"


def _cell(tally: Tally | None, word: str | None = None) -> Text:
    """Return what came of a trial, and what decided it.

    :param word: conntrack's, where it was told already; then only another one is told here.
    """
    if tally is None:
        return Text("-")
    text = Text()
    result = tally.sample
    if result is not None:
        outcome = result.verdict.outcome
        text.append(outcome, style_of(outcome))
        if tally.runs > 1 and not (word and tally.good):
            text.append(f", {tally.as_expected} of {tally.runs} as expected", "" if tally.good else _OOPS)
        if word is None:
            text.append(f"\n{result.verdict.decided_by}", _QUIET)
        elif _word(tally) not in ("-", word):
            text.append(f"\n{_word(tally)}", _QUIET)
        if not result.as_expected:
            expected = result.expected
            text.append(f"\nNOT AS EXPECTED: {expected.judgement or 'not judged'}, {expected.outcome}", _OOPS)
            for disagreement in result.verdict.disagreements:
                text.append(f"\n{disagreement}", _OOPS)
    if tally.failure:
        text.append(_after(text, tally, "NOT RUN"), _OOPS)
    if tally.missing:
        text.append(_after(text, tally, "not here"), "yellow")
    return text
