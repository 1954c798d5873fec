"""What the hosts of a running lab are like, read in the kernel."""

from __future__ import annotations

import fcntl
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from lab.fabric.lab import Lab
from lab.topology.reader import load

pytestmark = pytest.mark.lab_kernel

GONE_WITHIN = 30.0  # seconds; 1.6 s on a quiet machine, and without tcp_orphan_retries minutes


@pytest.fixture
def lab():
    with Lab(load("kube-proxy")) as running:
        yield running


def hardware_address(namespace, interface):
    """SIOCGIFHWADDR, netdevice(7)."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, 0x8927, struct.pack("16s24x", interface.encode()))
    return answer[18:24]


def test_no_two_interfaces_have_the_same_hardware_address():
    """On one link they would take each other's packets for their own; and a capture tells hosts by nothing else."""
    with Lab(load("two-nodes")) as lab:
        pairs = [(host, name) for host in lab.hosts.values() for name in host.interfaces]
        addresses = [hardware_address(host.namespace, name) for host, name in pairs]
        assert addresses == [host.interfaces[name].mac for host, name in pairs]
    assert len(pairs) == 2 * len(load("two-nodes").links)
    assert len(set(addresses)) == len(addresses)
    assert all(address[0] & 0b11 == 0b10 for address in addresses)  # locally administered, of one host


# A program of somebody's, such as nginx: its sockets do not end with a reset, as the lab's own do.
SERVER = """
import signal, socket
with socket.create_server(("10.0.1.2", 80)) as listener:
    print("listens", flush=True)
    connection, _ = listener.accept()
connection.recv(1)
connection.setblocking(False)
try:
    while True:
        connection.send(bytes(65536))
except BlockingIOError:
    print("full", flush=True)
signal.pause()
"""

HOLE = """
table inet hole {
    chain forward {
        type filter hook forward priority -300; policy drop;
    }
}
"""


def states(namespace):
    """The TCP states of the namespace's sockets, as /proc/net/tcp has them."""
    with namespace.entered(), open("/proc/thread-self/net/tcp") as table:
        return [line.split()[3] for line in table.readlines()[1:]]


def test_a_program_that_ends_with_undelivered_data_does_not_hold_its_namespace_for_minutes(lab):
    server = lab.hosts["server"].namespace
    with server.entered():
        program = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    with program, lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        try:
            assert program.stdout.readline() == "listens\n"
            client.setblocking(True)
            client.connect(("10.0.1.2", 80))
            client.send(b"?")
            assert program.stdout.readline() == "full\n"
            lab.hosts["node"].nft.run(HOLE)
        finally:
            program.send_signal(signal.SIGKILL)
        program.wait()
        begun = time.monotonic()
        assert states(server) == ["04"]  # TCP_FIN_WAIT1, include/net/tcp_states.h
        while states(server):
            assert time.monotonic() - begun < GONE_WITHIN, "an orphaned socket holds the namespace"
            time.sleep(0.01)
