"""`lab trace --lab`: one packet of somebody's own in a lab that stands, through the rules as they are there now."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing

import pytest

from lab.conntrack.flows import Flows
from lab.netns import Namespace, Program
from lab.standing import names
from lab.standing.up import up
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.command import lab as lab_command

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once
SETTINGS = ("net/netfilter/nf_log/2", "net/netfilter/nf_conntrack_log_invalid")


@pytest.fixture
def spaces():
    """Opens the namespaces of the lab mine."""
    with ExitStack() as stack:
        yield lambda host: stack.enter_context(closing(Namespace.open(names.DIRECTORY / f"mine-{host}")))


def run(space, *words):
    return Program(space, words, environment={"XTABLES_LOCKFILE": "/run/lab/lock"}).finish()


def trace(*words):
    ran = lab_command("trace", "--lab", "mine", *words, COLUMNS="400")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("mode", "backend"),
    [(ProxyMode.IPTABLES, Backend.NFT), (ProxyMode.IPTABLES, Backend.LEGACY), (ProxyMode.NFTABLES, None)],
)
def test_the_rules_are_those_of_now_and_nothing_is_left(own_run, spaces, mode, backend):
    up(with_proxy(load("kube-proxy"), mode, None, backend), name="mine")
    node = spaces("node")
    with spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM) as somebodys:
        somebodys.settimeout(PATIENCE)
        somebodys.bind(("10.0.0.2", 34567))  # whence it would be sent, were it free
        somebodys.connect(("192.168.0.2", 80))
        before = [node.sysctl(key) for key in SETTINGS]
        [entry] = [flow for flow in Flows(node) if flow.protocol == "tcp"]
        told = trace("--to", "192.168.0.2:80")
        assert "judged at node: 10.0.0.2:34568 > 192.168.0.2:80 SYN, NEW" in told
        assert "= now 10.0.0.2:34568 > 10.0.1.2:80" in told
        assert told.endswith(
            "came to server as 10.0.0.2:34568 > 10.0.1.2:80 SYN\nanswered by 192.168.0.2:80 > 10.0.0.2:34568 SYN,ACK\n"
        )
        # A rule of one's own, which the barriers' datagrams do not pass either.
        run(node, f"iptables-{backend or 'nft'}", "-I", "FORWARD", "-d", "10.0.1.2", "-j", "REJECT")
        told = trace("--from", "client:5", "--to", "192.168.0.2:80")
        rule = "ip daddr 10.0.1.2 counter reject" if backend is None else "-d 10.0.1.2/32 -j REJECT"
        assert f"  DROPPED by filter FORWARD rule 1: {rule}" in told
        assert "\nanswered by 192.168.0.2 > 10.0.0.2 ICMP type 3 code 3\n" in told
        assert "handshake" not in told
        rules = run(node, "nft", "list", "ruleset") if backend is not Backend.LEGACY else ""
        assert "lab_" not in rules
        assert [node.sysctl(key) for key in SETTINGS] == before
        assert [str(flow.original) for flow in Flows(node) if flow.protocol in ("tcp", "udp")] == [str(entry.original)]
        run(node, f"iptables-{backend or 'nft'}", "-F", "FORWARD")
        somebodys.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" answers 10.0.0.2:34567" in somebodys.recv(4096)


def test_a_packet_goes_by_an_entry_that_was_there_and_leaves_it(own_run, spaces):
    up(load("kube-proxy"), name="mine")
    flows = Flows(spaces("node"))
    flows.create("udp", "10.0.0.2:5000", "192.168.0.10:53", reply_source="10.0.1.2:53", timeout=600)
    told = trace("--from", "client:5000", "--to", "192.168.0.10:53", "--protocol", "udp")
    assert "= by conntrack's entry: 10.0.0.2:5000 > 10.0.1.2:53" in told
    assert [flow.original.ports["sport"] for flow in flows if flow.protocol == "udp"] == [5000]
    told = json.loads(trace("--from", "node", "--to", "10.0.1.2", "--json"))
    assert told["packet"]["host"] == "node"
    assert len(told["sent"]["answers"]) == 1  # which its link sees, and its own sockets


def test_a_cell_that_fails_names_the_trace_of_its_packet_there(own_run, spaces):
    up(load("kube-proxy"), name="mine")
    run(spaces("node"), "iptables-nft", "-I", "FORWARD", "-d", "10.0.1.2", "-j", "DROP")
    ran = lab_command("reach", "--lab", "mine", "--from", "client", "--to", "vip")
    [command] = [line.split("rules:")[1].split() for line in ran.stdout.splitlines() if "rules:" in line]
    assert command[0] == "lab"
    assert "DROPPED by filter FORWARD rule 1" in lab_command(*command[1:]).stdout


def test_what_cannot_be_sent_there_is_refused_in_a_line(own_run):
    up(load("kube-proxy"), name="mine", family=Family.IPV4)
    for words, says in (
        (("in-window",), "a CASE, and --lab (`lab inject in-window --lab mine` plays one there)"),
        ((), "neither a CASE nor --to"),
        (("--to", "10.0.1.2", "--fix", "be-liberal"), "--fix, and --lab, which names a lab that is built"),
        (("--to", "10.0.1.2", "--topology", "uplink"), "--topology, and --lab"),
        (("--to", "10.0.1.2", "--proxy-mode", "nftables"), "--proxy-mode, and --lab"),
        (("--to", "10.0.1.2", "--masquerade-all"), "kube-proxy's settings, and --lab"),
        (("--to", "10.0.1.2", "--from", "clint"), "kube-proxy: there is no host 'clint' (did you mean 'client'?)"),
        (("--to", "10.0.0.2"), "10.0.0.2 is client's own: a packet to it comes to no node"),
        (("--to", "fd00:10:0:1::2"), "this lab was built without ipv6"),
        (("--to", "10.0.1.2:7", "--protocol", "udp"), "UDP's port 7 is that of the lab's own datagrams"),
    ):
        ran = lab_command("trace", "--lab", "mine", *words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"lab: {says}"), ran.stderr
        assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("mode", ProxyMode)
def test_a_lab_without_services_is_traced_as_well(own_run, mode):
    up(with_proxy(load("kube-proxy"), mode, None, None), name="mine")
    assert lab_command("services", "remove", "web").returncode == 0
    told = trace("--to", "10.0.1.2:80")
    assert "judged at node: 10.0.0.2:34567 > 10.0.1.2:80 SYN, NEW" in told
    assert "\nanswered by 10.0.1.2:80 > 10.0.0.2:34567 " in told
    assert "came to server" not in trace("--to", "192.168.0.2:80")
    assert lab_command("trace", "--lab", "mine", "--to", "10.0.1.2", "--service", "web").returncode == 2
