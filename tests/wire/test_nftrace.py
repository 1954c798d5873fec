"""The kernel's trace, read by a socket: nothing waits for it, and what it loses is known."""

from __future__ import annotations

import select

import pytest

from lab.evidence.packet import SocketAddress
from lab.fabric.lab import Lab
from lab.netns.nft_chain import NftChains
from lab.topology.reader import load
from lab.traffic.tcp import datagram_socket
from lab.vocabulary import Family
from lab.wire import nftrace
from lab.wire.nftrace import Trace

pytestmark = pytest.mark.lab_kernel

CLIENT, NODE = SocketAddress("10.0.0.2", 9), SocketAddress("10.0.0.1", 9)
TABLE = """table inet t {
chain early { type filter hook prerouting priority -500; meta nftrace set 1; }
chain late { type filter hook input priority 7; policy POLICY; udp dport 1 drop; jump further; }
chain further { meta mark set 0x2a; }
}
"""


@pytest.fixture
def running():
    with Lab(load("kube-proxy"), family=Family.IPV4) as lab:
        yield lab


def send(running, count=1):
    sender = running.keep(datagram_socket(running.hosts["client"].namespace, CLIENT, NODE))
    for _ in range(count):
        sender.send(b"hello")


def told_to_the_end(trace, count=1):
    """Return the events until the packets are through: another processor may be at work on them."""
    events = []
    while sum(one.is_policy and one.chain == "late" for one in events) < count:
        assert select.select([trace], [], [], 10)[0]
        events += trace.read()
    return [one for one in events if one.table == "t" and (one.handle is not None or one.is_policy)]


@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_every_step_is_told_when_the_packet_is_through(running, policy):
    node = running.hosts["node"]
    trace, chains = running.keep(Trace(node.namespace)), running.keep(NftChains(node.namespace))
    node.nft.run(TABLE.replace("POLICY", policy))
    send(running)
    events = told_to_the_end(trace)
    told = [(one.chain, one.verdict, one.target, one.mark) for one in events]
    assert told == [
        ("early", "continue", "", 0),
        ("early", "accept", "", 0),
        ("late", "jump", "further", 0),
        ("further", "continue", "", 42),
        ("late", policy, "", 42),
    ]
    [_drop, jump] = chains.handles("inet", "t", "late")
    assert events[2].handle == jump
    assert [(one.packet.source, one.packet.destination) for one in events if one.packet] == [(CLIENT, NODE)] * 2
    assert not trace.lost


def test_what_is_told_alike_of_two_packets_is_told_of_each(running):
    node = running.hosts["node"]
    trace = running.keep(Trace(node.namespace))
    node.nft.run(TABLE.replace("POLICY", "drop"))
    send(running, 2)
    events = told_to_the_end(trace, 2)
    first, second = ([one for one in events if one.packet_id == number] for number in {one.packet_id for one in events})
    assert len(first) == 5
    alike = [[one[1:-2] for one in its] for its in (first, second)]  # all but the number, and the headers
    assert alike[0] == alike[1]


def test_chains_are_told_with_their_place(running):
    node = running.hosts["node"]
    chains = running.keep(NftChains(node.namespace))
    node.nft.run(TABLE.replace("POLICY", "drop"))
    assert chains.base("inet", "t", "late") == ("input", 7)
    assert chains.base("inet", "t", "early") == ("prerouting", -500)
    assert chains.base("inet", "t", "further") == ("", 0)
    assert chains.base("inet", "t", "none") == ("", 0)
    assert chains.handles("inet", "t", "none") == ()


def test_what_is_lost_is_known(running, monkeypatch):
    monkeypatch.setattr(nftrace, "_BUFFER", 1)
    node = running.hosts["node"]
    trace = running.keep(Trace(node.namespace))
    node.nft.run(TABLE.replace("POLICY", "drop"))
    send(running, 50)
    while not trace.lost:
        assert select.select([trace], [], [], 10)[0]
        trace.read()
