# SPDX-License-Identifier: MIT
"""Lines of the kernel's log that are about packets: conntrack's reasons, and what rules log.

As ``nf_log_syslog`` writes them (net/netfilter/nf_log_syslog.c), in the forms of dmesg, journalctl and syslog.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lab.evidence.packet import ACK, FIN, PSH, RST, SEQUENCE_SPACE, SYN, TCP, UDP, SocketAddress
from lab.reasons import Reason, Wording, find

#: What conntrack's own lines begin with: a reason, with the protocol's number, or what the core or a helper says.
_REASON: Final = re.compile(r"\bnf_ct_proto_(\d+): (.*?)(?=\s*\bIN=|\s*$)")
_HELPER: Final = re.compile(r"\b(?:(nf_ct_\w+: dropping packet: .*?)|(helper \w+ dropping packet: .*?))(?=\s*\bIN=)")
_CORE: Final = re.compile(r"\b(nf_conntrack: (?:table|expectation table) full\b.*)$")
#: Where the packet begins; what is quoted in brackets is another one.
_PACKET: Final = re.compile(r"\bIN=\S* OUT=\S* (?=.*\bSRC=\S+ DST=\S+)")
_QUOTED: Final = re.compile(r"\[SRC=.*?\] ?")
_FIELD: Final = re.compile(r"\b([A-Z]+)=(\S*)")
#: What may stand before a rule's prefix: priority, time, host and program, in any of the usual forms.
_BEFORE: Final = re.compile(
    r"^(?:<\d+>)?(?:\w+ *:\w+ *: *)?"
    r"(?:(?:\w{3} [ \d]\d [\d:.]+|\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-][\d:]+)?) \S+ kernel: ?)?(?:\[[^\]]*\] ?)?"
)
_FLAGS: Final = {"FIN": FIN, "SYN": SYN, "RST": RST, "PSH": PSH, "ACK": ACK, "URG": 0x20}
_OPTIONS: Final = re.compile(r"URGP=\d+ OPT \(([0-9A-F]*)\)")
_NUMBERS: Final = {"TCP": TCP, "UDP": UDP}
_HEADERS: Final = {4: 40, 6: 60}  # bytes of IP's and TCP's headers without options


@dataclass(frozen=True)
class Logged:
    """The packet of a line, as far as it tells.

    :param sequence: and what follows: None where the line does not say; a rule logs it with ``--log-tcp-sequence``.
    :param length: of TCP's payload, in bytes.
    """

    source: SocketAddress
    destination: SocketAddress
    protocol: str
    flags: int | None = None
    sequence: int | None = None
    acknowledgement: int | None = None
    length: int | None = None

    def __str__(self) -> str:
        ends = (self.source, self.destination)
        names = ",".join(name for name, bit in _FLAGS.items() if (self.flags or 0) & bit)
        numbers = "" if self.sequence is None else f" seq {self.sequence}"
        numbers += "" if self.acknowledgement is None or not (self.flags or 0) & ACK else f" ack {self.acknowledgement}"
        there = " > ".join(str(one) if one.port else one.address for one in ends)
        return f"{there} {names or self.protocol}{numbers}"


@dataclass(frozen=True)
class LogLine:
    """One line about a packet.

    :param words: the reason, or the prefix of the rule that logged it.
    :param reason: None where a rule logged it, or where conntrack's words are not known here.
    :param by_conntrack: whether conntrack says it, and no rule.
    :param packet: None where the line tells of none.
    """

    line: int
    words: str
    by_conntrack: bool
    reason: Reason | None = None
    wording: Wording | None = None
    packet: Logged | None = None

    @property
    def excess(self) -> int | None:
        """By how many bytes the packet is out of the window; None where the words do not tell."""
        found = re.search(r"\bbound (\d+)", self.words)
        packet = self.packet
        if found is None or packet is None or packet.sequence is None or packet.acknowledgement is None:
            return None
        bound = int(found[1])
        # The numbers are one beyond what is allowed (tcp_in_window).
        if self.words.startswith("SEQ is over"):
            return _distance(bound - 1, packet.sequence)
        if self.words.startswith("ACK is over"):
            excess = _distance(bound - 1, packet.acknowledgement)
            return excess if excess > 0 else None  # else a SACK block is it, which the log has not read out
        if self.words.startswith("SEQ is under") and packet.length is not None:
            ends = packet.sequence + packet.length + sum(bool((packet.flags or 0) & bit) for bit in (SYN, FIN))
            return _distance(ends, bound + 1)
        return None


def _distance(first: int, second: int) -> int:
    half = SEQUENCE_SPACE // 2
    return (second - first + half) % SEQUENCE_SPACE - half


def log_line(text: str, number: int) -> LogLine | None:
    """Return what a line of a log tells of a packet; None where it is about something else.

    :param number: of the line, from 1 on.
    """
    begins = _PACKET.search(text)
    packet = _packet(text[begins.start() :]) if begins else None
    if found := _REASON.search(text):
        reason, wording = find(found[2], int(found[1])) or (None, None)
        return LogLine(number, found[2].strip(), True, reason, wording, packet)
    if found := _HELPER.search(text) or _CORE.search(text):
        words = next(group for group in found.groups() if group).strip()
        reason, wording = find(words) or (None, None)
        return LogLine(number, words, True, reason, wording, packet)
    if begins and packet:
        prefix = _BEFORE.sub("", text[: begins.start()]).strip()
        return LogLine(number, prefix, False, packet=packet)
    return _bare(text, number)


def _bare(text: str, number: int) -> LogLine | None:
    """Return a reason that stands alone, as somebody copied it from a log."""
    known = find(text)
    return LogLine(number, text.strip(), True, *known) if known else None


def _packet(text: str) -> Logged | None:
    text = _QUOTED.sub("", text)
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        fields.setdefault(name, value)
    if not fields.get("SRC") or not fields.get("DST"):
        return None
    numbers = {
        name: int(fields[name]) for name in ("SPT", "DPT", "SEQ", "ACK", "LEN") if fields.get(name, "").isdigit()
    }
    source = SocketAddress(fields["SRC"], numbers.get("SPT", 0))
    destination = SocketAddress(fields["DST"], numbers.get("DPT", 0))
    protocol = fields.get("PROTO", "?")
    if protocol != "TCP":
        return Logged(source, destination, protocol)
    words = re.sub(r"\bACK=\d+", "", text).partition("DPT=")[2].split()
    flags = sum(bit for name, bit in _FLAGS.items() if name in words)
    options = _OPTIONS.search(text)
    length = None
    if "LEN" in numbers:
        headers = _HEADERS[6 if ":" in source.address else 4] + (len(options[1]) // 2 if options else 0)
        length = numbers["LEN"] - headers if numbers["LEN"] >= headers else None
    return Logged(source, destination, protocol, flags, numbers.get("SEQ"), numbers.get("ACK"), length)
