"""The diagrams say what was captured: who sent what where, and by how much a packet was out of the window."""

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.evidence.follow import distance
from lab.evidence.sighting import LOCAL, Sighting
from lab.report import window_diagram
from lab.report.hops import Finding, hops
from lab.report.sequence import sequence
from lab.results.saved import from_json

SAVED = Path(__file__).parents[1] / "results" / "version-2.json"  # beyond-window and stale-udp-entry, no fix


@pytest.fixture(scope="module")
def results():
    return {tally.trial.case: tally.sample for tally in from_json(SAVED.read_bytes()).tallies}


@pytest.fixture(scope="module")
def timeline(results):
    return results["beyond-window"].timeline


def picture(timeline):
    return ElementTree.fromstring(sequence(timeline, "its <title>", "its & description"))


def texts(drawn, kind=""):
    return [one.text for one in drawn.iter("text") if kind in one.get("class", "").split() or not kind]


def test_a_hop_tells_of_translation_figure_and_findings(timeline):
    told = hops(timeline)
    assert [hop.number for hop in told if hop.number] == ["(1)", "(2)", "(3)", "(4)", "(5)"]
    [leak] = [hop for hop in told if hop.is_leak]
    assert (leak.place, leak.route) == ("node client > client eth0", "10.0.1.2:80 > 10.0.0.2:34567")
    assert [note.finding for note in leak.notes] == [Finding.LEAK]
    assert leak.translation == ""
    forth, back = (hop.translation for hop in told if hop.before is not None and hop.sighting.packet.tcp.flags & 2)
    assert forth == "node translated 10.0.0.2:34567 > 192.168.0.2:80 to 10.0.0.2:34567 > 10.0.1.2:80"
    assert back == "node translated 10.0.1.2:80 > 10.0.0.2:34567 to 192.168.0.2:80 > 10.0.0.2:34567"


def test_hosts_stand_in_the_packets_order_and_each_packet_is_an_arrow(timeline):
    drawn = picture(timeline)
    assert (drawn.findtext("title"), drawn.findtext("desc")) == ("its <title>", "its & description")
    names = {one.text: float(one.get("x")) for one in drawn.iter("text") if one.get("class") == "name"}
    assert sorted(names, key=names.__getitem__) == [
        "client 10.0.0.2",
        "node, VIP 192.168.0.2",
        "server 10.0.1.2",
        "conntrack entry",
    ]
    arrows = [one for one in drawn.iter("g") if one.get("class") in ("packet", "leak", "reset", "injected")]
    assert len(arrows) == len(hops(timeline))
    assert [one.get("class") for one in arrows].count("leak") == 1
    assert texts(drawn, "numbers").count("SYN seq 0") == 2
    life = [one.text for one in drawn.iter("text") if one.get("class") == "new"]
    assert life == ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "CLOSE"]


def test_a_packet_that_is_dropped_ends_in_a_cross(timeline):
    injected = timeline.injected.packet
    on_its_way = [
        one for one in timeline.sightings if one.packet.likeness != injected.likeness or one.host in ("server", "node")
    ]
    gone = [one for one in on_its_way if not (one.packet.likeness == injected.likeness and one.interface == "client")]
    dropped = dataclasses.replace(
        timeline, sightings=tuple(gone), counters=dataclasses.replace(timeline.counters, dropped=1)
    )
    drawn = picture(dropped)
    assert "ended: 1 dropped by rule" in texts(drawn, "lost")
    assert [one for one in drawn.iter("path") if one.get("class") == "cross"]
    assert not [one for one in picture(timeline).iter("path") if one.get("class") == "cross"]


def test_what_a_nodes_own_socket_takes_is_drawn_inside_of_it(timeline):
    last = timeline.sightings[-1]
    taken = Sighting(last.time + 1, "node", LOCAL, False, last.packet)
    drawn = picture(dataclasses.replace(timeline, sightings=(*timeline.sightings, taken)))
    assert "(socket)" in texts(drawn)
    hosts = [one.text for one in drawn.iter("text") if one.get("class") == "name"]
    assert len([name for name in hosts if name.startswith("node")]) == 1


def test_datagrams_are_drawn_as_well(results):
    drawn = picture(results["stale-udp-entry"].timeline)
    assert [text for text in texts(drawn) if text.startswith("UDP len ")]


def test_what_goes_back_where_it_came_from_has_a_row_of_its_own(results):
    asked = results["stale-udp-entry"].timeline
    out, into = asked.sightings[:2]
    assert (out.host, into.host, into.outgoing) == ("client", "node", False)
    hairpin = (
        out,
        into,
        dataclasses.replace(into, time=into.time + 1, outgoing=True),
        dataclasses.replace(out, time=into.time + 2, outgoing=False),
    )
    drawn = picture(dataclasses.replace(asked, sightings=hairpin))
    assert len(texts(drawn, "time")) == 2


def test_no_packets_no_picture(results, timeline):
    assert sequence(dataclasses.replace(timeline, sightings=()), "", "") == ""
    lean = dataclasses.replace(results["beyond-window"], timeline=dataclasses.replace(timeline, judged=()))
    assert window_diagram.window_diagram(lean, "") == ""
    assert window_diagram.window_diagram(results["stale-udp-entry"], "") == ""


def test_the_windows_edges_are_those_that_the_model_was_held_to(results, timeline):
    """The excess by the edges that are drawn is the one that was predicted before the packet was sent."""
    prediction = timeline.injected.predictions["node"]
    packet = timeline.judged_at("node", timeline.injected.packet).packet
    edges = window_diagram._edges(results["beyond-window"], timeline, packet)
    assert distance(edges.sequence[1], packet.tcp.sequence) == prediction.excess > 500_000_000
    drawn = ElementTree.fromstring(window_diagram.window_diagram(results["beyond-window"], "a window"))
    [out] = [text for text in texts(drawn, "leak") if "out by" in text]
    assert out.endswith(f"out by {prediction.excess:,}")
    [segment] = [one for one in drawn.iter("rect") if one.get("class") == "segment out"]
    [broken] = [one for one in drawn.iter("path") if one.get("class") == "edge broken"]
    assert float(segment.get("x", "nowhere")) > float(broken.get("d", "nowhere")[1:].split()[0])
    assert len([text for text in texts(drawn) if re.match(r"(I|II|III|IV): ", text)]) == 4
