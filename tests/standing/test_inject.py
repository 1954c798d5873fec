"""`lab inject`: a case tried in a lab that stands, beside whoever uses it."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import ExitStack, closing, suppress

import pytest

from lab.conntrack.flows import Flows
from lab.evidence.packet import SocketAddress
from lab.netns import Namespace
from lab.standing import names
from lab.standing.up import up
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.traffic.tcp import listen
from lab.vocabulary import ProxyMode
from tests.support.command import lab as lab_command

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once
GET = b"GET / HTTP/1.1\r\n\r\n"


@pytest.fixture
def spaces():
    """Opens the namespaces of the lab kube-proxy."""
    with ExitStack() as stack:
        yield lambda host: stack.enter_context(closing(Namespace.open(names.DIRECTORY / f"kube-proxy-{host}")))


@pytest.fixture
def clients(spaces):
    """Connects clients to the Service, as a person's curl would."""
    with ExitStack() as stack:

        def connect():
            client = stack.enter_context(spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM))
            client.settimeout(PATIENCE)
            client.connect(("192.168.0.2", 80))
            return client

        yield connect


def is_answered(client):
    client.sendall(GET)
    return b"server 10.0.1.2:80 answers" in client.recv(4096)


def rules(host="node"):
    text = lab_command("exec", host, "--", "sh", "-c", "nft list ruleset; iptables-nft-save").stdout
    return sorted(re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]|^#.*$", "", text, flags=re.MULTILINE).splitlines())


@pytest.mark.parametrize("mode", ProxyMode)
def test_the_bug_beside_a_connection_that_goes_on(own_run, clients, spaces, mode):
    up(with_proxy(load("kube-proxy"), mode, None, None))
    before, client = rules(), clients()
    assert is_answered(client)
    for _ in range(3):
        ran = lab_command("inject", "beyond-window")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "RST" in ran.stdout
        assert re.search(r"beyond-window.*none.*reset", ran.stdout)
    assert is_answered(client)  # its entry is there still, and so is its server
    assert is_answered(clients())
    assert rules() == before
    ports = {flow.original.ports["sport"] for flow in Flows(spaces("node")) if flow.protocol == "tcp"}
    assert client.getsockname()[1] in ports
    assert not ports & set(range(34567, 34577))  # the trials'


def test_the_labs_fix_and_family(own_run):
    up(load("kube-proxy"), fix="drop-forward")
    ran = lab_command("inject", "beyond-window", "--family", "ipv6")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "fd00:192:168::2" in ran.stdout
    assert re.search(r"beyond-window.*drop-forward.*dropped", ran.stdout)


@pytest.mark.parametrize("case", ["endpoint-removed", "redirected-in-pod"])
def test_what_a_case_changes_is_taken_back(own_run, clients, case):
    up(load("kube-proxy"))
    before = rules(), rules("server"), lab_command("endpoints", "list").stdout
    ran = lab_command("inject", case)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (rules(), rules("server"), lab_command("endpoints", "list").stdout) == before
    assert is_answered(clients())


FOREIGN = "table inet somebody {{ chain forward {{ type filter hook forward priority -5; {}\n}}; }}\n"


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        ("tcp dport 80 reject with tcp reset", "refused; at node, RST; dropped at node"),
        ("tcp dport 80 drop", "times out; at node, it came in by client and went no further; dropped at node"),
        ("tcp flags & (syn|ack) == syn|ack drop", "SYN,ACK dropped at node"),
        ("tcp flags == ack drop", "ACK dropped at node"),
    ],
)
def test_a_connection_that_somebodys_rule_refuses_is_no_answer_about_the_case(own_run, rule, seen):
    up(load("kube-proxy"))
    assert lab_command("exec", "node", "--", "nft", FOREIGN.format(rule)).returncode == 0
    before = rules()
    ran = lab_command("inject", "beyond-window")
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stdout + ran.stderr
    assert seen in ran.stderr
    assert f"by somebody forward rule 1: {rule.partition(' &')[0]}" in ran.stderr.replace("inet ", "")
    assert rules() == before


