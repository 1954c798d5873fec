# SPDX-License-Identifier: MIT
"""A packet as it was seen: addresses, TCP header and options, decoded from the bytes of an IP packet.

Header formats: RFC 791, RFC 8200, RFC 9293, RFC 7323 (timestamps, window scale), RFC 2018 (SACK), RFC 768.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
SCTP: Final = 132
FRAGMENT: Final = 44  # of IPv6

#: The port of the lab's own datagrams that prove what is over: echo, RFC 862.
BARRIER_PORT: Final = 7

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_FLAG_NAMES: Final = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (0x20, "URG"))

SEQUENCE_SPACE: Final = 1 << 32
_FLAG_LETTERS: Final = "FSRPAU"  # from bit 0 on, as scapy writes them


def flags_of(letters: str) -> int:
    """Return the bits of TCP flags that are written as scapy does, such as ``SA``.

    :raises ValueError: for a letter that is none.
    """
    return sum(1 << _FLAG_LETTERS.index(letter) for letter in letters)


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An address and a port, as one end of a connection."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


#: Source and destination.
Ends: TypeAlias = tuple[SocketAddress, SocketAddress]


@dataclass(frozen=True, slots=True)
class TcpHeader:
    """The fields of a TCP header that a trial looks at.

    ``window`` is as sent, not scaled. ``timestamps`` are (TSval, TSecr). ``is_cut`` says that a capture has not all of
    the options.
    """

    sequence: int
    acknowledgement: int
    flags: int
    window: int
    window_scale: int | None = None
    sack_permitted: bool = False
    sack_blocks: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None
    is_cut: bool = False

    @property
    def flag_names(self) -> str:
        """The flags in words, such as ``SYN,ACK``."""
        return ",".join(name for bit, name in _FLAG_NAMES if self.flags & bit) or "none"


@dataclass(frozen=True, slots=True)
class IcmpHeader:
    """Type and code of an ICMP message, and for an error whose packet it is about.

    :param quoted: source and destination of the packet that caused an error (RFC 792; RFC 4443, 3), None for others.
    """

    kind: int
    code: int
    quoted: tuple[SocketAddress, SocketAddress] | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet. ``tcp`` is None for other protocols; ports are 0 where the protocol has none."""

    source: SocketAddress
    destination: SocketAddress
    protocol: int
    identification: int
    payload_length: int
    tcp: TcpHeader | None = None
    icmp: IcmpHeader | None = None

    def __str__(self) -> str:
        flags = f" {self.tcp.flag_names}" if self.tcp else ""
        return f"{self.source} > {self.destination}{flags}"

    @property
    def is_barrier(self) -> bool:
        """True for the lab's own datagrams."""
        return self.protocol == UDP and BARRIER_PORT in (self.source.port, self.destination.port)

    @property
    def end(self) -> int:
        """The sequence number after the segment: SYN and FIN count one each (RFC 9293, 3.4)."""
        assert self.tcp is not None
        length = self.payload_length + bool(self.tcp.flags & SYN) + bool(self.tcp.flags & FIN)
        return (self.tcp.sequence + length) % SEQUENCE_SPACE

    @property
    def likeness(self) -> tuple[object, ...]:
        """What address translation leaves as it is: two sightings of one packet agree in it."""
        message = self.icmp and (self.icmp.kind, self.icmp.code)
        return (self.protocol, self.identification, self.payload_length, self.tcp, message)


def decode(data: bytes | memoryview) -> Packet | None:
    """Decode an IP packet; None where it is none, is a later fragment, or is cut within its headers."""
    try:
        if data[0] >> 4 == 4:
            return _decode_ipv4(data)
        if data[0] >> 4 == 6:
            return _decode_ipv6(data)
    except (struct.error, IndexError):
        pass
    return None


@lru_cache(1024)
def decoded(data: bytes) -> Packet | None:
    """Decode a packet of which the kernel tells many times, at each rule that it meets: as :func:`decode` does."""
    return decode(data)


