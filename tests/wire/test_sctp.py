"""SCTP's packets, held against scapy's own."""

from __future__ import annotations

import pytest

from lab.wire.sctp import Kind, SctpPacket, crc32c, read

PACKETS = [
    SctpPacket(40000, 80, Kind.INIT, initiate_tag=7, padding=132),
    SctpPacket(80, 40000, Kind.INIT_ACK, 7, 8, b"a cookie"),
    SctpPacket(40000, 80, Kind.COOKIE_ECHO, 8, cookie=b"a cookie"),
    SctpPacket(80, 40000, Kind.COOKIE_ACK, 7),
    SctpPacket(40000, 80, Kind.ABORT, 8),
]


def test_the_checksum_is_that_of_the_rfc():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


@pytest.mark.parametrize("packet", PACKETS, ids=lambda one: one.kind.name)
def test_it_is_read_back_and_scapy_reads_it_alike(packet):
    from scapy.layers import sctp  # which takes half a second

    back = read(packet.data)
    assert (back.kind, back.tag, back.initiate_tag) == (packet.kind, packet.tag, packet.initiate_tag)
    assert (back.source_port, back.destination_port) == (packet.source_port, packet.destination_port)
    if packet.cookie:
        assert back.cookie == packet.cookie
    theirs = sctp.SCTP(packet.data)
    assert (theirs.sport, theirs.dport, theirs.tag) == (packet.source_port, packet.destination_port, packet.tag)
    assert theirs.payload.type == packet.kind
    assert theirs.payload.len == len(packet.data) - 12
    theirs.chksum = None
    assert bytes(theirs) == packet.data


@pytest.mark.parametrize("data", [b"", bytes(12), bytes(12) + b"\x01\0\0\x14abc", bytes(12) + b"\xff\0\0\x04"])
def test_what_is_none_is_told_so(data):
    assert read(data) is None