def test_what_would_end_others_connections_is_refused(own_run, clients):
    up(load("kube-proxy"))
    client = clients()
    for case in ("table-full-new-connection", "entry-flushed", "dns-race-one-endpoint", "beyond-windw"):
        ran = lab_command("inject", case)
        assert (ran.returncode, ran.stdout) == (2, ""), ran.stdout
        assert ran.stderr.startswith("lab: ")
        assert len(ran.stderr.splitlines()) <= 2
    assert is_answered(client)
    assert lab_command("inject", "in-window").returncode == 0


def inject_into(case, connection="only", *more):
    return lab_command("inject", case, "--connection", connection, *more)


@pytest.mark.parametrize("mode", ProxyMode)
def test_the_bug_on_a_connection_that_somebody_has_open(own_run, clients, mode):
    up(with_proxy(load("kube-proxy"), mode, None, None))
    victim = clients()
    assert is_answered(victim)
    harmless = inject_into("far-behind")
    assert harmless.returncode == 0, harmless.stdout + harmless.stderr
    assert is_answered(victim)  # its numbers were read, and nothing of it was touched
    ran = inject_into("beyond-window")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    port = victim.getsockname()[1]
    assert f"on the connection client 10.0.0.2:{port} > 192.168.0.2:80, which server at 10.0.1.2:80" in ran.stderr
    # The numbers are those of the connection as it is: the reset's is the very one that the server waits for.
    assert f"ack {2 * len(GET) + 1}  INVALID" in ran.stdout
    assert "INVALID, leaked, RST, ECONNRESET" in ran.stdout
    with pytest.raises(ConnectionResetError):
        is_answered(victim)


def test_it_is_spared_where_the_lab_has_a_fix_and_told_so(own_run, spaces):
    up(load("kube-proxy"), fix="drop-forward")
    with spaces("client").socket(socket.AF_INET6, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("fd00:192:168::2", 80))
        ran = inject_into("beyond-window", "client")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert re.search(r"beyond-window.*drop-forward.*dropped", ran.stdout)
        assert "client's socket: open" in ran.stdout
        client.sendall(GET)
        assert b"answers [fd00:10::2]" in client.recv(4096)


def test_which_connection_is_meant_is_asked_where_there_are_several(own_run, clients):
    up(load("kube-proxy"))
    ran = inject_into("beyond-window")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("lab: no client has a connection open in this lab (open one, such as `lab exec")
    one, other = clients(), clients()
    ran = inject_into("beyond-window", "client")
    ports = [client.getsockname()[1] for client in (one, other)]
    assert ran.returncode == 2
    assert ran.stderr.startswith("lab: 2 connections are open (--connection says which: client:")
    assert all(f"client:{port} (to 192.168.0.2:80)" in ran.stderr for port in ports)
    ran = inject_into("beyond-window", f"10.0.0.2:{ports[1]}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert is_answered(one)
    with pytest.raises(ConnectionResetError):
        is_answered(other)
    for case, connection, more, says in (
        ("beyond-window", "client:1", (), "no connection of client:1 is open (there is: client:"),
        (
            "in-window",
            "only",
            (),
            "in-window does more than inject one packet and see what becomes of it, and",
        ),
        ("entry-flushed", "only", (), "entry-flushed does more than inject one packet"),
        ("sack-beyond-with-data", "only", (), "the case sends the next 100 bytes of the server"),
        ("first-invalid-byte", "only", (), "the case counts from the window's edges as the node knows them"),
        ("beyond-window", "", (), "--connection names none"),
        ("beyond-window", "nosuch", (), "--connection nosuch: this lab has no host or address 'nosuch' (known: client"),
        ("beyond-window", "clien:80", (), "--connection clien:80: this lab has no host or address 'clien' (did you"),
        ("beyond-window", "client:99999", (), "--connection client:99999: '99999' is no port (1 to 65535)"),
        ("beyond-window", "only", ("--family", "ipv4"), "--connection besides --family or --service"),
    ):
        ran = inject_into(case, connection, *more)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"lab: {says}"), ran.stderr
    assert is_answered(one)


@pytest.mark.parametrize("case", ["bad-checksum", "truncated-header", "fin-psh-urg"])
def test_one_wrong_segment_is_played_into_somebodys_connection(own_run, clients, case):
    up(load("kube-proxy"))
    client = clients()
    ran = inject_into(case)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(rf"{case}.*none.*leaked", ran.stdout)
    assert is_answered(client)


