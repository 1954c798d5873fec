"""`lab reach --lab`: a lab that stands is asked by real connections, and stays as it was."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lab.conntrack.flows import Flows
from lab.netns import Namespace, Program
from lab.standing import names
from lab.standing.up import up
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, ProxyMode
from tests.support.command import lab as lab_command

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once
MASK = "net/ipv4/icmp_ratemask"
SCTP = Path(__file__).parents[1] / "trial/sctp.yaml"


@pytest.fixture
def spaces():
    """Opens the namespaces of the lab mine."""
    with ExitStack() as stack:
        yield lambda host: stack.enter_context(closing(Namespace.open(names.DIRECTORY / f"mine-{host}")))


def exec_on(host, *words):
    """Run a program there as `lab exec` does, without the time that takes."""
    with closing(Namespace.open(names.DIRECTORY / f"mine-{host}")) as space:
        return Program(space, words, environment={"XTABLES_LOCKFILE": "/run/lab/lock"}).finish()


def entries(space):
    """Return the entries of a node by their ends; kernels send something of their own now and then."""
    return {(flow.protocol, str(flow.original)) for flow in Flows(space) if flow.protocol in ("tcp", "udp", "sctp")}


@pytest.mark.parametrize("mode", ProxyMode)
def test_every_cell_is_as_documented_and_nothing_is_left(own_run, spaces, mode):
    up(with_proxy(load("services"), mode, "v1.33", None), name="mine")
    nodes = [spaces("node-a"), spaces("node-b")]
    with spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM) as somebodys:
        somebodys.settimeout(PATIENCE)
        somebodys.connect(("192.168.0.2", 80))
        before = [entries(node) for node in nodes], [node.sysctl(MASK) for node in nodes]
        assert any(before[0])
        for family, service in (("ipv4", "web"), ("ipv6", "local")):
            ran = lab_command("reach", "--lab", "mine", "--service", service, "--family", family)
            assert ran.returncode == 0, ran.stdout + ran.stderr
            count = re.search(r"^(\d+) cells: (\d+) of \2 as Kubernetes documents it", ran.stdout, re.MULTILINE)
            assert count
            assert int(count[2]) > 25
        assert ([entries(node) for node in nodes], [node.sysctl(MASK) for node in nodes]) == before
        somebodys.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b" answers 10.1.1.2:" in somebodys.recv(4096)


def test_who_answers_is_told_of_services_that_came_and_nodes_that_lag(own_run):
    up(load("two-nodes"), name="mine")
    words = ("reach", "--lab", "mine", "--from", "client", "--to", "vip", "--service", "web:http")
    [cell] = json.loads(lab_command(*words, "--json").stdout)["reaches"][0]["cells"]
    assert {one["server"] for one in cell["reached"]} == {"server-a", "server-b"}
    assert all(one["seen_as"] == one["own"] for one in cell["reached"])
    looked_up = cell["reached"][:8]  # of more the entries tell nothing new
    assert all(one["entry"]["tcp_state"] == "ESTABLISHED" for one in looked_up)
    for change in (("endpoints", "remove", "web", "10.2.1.2"), ("kube-proxy", "stop", "node-a")):
        assert lab_command(*change, "--lab", "mine").returncode == 0
    [cell] = json.loads(lab_command(*words, "--json").stdout)["reaches"][0]["cells"]
    assert {one["server"] for one in cell["reached"]} == {"server-a"}
    assert lab_command("endpoints", "add", "web", "10.2.1.2", "--lab", "mine").returncode == 0
    ran = lab_command(*words)
    assert ran.returncode == 1
    assert "The kube-proxy of node-a is stopped: its rules may lag behind." in ran.stdout
    assert "never server-b" in ran.stdout


def test_an_endpoint_that_a_node_which_lags_still_chooses_is_always_found(own_run):
    up(load("endpoints"), name="mine")
    for change in (("kube-proxy", "stop", "node"), ("endpoints", "remove", "web", "10.0.1.2")):
        assert lab_command(*change, "--lab", "mine").returncode == 0
    for _ in range(4):  # by chance it would be found each time once in 16
        ran = lab_command("reach", "--lab", "mine", "--from", "client", "--to", "vip")
        assert ran.returncode == 1, ran.stdout
        assert "server-1, as" in ran.stdout


@pytest.mark.parametrize("mode", ProxyMode)
def test_a_datagram_of_the_nodes_own_is_answered_by_who_its_socket_hears(own_run, mode):
    up(with_proxy(load("dns"), mode, "v1.33", None), name="mine")
    words = ("reach", "--lab", "mine", "--from", "node", "--to", "vip", "--protocol", "udp", "--repeat", "20", "--json")
    ran = lab_command(*words)
    [cell] = json.loads(ran.stdout)["reaches"][0]["cells"]
    assert {one["fate"] for one in cell["reached"]} == {"connected"}
    assert {one["server"] for one in cell["reached"]} == {"dns-1", "dns-2"}
    assert ran.returncode == 0


def test_a_datagram_whose_answer_the_node_does_not_translate_back_is_a_strangers(own_run):
    up(load("dns"), name="mine")
    words = ("reach", "--lab", "mine", "--from", "node", "--to", "vip", "--protocol", "udp", "--repeat", "2", "--json")
    notrack = "table ip t { chain c { type filter hook prerouting priority -300; udp sport 53 notrack; }; }"
    assert lab_command("exec", "--lab", "mine", "node", "--", "nft", notrack).returncode == 0
    ran = lab_command(*words)
    assert ran.returncode == 1
    [cell] = json.loads(ran.stdout)["reaches"][0]["cells"]
    assert {one["fate"] for one in cell["reached"]} == {"answered by a stranger"}


def test_sctp_is_asked_there_too(own_run, spaces):
    up(load(str(SCTP)), name="mine")
    ran = lab_command("reach", "--lab", "mine", "--from", "pod", "--to", "vip")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "pod to vip 172.21.4.4:80/sctp: connected; by web at 10.50.9.9:8080" in ran.stdout
    assert not entries(spaces("w1"))


def test_what_cannot_be_asked_is_refused_in_a_line(own_run):
    up(load("endpoints"), name="mine")
    for words, says in (
        (("kube-proxy", "--lab", "mine"), "a topology, and --lab, which names a lab that is built"),
        (("--lab", "mine", "--fix", "be-liberal"), "--fix, and --lab, which names a lab that is built"),
        (("--lab", "mine", "--proxy-mode", "both"), "--proxy-mode, and --lab"),
        (("--lab", "mine", "--masquerade-all"), "kube-proxy's settings, and --lab"),
        (("--lab", "mien"), "no lab 'mien' stands (did you mean 'mine'?)"),
        (("--lab", "mine", "--service", "nope"), "endpoints: there is no Service nope"),
        (("--lab", "mine", "--from", "clint"), "endpoints: there is no host clint"),
        (("--lab", "mine", "--to", "nodeport"), "endpoints: no Service is reached by nodeport"),
        (("kube-proxy", "--topology", "uplink"), "a topology as argument, and by --topology"),
    ):
        ran = lab_command("reach", *words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"lab: {says}"), ran.stderr
        assert len(ran.stderr.splitlines()) == 1


SETTINGS = ("net/netfilter/nf_log/2", "net/netfilter/nf_conntrack_log_invalid")
BACKENDS = [(ProxyMode.IPTABLES, Backend.NFT), (ProxyMode.IPTABLES, Backend.LEGACY), (ProxyMode.NFTABLES, None)]


@pytest.mark.parametrize("traced", [(), ("--trace",)], ids=["by itself", "traced"])
@pytest.mark.parametrize(("mode", "backend"), BACKENDS)
def test_a_rule_that_somebody_has_added_is_named_where_it_stops_a_question(own_run, spaces, mode, backend, traced):
    up(with_proxy(load("kube-proxy"), mode, None, backend), name="mine")
    program, space = f"iptables-{backend or 'nft'}", spaces("node")
    tables, before = exec_on("node", "nft", "list", "tables"), [space.sysctl(key) for key in SETTINGS]
    words = ("reach", "--lab", "mine", "--from", "client", "--to", "vip", *traced)
    drop = "ip saddr 10.0.1.2 counter drop" if backend is None else "-s 10.0.1.2/32 -j DROP"
    reject = "ip daddr 10.0.1.2 counter reject" if backend is None else "-d 10.0.1.2/32 -j REJECT"
    for option, address, target, what, named in (
        ("-I", "-s", "DROP", "SYN,ACK dropped", drop),
        ("-I", "-d", "REJECT", "dropped", reject),
    ):
        exec_on("node", program, option, "FORWARD", address, "10.0.1.2", "-j", target)
        ran = lab_command(*words, COLUMNS="400")
        assert ran.returncode == 1, ran.stderr
        assert f"; {what} at node by filter FORWARD rule 1: {named}" in ran.stdout
        assert ("led on at node by" in ran.stdout) is bool(traced) or what == "dropped"
    exec_on("node", program, "-F", "FORWARD")
    ran = lab_command(*words, COLUMNS="400")
    assert ran.returncode == 0, ran.stdout
    assert ("led on at node by" in ran.stdout) is bool(traced)
    if backend is not None:
        assert exec_on("node", "nft", "list", "tables") == tables
    assert "lab_" not in exec_on("node", "nft", "list", "ruleset")
    assert [space.sysctl(key) for key in SETTINGS] == before


def test_rules_of_any_host_are_named_and_what_a_client_drops_itself(own_run):
    up(load("kube-proxy"), name="mine")
    exec_on("server", "nft", "table ip own { chain in { type filter hook input priority 0; tcp dport 80 drop; }; }")
    exec_on("node", "iptables-nft", "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "DROP")
    ran = lab_command("reach", "--lab", "mine", COLUMNS="400")
    assert "\ndropped at server by own in rule 1: tcp dport 80 drop:\n    client to vip " in ran.stdout
    assert re.search(
        r"\ndropped at node by filter OUTPUT rule \d: -p tcp -m tcp --dport 80 -j DROP:\n    node to end", ran.stdout
    )
    assert "lab_" not in exec_on("server", "nft", "list", "ruleset")


@pytest.mark.parametrize(("mode", "backend"), BACKENDS)
def test_rules_of_another_program_than_the_labs_are_named(own_run, mode, backend):
    up(with_proxy(load("kube-proxy"), mode, None, backend), name="mine")
    program = "iptables-nft" if backend is Backend.LEGACY else "iptables-legacy"
    exec_on("node", program, "-I", "FORWARD", "-d", "10.0.1.2", "-j", "DROP")
    named = "filter FORWARD rule 1 (by iptables-legacy): -d 10.0.1.2/32 -j DROP"
    if backend is Backend.LEGACY:
        named = "filter FORWARD rule 1: ip daddr 10.0.1.2 counter drop"
    ran = lab_command("reach", "--lab", "mine", "--from", "client", COLUMNS="400")
    assert ran.returncode == 1
    assert f"dropped at node by {named}" in ran.stdout
    ran = lab_command("trace", "--lab", "mine", "--to", "192.168.0.2", COLUMNS="400")
    assert ran.returncode == 0, ran.stdout
    assert f"DROPPED by {named}" in ran.stdout
    assert "= now 10.0.0.2:34567 > 10.0.1.2:80" in ran.stdout  # kube-proxy's own, before it


def test_whoever_interrupts_it_leaves_no_mark_behind(own_run, spaces):
    up(load("services"), name="mine")
    node = spaces("node-a")
    asking = subprocess.Popen(
        [sys.executable, "-m", "lab", "reach", "--lab", "mine", "--trace"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while "lab_trace" not in exec_on("node-a", "nft", "list", "tables"):
        assert asking.poll() is None
    asking.send_signal(signal.SIGINT)
    assert asking.wait(PATIENCE) == 130
    assert lab_command("endpoints", "list", "--lab", "mine").returncode == 0  # its turn comes behind the questions
    assert "lab_" not in exec_on("node-a", "nft", "list", "tables")
    assert not entries(node)
