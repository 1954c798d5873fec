"""Timelines and tables for a terminal, made from results alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text

from lab.conntrack.witness import Judged, Judgement
from lab.result import Report, Result, Tally
from lab.timeline import Timeline
from lab.verdict import Outcome, leaked
from lab.wire.capture import Sighting
from lab.wire.follow import distance
from lab.wire.packet import ACK, FIN, RST, SYN, TCP, Packet, SocketAddress

#: The names of the cases and of the fix that the closing words speak of.
HEADLINE: Final = "beyond-window"
REGRESSION: Final = "upstream-regression"
NO_FIX: Final = "none"

_OOPS: Final = "bold red"
_QUIET: Final = "dim"
_STATE_STYLES: Final = {"invalid": _OOPS, "new": "cyan"}
_OUTCOME_STYLES: Final = {
    Outcome.DELIVERED: "green",
    Outcome.DROPPED: "green",
    Outcome.LEAKED: "yellow",
}

_WIDE: Final = 4  # columns; with more, a cell has room for a line only

_LIVES: Final = (Outcome.DROPPED, Outcome.DELIVERED)

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
        ends = (f"{end.host} {end.interface}" if end else "?" for end in (self.leaving, self.arriving))
        return " > ".join(ends)


def _crossings(sightings: Iterable[Sighting]) -> list[_Crossing]:
    """Pair the sightings of TCP packets link by link, in the order in which they were seen."""
    crossings: list[_Crossing] = []
    waiting: list[tuple[int, Sighting]] = []
    for sighting in sightings:
        if sighting.packet.protocol != TCP:
            continue
        if sighting.outgoing:
            waiting.append((len(crossings), sighting))
            crossings.append(_Crossing(sighting, None))
            continue
        # A link changes nothing: what arrives is, to the last field, what left the other end.
        match = next((item for item in waiting if item[1].packet == sighting.packet), None)
        if match is None:
            crossings.append(_Crossing(None, sighting))
        else:
            waiting.remove(match)
            crossings[match[0]] = _Crossing(match[1], sighting)
    return crossings


class _Describer:
    """Says where a number lies in the stream, and which of the figure's five packets a crossing is."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._marked: set[str] = set()
        self._leak = leaked(timeline)

    def _is_server(self, address: SocketAddress) -> bool:
        return address in (self._timeline.server_address, self._timeline.target)

    def numbers(self, packet: Packet) -> str:
        """Flags and numbers of a segment, relative to its connection's first."""
        tcp = packet.tcp
        assert tcp is not None
        names = self._timeline.first_numbers
        own, other = (
            (self._timeline.server, self._timeline.client)
            if self._is_server(packet.source)
            else (self._timeline.client, self._timeline.server)
        )
        sequence = distance(names[own], tcp.sequence) if own in names else tcp.sequence
        words = [tcp.flag_names, f"seq {sequence}"]
        if packet.payload_length:
            words.append(f"len {packet.payload_length}")
        if tcp.flags & ACK:
            acknowledgement = distance(names[other], tcp.acknowledgement) if other in names else tcp.acknowledgement
            words.append(f"ack {acknowledgement}")
        return " ".join(words)

    def mark(self, crossing: _Crossing) -> str:
        """Return the figure's number for a crossing, empty for packets that it does not show."""
        timeline, packet = self._timeline, crossing.sighting.packet
        injected = timeline.injected
        number = ""
        if self._leak is not None and injected is not None and packet.likeness == injected.packet.likeness:
            number = "(4)" if crossing.arriving == self._leak else "(3)"
        elif packet.tcp is not None and packet.tcp.flags & RST and packet.source == timeline.client_address:
            number = "(5)"
        elif packet.source == timeline.client_address and packet.payload_length:
            number = "(1)" if packet.destination == timeline.target else "(2)"
        if number in self._marked:
            return ""
        self._marked.add(number)
        return number