def test_a_connection_that_no_case_is_about_is_not_counted_beside_one_that_is(own_run, clients, spaces):
    up(load("kube-proxy"))
    client = clients()
    with spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.settimeout(PATIENCE)
        other.connect(("10.0.1.2", 80))
        ran = inject_into("far-behind", "client")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"on the connection client 10.0.0.2:{client.getsockname()[1]} > 192.168.0.2:80" in ran.stderr


def test_one_that_nothing_translates_is_no_case_s(own_run, spaces):
    up(load("kube-proxy"))
    with spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("10.0.1.2", 80))
        ran = inject_into("beyond-window")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert "no node translates that address" in ran.stderr
        assert is_answered(client)


@pytest.mark.parametrize("piece", [pytest.param(1 << 16, id="a download"), pytest.param(64, id="many small packets")])
@pytest.mark.parametrize("words", [("inject", "beyond-window", "--service", "web"), ("reach", "--lab", "kube-proxy")])
def test_somebodys_connection_drowns_no_instrument(own_run, spaces, words, piece):
    up(load("kube-proxy"))
    with ExitStack() as stack:
        listener = stack.enter_context(listen(spaces("server"), SocketAddress("10.0.1.2", 8080)))
        client = stack.enter_context(spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM))
        for one in (listener, client):
            one.settimeout(PATIENCE)
        client.connect(("10.0.1.2", 8080))
        server = stack.enter_context(listener.accept()[0])
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = [0]

        def send():
            with suppress(OSError):
                while True:
                    server.sendall(bytes(piece))

        def receive():
            with suppress(OSError):
                while got := len(client.recv(1 << 20)):
                    received[0] += got

        threads = [threading.Thread(target=one) for one in (send, receive)]
        for thread in threads:
            thread.start()
        ran = lab_command(*words)
        for one in (client, server):
            with suppress(OSError):  # the first one's end may have been the other's
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr
        assert received[0] > 10_000 * piece or received[0] > 10_000_000


def test_a_masqueraded_client_s_is_found_as_its_server_knows_it(own_run):
    up(load("uplink"))
    with (
        closing(Namespace.open(names.DIRECTORY / "uplink-outside")) as outside,
        outside.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        client.settimeout(PATIENCE)
        client.connect(("203.0.113.1", 30080))
        client.sendall(GET)
        assert b"answers 10.0.1.1:" in client.recv(4096)
        ran = inject_into("far-behind", "outside")
        assert "outside 203.0.113.2:" in ran.stderr
        client.sendall(GET)
        assert b"answers 10.0.1.1:" in client.recv(4096)


@pytest.mark.parametrize("words", [("inject", "in-window"), ("run", "answer-across-bridge", "--fix", "none")])
def test_a_bridge_is_no_link_that_a_packet_crosses_besides_its_ports(own_run, words):
    up(load("bridge"))
    ran = lab_command(*words)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    syns = [line for line in ran.stdout.splitlines() if " SYN seq 0" in line]
    assert len(syns) == 2, syns  # to the node, and on to the server
    assert "  client eth0 > node client " in syns[0]
    assert re.search("  node (server-[12]) > \\1 eth0 ", syns[1]), syns[1]


def test_a_node_s_own_is_found_though_its_kernel_translates_it_before_it_leaves(own_run):
    up(load("uplink"))
    with (
        closing(Namespace.open(names.DIRECTORY / "uplink-node")) as node,
        node.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        client.settimeout(PATIENCE)
        client.connect(("192.168.0.2", 80))
        assert client.getsockname()[0] == "203.0.113.1"  # and 10.0.1.1 to its server
        ran = inject_into("far-behind", "node")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        client.sendall(GET)
        assert b"answers 10.0.1.1:" in client.recv(4096)
        ran = inject_into("beyond-window", f"node:{client.getsockname()[1]}")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "server's socket: ECONNRESET" in ran.stdout


def test_what_rules_counted_before_is_not_told_of_a_trial(own_run, spaces):
    up(with_proxy(load("kube-proxy"), ProxyMode.IPTABLES, None, None))
    for port in (81, 80):
        lab_command("exec", "node", "--", *f"iptables-nft -I FORWARD -p tcp --dport {port} -j REJECT".split())
    with closing(spaces("client").socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            client.connect(("10.0.1.2", 81))
    said = lab_command("inject", "beyond-window").stderr
    assert "--dport 80 -j REJECT" in said
    assert "dport 81" not in said
