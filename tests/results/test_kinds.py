"""A saved timeline comes back as the kind that it was; files of before, which named no kind, are read as well."""

import json
from pathlib import Path
from typing import Any

import pytest

from lab.evidence.packet import UDP, Packet, SocketAddress
from lab.evidence.timeline import KINDS, Counters, DatagramsTimeline, Exchange, SavedTimeline, kind_of
from lab.results.saved import from_json, to_json

OLD = Path(__file__).parents[1] / "report" / "results.json"
CLIENT, VIP = SocketAddress("10.0.0.2", 34567), SocketAddress("192.168.0.2", 53)
COMMON: dict[str, Any] = {
    "client": "client",
    "node": "node",
    "server": "server",
    "target": VIP,
    "client_address": CLIENT,
    "server_address": SocketAddress("10.0.1.2", 53),
    "peer_address": CLIENT,
    "sightings": (),
    "judged": (),
    "entry_events": (),
    "entry": None,
    "counters": Counters({}, {}, None),
    "refusal": None,
    "complete": True,
}


def saved(timeline):
    from pydantic import TypeAdapter

    return TypeAdapter(SavedTimeline).dump_json(timeline).decode()


def read(text):
    from pydantic import TypeAdapter

    return TypeAdapter(SavedTimeline).validate_json(text)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_comes_back_as_it_was(kind):
    timeline = KINDS[kind](**COMMON)
    again = read(saved(timeline))
    assert (type(again), again) == (KINDS[kind], timeline)
    assert json.loads(saved(timeline))["kind"] == kind


def test_what_one_kind_has_alone_is_kept():
    question = Packet(CLIENT, VIP, UDP, 1, 10)
    exchanges = (Exchange("client", VIP, question, ("server",), None, True, None),)
    timeline = DatagramsTimeline(**COMMON, exchanges=exchanges)
    assert read(saved(timeline)) == timeline
    assert "exchanges" not in json.loads(saved(KINDS["connection"](**COMMON)))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"exchanges": [{}], "tries": [], "load": None}, "datagrams"),
        ({"exchanges": [], "tries": [{}], "load": None}, "retrying"),
        ({"exchanges": [], "tries": [], "load": {"size": 1}}, "downloads"),
        ({"exchanges": [], "tries": [], "load": None}, "connection"),
    ],
)
def test_files_of_before_had_the_fields_of_every_kind(fields, kind):
    assert kind_of(fields) == kind


def test_a_file_of_before_is_read_and_written_anew():
    report = from_json(OLD.read_text())
    kinds = {type(tally.sample.timeline) for tally in report.tallies if tally.sample}
    assert kinds == {KINDS["connection"]}
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize("timeline", ['{"kind": "nonsense"}', "[]", "3"])
def test_what_is_no_timeline_is_refused(timeline):
    with pytest.raises(ValueError, match="tag"):
        read(timeline)
