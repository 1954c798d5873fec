# SPDX-License-Identifier: MIT
"""What conntrack's listings and events say of a connection that a capture has: whether its entry was gone, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from lab.capture.explanation import Explained, Finding
from lab.capture.listing import Listed
from lab.capture.naming import Naming
from lab.capture.saying import UNSURE
from lab.capture.text import Text
from lab.evidence.packet import Ends
from lab.verdict import Outcome

_ANSWERED: Final = (Outcome.CONNECTED, Outcome.DELIVERED, Outcome.RESET, Outcome.LEAKED)
_LIVES: Final = ("ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT")  # states in which packets are yet to come
_LEAST: Final = 30  # s; less than any timeout that data without an acknowledgement brings
_DAY: Final = 86_400  # s; what is further apart has no date, or is of another time

_Line: TypeAlias = tuple[str, Listed]


class Entries:
    """The lines of texts that are about TCP's entries, by client and whom it asked."""

    def __init__(self, texts: Iterable[Text], named: Naming) -> None:
        self._named = named
        self._there: dict[Ends, list[_Line]] = defaultdict(list)
        self._events: dict[Ends, list[_Line]] = defaultdict(list)
        self._listings: dict[str, None] = {}
        self._logs: dict[str, None] = {}
        for text in texts:
            for entry in text.entries:
                if entry.protocol == "tcp":
                    (self._events if entry.event else self._there)[entry.original].append((text.name, entry))
                    (self._logs if entry.event else self._listings).setdefault(text.name)

    def join(self, one: Explained) -> Explained:
        """Return a connection with what the lines say of its entry."""
        if one.protocol != "TCP" or not (self._listings or self._logs):
            return one
        gone = next((found for found in one.findings if found.kind == "leak" and found.packets), None)
        life = self._life(one)
        entry = " ".join((*self._of_listing(one, gone), *self._of_events(life, gone)))
        if gone is None or not life:
            return replace(one, entry=entry)
        told = _told_by(life, gone)
        return replace(one, entry=entry, findings=tuple(told if found is gone else found for found in one.findings))

    def _life(self, one: Explained) -> Sequence[_Line]:
        """Return the events of a connection's entries, without those of others of the same addresses and ports."""
        lives: list[list[_Line]] = []
        for line in self._events.get((one.client, one.target), ()):
            if not lives or (line[1].event == "NEW" and line[1].state == "SYN_SENT"):
                lives.append([])
            lives[-1].append(line)
        if one.asked is None or any(entry.time is None for life in lives for _name, entry in life):
            return [line for life in lives for line in life]
        at = one.asked / 1e9
        return min(lives, key=lambda life: abs((life[0][1].time or 0) - at), default=[])

    def _of_listing(self, one: Explained, gone: Finding | None) -> Iterator[str]:
        there = self._there.get((one.client, one.target), ())
        for name, entry in there[-1:]:
            flags = ", ".join(sorted(entry.flags - {"USERSPACE"}))
            left = f", {entry.timeout:,} s left" if entry.timeout is not None else ""
            words = f"Its entry ({name}, line {entry.line}): {entry.state or 'no state'}{left}"
            yield f"{words}{f', {flags}' if flags else ''}, answered by {entry.endpoint}."
            if one.endpoint is not None and entry.endpoint != one.endpoint:
                yield (
                    f"That contradicts the capture, in which {one.endpoint} answers: it is another one's entry, made"
                    " before or afterwards."
                )
            elif "UNREPLIED" in entry.flags and one.outcome in _ANSWERED:
                yield "It has seen no answer, and the capture has: that one was made anew, or answers go another way."
            elif gone is not None:
                packet = self._named.packet(gone.packets[0])
                yield f"So it was there when it was listed, and not for {packet}: it was gone before, or is a new one."
        if self._listings and not there and one.findings:
            fits = "; that fits a packet that finds none" if gone is not None else ""
            yield f"{_of(self._listings)} no entry of it: it was gone when they were listed, or not begun{fits}."
        answer = self._there.get((one.endpoint or one.target, one.client), ()) if one.endpoint else ()
        for name, entry in answer[-1:]:
            if entry.original != entry.reply[::-1] or "UNREPLIED" in entry.flags:
                yield (
                    f"An answer of {entry.original[0]} has begun an entry ({name}, line {entry.line}): it found none,"
                    " and went out untranslated."
                )

    def _of_events(self, events: Sequence[_Line], gone: Finding | None) -> Iterator[str]:
        if not events:
            if self._logs and gone is not None:
                yield f"{_of(self._logs)} no event of its entry."
            return
        yield f"By the events ({events[0][0]}) its entry was {', '.join(_story(events))}."
        if gone is None:
            for name, entry in _destroyed(events):
                yield (
                    f"It went while the connection lived ({name}, line {entry.line}); the capture has no packet behind"
                    " that which was left untranslated."
                )
            return
        yield from self._explains(events, gone)

    def _explains(self, events: Sequence[_Line], gone: Finding) -> Iterator[str]:
        """Yield whether events tell why a packet found no entry."""
        packet, at = self._named.packet(gone.packets[0]), gone.packets[0].time / 1e9
        ended = [entry for _name, entry in events if entry.event == "DESTROY"]
        if not ended:
            yield (
                f"They have no end of it, and yet {packet} was not translated: they end before, or conntrack did not"
                " like the packet."
            )
            return
        times = [entry.time for _name, entry in events if entry.time is not None]
        if len(times) < len(events):
            yield (
                f"That explains {packet}, if it was before it: events without times do not tell (`conntrack -E -o"
                " timestamp` does)."
            )
        elif abs(times[0] - at) > _DAY:
            yield f"Their times are of another day than {packet}: whether that was before it is not told."
        else:
            yield _by_time(events, packet, at)


