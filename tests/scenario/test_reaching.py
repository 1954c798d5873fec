"""What becomes of a question, and who is named for it: by real sockets, in labs that are built for it."""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest

from lab.conntrack.flows import Flows
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Fate, Question, Target
from lab.fabric.lab import Lab
from lab.netns import Namespace, RouteSocket, mib
from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up
from lab.scenario import deciding, one_processor
from lab.scenario.reaching import Reaching
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel

VIP = "192.168.0.2"


@pytest.fixture(params=[(ProxyMode.NFTABLES, "v1.36"), (ProxyMode.IPTABLES, "v1.14")], ids=lambda one: one[0])
def proxied(request):
    mode, version = request.param
    return lambda name: with_proxy(load(name), mode, version, None)


@pytest.fixture
def reaching(proxied):
    with Lab(proxied("two-nodes"), family=Family.IPV4) as lab:
        yield Reaching(lab, Family.IPV4)


def ask(reaching, client, address, port=80, protocol="tcp", source=None):
    return reaching.ask(Question(client, Target.VIP, SocketAddress(address, port), protocol, source))


def give(lab, host, kind, hook, priority, rule):
    head = f"type {kind} hook {hook} priority {priority};"
    lab.hosts[host].nft.run(f"table ip test {{\nchain c {{\n{head}\n{rule}\n}}\n}}\n")


def test_a_connection_tells_who_answered_whom_and_what_conntrack_has(reaching):
    found = ask(reaching, "client", VIP)
    assert found.fate is Fate.CONNECTED
    assert found.server in {"server-a", "server-b"}
    assert found.seen_as == found.own
    assert found.is_kept
    assert (found.node, found.entry.original) == ("node-a", (found.own, SocketAddress(VIP, 80)))
    assert found.entry.reply == (found.server_address, found.own)
    assert found.entry.tcp_state == "ESTABLISHED"
    assert found.words == f"{found.server}, as 10.1.1.2"


def test_a_masqueraded_one_tells_as_whom(reaching):
    found = ask(reaching, "node-b", VIP)
    gateway = {"server-a": "192.0.2.2", "server-b": "10.2.1.1"}[found.server]
    assert (found.seen_as.address, found.is_kept, found.node) == (gateway, False, "node-b")
    assert f"masqueraded to {gateway}" in found.known_by


def test_who_refuses_is_named_and_by_what(reaching):
    by_stack = ask(reaching, "client", "10.2.1.2", 9999)
    assert (by_stack.fate, by_stack.at, by_stack.how) == (Fate.REFUSED, "server-b", "RST")
    assert by_stack.words == "refused by server-b (RST)"
    lab = reaching.lab
    lab.sync(lab.services, ())
    for client, node in (("client", "node-a"), ("server-b", "node-b"), ("node-b", "node-b")):
        found = ask(reaching, client, VIP)
        assert (found.fate, found.at, found.words) == (Fate.REFUSED, node, f"refused by {node} (ICMP)")


def test_more_are_refused_than_a_host_answers_in_a_second_by_itself(reaching):
    """Six ICMP errors in a row is what Linux grants a host: the seventh would be silence, without any rule."""
    reaching.lab.sync(reaching.lab.services, ())
    assert {ask(reaching, "client", VIP).fate for _ in range(100)} == {Fate.REFUSED}


def test_more_have_no_route_than_a_router_says_in_a_second():
    """Five such errors in a row is what Linux sends one host, and no sysctl of a namespace's changes that."""
    with Lab(load("services"), family=Family.IPV4) as lab:
        reaching = Reaching(lab, Family.IPV4)
        found = [ask(reaching, "outside", "10.2.1.2", 8080, protocol) for protocol in ("tcp", "udp") * 5]
        assert {(one.fate, one.at, one.words) for one in found} == {(Fate.NO_WAY, "router", "no way at router")}
        give(lab, "router", "filter", "prerouting", 0, "drop")
        assert ask(reaching, "outside", "10.2.1.2", 8080).fate is Fate.TIMES_OUT


def test_a_host_without_a_route_has_no_way(reaching):
    found = ask(reaching, "outside", VIP)
    assert (found.fate, found.at, found.own is None) == (Fate.NO_WAY, "outside", True)


