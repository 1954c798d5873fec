"""What is said of counts, of flows and of ends; nothing here touches a kernel."""

from __future__ import annotations

import re

import pytest

from lab.errors import InputError
from lab.evidence.entry import Entry, EntryEvent
from lab.evidence.packet import ACK, PSH, RST, TCP, Packet, SocketAddress, TcpHeader
from lab.evidence.sighting import Sighting
from lab.observed import answer
from lab.observed.flows import Flows
from lab.observed.found import GONE, Leak, Reset
from lab.observed.lines import Told
from lab.observed.prometheus import exposition
from lab.observed.tally import OTHERS, Answer, Tally
from lab.observed.wanted import Wanted

CLIENT, VIP, ENDPOINT = SocketAddress("10.0.0.2", 4000), SocketAddress("10.96.0.1", 80), SocketAddress("10.0.1.2", 8080)
ENTRY = Entry(TCP, (CLIENT, VIP), (ENDPOINT, CLIENT), "ESTABLISHED", assured=True, timeout=100)


def packet(source, destination, flags=ACK):
    return Packet(source, destination, TCP, 1, 0, TcpHeader(1, 2, flags, 3))


def sighting(source, destination, *, flags=ACK, host="node", interface="eth0", outgoing=True, time=1):
    return Sighting(time, host, interface, outgoing, packet(source, destination, flags))


def leak(state="ESTABLISHED", *, over=False, first=True, target=VIP, client=CLIENT):
    return Leak(sighting(ENDPOINT, client, flags=ACK | PSH), client, target, ENDPOINT, state, None, over, first)


def reset(*, by_node=False, over=False, first=False):
    seen = sighting(CLIENT, ENDPOINT, flags=RST, outgoing=by_node)
    return Reset(seen, CLIENT, VIP, ENDPOINT, "ESTABLISHED", None, by_node, over, first)


def counted(*found, connections=1):
    tally = Tally()
    tally.connections = connections
    for one in found:
        tally.count(one)
    return tally


def said(tally, seconds=600.0):
    return list(answer.answered(tally, seconds))


def test_a_node_that_suffers_is_told_how_often_and_towards_whom():
    tally = counted(leak(), reset(), leak(GONE), leak(over=True), connections=1234)
    assert tally.answer is Answer.SUFFERS
    first = (
        "SUFFERS: in 10 min, on 1,234 connections to Services, 2 packets left untranslated and 1 RST answered such"
        " packets: 2 connections affected."
    )
    assert said(tally) == [
        first,
        "1 leak of a connection whose entry was gone, which no fix of INVALID packets helps.",
        "1 more of connections that were over already, which does no harm.",
        "  10.96.0.1:80 = 10.0.1.2:8080: 2 leaks, 1 reset, towards 10.0.0.2 (3)",
    ]


def test_what_was_missed_makes_none_not_known():
    tally = counted(leak(over=True))
    assert tally.answer is Answer.NO
    assert said(tally)[0] == "NONE: in 10 min, on 1 connection to Services, no packet left untranslated."
    tally.missed.packets = 3
    assert tally.answer.value == 2
    assert said(tally)[0].startswith("NOT KNOWN: in 10 min, on 1 connection to Services, no packet was seen to leave")
    assert "Missed: 3 packets that the kernel could not hand over." in said(tally)
    tally.count(reset(by_node=True, first=True))
    assert tally.answer.value == 1
    assert "(the node's own: 1)" in said(tally)[0]
    assert counted(connections=0).answer is Answer.UNKNOWN


def test_counts_have_bounds():
    vips = [SocketAddress(f"10.96.{number // 250}.{number % 250 + 1}", 80) for number in range(500)]
    clients = [SocketAddress(f"10.1.0.{number}", 1) for number in range(100)]
    tally = counted(*(leak(target=vip) for vip in vips), *(leak(client=client, target=vips[0]) for client in clients))
    assert len(tally.pairs) == 201
    assert tally.total("leaks") == 600
    assert len(tally.pairs[str(vips[0]), str(ENDPOINT)].clients) == 51
    assert tally.pairs[OTHERS, OTHERS].leaks == 300
    assert len(said(tally)) < 15


def test_the_text_is_prometheus_own_form():
    text = exposition(counted(leak(), reset(), connections=7), since=1.5, now=2.5, missed_some=False)
    families = re.findall(r"^# HELP (\w+) .+\n# TYPE \1 (counter|gauge)\n((?:\1(?:\{.*\})? [0-9.e+]+\n)+)", text, re.M)
    assert text == "".join(
        f"{line}\n"
        for line in text.splitlines()
        if line.startswith("#") or re.fullmatch(r"\w+(\{.*\})? [\d.e+]+", line)
    )
    assert len(families) == text.count("# TYPE")
    assert all(name.startswith("kube_proxy_lab_") for name, *_rest in families)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind, _samples in families)
    labels = '{service="10.96.0.1:80",endpoint="10.0.1.2:8080"}'
    assert f"kube_proxy_lab_leaked_packets_total{labels} 1\n" in text
    assert "kube_proxy_lab_connections_total 7\n" in text


def told(kind="new", entry=ENTRY, time=5):
    return Told(time, "node", EntryEvent(kind, entry))


def test_a_flow_is_one_on_all_hosts_whatever_came_first():
    for order in ((0, 1, 2, 3), (1, 2, 0, 3), (3, 2, 1, 0)):
        flows = Flows()
        seen = (
            told(),
            sighting(CLIENT, VIP, host="client"),
            sighting(CLIENT, ENDPOINT, host="server", outgoing=False),
            sighting(ENDPOINT, CLIENT, host="server"),
        )
        took = [flows.take(seen[number]) for number in order]
        [flow] = flows
        assert {one.whole for one in took} == {flow}
        assert str(flow) == "tcp 10.0.0.2:4000 > 10.96.0.1:80 = 10.0.1.2:8080"
        assert (flow.packets(from_client=True), flow.packets(from_client=False)) == (1, 1)
        assert set(flow.hosts) == {"client", "node", "server"}


def test_an_entry_that_is_gone_and_its_ports_once_more():
    flows = Flows(entries_only=True)
    assert flows.take(sighting(CLIENT, VIP)) is None
    first = flows.take(told())
    assert flows.take(told("destroy")) is first
    assert first.state == "gone"
    second = flows.take(told())
    assert [flow.state for flow in flows] == ["gone", "ESTABLISHED"]
    assert flows.take(sighting(VIP, CLIENT)) is second


def test_flows_have_a_bound():
    flows = Flows()
    for number in range(3000):
        flows.take(sighting(SocketAddress("10.0.0.2", number), VIP))
    assert (len(flows), flows.forgotten) == (2000, 1000)


@pytest.mark.parametrize(
    ("text", "yes"),
    [("10.0.1.2", True), ("10.0.1.2:8080", True), (":80", True), ("10.96.0.1:8080", False), (None, True)],
)
def test_a_flow_is_wanted_by_any_of_its_ends(text, yes):
    flow = Flows().take(told())
    assert Wanted.of(text).has(flow) == yes


@pytest.mark.parametrize(
    "text", ["web", "10.0.0", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "[fd00::1", ":", "::1:80x"]
)
def test_what_is_no_end_is_refused(text):
    with pytest.raises(InputError, match="is no address"):
        Wanted.of(text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.25, "0.25 s"), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min 5 s"), (7200, "2 h")]
)
def test_times_in_words(seconds, words):
    assert answer.duration(seconds) == words
