import select
import socket
import time

import pytest

from lab.evidence.packet import UDP, SocketAddress
from lab.fabric.lab import Lab
from lab.topology.reader import load
from lab.traffic.tcp import datagram_socket
from lab.wire.backlog import Backlog
from lab.wire.capture import Capture

pytestmark = pytest.mark.lab_kernel

CLIENT, NODE = SocketAddress("10.0.0.2", 9), SocketAddress("10.0.0.1", 9)


@pytest.fixture
def running():
    with Lab(load("kube-proxy")) as lab:
        yield lab


def test_a_packet_is_seen_at_both_ends_with_the_kernels_time(running):
    client = running.keep(Capture("client", running.hosts["client"].namespace))
    node = running.keep(Capture("node", running.hosts["node"].namespace))
    sender = running.keep(datagram_socket(running.hosts["client"].namespace, CLIENT, NODE))
    receiver = running.keep(datagram_socket(running.hosts["node"].namespace, NODE, CLIENT))
    before = time.time_ns()
    sender.send(b"hello")
    assert select.select([receiver], [], [], 10)[0]
    after = time.time_ns()
    [left] = [sighting for sighting in client.read() if sighting.packet.protocol == UDP]
    [came] = [sighting for sighting in node.read() if sighting.packet.protocol == UDP]
    assert (left.interface, left.outgoing, came.interface, came.outgoing) == ("eth0", True, "client", False)
    assert before <= left.time <= came.time <= after
    assert left.packet == came.packet
    assert (came.packet.source, came.packet.destination, came.packet.payload_length) == (CLIENT, NODE, 5)
    assert client.lost() == node.lost() == 0


def test_the_order_is_the_packets_own_as_soon_as_the_kernel_takes_down_times(running):
    """Before, a packet has the time at which it is read: here the node's end first."""
    backlog = running.keep(Backlog())
    sender = running.keep(datagram_socket(running.hosts["client"].namespace, CLIENT, NODE))
    receiver = running.keep(datagram_socket(running.hosts["node"].namespace, NODE, CLIENT))
    for _ in range(20):  # each begins anew: with its last reader the kernel stops
        captures = [Capture(name, running.hosts[name].namespace) for name in ("node", "client")]
        backlog.await_timestamps()
        sender.send(b"hello")
        assert select.select([receiver], [], [], 10)[0]
        assert receiver.recv(2000) == b"hello"
        [came], [left] = ([one for one in capture.read() if one.packet.protocol == UDP] for capture in captures)
        assert left.time < came.time
        for capture in captures:
            capture.close()


def test_a_capture_without_room_says_how_much_it_lost(running):
    capture = running.keep(Capture("node", running.hosts["node"].namespace))
    capture._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sender = running.keep(datagram_socket(running.hosts["client"].namespace, CLIENT, NODE))
    receiver = running.keep(datagram_socket(running.hosts["node"].namespace, NODE, CLIENT))
    for _ in range(50):
        sender.send(b"x" * 1000)
        assert select.select([receiver], [], [], 10)[0]
        receiver.recv(2000)
    # Other packets may have been lost too: the node's own neighbour and multicast messages.
    came = sum(sighting.packet.protocol == UDP for sighting in capture.read())
    assert came < 50
    assert capture.lost() >= 50 - came
    assert capture.lost() == 0  # since the last call


def test_an_injected_frame_leaves_by_the_named_link(running):
    from lab.wire.craft import Segment, craft

    node = running.keep(Capture("node", running.hosts["node"].namespace))
    packet = craft(Segment(SocketAddress("10.0.1.2", 80), SocketAddress("10.0.1.1", 81), 5, 6, "PA", 7, b"hi"))
    running.injector("server", "10.0.1.1").send(packet)
    assert select.select([node], [], [], 10)[0]
    seen = next(sighting for sighting in node.read() if sighting.packet.tcp and not sighting.outgoing)
    assert (seen.interface, seen.packet.tcp.sequence, seen.packet.payload_length) == ("server", 5, 2)
