"""Leaks and resets, found by looking on while a trial runs: what the trial's own witnesses say is the measure."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager

import pytest

from lab.cases import CASES
from lab.evidence.packet import FIN, RST, SYN
from lab.evidence.sighting import Sighting
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.observed.answer import answered
from lab.observed.found import GONE, Leak, Reset
from lab.observed.lines import Told
from lab.observed.prometheus import exposition
from lab.observed.tally import Answer
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family
from lab.watch.host import WatchedHost
from lab.watch.watch import Watch
from lab.wire import filter as filters

pytestmark = pytest.mark.lab_kernel

PATIENCE = 60.0  # seconds
TCP_CLOSE = 7  # include/net/tcp_states.h

#: In which somebody gets a packet without its translation.
UNTRANSLATED = {Outcome.RESET, Outcome.LEAKED, Outcome.RETRIED}
DEFAULT_FIXES = ("none", "drop-forward", "be-liberal")
BY_THE_NODE = ("client-on-node", "client-masqueraded", "client-outside-cluster")
OTHERS = (
    *("beyond-window", "in-window", "upstream-regression", "ack-above", "sack-beyond", "bad-checksum", "syn-fin"),
    *("syn-from-server", "reset-behind", "reset-exact", "reset-exact-from-client", "entry-deleted", "entry-expired"),
    *("port-reused", "tour-of-states", "judged-on-both-nodes", "retried", "last-ignored-byte"),
)


@pytest.fixture(scope="module")
def answers():
    return {family: asyncio.run(probe.ask(family)) for family in Family}


def make_lean(host):
    """Have a host take it that there is too much to look at each packet."""
    host.lean = True
    host._rest.choose(filters.nothing())
    host.finder.follow_all(whether=False)


def watched(case, fix, family, answer, *, lean=False):
    """Run a trial, and return what became of it, what is counted of its nodes, and what was found and saved."""
    took = {}

    @contextmanager
    def build(setting):
        with runner.fresh_lab(setting) as lab:
            hosts = [
                WatchedHost(node.name, lab.hosts[node.name].namespace, answer, services_only=True, remembered=32)
                for node in lab.topology.nodes
            ]
            with closing(Watch(hosts)) as watch:
                if lean:
                    for host in hosts:
                        make_lean(host)
                yield lab
                found, seen = [], watch.read(everything=True)
                saved = []
                while seen:
                    found += [one for one in seen if isinstance(one, Leak | Reset)]
                    for host in hosts:
                        saved += host.finder.to_save
                        host.finder.to_save.clear()
                    seen = watch.read(everything=True)
                took.update(tally=watch.tally, found=found, saved=saved)

    topology = load(case.topology or "kube-proxy")
    result = asyncio.run(runner.run(Setting(case, fix, topology, family), answer, build=build))
    assert result.as_expected, result.verdict
    return result, took["tally"], took["found"], took["saved"]


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("fix", DEFAULT_FIXES)
@pytest.mark.parametrize("case", [*BY_THE_NODE, *OTHERS])
def test_what_is_found_is_what_the_trial_says(case, fix, family, answers):
    result, tally, found, saved = watched(CASES[case], FIXES[fix], family, answers[family])
    assert tally.connections
    assert not tally.missed
    suffers = result.verdict.outcome in UNTRANSLATED
    assert tally.answer is (Answer.SUFFERS if suffers else Answer.NO), found
    assert tally.total("connections") == suffers
    assert tally.total("leaks") == (suffers and case not in BY_THE_NODE)
    assert tally.total("by_node") == (suffers and case in BY_THE_NODE)
    if result.verdict.outcome in {Outcome.RESET, Outcome.RETRIED}:
        assert tally.total("resets") == 1
    assert bool(saved) == suffers
    times = [one.time for one in saved]
    assert times == sorted(times)
    for one in found:
        assert one.sighting in saved


def test_a_leak_says_why_and_the_reset_what_it_answers(answers):
    [leak, reset] = watched(CASES["beyond-window"], FIXES["none"], Family.IPV4, answers[Family.IPV4])[2]
    assert (leak.state, leak.word.by, leak.word.condition) == ("ESTABLISHED", "window", "I")
    assert (leak.sighting.interface, leak.sighting.outgoing) == ("client", True)
    assert str(leak.target) == "192.168.0.2:80"
    assert reset.leak is leak
    assert (reset.sighting.interface, reset.sighting.outgoing, reset.by_node) == ("client", False, False)


def test_an_entry_that_is_gone_is_told_so(answers):
    _result, tally, found, _saved = watched(
        CASES["entry-deleted"], FIXES["drop-forward"], Family.IPV4, answers[Family.IPV4]
    )
    assert {one.state for one in found} == {GONE}
    assert tally.total("gone") == 1


@pytest.mark.parametrize(
    "case", ["beyond-window", "client-masqueraded", "in-window", "reset-exact-from-client", "reset-behind"]
)
@pytest.mark.parametrize("family", Family)
def test_where_there_is_too_much_to_look_at_each_packet_resets_are_found(case, family, answers):
    result, tally, found, _saved = watched(CASES[case], FIXES["none"], family, answers[family], lean=True)
    assert tally.total("resets") == (result.verdict.outcome is Outcome.RESET), found
    assert tally.answer is (Answer.SUFFERS if result.verdict.outcome in UNTRANSLATED else Answer.NO), found
    assert all(one.sighting.packet.tcp.flags & ~SYN for one in found)


@contextmanager
def watched_node():
    """Build a lab's node that is watched, and what has a download of so many megabytes come through it."""
    with Lab(load("kube-proxy"), family=Family.IPV4) as lab, ExitStack() as stack:
        with lab.hosts["server"].namespace.entered():
            server = stack.enter_context(socket.create_server(("", 80)))
        host = WatchedHost("node", lab.hosts["node"].namespace, Behaviour.IGNORES_LATE, services_only=True)
        watch = stack.enter_context(closing(Watch([host])))

        def download(megabytes):
            client = stack.enter_context(lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM))
            client.setblocking(True)
            client.connect(("192.168.0.2", 80))
            serving = server.accept()[0]
            sender = threading.Thread(target=serving.sendall, args=(bytes(megabytes << 20),))
            sender.start()
            left = megabytes << 20
            while left:
                left -= len(client.recv(min(left, 1 << 20)))
            sender.join()
            serving.close()

        yield watch, host, download


