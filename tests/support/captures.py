"""Captures made byte by byte, in every form that programs write."""

from __future__ import annotations

import struct
from ipaddress import ip_address

MOMENT = 1_700_000_000_123_456_789  # ns


def tcp(source, destination, flags, sequence, acknowledgement, payload=b"", *, window=64240, options=b"", number=0):
    """Return the bytes of a TCP packet; addresses are (address, port), flags a number. Its checksums are 0."""
    offset = (20 + len(options)) // 4 << 4
    numbers = (source[1], destination[1], sequence % 2**32, acknowledgement % 2**32, offset, flags, window, 0, 0)
    return ip(source[0], destination[0], 6, struct.pack("!HHIIBBHHH", *numbers) + options + payload, number)


def ip(source, destination, protocol, body, number=0):
    ends = [ip_address(address).packed for address in (source, destination)]
    if len(ends[0]) == 16:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + ends[0] + ends[1] + body
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, 64, protocol, 0) + ends[0] + ends[1] + body


def udp(source, destination, payload, *, number=0):
    """Return the bytes of a datagram, without a checksum."""
    header = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0)
    return ip(source[0], destination[0], 17, header + payload, number)


def icmp(source, destination, kind, code, quoted, *, mtu=0):
    """Return the bytes of an ICMP error from an address about a packet."""
    is_ipv6 = ":" in source
    header = struct.pack("!BBHI", kind, code, 0, mtu)
    return ip(source, destination, 58 if is_ipv6 else 1, header + quoted[: 48 if is_ipv6 else 28])


def kind_of(packet):
    """Return the EtherType of an IP packet."""
    return b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"


def linked(packet, link, *, vlan=False, outgoing=True, index=7):
    """Return an IP packet as a link of a type (LINKTYPE_) carries it."""
    tag = b"\x81\x00\x00\x2a" if vlan else b""
    if link == 1:
        return bytes(12) + tag + kind_of(packet) + packet
    if link == 113:
        return struct.pack("!HHHQ", 4 if outgoing else 0, 1, 6, 0) + kind_of(packet) + packet
    if link == 276:
        return kind_of(packet) + struct.pack("!HIHBBQ", 0, index, 1, 4 if outgoing else 0, 6, 0) + packet
    return packet


def pcap(packets, *, link=101, order="<", nano=False, snaplen=262144):
    """Return a classic capture of (time in ns, bytes)."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    for time, packet in packets:
        second, part = divmod(time, 10**9)
        kept = packet[:snaplen]
        parts += struct.pack(f"{order}IIII", second, part if nano else part // 1000, len(kept), len(packet)), kept
    return b"".join(parts)


def block(order, kind, body):
    """Return a block of pcapng."""
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def option(order, code, value):
    """Return an option of such a block."""
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def pcapng(packets, *, link=101, order="<", resolution=9, name="eth0", snaplen=262144, way=None):
    """Return a capture of the newer form, of one interface.

    :param resolution: of its times; beyond 127 in powers of two.
    :param way: 1 inbound, 2 outbound, None where that is not told.
    """
    parts = [block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))]
    options = option(order, 2, name.encode()) + option(order, 9, bytes([resolution])) + bytes(4)
    parts.append(block(order, 1, struct.pack(f"{order}HHI", link, 0, snaplen) + options))
    units = 2 ** (resolution & 127) if resolution > 127 else 10**resolution
    parts.append(block(order, 5, bytes(12)))  # statistics: of no interest here
    for time, packet in packets:
        kept = packet[:snaplen]
        high, low = divmod(time * units // 10**9, 2**32)
        body = struct.pack(f"{order}IIIII", 0, high, low, len(kept), len(packet)) + kept + bytes(-len(kept) % 4)
        flags = option(order, 2, struct.pack(f"{order}I", way)) + bytes(4) if way else b""
        parts.append(block(order, 6, body + flags))
    return b"".join(parts)
