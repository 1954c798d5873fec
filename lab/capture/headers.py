# SPDX-License-Identifier: MIT
"""A TCP packet's headers from a capture, which may have cut it: read for speed, and without what is missing.

The headers are those of RFC 791, RFC 8200 and RFC 9293; `lab.evidence.packet` reads whole packets.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from lab.evidence.packet import TCP, UDP, Packet, SocketAddress, TcpHeader

_IPV4: Final = struct.Struct("!HHHxB2x4s4s")  # behind the first two bytes
_IPV6: Final = struct.Struct("!4xHBx16s16s")
_TCP: Final = struct.Struct("!IIBBH")  # behind the ports
_PADDED_TIMESTAMPS: Final = b"\x01\x01\x08\x0a"  # as RFC 7323, appendix A has them, and every stack sends them
_MANY: Final = 1 << 16
#: Headers of IPv6 between its own and TCP's: hop-by-hop, routing, destination options (RFC 8200, 4).
_EXTENSIONS: Final = frozenset({0, 43, 60})

_ends: dict[tuple[bytes, bytes], SocketAddress] = {}


def tcp_packet(data: bytes, at: int) -> Packet | None:
    """Return the TCP packet whose IP header begins at a byte; None where it is none or its headers are cut.

    Options that are cut are left out. The length of its payload is what the IP header says, or where a giant segment
    has 0 there what was captured.
    """
    try:
        if data[at] >> 4 == 4:
            total, identification, fragment, protocol, source, destination = _IPV4.unpack_from(data, at + 2)
            if protocol != TCP or fragment & 0x1FFF:
                return None
            transport = at + (data[at] & 15) * 4
            end = at + (total or len(data) - at)
        elif data[at] >> 4 == 6:
            length, protocol, source, destination = _IPV6.unpack_from(data, at)
            transport, identification = at + 40, 0
            end = transport + (length or len(data) - transport)
            while protocol in _EXTENSIONS:
                protocol, transport = data[transport], transport + 8 + data[transport + 1] * 8
            if protocol != TCP:
                return None
        else:
            return None
        sequence, acknowledgement, offset, flags, window = _TCP.unpack_from(data, transport + 4)
    except (struct.error, IndexError):
        return None
    header = (offset >> 4) * 4
    if header < 20:
        return None
    options = data[transport + 20 : transport + header]
    if len(options) == 12 and options.startswith(_PADDED_TIMESTAMPS):
        stamps = struct.unpack_from("!II", options, 4)
        tcp = TcpHeader(sequence, acknowledgement, flags & 0x3F, window, timestamps=stamps)
    else:
        is_cut = len(options) < header - 20
        tcp = TcpHeader(sequence, acknowledgement, flags & 0x3F, window, **_options(options), is_cut=is_cut)
    return Packet(
        _end_of(source, data[transport : transport + 2]),
        _end_of(destination, data[transport + 2 : transport + 4]),
        TCP,
        identification,
        max(0, end - transport - header),
        tcp,
    )


def tcp_options(data: bytes, at: int) -> dict[str, Any] | None:
    """Return the options of a TCP packet whose IP header, without headers behind it, begins at a byte.

    They are named as in :class:`lab.evidence.packet.TcpHeader`, to which ``is_cut`` is added. None where it has none of
    the length that it says, or is cut before its window.
    """
    at += 40 if data[at] >> 4 == 6 else (data[at] & 15) * 4
    if len(data) < at + 16:
        return None
    length = (data[at + 12] >> 4) * 4
    if length < 20:
        return None
    options = data[at + 20 : at + length]
    return {**_options(options), "is_cut": len(options) < length - 20}


def opening(data: bytes, at: int) -> tuple[int, int, dict[str, Any]] | None:
    """Return the number, the window and the options of such a packet; None where it has no options, as above."""
    options = tcp_options(data, at)
    if options is None:
        return None
    sequence, _acknowledgement, _offset, _flags, window = _TCP.unpack_from(
        data, at + (44 if data[at] >> 4 == 6 else 24)
    )
    return sequence, window, options


def quoted_ends(data: bytes, at: int) -> tuple[SocketAddress, SocketAddress] | None:
    """Return source and destination of the packet that an ICMP error quotes; None where it quotes none with ports.

    Of what is behind the IP header eight bytes are quoted at least (RFC 792), and so no whole header of TCP.

    :param at: where the error's IP header begins.
    """
    try:
        at += 8 + (40 if data[at] >> 4 == 6 else (data[at] & 15) * 4)
        if data[at] >> 4 == 4:
            protocol, ports, source, destination = data[at + 9], at + (data[at] & 15) * 4, 12, 16
        else:
            protocol, ports, source, destination = data[at + 6], at + 40, 8, 24
        if protocol not in (TCP, UDP) or len(data) < ports + 4:
            return None
    except IndexError:
        return None
    return (
        _end_of(data[at + source : at + destination], data[ports : ports + 2]),
        _end_of(data[at + destination : at + 2 * destination - source], data[ports + 2 : ports + 4]),
    )


def udp_packet(data: bytes, at: int) -> Packet | None:
    """Return the UDP packet whose IP header begins at a byte; None where it is none, or a later fragment, or cut."""
    if len(data) < at + 24:
        return None
    if data[at] >> 4 == 4:
        total, identification, fragment, protocol, source, destination = _IPV4.unpack_from(data, at + 2)
        transport = at + (data[at] & 15) * 4
        length = total - (transport - at) - 8
    elif data[at] >> 4 == 6 and len(data) >= at + 44:
        length, protocol, source, destination = _IPV6.unpack_from(data, at)
        transport, identification, fragment, length = at + 40, 0, 0, length - 8
    else:
        return None
    if protocol != UDP or fragment & 0x1FFF or len(data) < transport + 4:
        return None
    return Packet(
        _end_of(source, data[transport : transport + 2]),
        _end_of(destination, data[transport + 2 : transport + 4]),
        UDP,
        identification,
        max(0, length),
    )


def ends_of(key: bytes) -> tuple[SocketAddress, SocketAddress]:
    """Return source and destination of a packet by its addresses and ports, as they are in it one behind the other."""
    half = len(key) // 2 - 2
    return _end_of(key[:half], key[-4:-2]), _end_of(key[half:-4], key[-2:])


def key_of(source: SocketAddress, destination: SocketAddress) -> bytes:
    """Return the addresses and ports of packets between two as they are in them, one behind the other."""
    addresses = ip_address(source.address).packed + ip_address(destination.address).packed
    return addresses + struct.pack("!HH", source.port, destination.port)


def key_in(data: bytes, at: int) -> bytes | None:
    """Return the addresses and ports of the TCP or UDP packet whose IP header begins at a byte.

    None where that header is not the plain one.
    """
    if data[at] == 0x45:
        return data[at + 12 : at + 24]
    return data[at + 8 : at + 44] if data[at] >> 4 == 6 and data[at + 6] in (TCP, UDP) else None


def sender_of(key: bytes) -> bytes:
    """Return address and port of who sent a packet, by its addresses and ports."""
    return key[: len(key) // 2 - 2] + key[-4:-2]


def turned(key: bytes) -> bytes:
    """Return the addresses and ports of the answers to a packet, by its own."""
    half = len(key) // 2 - 2
    return key[half:-4] + key[:half] + key[-2:] + key[-4:-2]


def udp_payload(data: bytes, at: int) -> bytes:
    """Return what is captured of the payload of a UDP packet whose IP header begins at a byte."""
    return data[at + (40 if data[at] >> 4 == 6 else (data[at] & 15) * 4) + 8 :]


def checksum_is_wrong(data: bytes, at: int) -> bool:
    """Check whether the checksum of a TCP packet whose headers are whole is wrong (RFC 9293, 3.1).

    False where that cannot be told: it was cut, or captured before the network card computed it, which is when there
    is the sum of the pseudo header alone.
    """
    if data[at] >> 4 == 4:
        transport = at + (data[at] & 15) * 4
        end, addresses = at + int.from_bytes(data[at + 2 : at + 4], "big"), data[at + 12 : at + 20]
    else:
        transport, end = at + 40, at + 40 + int.from_bytes(data[at + 4 : at + 6], "big")
        addresses = data[at + 8 : at + 40]
        if data[at + 6] != TCP:
            return False
    if not transport + 20 <= end <= len(data):
        return False
    segment = data[transport:end]
    pseudo = checksum_of(addresses + struct.pack("!II", len(segment), TCP))
    return (
        checksum_of(struct.pack("!H", pseudo) + segment) != 0xFFFF and int.from_bytes(segment[16:18], "big") != pseudo
    )


def is_short(data: bytes, at: int) -> bool:
    """Check whether the header of a TCP packet without extension headers says that it is longer than the packet."""
    if data[at] >> 4 == 4:
        transport, end = at + (data[at] & 15) * 4, at + int.from_bytes(data[at + 2 : at + 4], "big")
    else:
        transport, end = at + 40, at + 40 + int.from_bytes(data[at + 4 : at + 6], "big")
        if data[at + 6] != TCP:
            return False
    return transport + (data[transport + 12] >> 4) * 4 > end > transport


def checksum_of(data: bytes) -> int:
    """Return the sum in ones' complement of words of 16 bits (RFC 1071)."""
    words = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return int(total)


def _end_of(address: bytes, port: bytes) -> SocketAddress:
    found = _ends.get((address, port))
    if found is None:
        if len(_ends) >= _MANY:
            _ends.clear()
        words = ".".join(map(str, address)) if len(address) == 4 else str(IPv6Address(address))
        found = _ends[address, port] = SocketAddress(words, int.from_bytes(port, "big"))
    return found


def _options(options: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at + 1 < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        kind, length = options[at], options[at + 1]
        body = options[at + 2 : at + length]
        if length < 2 or len(body) < length - 2:
            break
        if kind == 3 and length == 3:
            found["window_scale"] = body[0]
        elif kind == 4:
            found["sack_permitted"] = True
        elif kind == 5 and len(body) % 8 == 0:
            numbers = struct.unpack(f"!{len(body) // 4}I", body)
            found["sack_blocks"] = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        elif kind == 8 and length == 10:
            found["timestamps"] = struct.unpack("!II", body)
        at += length
    return found
