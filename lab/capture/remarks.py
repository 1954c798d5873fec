# SPDX-License-Identifier: MIT
"""What there is to tell of a text that is of no packets itself: conntrack's reasons, its entries and its counters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from lab.capture.entries import remarks as of_entries
from lab.capture.explanation import Remark
from lab.capture.kernel_log import Logged, LogLine
from lab.capture.statistics import COUNTERS, Statistics
from lab.capture.text import Text
from lab.evidence.packet import ACK, FIN, RST, SYN, SocketAddress
from lab.reasons import REASONS, Became, Reason, Release
from lab.vocabulary import Behaviour

#: Whose a packet is, in words, by its source and destination.
Owners: TypeAlias = Mapping[tuple[SocketAddress, SocketAddress], str]

_SHOWN: Final = 5  # lines of one kind
_VALID: Final = (SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, ACK)  # tcp_valid_flags, without PSH and URG


#: Which case it is, by the reason and by what the packet is (enum tcp_bit_set: 0 SYN, 1 SYN,ACK, 2 FIN, 3 ACK, 4 RST).
_BY_STATE: Final = {
    ("state-ignored", 0): "syn-from-client",
    ("state-ignored", 1): "syn-ack-again",
    ("state-ignored", 3): "port-reused-challenged",
    ("state-invalid", 0): "syn-from-server",
    ("state-invalid", 3): "asymmetric-route-clients-half",
}
_STATE: Final = re.compile(r"(?:\(index (\d)\) in dir (\d).*|ignored in) state ([A-Z_0-9]+)")
_KINDS: Final = ("SYN", "SYN,ACK", "FIN", "ACK", "RST", "packet without flags")


def remarks(
    text: Text,
    behaviour: Behaviour | None,
    seen: Mapping[Logged, str],
    owners: Owners,
    release: Release | None = None,
) -> Iterator[Remark]:
    """Yield what a text tells.

    :param behaviour: the kernel's, where it was given; None where nobody said.
    :param seen: what packets that it names are called in the captures that were given as well.
    :param owners: whose the packets are, by the listings that were given as well.
    :param release: the kernel's, where it was given.
    """
    yield from _of_log(text, behaviour, release, seen, owners)
    yield from of_entries(text.name, text.entries)
    if text.statistics.samples:
        yield from _of_statistics(text.name, text.statistics)


# --- the kernel's log -----------------------------------------------------------------------------------


def _of_log(
    text: Text,
    behaviour: Behaviour | None,
    release: Release | None,
    seen: Mapping[Logged, str],
    owners: Owners,
) -> Iterator[Remark]:
    groups: dict[object, list[LogLine]] = {}
    for line in text.log:
        key = (line.reason.name, line.wording, _of_state(line)) if line.reason else (line.by_conntrack, line.words)
        groups.setdefault(key, []).append(line)
    for lines in groups.values():
        packets = tuple(_packet(line, seen, owners) for line in lines[:_SHOWN] if line.packet is not None)
        if lines[0].by_conntrack:
            yield _of_reason(text.name, lines, behaviour, release, packets)
        else:
            yield _of_rule(text.name, lines, packets)


def _of_reason(
    file: str, lines: list[LogLine], behaviour: Behaviour | None, release: Release | None, packets: tuple[str, ...]
) -> Remark:
    reason, wording = lines[0].reason, lines[0].wording
    shown = tuple(line.line for line in lines[:_SHOWN])
    if reason is None or wording is None:
        words = f"`{lines[0].words}`: no reason of conntrack's that is known here (`lab show --reasons`)"
        return Remark(file, "reason", words, shown, len(lines), True, further=packets)
    became, words = _became(reason, wording.behaviour or behaviour)
    kind, which = _of_state(lines[0])
    further = [reason.meaning, *([which] if which else [])]
    if wording.kernels:
        further.append(f"Kernels that write it so: {wording.kernels}.")
    if (behaviour is not None and wording.behaviour not in (None, behaviour)) or (
        release is not None and not wording.is_of(release)
    ):
        given = f" ({release[0]}.{release[1]})" if release else ""
        further.append(
            f"That is not the --kernel that was given{given}, unless its distribution changed it: it is answered"
            " for the kernel that wrote it."
        )
    further += _same_words(lines)
    if not reason.cases:
        further.append(f"No case of the catalogue makes it: {reason.why_no_case}.")
    is_wrong = became != Became.IGNORED
    case = _BY_STATE.get((reason.name, kind))
    of = "" if reason.protocol == "any" else f", of {reason.protocol}"
    return Remark(
        file,
        "reason",
        f"`{lines[0].words}`{of}: {words}",
        shown,
        len(lines),
        is_wrong,
        became,
        (*further, *packets),
        (case,) if case else reason.cases,
        reason.fixes if is_wrong else (),
    )


def _became(reason: Reason, behaviour: Behaviour | None) -> tuple[str, str]:
    """Return what became of the packet, in a word and in words; no word where kernels differ in it."""
    strict, mild = reason.became[Behaviour.STRICT], reason.became[Behaviour.IGNORES_LATE]
    if behaviour is None and strict is not mild:
        return "", f"up to Linux 6.0 {strict}, from 6.1 on {mild}"
    became = reason.became[behaviour or Behaviour.IGNORES_LATE]
    return str(became), became.words


def _of_state(line: LogLine) -> tuple[int, str]:
    """Return which packet in which state it was, of a reason by the table of states: its index, and a sentence."""
    found = _STATE.search(line.words)
    if found is None:
        return -1, ""
    flags = line.packet.flags if line.packet else None
    if found[1]:
        kind = min(int(found[1]), len(_KINDS) - 1)
        side = " of the client's side" if found[2] == "0" else " of the server's side"
    elif flags is not None:
        kind = 4 if flags & RST else (1 if flags & ACK else 0) if flags & SYN else 2 if flags & FIN else 3
        side = ""
    else:
        return -1, f"Here the entry is in {found[3]}."
    return kind, f"Here it is: {_KINDS[kind]}{side}, and the entry is in {found[3]}."


def _same_words(lines: list[LogLine]) -> Iterator[str]:
    """Yield whose words they are as well, where a line does not say of which protocol it is."""
    if any(line.packet is not None for line in lines):
        return
    own = lines[0].reason
    others = [one.protocol for one in REASONS if one is not own and one.wording(lines[0].words) is not None]
    if others:
        yield f"{', '.join(dict.fromkeys(others))} have the same words: nf_ct_proto_N before them tells which it is."


def _packet(line: LogLine, seen: Mapping[Logged, str], owners: Owners) -> str:
    excess = line.excess
    by = f", out of it by {excess:,} byte{'' if excess == 1 else 's'}" if excess is not None and excess > 0 else ""
    called = seen.get(line.packet) if line.packet else None
    where = f"; it is {called}" if called else ""
    owner = owners.get((line.packet.source, line.packet.destination), "") if line.packet else ""
    return f"Line {line.line}: {line.packet}{by}{where}{owner and '; '}{owner}."


def _of_rule(file: str, lines: list[LogLine], packets: tuple[str, ...]) -> Remark:
    """Return what lines tell that a rule wrote: the packet came by that rule, and conntrack has not said a word."""
    shown = tuple(line.line for line in lines[:_SHOWN])
    prefix = lines[0].words
    named = f"with the prefix {prefix!r}" if prefix else "without a prefix"
    words = f"logged by a rule {named}: the packet came by it; what conntrack made of it, the rule's own ctstate tells"
    flags = [(line.line, line.packet.flags) for line in lines if line.packet and line.packet.flags is not None]
    odd = next((number for number, one in flags if one & (SYN | ACK | RST | FIN) not in _VALID), None)
    further = [*packets]
    if odd is not None:
        further.append(f"No stack sends the flags of line {odd} together: conntrack calls it INVALID.")
    if flags and any(line.packet and line.packet.sequence is None for line in lines):
        further.append("With --log-tcp-sequence (nft: `log flags tcp sequence`) it would have the numbers as well.")
    is_invalid = "invalid" in prefix.lower() or odd is not None
    return Remark(file, "rule", words, shown, len(lines), is_invalid, further=tuple(further))


# --- what conntrack counted -----------------------------------------------------------------------------


def _of_statistics(file: str, statistics: Statistics) -> Iterator[Remark]:
    """Yield what the counters tell: how they grew where there are two samples or more, else what they are."""
    samples = statistics.samples
    first, last = samples[0], samples[-1]
    grew = len(samples) > 1
    for name in _in_order((*first, *last)):
        count = last.get(name, 0) - (first.get(name, 0) if grew else 0)
        if not count:
            continue
        counter = COUNTERS.get(name)
        how = f"grew by {count:,}, to {last[name]:,}" if grew else f"{count:,}"
        meaning = counter.meaning if counter else "no counter that is known here"
        cases = counter.cases if counter else ()
        is_loss = counter.is_loss and count > 0 if counter else False
        yield Remark(file, "counter", f"{name} {how}: {meaning}", (statistics.line,), 1, is_loss, cases=cases)
    if not grew:
        words = "since the namespace began; two samples in one file (`conntrack -S`, twice) tell what grows"
        yield Remark(file, "counters", f"all counters are {words}", (statistics.line,), 1, False)
    elif first == last:
        yield Remark(file, "counters", "no counter has grown", (statistics.line,), 1, False)


def _in_order(names: Iterable[str]) -> Sequence[str]:
    """Return the names, those of losses first, in the table's order."""
    known = {name: place for place, name in enumerate(COUNTERS)}
    return sorted(dict.fromkeys(names), key=lambda name: known.get(name, len(known)))
