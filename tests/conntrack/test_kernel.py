"""Conntrack's own word, on the kernel: every test makes the packet that it asks about."""

import select
import socket

import pytest

from lab.conntrack.netlink import ConntrackEvents, ConntrackTable
from lab.conntrack.nflog import PacketLog
from lab.conntrack.witness import Pairing, counters, script
from lab.evidence.judgement import Judgement
from lab.evidence.packet import UDP, SocketAddress
from lab.fabric.lab import Lab
from lab.topology.reader import load
from lab.traffic.tcp import datagram_socket
from lab.vocabulary import Family
from lab.wire.capture import Capture
from lab.wire.craft import Segment, craft

pytestmark = pytest.mark.lab_kernel

ADDRESSES = {
    Family.IPV4: (SocketAddress("10.0.0.2", 9), SocketAddress("10.0.1.2", 9)),
    Family.IPV6: (SocketAddress("fd00:10::2", 9), SocketAddress("fd00:10:0:1::2", 9)),
}


@pytest.fixture(params=list(Family))
def family(request):
    return request.param


@pytest.fixture
def running(family):
    with Lab(load("kube-proxy"), family=family) as lab:
        yield lab


@pytest.fixture
def ends(running, family):
    client, server = ADDRESSES[family]
    return (
        running.keep(datagram_socket(running.hosts["client"].namespace, client, server)),
        running.keep(datagram_socket(running.hosts["server"].namespace, server, client)),
    )


def pass_a_datagram(sender, receiver):
    sender.send(b"hello")
    assert select.select([receiver], [], [], 10)[0]
    receiver.recv(16)


def test_an_entry_its_events_and_its_end(running, ends, family):
    client, server = ADDRESSES[family]
    node = running.hosts["node"]
    events, table = (
        running.keep(ConntrackEvents(node.namespace)),
        running.keep(ConntrackTable(node.namespace)),
    )
    assert table.entry(UDP, client, server) is None
    pass_a_datagram(*ends)
    entry = table.entry(UDP, client, server)
    assert (entry.original, entry.reply) == ((client, server), (server, client))
    assert (entry.tcp_state, entry.assured) == (None, False)
    assert 0 < entry.timeout <= 30
    [listed] = table.entries()
    assert (listed.original, listed.reply) == (entry.original, entry.reply)
    pass_a_datagram(*reversed(ends))
    seen = events.read()
    assert [event.kind for event in seen] == ["new", "update"]
    assert {event.entry.original for event in seen} == {(client, server)}


def test_statistics_count_what_is_invalid(running, family):
    node = running.hosts["node"]
    table = running.keep(ConntrackTable(node.namespace))
    assert table.statistics()["invalid"] == 0
    send_a_reset_out_of_the_blue(running, family)
    assert table.statistics()["invalid"] == 1


def send_a_reset_out_of_the_blue(running, family):
    client, server = ADDRESSES[family]
    node = running.hosts["node"].namespace
    watcher = running.keep(node.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
    running.injector("client", server.address).send(craft(Segment(client, server, 1, 1, "R", 0)))
    assert select.select([watcher], [], [], 10)[0]


def test_the_log_says_why_and_the_witness_says_what(running, family):
    node = running.hosts["node"]
    log = running.keep(PacketLog(node.namespace))
    node.nft.run(script())
    send_a_reset_out_of_the_blue(running, family)
    [judged] = [one for one in Pairing("node").take(log.read()) if one.packet.tcp]  # not IPv6's own multicast
    assert judged.judgement is Judgement.INVALID
    assert judged.packet.source == ADDRESSES[family][0]
    counted = counters(node.namespace)
    assert (counted["invalid"], counted["established"], counted["new"]) == (1, 0, 0)


def test_the_log_says_when(running, family):
    """Linux up to 5.18 gives a packet a time once somebody has asked for times, and then not at once."""
    node = running.hosts["node"]
    running.keep(Capture("node", node.namespace))
    log = running.keep(PacketLog(node.namespace))
    node.nft.run(script())
    for _attempt in range(100):
        send_a_reset_out_of_the_blue(running, family)
        if any(one.packet.tcp and one.time is not None for one in Pairing("node").take(log.read())):
            return
    pytest.fail("no packet had a time")


def test_the_witness_is_not_among_the_nodes_rules(running):
    running.hosts["node"].nft.run(script())
    assert "witness" not in running.hosts["node"].xtables.save(4)


def test_a_log_that_lost_records_says_so(running, ends):
    node = running.hosts["node"]
    log = running.keep(PacketLog(node.namespace))
    log._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    node.nft.run(script())
    for _ in range(100):
        pass_a_datagram(*ends)
    log.read()
    assert log.lost


def test_every_namespace_counts_for_itself(running, family):
    with Lab(load("kube-proxy"), family=family) as other:
        send_a_reset_out_of_the_blue(other, family)
        table = running.keep(ConntrackTable(running.hosts["node"].namespace))
        assert table.statistics()["invalid"] == 0
