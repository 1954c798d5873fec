# SPDX-License-Identifier: MIT
"""What tcpdump prints of TCP packets, made into the capture that it was printed from, as far as the text has it.

The forms are those of tcpdump 4.9 and 4.99 (print-tcp.c): with any of -n, -t to -ttttt, -e, -v, -S and -i any. A number
is printed relative to the first of its connection that was printed with an ACK, unless -S was given; of a segment
without data no sequence number is printed, unless -vv was given.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from lab.capture.headers import checksum_of
from lab.errors import InputError
from lab.evidence.follow import distance
from lab.evidence.packet import ACK, FIN, PSH, RST, SEQUENCE_SPACE, SYN, TCP

_DAY: Final = 86400
_TIME: Final = re.compile(
    r"^(?P<since> ?)(?:(?P<date>\d{4}-\d\d-\d\d) )?"
    r"(?:(?P<clock>\d\d:\d\d:\d\d)|(?P<epoch>\d{9,11}))\.(?P<part>\d{1,9}) "
)
_POINT: Final = re.compile(r"^(?P<name>\S+) +(?P<way>In|Out|B|M|P) +")
_CORE: Final = re.compile(r"(?P<source>\S+) > (?P<destination>\S+): Flags \[(?P<flags>[^\]]*)\](?P<rest>.*)$")
_HEAD: Final = re.compile(r"^(?:(?:IP6?|ip:) (?=.* > |\()|ARP, |[0-9a-f]{2}:[0-9a-f:]+ > |ifindex \d)")
_DATAGRAM: Final = re.compile(r"\bproto UDP\b|\bnext-header UDP\b|(?:(?:\d+\.){4}|:[0-9a-f]*\.)\d+ > \S+: ")
_FLAGS: Final = {"F": FIN, "S": SYN, "R": RST, "P": PSH, ".": ACK, "U": 0x20, "E": 0x40, "W": 0x80}
_NUMBER: Final = {
    "sequence": re.compile(r"\bseq (\d+)(?::\d+)?"),
    "acknowledgement": re.compile(r"\back (\d+)"),
    "window": re.compile(r"\bwin (\d+)"),
    "length": re.compile(r"\blength (\d+)"),
}
_OPTIONS: Final = re.compile(r"\boptions \[(.*?)\](?:,|$)")
_BLOCK: Final = re.compile(r"\{(\d+):(\d+)\}")
_IDENTIFICATION: Final = re.compile(r"\(tos .*?\bid (\d+),")
_WRONG_CHECKSUM: Final = re.compile(r"\bcksum 0x([0-9a-f]{1,4}) \(incorrect\b")
_WAYS: Final = {"In": 1, "Out": 2}
_RAW: Final = 101  # LINKTYPE_RAW
_SECOND: Final = 1_000_000_000


@dataclass
class _Flow:
    """What is known of a connection's numbers, by its side: those that others are relative to, and the next ones."""

    base: dict[str, int] = field(default_factory=dict)
    next: dict[str, int] = field(default_factory=dict)
    absolute: bool | None = None


@dataclass(frozen=True)
class _Printed:
    """One packet: the bytes of its headers, when and where, and the line that it begins in."""

    line: int
    time: int
    point: str
    way: int
    data: bytes
    length: int