def _by_time(events: Sequence[_Line], packet: str, at: float) -> str:
    """Return what the last event before a packet says of it; all events have a time."""
    before = [entry for _name, entry in events if (entry.time or 0) <= at]
    last = before[-1] if before else None
    clocks = "the clocks of both differ, or there is another reason"
    if last is not None and last.event == "DESTROY":
        passed = at - (last.time or 0)
        return f"The end in line {last.line} was {passed:.3f} s before {packet}: so it found no entry."
    if last is None:
        ended = next(entry for _name, entry in events if entry.event == "DESTROY")
        return f"The end in line {ended.line} was after {packet}, by its time: {clocks}."
    return f"At {packet} it was there, by their times (line {last.line}): {clocks}."


def _story(events: Sequence[_Line]) -> Iterator[str]:
    """Yield what became of an entry, in words, one after the other."""
    for number, (_name, entry) in enumerate(events):
        if entry.event == "DESTROY":
            yield f"{_end(events[: number + 1]) or 'gone (expired, or deleted)'} in line {entry.line}"
        elif entry.event == "NEW":
            yield f"made in {entry.state or 'no state'}"
        elif entry.state:  # or a flag of it has changed, and nothing else
            yield entry.state


def _end(events: Sequence[_Line]) -> str:
    """Return how an entry ended by its last event, in words; empty where that is not told.

    Kernels that tell the state of what ended tell the time that was left as well, unless that is 0
    (ctnetlink_conntrack_event); others tell neither.
    """
    last = events[-1][1]
    if last.program or "USERSPACE" in last.flags:
        return f"deleted by a program{f' ({last.program})' if last.program else ''}"
    if last.timeout:
        is_over = next((one.state for _name, one in reversed(events) if one.state), "") not in _LIVES
        return f"{'deleted, or gone for a new SYN,' if is_over else 'deleted'} with {last.timeout:,} s left"
    before = next((one for _name, one in reversed(events[:-1]) if one.timeout is not None), None)
    lives = None if before is None else before.timeout
    if last.state:
        return f"expired{'' if lives is None else f' (its timeout was {lives:,} s)'}"
    if before is None or lives is None or before.time is None or last.time is None:
        return ""
    passed = last.time - before.time
    return f"deleted ({passed:.3f} s after its timeout was {lives:,} s)" if passed < min(lives, _LEAST) else ""


def _told_by(events: Sequence[_Line], gone: Finding) -> Finding:
    """Return what is told of a packet that found no entry with how that ended, where events say so."""
    at = gone.packets[0].time / 1e9
    before = [line for line in events if line[1].time is not None and line[1].time <= at]
    if not before or before[-1][1].event != "DESTROY" or at - (before[-1][1].time or 0) > _DAY:
        return gone
    how = _end(before)
    if not how or UNSURE not in gone.words:
        return gone
    case = "entry-expired" if how.startswith("expired") and gone.case == "entry-deleted" else gone.case
    return replace(gone, words=gone.words.replace(UNSURE, f"its entry was {how}, by the events"), case=case)


def _destroyed(events: Sequence[_Line]) -> Iterator[_Line]:
    """Yield the ends of entries whose connections lived, by their states."""
    state = ""
    for name, entry in events:
        state = entry.state or state
        if entry.event == "DESTROY" and state in _LIVES:
            yield name, entry


def _of(files: Iterable[str]) -> str:
    names = list(files)
    return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'}"
