# SPDX-License-Identifier: MIT
"""What conntrack's entries tell: whom each VIP became, and which of them are out of the ordinary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from lab.capture.explanation import Remark
from lab.capture.listing import Listed
from lab.evidence.packet import SocketAddress

_SHOWN: Final = 5  # lines of one kind


def remarks(file: str, entries: Sequence[Listed]) -> Iterator[Remark]:
    """Yield what entries and their changes tell."""
    if not entries:
        return
    events = [one for one in entries if one.event]
    there = [one for one in entries if not one.event]
    if there:
        yield _counted(file, there)
    yield from _translations(file, entries)
    for kind, words, is_wrong, cases, found in (*_odd(entries, there or _last_of_each(events)), *_odd_events(events)):
        if found:
            shown = tuple(f"line {one.line}: {one}{_left(one)}" for one in found[:_SHOWN])
            lines = tuple(one.line for one in found[:_SHOWN])
            yield Remark(file, kind, words, lines, len(found), is_wrong, further=shown, cases=cases)


def _left(one: Listed) -> str:
    state = f", {one.state}" if one.state else ""
    return f"{state}, {one.timeout:,} s left" if one.timeout is not None and not one.event else state


def _counted(file: str, there: Sequence[Listed]) -> Remark:
    kinds = Counter(f"{one.protocol} {one.state}".strip() for one in there)
    words = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    entries = "1 entry" if len(there) == 1 else f"{len(there):,} entries"
    return Remark(file, "table", f"{entries}: {words}", (there[0].line,), len(there), False)


def _translations(file: str, entries: Sequence[Listed]) -> Iterator[Remark]:
    """Yield who answered whom VIPs were asked for, by the entries."""
    found: dict[tuple[str, SocketAddress], Counter[SocketAddress]] = {}
    lines: dict[tuple[str, SocketAddress], dict[int, None]] = {}
    for one in {entry.key: entry for entry in entries}.values():
        if one.endpoint != one.original[1]:
            target = (one.protocol, one.original[1])
            found.setdefault(target, Counter())[one.endpoint] += 1
            lines.setdefault(target, {})[one.line] = None
    for (protocol, asked), endpoints in found.items():
        words = ", ".join(f"{endpoint} ({count:,})" for endpoint, count in endpoints.most_common())
        shown = tuple(lines[protocol, asked])
        yield Remark(file, "translation", f"{protocol} {asked} is {words}", shown[:_SHOWN], len(shown), is_wrong=False)


def _last_of_each(events: Sequence[Listed]) -> list[Listed]:
    """Return the entries that are left at the end of the events, as their last one has them."""
    left: dict[object, Listed] = {}
    for one in events:
        left[one.key] = one
    return [one for one in left.values() if one.event != "DESTROY"]


_Odd = tuple[str, str, bool, tuple[str, ...], list[Listed]]


def _odd(entries: Sequence[Listed], there: Sequence[Listed]) -> Iterator[_Odd]:
    """Yield what is out of the ordinary among the entries that there are."""
    translated = {(one.protocol, one.original[1]) for one in entries if one.endpoint != one.original[1]}
    endpoints = {(one.protocol, one.endpoint) for one in entries if one.endpoint != one.original[1]}
    yield (
        "entry",
        (
            "not translated, though others to the same address are: made before the Service had rules, or of a packet"
            " from the middle of a connection; what follows goes to the VIP itself as long as the entry lives"
        ),
        True,
        ("syn-before-service", "udp-before-service"),
        [one for one in there if not one.is_translated and (one.protocol, one.original[1]) in translated],
    )
    yield (
        "entry",
        "begun by an endpoint's answer: its own entry was gone, so the answer went out untranslated",
        True,
        ("entry-deleted", "entry-expired"),
        [one for one in there if (one.protocol, one.original[0]) in endpoints and "UNREPLIED" in one.flags],
    )
    yield (
        "entry",
        "asked, and this node has seen no answer: the endpoint is gone, or its answer takes another way",
        True,
        ("asymmetric-route-clients-half", "endpoint-removed"),
        [one for one in there if one.state == "SYN_SENT" and "UNREPLIED" in one.flags],
    )
    yield (
        "entry",
        (
            "ESTABLISHED, and this node has seen one direction alone: picked up in the middle (nf_conntrack_tcp_loose),"
            " so nothing of it is out of the window, or its answers take another way"
        ),
        True,
        ("picked-up", "asymmetric-route"),
        [
            one
            for one in there
            if one.state == "ESTABLISHED"
            and "UNREPLIED" in one.flags
            and (one.protocol, one.original[0]) not in endpoints
        ],
    )
    yield (
        "entry",
        "datagrams to an endpoint that does not answer: where it is gone, they go on to it as long as the client sends",
        False,
        ("stale-udp-entry",),
        [one for one in there if one.protocol == "udp" and "UNREPLIED" in one.flags and one.is_translated],
    )


def _odd_events(events: Sequence[Listed]) -> Iterator[_Odd]:
    """Yield what is out of the ordinary in the lives of the entries."""
    states: dict[object, str] = {}
    deleted: list[Listed] = []
    expired: list[Listed] = []
    gone: list[Listed] = []
    picked_up: list[Listed] = []
    for one in events:
        if one.protocol == "tcp":
            if one.event == "NEW" and one.state == "ESTABLISHED" and not one.program:
                picked_up.append(one)
            state = one.state or states.get(one.key, "")
            states[one.key] = state
            if one.event == "DESTROY" and state == "ESTABLISHED":
                is_told = one.state and not one.timeout  # the time left is told where the state is, unless it is 0
                (deleted if _is_deleted(one) else expired if is_told else gone).append(one)
    yield from _ends(deleted, expired, gone)
    yield (
        "event",
        (
            "begun in the middle: the packet belonged to no entry any more, and was not translated unless it came from"
            " the client to the VIP"
        ),
        True,
        ("entry-deleted", "picked-up"),
        picked_up,
    )


def _is_deleted(one: Listed) -> bool:
    return bool(one.program) or "USERSPACE" in one.flags


def _ends(deleted: list[Listed], expired: list[Listed], gone: list[Listed]) -> Iterator[_Odd]:
    """Yield how entries ended while their connections lived; of the last ones that is not told."""
    by = ", ".join(dict.fromkeys(one.program for one in deleted if one.program))
    yield (
        "event",
        (
            f"deleted by a program{f' ({by})' if by else ''} while the connection lived: the next packet of the server"
            " goes out untranslated, and no fix helps"
        ),
        True,
        ("entry-deleted", "entry-deleted-client-first"),
        deleted,
    )
    yield (
        "event",
        (
            "expired while the connection lived, as nothing is left of its time; the next packet of the server goes out"
            " untranslated, and no fix helps"
        ),
        True,
        ("entry-expired",),
        expired,
    )
    yield (
        "event",
        (
            "gone while the connection lived: its time was over, or it was deleted, which older tools do not tell;"
            " the next packet of the server goes out untranslated, and no fix helps"
        ),
        True,
        ("entry-expired", "entry-deleted"),
        gone,
    )