@contextmanager
def watched_with_entries():
    """Build a node that has an idle connection and one in TIME_WAIT before it is watched, and give the idle one."""
    with Lab(load("kube-proxy"), family=Family.IPV4) as lab, ExitStack() as stack:
        with lab.hosts["server"].namespace.entered():
            server = stack.enter_context(socket.create_server(("", 80)))

        def connect():
            client = stack.enter_context(lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM))
            client.setblocking(True)
            client.connect(("192.168.0.2", 80))
            return client, stack.enter_context(server.accept()[0])

        first, last = connect()
        first.shutdown(socket.SHUT_WR)
        assert last.recv(1) == b""
        last.shutdown(socket.SHUT_WR)
        stop = time.monotonic() + PATIENCE
        while last.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE:  # its FIN was acknowledged
            assert time.monotonic() < stop
        idle = connect()
        host = WatchedHost("node", lab.hosts["node"].namespace, Behaviour.IGNORES_LATE, services_only=True)
        yield stack.enter_context(closing(Watch([host]))), idle


@pytest.fixture
def node():
    with watched_node() as made:
        yield made


def test_entries_of_before_are_no_connections_that_were_seen_until_their_packets_are():
    with watched_with_entries() as (watch, (client, serving)):
        listed = [one.event.entry.tcp_state for one in watch.read() if isinstance(one, Told)]
        assert sorted(state or "" for state in listed) == ["ESTABLISHED", "TIME_WAIT"]
        before = watch.tally.answer
        assert before is Answer.UNKNOWN
        assert list(answered(watch.tally, 1.0)) == [
            "NOT KNOWN: in 1 s no packet of a connection through a Service was seen."
        ]
        assert "_connections_total 0\n" in exposition(watch.tally, since=0.0, now=1.0, missed_some=False)
        client.sendall(b"?")
        assert serving.recv(1) == b"?"
        watch.read()
        assert watch.tally.answer is Answer.NO
        assert "_connections_total 1\n" in exposition(watch.tally, since=0.0, now=1.0, missed_some=False)


def test_what_nobody_read_in_time_is_said_and_makes_none_not_known(monkeypatch):
    monkeypatch.setattr("lab.wire.heads._ROOM", 4096)
    with watched_node() as (watch, _host, download):
        for _ in range(20):
            download(1)
        while watch.read():
            pass
        assert watch.tally.missed.packets > 0
        assert watch.tally.answer is Answer.UNKNOWN
        assert "Missed: " in "\n".join(answered(watch.tally, 60.0))


def test_data_that_nobody_read_in_time_is_said_and_leaves_the_answer(node):
    watch, _host, download = node
    download(256)
    while watch.read():
        pass
    assert watch.tally.missed.data > 0
    assert watch.tally.answer is Answer.NO
    assert "Not looked at: " in "\n".join(answered(watch.tally, 60.0))


def test_a_busy_node_is_looked_at_by_candidates_until_it_is_calm(node, monkeypatch):
    watch, _host, download = node
    monkeypatch.setattr("lab.watch.host._MOST", 10)
    download(1)
    while watch.read():
        pass
    assert watch.lean
    download(8)
    seen = [one for _turn in range(3) for one in watch.read()]
    packets = [one for one in seen if isinstance(one, Sighting)]
    assert packets
    assert all(one.packet.tcp.flags & (SYN | FIN | RST) for one in packets)
    for name, value in (("_MOST", 1_000_000), ("_TURN", 0.0), ("_CALM", 0.0)):
        monkeypatch.setattr(f"lab.watch.host.{name}", value)
    watch.read()
    assert not watch.lean
    download(1)
    assert max(one.packet.payload_length for one in watch.read() if isinstance(one, Sighting)) > 0
    assert not watch.tally.missed
