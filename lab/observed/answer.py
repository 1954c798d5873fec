# SPDX-License-Identifier: MIT
"""Whether a node suffers from the bug, how often and towards whom, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lab.observed.tally import OTHERS, Answer, Pair, Tally

_SHOWN: Final = 10


def answered(tally: Tally, seconds: float) -> Iterator[str]:
    """Yield the answer, first of all in one line."""
    seen = f"in {duration(seconds)}, on {many(tally.connections, 'connection')} to Services"
    leaks, resets = tally.total("leaks"), tally.total("resets")
    if tally.answer is Answer.SUFFERS:
        by_node = f" (the node's own: {count:,})" if (count := tally.total("by_node")) else ""
        yield (
            f"SUFFERS: {seen}, {many(leaks, 'packet')} left untranslated and {many(resets, 'RST')} answered such"
            f" packets{by_node}: {many(tally.total('connections'), 'connection')} affected."
        )
    elif tally.answer is Answer.NO:
        yield f"NONE: {seen}, no packet left untranslated."
    elif not tally.connections:
        yield f"NOT KNOWN: in {duration(seconds)} no packet of a connection through a Service was seen."
    else:
        yield f"NOT KNOWN: {seen}, no packet was seen to leave untranslated, and not everything could be looked at."
    if gone := tally.total("gone"):
        yield f"{many(gone, 'leak')} of a connection whose entry was gone, which no fix of INVALID packets helps."
    yield from _missed(tally)
    if late := tally.total("late"):
        yield f"{late:,} more of connections that were over already, which does no harm."
    affected = sorted((item for item in tally.pairs.items() if _weight(item[1])), key=lambda item: -_weight(item[1]))
    for (target, endpoint), pair in affected[:_SHOWN]:
        yield f"  {_pair(target, endpoint, pair)}"
    if len(affected) > _SHOWN:
        yield f"  and {len(affected) - _SHOWN} more"


def _missed(tally: Tally) -> Iterator[str]:
    missed = tally.missed
    if missed.packets:
        yield f"Missed: {many(missed.packets, 'packet')} that the kernel could not hand over."
    if missed.data:
        yield f"Not looked at: {many(missed.data, 'packet')} of data; leaks are looked for apart from them."
    if missed.events:
        yield f"Missed: what conntrack told, {many(missed.events, 'time')}; its table was read anew."
    if missed.connections:
        yield f"Missed: {many(missed.connections, 'connection')} given up for memory."


def _weight(pair: Pair) -> int:
    return pair.leaks + pair.resets


def _pair(target: str, endpoint: str, pair: Pair) -> str:
    service = "other Services" if target == OTHERS else f"{target} = {endpoint}"
    clients = ", ".join(f"{client} ({count:,})" for client, count in pair.clients.most_common(_SHOWN))
    more = f" and {len(pair.clients) - _SHOWN} more" if len(pair.clients) > _SHOWN else ""
    return f"{service}: {many(pair.leaks, 'leak')}, {many(pair.resets, 'reset')}, towards {clients}{more}"


def duration(seconds: float) -> str:
    """Return a time in words, such as ``10 min`` or ``2.5 s``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def many(count: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