@lru_cache(4096)
def _address(packed: bytes) -> str:
    return str(ip_address(packed))


def _decode_ipv4(data: bytes | memoryview) -> Packet | None:
    header_length = (data[0] & 0x0F) * 4
    total, identification, fragment = struct.unpack_from("!HHH", data, 2)
    if fragment & 0x1FFF:
        return None
    source, destination = struct.unpack_from("!4s4s", data, 12)
    return _decode_transport(
        data,
        header_length,
        total,
        data[9],
        identification,
        _address(source),
        _address(destination),
    )


def _decode_ipv6(data: bytes | memoryview) -> Packet | None:
    (payload,) = struct.unpack_from("!H", data, 4)
    source, destination = struct.unpack_from("!16s16s", data, 8)
    return _decode_transport(data, 40, 40 + payload, data[6], 0, _address(source), _address(destination))


def _decode_transport(
    data: bytes | memoryview,
    offset: int,
    total: int,
    protocol: int,
    identification: int,
    source: str,
    destination: str,
) -> Packet:
    if protocol == TCP:
        source_port, destination_port, sequence, acknowledgement, length, flags, window = struct.unpack_from(
            "!HHIIBBH", data, offset
        )
        header_length = (length >> 4) * 4
        options = bytes(data[offset + 20 : offset + header_length])
        tcp = TcpHeader(sequence, acknowledgement, flags & 0x3F, window, **_decode_options(options))
        return Packet(
            SocketAddress(source, source_port),
            SocketAddress(destination, destination_port),
            protocol,
            identification,
            max(0, total - offset - header_length),
            tcp,
        )
    ports = struct.unpack_from("!HH", data, offset) if protocol in (UDP, SCTP) else (0, 0)
    return Packet(
        SocketAddress(source, ports[0]),
        SocketAddress(destination, ports[1]),
        protocol,
        identification,
        max(0, total - offset - (8 if protocol == UDP else 0)),
        icmp=_decode_icmp(data, offset, protocol) if protocol in (ICMP, ICMPV6) else None,
    )


def is_fragment(data: bytes | memoryview) -> bool:
    """Check whether an IP packet is a part of a larger one (RFC 791; RFC 8200, 4.5).

    Of IPv6 that is known where no other header stands before the fragment's.
    """
    if data[0] >> 4 == 4:
        return bool(int.from_bytes(data[6:8], "big") & 0x3FFF)
    return data[6] == FRAGMENT


def is_error(packet: Packet) -> bool:
    """Check whether a packet is an ICMP error, which quotes another one."""
    return packet.icmp is not None and _quotes(packet.icmp.kind, packet.protocol)


def _quotes(kind: int, protocol: int) -> bool:
    # RFC 792: 3, 4, 5, 11 and 12 quote a packet; RFC 4443, 2.1: so do those below 128.
    return kind < 128 if protocol == ICMPV6 else kind in (3, 4, 5, 11, 12)


def _decode_icmp(data: bytes | memoryview, offset: int, protocol: int) -> IcmpHeader:
    kind, code = data[offset], data[offset + 1]
    quoted = decode(data[offset + 8 :]) if _quotes(kind, protocol) else None
    return IcmpHeader(kind, code, (quoted.source, quoted.destination) if quoted else None)


def _decode_options(options: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    offset = 0
    while offset < len(options):
        kind = options[offset]
        if kind == 0:
            break
        if kind == 1:
            offset += 1
            continue
        length = options[offset + 1]
        if length < 2:
            break
        body = options[offset + 2 : offset + length]
        if kind == 3:
            found["window_scale"] = body[0]
        elif kind == 4:
            found["sack_permitted"] = True
        elif kind == 5:
            numbers = struct.unpack(f"!{len(body) // 4}I", body)
            found["sack_blocks"] = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        elif kind == 8:
            found["timestamps"] = struct.unpack("!II", body)
        offset += length
    return found
