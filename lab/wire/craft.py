# SPDX-License-Identifier: MIT
"""Crafting packets with scapy, and sending them where a host's own stack would send them.

Scapy is imported by the first packet that is crafted (:mod:`lab.wire.scapy_import`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.evidence.packet import SocketAddress
from lab.netns import Namespace
from lab.wire.scapy_import import import_scapy


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment to be made. Numbers are absolute; ``flags`` and ``options`` as scapy writes them.

    :param checksum: instead of the right one.
    :param header_words: what the data offset claims, instead of the header's length in 32-bit words.
    """

    source: SocketAddress
    destination: SocketAddress
    sequence: int
    acknowledgement: int
    flags: str
    window: int
    payload: bytes = b""
    timestamps: tuple[int, int] | None = None
    checksum: int | None = None
    header_words: int | None = None
    options: Sequence[tuple[str, object]] = ()


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram to be made."""

    source: SocketAddress
    destination: SocketAddress
    payload: bytes


@dataclass(frozen=True, slots=True)
class IcmpError:
    """An ICMP error about a TCP segment, as a router or an end host would send it.

    :param source: who sends it, and ``destination``: who sent the segment that is quoted.
    :param kind: and ``code``: of ICMP for IPv4 quotes (3 and 4: fragmentation needed), of ICMPv6 for IPv6 ones (2 and
        0: packet too big).
    :param quoted: the segment that it is about, which is quoted whole (RFC 1812, 4.3.2.3; RFC 4443, 3).
    :param mtu: the next link's, in bytes, where the message tells one.
    """

    source: str
    destination: str
    kind: int
    code: int
    quoted: Segment
    mtu: int = 0


def craft(packet: Segment | Datagram | IcmpError) -> bytes:
    """Return the IP packet with its checksums."""
    import_scapy()
    if isinstance(packet, Datagram):
        return _craft_datagram(packet)
    return _craft_segment(packet) if isinstance(packet, Segment) else _craft_error(packet)


def _craft_datagram(datagram: Datagram) -> bytes:
    from scapy.layers.inet import UDP
    from scapy.packet import Raw

    ports = UDP(sport=datagram.source.port, dport=datagram.destination.port)
    return bytes(_network(datagram.source, datagram.destination) / ports / Raw(datagram.payload))


def _network(source: SocketAddress, destination: SocketAddress) -> Any:  # noqa: ANN401 - scapy's
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    layer = IPv6 if ":" in source.address else IP
    return layer(src=source.address, dst=destination.address)


def _craft_error(error: IcmpError) -> bytes:
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.inet6 import ICMPv6Unknown, IPv6
    from scapy.packet import Raw

    quoted = Raw(_craft_segment(error.quoted))
    if ":" in error.source:
        head = ICMPv6Unknown(type=error.kind, code=error.code, msgbody=error.mtu.to_bytes(4, "big"))
        return bytes(IPv6(src=error.source, dst=error.destination) / head / quoted)
    message = ICMP(type=error.kind, code=error.code, nexthopmtu=error.mtu)
    return bytes(IP(src=error.source, dst=error.destination) / message / quoted)


def _craft_segment(segment: Segment) -> bytes:
    from scapy.layers.inet import TCP
    from scapy.packet import Raw

    network = _network(segment.source, segment.destination)
    options = list(segment.options)
    if segment.timestamps is not None:
        options += [("NOP", None), ("NOP", None), ("Timestamp", segment.timestamps)]
    transport = TCP(
        sport=segment.source.port,
        dport=segment.destination.port,
        seq=segment.sequence % 2**32,
        ack=segment.acknowledgement % 2**32,
        flags=segment.flags,
        window=segment.window,
        options=options,
        chksum=segment.checksum,
        dataofs=segment.header_words,
    )
    return bytes(network / transport / Raw(segment.payload) if segment.payload else network / transport)


class Injector:
    """An AF_PACKET socket that puts ready frames on one host's link, past its own stack.

    :param namespace: the host's.
    :param interface: the link's name there.
    :param frame_header: destination and source hardware address, without the protocol.
    """

    slow_to_close = True

    def __init__(self, namespace: Namespace, interface: str, frame_header: bytes) -> None:
        self._interface = interface
        self._header = frame_header
        # Protocol 0: it never receives.
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)

    def send(self, packet: bytes) -> None:
        """Send one IP packet.

        :raises OSError: ENETDOWN, EMSGSIZE: the link does not carry it.
        """
        protocol = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        self._socket.sendto(self._header + protocol + packet, (self._interface, 0))

    def close(self) -> None:
        """Close the socket; this waits for the kernel's next grace period."""
        self._socket.close()
