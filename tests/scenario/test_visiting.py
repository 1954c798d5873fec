"""Questions to servers of somebody's own: a wait for an answer that cannot come ends when that is known."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress

import pytest

from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Fate, Question, Target
from lab.fabric.lab import Lab, lent_beside_others
from lab.scenario import one_processor, visiting
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel

DNS = SocketAddress("10.96.0.10", 53)
SERVERS = {"dns-1": "10.0.1.2", "dns-2": "10.0.3.2"}


def echo(server):
    with suppress(OSError):  # it is shut down
        while True:
            data, client = server.recvfrom(2000)
            if not data:
                return
            server.sendto(data, client)


@pytest.fixture
def answering():
    """Has the endpoints of a lab answer by themselves, as others' servers do."""
    with ExitStack() as stack:

        def start(lab):
            for host, address in SERVERS.items():
                server = stack.enter_context(lab.hosts[host].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
                server.setblocking(True)
                server.bind((address, 53))
                thread = threading.Thread(target=echo, args=(server,))
                stack.callback(thread.join)
                thread.start()
                stack.callback(stop, server)

        yield start


def stop(server):
    with suppress(OSError):  # ENOTCONN; it wakes who receives all the same
        server.shutdown(socket.SHUT_RDWR)


def asked(lab):
    with one_processor(), lent_beside_others(lab):
        found = visiting.Visiting(lab, Family.IPV4).ask(Question("client", Target.VIP, DNS, "udp"))
    assert found.server in SERVERS
    return found


@pytest.mark.parametrize("backend", Backend)
def test_an_answer_that_a_rule_drops_is_not_waited_for(monkeypatch, answering, backend):
    with Lab(with_proxy(load("dns"), ProxyMode.IPTABLES, None, backend), family=Family.IPV4) as lab:
        answering(lab)
        monkeypatch.setattr(visiting, "_A_WHILE", 600.0)  # longer than any test may take
        assert asked(lab).fate is Fate.CONNECTED
        lab.hosts["node"].run(f"iptables-{backend}", "-I", "FORWARD", "-p", "udp", "--sport", "53", "-j", "DROP")
        found = asked(lab)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "node")
        assert "what was said to it dropped at node by filter FORWARD rule 1: -p udp" in found.rule


def test_a_datagram_that_its_server_s_host_drops_is_not_waited_for(monkeypatch, answering):
    with Lab(load("dns"), family=Family.IPV4) as lab:
        answering(lab)
        monkeypatch.setattr(visiting, "_A_WHILE", 600.0)
        for host in SERVERS:
            rule = "table ip own { chain in { type filter hook input priority 0; udp dport 53 drop; }; }"
            lab.hosts[host].nft.run(rule)
        found = asked(lab)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, found.server)
        assert found.rule == f"dropped at {found.server} by own in rule 1: udp dport 53 drop"
