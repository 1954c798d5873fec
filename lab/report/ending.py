# SPDX-License-Identifier: MIT
"""How a trial ended, for a terminal: its packet, its sockets, its questions, and what was counted."""

from __future__ import annotations

from rich.text import Text

from lab.evidence.timeline import (
    ConnectionTimeline,
    DatagramsTimeline,
    Exchange,
    Injected,
    PacketTimeline,
    RetryingTimeline,
    SocketEnd,
    Timeline,
)
from lab.tones import FINE, OOPS
from lab.verdict.packet import is_uninserted, lost_where
from lab.verdict.retrying import cost


def ending(timeline: Timeline) -> list[Text]:
    """Return a line for each end of a connection or question, and what the node has left of it."""
    lines = []
    # Where sightings were left out nobody can say any more where it was seen.
    of_packet = timeline if isinstance(timeline, PacketTimeline) and not timeline.left_out else None
    if of_packet is not None and of_packet.injected and (lost := lost_where(of_packet)):
        style = OOPS if is_uninserted(of_packet) else FINE
        lines.append(Text(f"the packet did not reach {of_packet.injected.receiver}: {lost}", style))
    ends = ", ".join(map(_of_socket, timeline.ends)) if isinstance(timeline, ConnectionTimeline) else ""
    lines += [Text(words, OOPS) for words in timeline.standstill]
    if timeline.refusal is not None:
        ends = ": ".join(timeline.refused)
    if ends:
        lines.append(Text(ends, FINE if timeline.complete else OOPS))
    if isinstance(timeline, RetryingTimeline) and timeline.tries and not timeline.left_out:
        lines.append(Text(", ".join(cost(timeline))))
    if isinstance(timeline, DatagramsTimeline):
        lines += [Text(_of(exchange), FINE if exchange.answered else OOPS) for exchange in timeline.exchanges]
    counted = timeline.counters.statistics
    others = "".join(f", {count}" for count in timeline.counters.moved)
    entry = timeline.entry
    left = f"{entry.tcp_state or 'UDP'}, {entry.timeout:,} s left" if entry else "gone"
    invalid = f"INVALID by the nodes' count: {counted.get('invalid', 0)}"
    lines.append(Text(f"{invalid}{others}; conntrack entry at {timeline.node}: {left}"))
    return lines


def _of_socket(end: SocketEnd) -> str:
    """Return how a socket of a connection ended."""
    intact = "" if end.intact else " AND NOT THOSE THAT WERE SENT"
    return f"{end.host}'s socket: {end.error or 'open'}, {end.received:,} bytes received{intact}"


def _of(exchange: Exchange) -> str:
    """Return what came of a question."""
    asked = f"{exchange.client} asked {exchange.target} from port {exchange.question.source.port}"
    reached = f"reached {', '.join(exchange.reached)}" if exchange.reached else "reached no server"
    if exchange.answered:
        return f"{asked}: {reached}, answered"
    if exchange.answer is not None:
        return f"{asked}: {reached}, answered from {exchange.answer.source}, which its socket does not talk to"
    return f"{asked}: {reached}, {exchange.error or 'no answer'}"


def about(injected: Injected) -> str:
    """Return where the packet of the trial came from, and where its number lies."""
    if not injected.forged:
        return f"sent by the {injected.host}'s own stack"
    if injected.offset is None:
        return f"injected on {injected.host}'s link"
    where = "the very next byte" if injected.offset == 0 else f"{injected.offset:+,} from the next byte"
    model = "".join(
        f"; {predicted}{f' at {node}' if len(injected.predictions) > 1 else ''}"
        for node, predicted in injected.predictions.items()
    )
    window = f"{injected.receiver}'s window is {injected.window:,}"
    return f"injected: {where} that {injected.host} would send; {window}{model}"