def test_an_error_on_the_way_is_no_way_and_tells_whose(reaching):
    found = ask(reaching, "client", "10.2.77.7")  # node-b has no route but its default one, which leads outside
    assert (found.fate, found.at) == (Fate.TIMES_OUT, "outside")
    reaching.lab.hosts["node-b"].run("ip", "route", "add", "unreachable", "10.2.77.0/24")
    found = ask(reaching, "client", "10.2.77.7")
    assert (found.fate, found.at, found.how) == (Fate.NO_WAY, "node-b", "ICMP: host unreachable")


@pytest.mark.parametrize(
    ("host", "hook", "rule", "how"),
    [
        ("node-a", "forward", "ct state new drop", "it came in by client and went no further"),
        ("node-b", "forward", "ct state new drop", "it came in by node-a and went no further"),
        ("node-b", "postrouting", "tcp flags & (syn|ack) == syn|ack drop", "the answer came in by server-b"),
        ("client", "output", "drop", "it did not leave"),
        ("client", "input", "drop", "the answer came in by eth0 and went no further"),
    ],
)
def test_silence_tells_where_the_packet_was_seen_last(reaching, host, hook, rule, how):
    give(reaching.lab, host, "filter", hook, 0, rule)
    reaching.lab.endpoints.remove("web", "10.1.2.2")  # server-b's is left
    for protocol in ("tcp", "udp") if "tcp" not in rule else ("tcp",):
        address = (VIP, 80) if protocol == "tcp" else ("10.2.1.2", 8080)
        reaching.listen("server-b", 8080, protocol="udp")
        found = ask(reaching, "client", *address, protocol)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, host), found.known_by
        assert how in found.how


def test_an_answer_that_passes_the_translating_node_by_is_a_strangers(proxied):
    """The node that rewrites is not on the way back, so that the answer comes as the server sends it."""
    with Lab(proxied("asymmetric"), family=Family.IPV4) as lab:
        reaching = Reaching(lab, Family.IPV4)
        give(lab, "router", "nat", "prerouting", -100, f"ip daddr {VIP} dnat to 10.0.1.2")
        lab.hosts["node"].nft.run("flush ruleset")
        found = ask(reaching, "client", VIP)
        assert (found.fate, found.how) == (Fate.STRANGER, "10.0.1.2:80")


def test_a_connection_that_only_the_client_has_is_half_open(reaching):
    rule = "iifname client tcp flags & (syn|ack|rst) == ack drop"
    give(reaching.lab, "node-a", "filter", "prerouting", 0, rule)
    found = ask(reaching, "client", VIP)
    assert found.fate is Fate.TIMES_OUT
    assert found.how.startswith("half open")


def traced(backend):
    place = with_proxy(load("two-nodes"), ProxyMode.IPTABLES, "v1.36", backend)
    return Lab(place, family=Family.IPV4, traced=True)


@pytest.mark.parametrize("backend", Backend)
def test_the_rule_that_drops_a_bare_acknowledgement_alone_is_named(backend):
    with traced(backend) as lab:
        give(lab, "node-a", "filter", "forward", 5, "tcp flags == ack drop")
        found = ask(Reaching(lab, Family.IPV4), "client", VIP)
        assert (found.fate, found.how.partition(":")[0]) == (Fate.TIMES_OUT, "half open")
        assert "ACK dropped at node-a by test c rule 1: tcp flags == ack drop" in found.rule.replace("ip ", "")


@pytest.mark.parametrize("backend", [*Backend, None], ids=str)
def test_the_rule_that_chooses_for_a_node_itself_is_named(backend):
    """It translates before any capture sees the packet."""
    mode = ProxyMode.IPTABLES if backend else ProxyMode.NFTABLES
    with Lab(with_proxy(load("uplink"), mode, "v1.36", backend), family=Family.IPV4, traced=True) as lab:
        found = ask(Reaching(lab, Family.IPV4), "node", VIP)
        assert found.fate is Fate.CONNECTED
        assert re.search(r"^led on at node by .*(DNAT --to|dnat ip to|dnat to).* 10\.0\.1\.2\b", found.rule), found.rule


def test_a_rule_at_a_devices_ingress_is_named():
    with traced(Backend.NFT) as lab:
        chain = "chain c {\ntype filter hook ingress device client priority 0;\ntcp dport 80 drop\n}"
        lab.hosts["node-a"].nft.run(f"table netdev fw {{\n{chain}\n}}\n")
        found = ask(Reaching(lab, Family.IPV4), "client", VIP)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "node-a")
        assert found.rule == "dropped at node-a by fw c rule 1: tcp dport 80 drop"