def timeline_lines(timeline: Timeline) -> list[Text]:
    """Draw a timeline: every TCP packet on every link, what conntrack said, and how the sockets ended."""
    describer = _Describer(timeline)
    crossings = _crossings(timeline.sightings)
    if not crossings:
        return [Text("no packet was seen")]
    start = crossings[0].sighting.time
    places = max(len(crossing.place) for crossing in crossings)
    addresses = max(len(_route(crossing.sighting.packet)) for crossing in crossings)
    judged = list(timeline.judged)
    changes = [
        event.entry.tcp_state
        for event in timeline.entry_events
        if event.entry.protocol == TCP and event.entry.tcp_state and event.kind != "destroy"
    ]
    leak = leaked(timeline)
    lines = []
    for crossing in crossings:
        packet = crossing.sighting.packet
        injected = timeline.injected
        judged_one = injected is not None and packet.likeness == injected.packet.likeness
        line = Text()
        line.append(f"{(crossing.sighting.time - start) / 1e6:8.3f} ms  ", _QUIET)
        line.append(f"{crossing.place:{places}}  ")
        is_leak = leak is not None and crossing.arriving == leak
        line.append(f"{_route(packet):{addresses}}  ", _OOPS if is_leak else "")
        line.append(describer.numbers(packet), "bold" if judged_one else "")
        note = None
        if crossing.arriving is not None:
            note = _take(judged, crossing.arriving)
        if note is not None:
            line.append("  ")
            line.append(note.state.upper(), _STATE_STYLES.get(note.state, "green"))
            tracked = note.state != "invalid" and note.host == timeline.node
            state = _change(changes, packet) if tracked else None
            if state:
                line.append(f", entry {state}", "cyan")
        if number := describer.mark(crossing):
            line.append(f"  {number}", "bold magenta")
        lines.append(line)
        indent = " " * 13
        if judged_one and injected is not None and crossing.sighting.host == injected.host:
            lines.append(Text(f"{indent}{_offset(timeline)}", "bold"))
        if note is not None and note.reason:
            lines.append(Text(f"{indent}kernel: {note.reason}", _OOPS if note.state == "invalid" else "yellow"))
        if is_leak:
            lines.append(Text(f"{indent}OOPS: from the pod's address; the client only knows {timeline.target}", _OOPS))
        if (number == "(5)" and crossing.arriving is not None) or (
            packet.tcp is not None and packet.tcp.flags & RST and crossing.arriving is not None
        ):
            lines += _socket_line(timeline, crossing, indent)
    lines += _ending(timeline)
    return lines


def _offset(timeline: Timeline) -> str:
    injected = timeline.injected
    assert injected is not None
    if not injected.forged:
        return f"sent by the {injected.host}'s own stack"
    where = "the very next byte" if injected.offset == 0 else f"{injected.offset:+,} from the next byte"
    model = f"; {injected.predicted}" if injected.predicted else ""
    return (
        f"injected: {where} that {injected.host} would send; {injected.receiver}'s window is {injected.window:,}{model}"
    )


def _socket_line(timeline: Timeline, crossing: _Crossing, indent: str) -> list[Text]:
    arriving = crossing.arriving
    assert arriving is not None
    end = timeline.end_of(arriving.host)
    if end is None or end.error is None:
        return []
    return [Text(f"{indent}{arriving.host}'s socket: {end.error}", _OOPS)]


def _ending(timeline: Timeline) -> list[Text]:
    lines = []
    injected = timeline.injected
    if injected is not None:
        arrived = any(
            sighting.host == injected.receiver and sighting.packet.likeness == injected.packet.likeness
            for sighting in timeline.sightings
        )
        if not arrived:
            dropped = timeline.counters.dropped
            how = f": rules for INVALID packets dropped {dropped}" if dropped else ""
            lines.append(Text(f"the packet did not reach {injected.receiver}{how}", "green"))
    ends = ", ".join(
        f"{end.host}'s socket: {end.error or 'open'}, {end.received:,} bytes received"
        + ("" if end.intact else " AND NOT THOSE THAT WERE SENT")
        for end in timeline.ends
    )
    lines.append(Text(ends, "green" if timeline.complete else _OOPS))
    invalid = timeline.counters.statistics.get("invalid", 0)
    entry = timeline.entry
    left = f"{entry.tcp_state}, {entry.timeout:,} s left" if entry else "gone"
    lines.append(Text(f"INVALID by the nodes' count: {invalid}; conntrack entry at {timeline.node}: {left}"))
    return lines


def _route(packet: Packet) -> str:
    return f"{packet.source} > {packet.destination}"


def _take(judged: list[Judged], arriving: Sighting) -> Judged | None:
    """Take the judgement of a packet where it arrived out of those that are left: the same packet may come twice."""
    for index, note in enumerate(judged):
        if note.host == arriving.host and note.packet == arriving.packet:
            return judged.pop(index)
    return None


def _change(changes: list[str], packet: Packet) -> str | None:
    """Take the entry's next change if this packet is one that brings it about: events come in the packets' order."""
    assert packet.tcp is not None
    if changes:
        cause = _CAUSES.get(changes[0], 0)
        if cause and packet.tcp.flags & (SYN | ACK if cause == SYN else cause) == cause:
            return changes.pop(0)
    return None


