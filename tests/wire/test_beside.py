"""What a capture takes beside others' connections: all but theirs, on both families, translated and within a tunnel."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import pytest

from lab.evidence.packet import SocketAddress
from lab.fabric.connections import connections
from lab.fabric.lab import Lab
from lab.topology.reader import load
from lab.vocabulary import Family
from lab.wire.backlog import Backlog
from lab.wire.capture import Capture

PLACES = {
    # topology, family: who answers, whom the client asks, and where it is looked at
    ("kube-proxy", Family.IPV4): ("server", "192.168.0.2", "node"),
    ("kube-proxy", Family.IPV6): ("server", "fd00:192:168::2", "node"),
    ("vxlan", Family.IPV4): ("server-b", "10.2.1.2", "node-b"),
    ("vxlan", Family.IPV6): ("server-b", "fd00:10:2:1::2", "node-b"),
}
LONGEST = 1500

pytestmark = pytest.mark.lab_kernel


@pytest.fixture(params=PLACES, ids=" ".join)
def place(request):
    topology, family = request.param
    with Lab(load(topology), family=family) as lab, ExitStack() as stack:
        server, address, node = PLACES[request.param]
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        with lab.hosts[server].namespace.entered():
            listener = stack.enter_context(socket.create_server(("", 80), family=kind))

        def connect():
            asking = stack.enter_context(lab.hosts["client"].namespace.socket(kind, socket.SOCK_STREAM))
            asking.settimeout(10)
            asking.connect((address, 80))
            return asking, stack.enter_context(listener.accept()[0])

        yield lab, lab.hosts[node], connect


def speak(connection, text):
    asking, answering = connection
    asking.send(text + b"?")
    assert answering.recv(100) == text + b"?"
    answering.send(text + b"!")
    assert asking.recv(100) == text + b"!"


def test_all_but_what_is_others_is_taken(place):
    lab, node, connect = place
    with closing(Backlog()) as backlog, closing(Capture(node.host.name, node.namespace)) as capture:
        backlog.await_timestamps()
        theirs = connect()
        asking, answering = theirs
        while not capture.lost():  # a download before is no matter
            asking.sendall(bytes(100_000))
            answering.recv(100_000, socket.MSG_WAITALL)
        asking.sendall(bytes(100_000))
        answering.recv(100_000, socket.MSG_WAITALL)
        capture.leave_out(LONGEST, connections(lab.hosts.values()))
        mine = connect()
        capture.read()
        for connection, text in ((theirs, b"theirs"), (mine, b"mine"), (theirs, b"theirs"), (mine, b"mine")):
            speak(connection, text)
        taken = [one.data for one in capture.read()]
        assert capture.lost() == 0
    ways = 3 if lab.topology.name == "vxlan" else 2  # the tunnel's end, its cover, the pod's link
    assert not [data for data in taken if b"theirs" in data]
    assert [len([data for data in taken if text in data]) for text in (b"mine?", b"mine!")] == [2 * ways] * 2


def test_the_connection_that_a_trial_is_about_is_not_others(place):
    lab, _node, connect = place
    asking, _answering = connect()
    other, _ = connect()
    own, target = (SocketAddress(*end[:2]) for end in (asking.getsockname(), asking.getpeername()))
    theirs = SocketAddress(*other.getsockname()[:2])
    found = connections(lab.hosts.values(), (own, target))
    assert (theirs, target) in found
    assert (target, theirs) in found
    assert not [ends for ends in found if own in ends or ends in {(own, target), (target, own)}]
    assert (own, target) in connections(lab.hosts.values())


def test_longer_packets_are_left_out(place):
    _lab, node, connect = place
    with closing(Backlog()) as backlog, closing(Capture(node.host.name, node.namespace)) as capture:
        backlog.await_timestamps()
        capture.leave_out(LONGEST, ())
        asking, answering = connect()
        asking.sendall(b"long" * 10_000)
        assert len(answering.recv(40_000, socket.MSG_WAITALL)) == 40_000
        speak((asking, answering), b"short")
        taken = [one.data for one in capture.read()]
    assert [data for data in taken if b"short" in data]
    assert max(map(len, taken)) <= LONGEST


def test_more_connections_than_a_program_can_name_are_taken(place):
    _lab, node, connect = place
    others = {
        (SocketAddress(end, 1 + one), SocketAddress(end, 9)) for end in ("10.9.9.9", "fd00::9") for one in range(999)
    }
    with closing(Backlog()) as backlog, closing(Capture(node.host.name, node.namespace)) as capture:
        backlog.await_timestamps()
        capture.leave_out(LONGEST, others)
        speak(connect(), b"mine")
        assert [one for one in capture.read() if b"mine" in one.data]