def test_what_a_stack_counts_is_looked_through_only_where_a_packet_vanished(monkeypatch):
    looked = []
    counted = mib.counted
    monkeypatch.setattr(mib, "counted", lambda reading: looked.append(reading) or counted(reading))
    with traced(Backend.NFT) as lab:
        reaching = Reaching(lab, Family.IPV4)
        found = ask(reaching, "client", VIP)
        assert "led on at node-a by nat KUBE-SEP-" in found.rule
        assert not looked
        lab.hosts["node-a"].namespace.set_sysctls({"net/ipv4/ip_forward": 0})
        assert "IpInAddrErrors 1" in ask(reaching, "client", VIP).rule
        assert looked


@pytest.mark.parametrize("backend", Backend)
def test_a_packet_that_a_rule_dropped_is_waited_for_nowhere(monkeypatch, backend):
    with traced(backend) as lab:
        reaching = Reaching(lab, Family.IPV4)
        lab.sync(lab.services, ())
        visits = []
        monkeypatch.setattr(deciding, "visit_all_processors", lambda: visits.append(1))
        assert "dropped at node-a by filter KUBE-SERVICES" in ask(reaching, "client", VIP).rule
        assert not visits


def test_nothing_is_missed_on_a_busy_machine(reaching):
    """The barrier goes behind the packets, whatever else the processors have to do: no answer is taken for silence."""
    done = threading.Event()
    floods = [threading.Thread(target=_flood, args=(done, cpu)) for cpu in os.sched_getaffinity(0)]
    for flood in floods:
        flood.start()
    try:
        with one_processor():
            fates = [ask(reaching, "client", VIP).fate for _ in range(300)]
    finally:
        done.set()
        for flood in floods:
            flood.join()
    assert set(fates) == {Fate.CONNECTED}


def _flood(done, processor):
    """Keep a processor's queue filled, by a loopback of its own."""
    os.sched_setaffinity(0, {processor})
    with closing(Namespace.create()) as namespace, closing(RouteSocket(namespace)) as routes:
        routes.apply([link_up(LOOPBACK_INDEX, "lo")])
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            while not done.is_set():
                for _ in range(50):
                    sender.sendto(bytes(500), sender.getsockname())
                while True:
                    try:
                        sender.recv(500)
                    except BlockingIOError:
                        break


def sctp(topology, mode):
    return with_proxy(load(str(Path(__file__).parents[1] / "trial" / topology)), mode, "v1.33", None)


@pytest.mark.parametrize("mode", ProxyMode)
def test_an_sctp_handshake_is_followed_by_conntrack_and_each_way_of_its_end_is_told(mode):
    """kubernetes #102128: is it translated, and back; #70020: what is sent to an old entry goes where that leads."""
    with Lab(sctp("sctp.yaml", mode), family=Family.IPV4) as lab:
        reaching = Reaching(lab, Family.IPV4)
        found = ask(reaching, "pod", "172.21.4.4", protocol="sctp")
        assert (found.fate, found.server, found.seen_as.address) == (Fate.CONNECTED, "web", "10.50.1.2")
        assert found.entry.reply == (SocketAddress("10.50.9.9", 8080), found.own)
        states = [flow.state for flow in Flows(lab.hosts["w1"].namespace) if flow.protocol == "sctp"]
        assert states == ["CLOSED"]  # it was ESTABLISHED, and was aborted as a TCP question is reset
        masqueraded = ask(reaching, "world", "203.0.113.1", 30333, protocol="sctp")
        assert masqueraded.fate is Fate.TIMES_OUT  # policy Local, and no endpoint on w1
        closed = ask(reaching, "pod", "10.50.9.9", 9999, protocol="sctp")
        assert closed.words == "refused by web (ABORT)"
        if "sctp" in reaching.crafted:
            assert ask(reaching, "pod", "203.0.113.9", 9999, protocol="sctp").words == "refused by world (ICMP)"
        # Where a packet of it is lost is told.
        give(lab, "w2", "filter", "forward", 0, "sctp chunk init-ack exists drop")
        lost = ask(reaching, "pod", "172.21.4.4", protocol="sctp")
        assert (lost.fate, lost.at, lost.how) == (Fate.TIMES_OUT, "w2", "the answer came in by web and went no further")
        give(lab, "w1", "filter", "forward", 0, "sctp chunk cookie-echo exists drop")
        lab.hosts["w2"].nft.run("delete table ip test")
        half = ask(reaching, "pod", "172.21.4.4", protocol="sctp")
        assert (half.fate, half.how.partition(":")[0]) == (Fate.TIMES_OUT, "half open")
