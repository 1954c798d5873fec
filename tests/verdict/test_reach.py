"""Whether what was seen of a question is what was expected, from plain data alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.evidence.packet import ICMPV6, SYN, IcmpHeader, Packet, SocketAddress, TcpHeader
from lab.evidence.reach import Fate, Passage, Question, Reached, Target
from lab.evidence.sighting import Sighting
from lab.verdict.reach import Allowed, Expected, surprises

OWN = SocketAddress("10.0.0.2", 40000)
QUESTION = Question("client", Target.VIP, SocketAddress("192.168.0.2", 80))


def connected(server="a", source="10.0.0.2"):
    at = SocketAddress("10.0.1.2", 8080)
    return Reached(QUESTION, Fate.CONNECTED, OWN, server, at, SocketAddress(source, 1024))


def stopped(fate, at="node", how=""):
    return Reached(QUESTION, fate, OWN, at=at, how=how)


TWO = Expected((Fate.CONNECTED,), (Allowed("a"), Allowed("b", "10.0.9.1")), why="because")


@pytest.mark.parametrize(
    ("expected", "seen", "told"),
    [
        (TWO, [connected("a"), connected("b", "10.0.9.1")], []),
        (TWO, [connected("a", "10.0.9.1")], ["a, as 10.0.9.1"]),
        (TWO, [connected("b")], ["b, as 10.0.0.2"]),
        (TWO, [connected("c")], ["c, as 10.0.0.2"]),
        (TWO, [connected("a")] * 9, []),
        (TWO, [connected("a")] * 10, ["never b"]),
        (TWO, [connected("a"), stopped(Fate.TIMES_OUT)], ["times out at node"]),
        (replace(TWO, sticks=True), [connected("a")] * 10, []),
        (replace(TWO, sticks=True), [connected("a"), connected("b", "10.0.9.1")], ["one client, and yet a and b"]),
        (Expected((Fate.REFUSED,), at="node"), [stopped(Fate.REFUSED)], []),
        (Expected((Fate.REFUSED,), at="node"), [stopped(Fate.REFUSED, "b", "RST")], ["refused by b (RST)"]),
        (Expected((Fate.TIMES_OUT,), at="node"), [stopped(Fate.TIMES_OUT, "other")], ["times out at other"]),
        (Expected((Fate.TIMES_OUT,)), [stopped(Fate.TIMES_OUT, "other")], []),
    ],
)
def test_what_is_unexpected_is_told_once(expected, seen, told):
    assert list(surprises(expected, seen, 10)) == told


def test_what_is_expected_in_words():
    assert str(TWO) == "a, as the client itself or b, as 10.0.9.1"
    assert str(Expected((Fate.TIMES_OUT, Fate.STRANGER), at="node")) == ("times out or answered by a stranger at node")
    mixed = Expected((Fate.CONNECTED, Fate.TIMES_OUT), (Allowed("a"),))
    assert str(mixed) == "a, as the client itself or times out"


def test_an_error_to_an_earlier_client_is_none_to_this_one():
    """All ICMPv6 errors of one kind are alike: they have no identification."""
    own, to = SocketAddress("2001:db8::2", 4000), SocketAddress("fd00::8", 80)
    other = SocketAddress("fd00:1::2", 8080), SocketAddress("2001:db8:9::2", 4001)

    def error(source, destination, *quoted):
        ends = SocketAddress(source, 0), SocketAddress(destination, 0)
        return Packet(*ends, ICMPV6, 0, 88, icmp=IcmpHeader(1, 0, quoted))

    syn = Packet(own, to, 6, 0, 0, TcpHeader(1, 0, SYN, 64800))
    sightings = [
        Sighting(1, "node-b", "server", True, error("fd00:1::1", "fd00:1::2", *other)),
        Sighting(2, "client", "eth0", True, syn),
        Sighting(3, "router", "client", False, syn),
        Sighting(4, "router", "client", True, error("2001:db8::1", "2001:db8::2", own, to)),
        Sighting(5, "client", "eth0", False, error("2001:db8::1", "2001:db8::2", own, to)),
    ]
    passage = Passage(Question("client", Target.VIP, to), own, sightings)
    assert passage.refusal() == (Fate.NO_WAY, "router", "ICMP: no route")