def timeline_text(timeline: Timeline) -> str:
    """Return a timeline as plain text."""
    return "\n".join(line.plain.rstrip() for line in timeline_lines(timeline))


def heading(result: Result) -> Text:
    """Return the line above a timeline: what was tried, and what became of it."""
    text = Text(f"{result.trial.case}, fix {result.trial.fix}: ", "bold")
    text.append(result.verdict.outcome, _OUTCOME_STYLES.get(result.verdict.outcome, _OOPS))
    return text


def table(tallies: Sequence[Tally]) -> Table:
    """Return the table of verdicts, case by fix, with what decided each: in a line of its own while columns are few."""
    fixes = list(dict.fromkeys(tally.trial.fix for tally in tallies))
    cases = list(dict.fromkeys(tally.trial.case for tally in tallies))
    cells = {(tally.trial.case, tally.trial.fix): tally for tally in tallies}
    brief = len(fixes) > _WIDE
    drawn = Table(show_lines=not brief, highlight=False)
    drawn.add_column("case", no_wrap=True)
    for fix in fixes:
        drawn.add_column(fix if brief else f"fix: {fix}", overflow="fold")
    for case in cases:
        drawn.add_row(case, *(_cell(cells.get((case, fix)), brief=brief) for fix in fixes))
    return drawn


def _cell(tally: Tally | None, *, brief: bool) -> Text:
    if tally is None:
        return Text("-")
    text = Text()
    result = tally.sample
    if result is not None:
        outcome = result.verdict.outcome
        text.append(outcome, _OUTCOME_STYLES.get(outcome, _OOPS))
        if tally.runs > 1:
            text.append(f", {tally.as_expected} of {tally.runs} as expected", "" if tally.good else _OOPS)
        text.append(f", {result.verdict.judgement}" if brief else f"\n{result.verdict.decided_by}", _QUIET)
        if not result.as_expected:
            expected = result.expected
            text.append(f"\nNOT AS EXPECTED: {expected.judgement}, {expected.outcome}", _OOPS)
            for disagreement in result.verdict.disagreements:
                text.append(f"\n{disagreement}", _OOPS)
    if tally.failure:
        text.append("\nthen NOT RUN" if result else "NOT RUN", _OOPS)
    return text


def conclusion(report: Report) -> list[Text]:
    """Say what the trials mean, in a sentence or three for someone whose cluster is broken."""
    lines = []
    headline = {tally.trial.fix: tally for tally in report.tallies if tally.trial.case == HEADLINE and tally.sample}
    outcomes = {fix: tally.sample.verdict.outcome for fix, tally in headline.items() if tally.sample}
    if NO_FIX in outcomes:
        trial = headline[NO_FIX].trial
        node = f"on Linux {report.kernel}, a node of kube-proxy {trial.proxy_version} in {trial.proxy_mode} mode"
        if outcomes[NO_FIX] is Outcome.RESET:
            helps = [fix for fix, outcome in outcomes.items() if outcome in _LIVES]
            if helps:
                cure = f"{' or '.join(helps)} prevents it"
            else:
                cure = "no fix that was tried prevents it" if len(outcomes) > 1 else "no fix was tried"
            lines.append(Text(f"AFFECTED: {node} lets one packet reset a healthy connection; {cure}.", _OOPS))
        elif outcomes[NO_FIX] in _LIVES:
            lines.append(Text(f"NOT AFFECTED: {node} keeps the connection alive.", "bold green"))
    for tally in report.tallies:
        if tally.trial.case == REGRESSION and tally.trial.fix == NO_FIX and tally.sample is not None:
            lines.append(_on_regression(tally.sample))
    for failure in dict.fromkeys(tally.failure for tally in report.tallies if tally.failure):
        cells = [f"{tally.trial.case} with {tally.trial.fix}" for tally in report.tallies if tally.failure == failure]
        lines.append(Text(f"not run: {', '.join(cells)}: {failure}", _OOPS))
    if not report.good:
        bad = sum(not tally.good for tally in report.tallies)
        lines.append(
            Text(
                f"{bad} of {len(report.tallies)} trials did not give what this kernel is expected to give.",
                _OOPS,
            )
        )
    return lines


def _on_regression(result: Result) -> Text:
    packet = "Kubernetes' own regression packet (100,000 bytes behind)"
    judgement = result.verdict.judgement
    if judgement is Judgement.INVALID:
        return Text(f"{packet} is INVALID on this kernel, so upstream's test means what it says here.")
    return Text(
        f"{packet} is not INVALID on this kernel but {judgement}: let through and translated."
        " So upstream's test passes here with every fix off, and proves nothing."
    )