class Printed:
    """The packets of a text.

    :param name: the file's.
    :ivar lines: how many lines are of it, and ``other``: how many of these are of packets that are no TCP; ``udp``: of
        these, of datagrams.
    :ivar dated: whether all times have a day.
    :ivar unnumbered: the lines of packets whose sequence number is not printed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines = self.other = self.udp = 0
        self.unnumbered: list[int] = []
        self.dated = True
        self._packets: list[_Printed] = []
        self._flows: dict[frozenset[str], _Flow] = {}
        self._head: tuple[int, int, str, int, str] | None = None
        self._time = 0

    def __bool__(self) -> bool:
        return bool(self.lines)

    def take(self, text: str, number: int) -> bool:
        """Take a line into account; return whether it is tcpdump's.

        :raises InputError: it is of a TCP packet, and has names instead of numbers, or no numbers at all.
        """
        if self._head is not None and text[:1] in " \t" and (core := _CORE.search(text)):
            begun, time, point, way, before = self._head
            self._head = None
            self._add(core, time, point, way, before, begun)
            return True
        if text.startswith("\t") and self.lines and _HEAD.match(text.lstrip()):
            return True  # -v: the packet that an ICMP error quotes
        time, rest, dated = self._when(text)
        found = _POINT.match(rest)
        point, way = (found["name"], _WAYS.get(found["way"], 0)) if found else ("", 0)
        rest = rest[found.end() :] if found else rest
        if not _HEAD.match(rest):
            return False
        self.lines += 1
        self.dated &= dated
        self._time = time
        core = _CORE.search(rest)
        if core:
            self._add(core, time, point, way, rest[: core.start()], number)
        elif rest.endswith(")") and "proto TCP" in rest:
            self._head = (number, time, point, way, rest)  # -v: what more there is follows on the next line
        else:
            self.other += 1
            self.udp += _DATAGRAM.search(rest) is not None
        return True

    def _when(self, text: str) -> tuple[int, str, bool]:
        """Return the time of a line in nanoseconds, what stands behind it, and whether it has a day."""
        found = _TIME.match(text)
        if found is None:
            return self._time + 1000, text.lstrip(), False
        rest, part = text[found.end() :], int(found["part"].ljust(9, "0"))
        if found["epoch"]:
            return int(found["epoch"]) * _SECOND + part, rest, True
        hours, minutes, seconds = (int(one) for one in found["clock"].split(":"))
        time = (hours * 3600 + minutes * 60 + seconds) * _SECOND + part
        if found["date"]:
            day = datetime.fromisoformat(found["date"]).timestamp()  # as tcpdump prints it: local time
            return int(day) * _SECOND + time, rest, True
        if found["since"] and time < self._time:  # -ttt: since the one before
            time += self._time
        elif time < self._time - _DAY * _SECOND // 2:  # past midnight
            time += -(-(self._time - time) // (_DAY * _SECOND)) * _DAY * _SECOND
        return time, rest, False

    def _add(self, core: re.Match[str], time: int, point: str, way: int, before: str, number: int) -> None:
        flags = 0 if core["flags"] == "none" else sum(_FLAGS.get(letter, 0) for letter in core["flags"])
        ends = [self._end(core[side], number) for side in ("source", "destination")]
        values = {name: int(found[1]) for name, one in _NUMBER.items() if (found := one.search(core["rest"]))}
        if "length" not in values:
            raise InputError(
                "a TCP packet without its length, such as of -q", source=self.name, line=number, cure="tcpdump -n"
            )
        options = _OPTIONS.search(core["rest"])
        sequence, acknowledged, blocks = self._numbers(core, flags, values, options[1] if options else "", number)
        made = _segment(
            ends, flags, (sequence, acknowledged), values, _option_bytes(options[1] if options else "", blocks)
        )
        wrong = _WRONG_CHECKSUM.search(core["rest"])
        made = _with_checksum(ends, made, values["length"], int(wrong[1], 16) if wrong else None)
        found = _IDENTIFICATION.search(before)
        data = _in_ip(ends, made, values["length"], int(found[1]) if found else 0)
        self._packets.append(_Printed(number, time, point, way, data, len(data) + values["length"]))

    def _end(self, text: str, number: int) -> tuple[bytes, int]:
        address, _, port = text.rpartition(".")
        try:
            return ip_address(address).packed, int(port)
        except ValueError:
            raise InputError(
                f"{text[:60]!r} is no address with a port", source=self.name, line=number, cure="tcpdump -nn"
            ) from None

    def _numbers(
        self, core: re.Match[str], flags: int, values: dict[str, int], options: str, number: int
    ) -> tuple[int, int, list[tuple[int, int]]]:
        """Return both numbers and the SACK blocks as they were in the packet, and remember what others need of them."""
        source, destination = core["source"], core["destination"]
        flow = self._flows.setdefault(frozenset((source, destination)), _Flow())
        printed = values.get("sequence")
        acknowledged = values.get("acknowledgement", 0)
        blocks = [(int(left), int(right)) for left, right in _BLOCK.findall(options)]
        if flags & ACK and (flags & SYN or not flow.base):
            flow.base = {source: printed or 0, destination: acknowledged - 1}
            if printed is None:
                flow.base[source] = flow.next.get(source, 0)
        elif flags & ACK:
            if flow.absolute is None:
                near = abs(distance(flow.base[destination], acknowledged))
                flow.absolute = near < min(acknowledged, SEQUENCE_SPACE - acknowledged)
            if not flow.absolute:
                printed = None if printed is None else printed + flow.base[source]
                acknowledged += flow.base[destination]
                blocks = [(left + flow.base[destination], right + flow.base[destination]) for left, right in blocks]
        if printed is None:
            self.unnumbered.append(number)
            printed = flow.next.get(source, flow.base.get(source, 0))
        end = printed + values["length"] + bool(flags & SYN) + bool(flags & FIN)
        known = flow.next.get(source)
        if not flags & RST and (known is None or flags & SYN or 0 < distance(known, end) < 1 << 28):
            flow.next[source] = end % SEQUENCE_SPACE
        return printed % SEQUENCE_SPACE, acknowledged % SEQUENCE_SPACE, blocks

    @property
    def left_out(self) -> str:
        """Which packets are not read, in words; empty where all are."""
        others = self.other - self.udp
        kinds = [f"{self.udp:,} of UDP"] * bool(self.udp) + [f"{others:,} of others"] * bool(others)
        return " and ".join(kinds)

    @property
    def numbers(self) -> list[int]:
        """The line that each packet begins in."""
        return [one.line for one in self._packets]

    def capture(self) -> bytes:
        """Return the capture that was printed: pcap, or pcapng where interfaces are named."""
        if not any(one.point for one in self._packets):
            head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, _RAW)
            records = (
                struct.pack("<IIII", *divmod(one.time, _SECOND), len(one.data), one.length) + one.data
                for one in self._packets
            )
            return b"".join((head, *records))
        return b"".join(self._blocks())

    def _blocks(self) -> Iterator[bytes]:
        """Yield the blocks of draft-ietf-opsawg-pcapng: a section, its interfaces, its packets."""
        yield _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        points = {name: index for index, name in enumerate(dict.fromkeys(one.point for one in self._packets))}
        for name in points:
            options = _option(2, name.encode()) + _option(9, b"\x09") + bytes(4)
            yield _block(1, struct.pack("<HHI", _RAW, 0, 0) + options)
        for one in self._packets:
            numbers = (points[one.point], one.time >> 32, one.time & 0xFFFFFFFF, len(one.data), one.length)
            flags = _option(2, struct.pack("<I", one.way)) + bytes(4) if one.way else b""
            yield _block(6, struct.pack("<IIIII", *numbers) + one.data + bytes(-len(one.data) % 4) + flags)


def _segment(
    ends: list[tuple[bytes, int]], flags: int, numbers: tuple[int, int], values: dict[str, int], options: bytes
) -> bytes:
    """Return the bytes of a TCP header."""
    offset = (20 + len(options)) // 4 << 4
    window = min(values.get("window", 0), 0xFFFF)
    ports = (ends[0][1], ends[1][1])
    return struct.pack("!HHIIBBHHH", *ports, *numbers, offset, flags, window, 0, 0) + options


def _with_checksum(ends: list[tuple[bytes, int]], segment: bytes, payload: int, wrong: int | None) -> bytes:
    """Return a segment with its checksum as it was printed to be wrong, or with one of which nothing can be told.

    That is the sum of the pseudo header (RFC 9293, 3.1), as there is before a network card computes the rest.
    """
    pseudo = checksum_of(ends[0][0] + ends[1][0] + struct.pack("!II", len(segment) + payload, TCP))
    return segment[:16] + struct.pack("!H", pseudo if wrong is None else wrong) + segment[18:]


def _in_ip(ends: list[tuple[bytes, int]], segment: bytes, payload: int, identification: int) -> bytes:
    """Return the bytes of an IP packet whose payload was not printed."""
    addresses = ends[0][0] + ends[1][0]
    length = len(segment) + payload
    if len(addresses) == 32:
        return struct.pack("!IHBB", 6 << 28, min(length, 0xFFFF), TCP, 64) + addresses + segment
    total = min(20 + length, 0xFFFF)
    return struct.pack("!BBHHHBBH", 0x45, 0, total, identification, 0, 64, TCP, 0) + addresses + segment


def _option_bytes(text: str, blocks: list[tuple[int, int]]) -> bytes:
    """Return TCP's options of those that are printed and of use here; they are padded (RFC 9293, 3.1)."""
    made = b""
    for one in re.sub(r"\{[^}]*\}", "", text).split(","):
        words = one.split()
        numbers = [int(word) for word in words if word.isdigit()]
        if not words:
            continue
        if words[0] == "mss" and numbers:
            made += struct.pack("!BBH", 2, 4, numbers[0] & 0xFFFF)
        elif words[0] == "wscale" and numbers:
            made += struct.pack("!BBB", 3, 3, numbers[0] & 0xFF)
        elif words[0] == "sackOK":
            made += b"\x04\x02"
        elif words[0] == "TS" and len(numbers) == 2:
            made += struct.pack("!BBII", 8, 10, *(number % SEQUENCE_SPACE for number in numbers))
        elif words[0] == "sack" and blocks:
            edges = (edge % SEQUENCE_SPACE for block in blocks[:4] for edge in block)
            made += struct.pack(f"!BB{2 * len(blocks[:4])}I", 5, 2 + 8 * len(blocks[:4]), *edges)
    made = made[:40]
    return made + bytes(-len(made) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
