"""Captured connections, sent once more: conntrack says of each segment what it said when it was captured."""

import asyncio
import io
import json
import random

import pytest

from lab.capture.explain import explain
from lab.capture.naming import Naming
from lab.capture.reader import Reader
from lab.capture.replayed import Replayed
from lab.capture.resending import MOST, scripts
from lab.cases import CASES
from lab.cli.replaying import notes
from lab.evidence.judgement import Judgement
from lab.evidence.packet import ACK, PSH, RST, SYN
from lab.results.saved import from_json
from lab.trial.probe import ask
from lab.trial.replay import replay
from lab.vocabulary import Behaviour, Family
from tests.capture.test_explained import NAMED, TOLD, captured
from tests.support import cover
from tests.support.captures import MOMENT, pcap, tcp
from tests.support.command import lab

pytestmark = pytest.mark.lab_kernel

#: What a node's settings or a deleted entry did does not come again by the segments alone.
OTHERWISE = {
    "bad-checksum-unchecked",
    *(name for name, case in NAMED.items() if case == "entry-deleted"),
    # An entry that was gone, or was of an earlier connection: a lab's node has the connection's own.
    *("entry-deleted-strictly-client-first", "egress-fin-unknown", "icmp-error-without-entry"),
    *("flag-sets", "syn-from-server-in-time-wait", "syn-from-server-in-close"),
    "truncated-header",  # which cannot be sent
    *("client-masqueraded", "client-outside-cluster"),  # a RST of the node's own goes there as its client's
}
AGAIN = [name for name in TOLD if name not in OTHERWISE]
CLIENT, VIP, POD = ("10.9.8.7", 4000), ("172.20.0.1", 443), ("10.9.9.9", 8443)
SYNS = b"\x02\x04\x05\xb4\x04\x02\x01\x03\x03\x07\0\0"  # mss, sackOK, wscale 7


def readers(files):
    return [Reader(io.BufferedReader(io.BytesIO(data)), name) for name, data in files.items()]


def script_of(files):
    return scripts(readers(files), explain(readers(files), Behaviour.IGNORES_LATE).connections)


def replayed(script, behaviour=None, found=()):
    async def run():
        family = Family.IPV6 if ":" in script.client.address else Family.IPV4
        return await replay(script, found, Naming(()), behaviour or await ask(family))

    return asyncio.run(run())


def connection(*more, client=CLIENT, vip=VIP, first=4_294_960_000):
    """A handshake and a question, and what follows; by numbers that come to their end on the way."""
    return (
        tcp(client, vip, SYN, first - 1, 0, options=SYNS),
        tcp(vip, client, SYN | ACK, 4999, first, options=SYNS),
        tcp(client, vip, ACK, first, 5000, window=502),
        tcp(client, vip, ACK | PSH, first, 5000, b"?" * 10_000, number=1, window=502),
        *more,
    )


def capture(*packets):
    return {"x.pcap": pcap([(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)])}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("replay") / "run.json"
    chosen = cover.sample(AGAIN, 12)
    done = lab("run", *chosen, "--fix", "none", "--packets", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return {one.trial.case: one.sample for one in from_json(path.read_bytes()).tallies if one.sample is not None}


def test_a_replay_gives_the_judgement_of_the_trial(results):
    assert {*OTHERWISE} <= set(CASES)
    for name, result in results.items():
        verdict = result.verdict.judgement
        done = [replayed(script) for script in script_of(captured(result))]
        judged = {one.judgement for again in done for one in again.said}
        assert not any(again.differs for again in done), (name, done)
        assert all(again.sent and not again.untold for again in done), name
        if verdict in (Judgement.INVALID, Judgement.IGNORED):
            assert verdict in judged, (name, done)
        else:
            assert judged <= {Judgement.INVALID, Judgement.IGNORED}, (name, done)  # others than the trial's packet


def test_whatever_its_addresses_and_numbers_were():
    first = 4_294_960_000
    far = tcp(POD, CLIENT, ACK | PSH, 5000 + 2**29, first + 10_000, b"far", number=2, window=501)
    [script] = script_of(capture(*connection(far, tcp(CLIENT, POD, RST, first + 10_000, 0))))
    done = replayed(script)
    assert [(one.place.number, one.judgement) for one in done.said] == [(5, Judgement.INVALID), (6, Judgement.INVALID)]
    assert done.said[0].reason.startswith("SEQ is over upper bound")
    assert done.said[1].expected is None  # it is for the pod itself
    assert (done.sent, done.differs) == (6, False)


def test_segments_that_a_network_card_cuts_are_sent_whole():
    """Also through IPv6: none of them is more than the window, and conntrack says so."""
    client, vip = ("fd09::7", 4000), ("fd20::1", 443)
    first = 4_294_960_000
    giant = tcp(vip, client, ACK, 5000, first + 10_000, b"!" * 60_000, number=2, window=501)
    beyond = tcp(vip, client, ACK, 5000 + 502 * 128 * 3, first + 10_000, b"!" * 60_000, number=3, window=501)
    [script] = script_of(capture(*connection(giant, beyond, client=client, vip=vip)))
    done = replayed(script, found={("x.pcap", 5)})
    assert [(one.place.number, one.judgement) for one in done.said] == [(5, Judgement.ACCEPTED), (6, Judgement.INVALID)]
    assert "60,000 bytes" in done.said[0].what
    assert not done.differs


def test_where_model_and_kernel_disagree_it_is_said(monkeypatch):
    late = tcp(VIP, CLIENT, ACK, 5000 - 2**20, 4_294_970_000, b"late", number=2, window=501)
    [script] = script_of(capture(*connection(late)))
    behaviour = asyncio.run(ask(Family.IPV4))
    other = Behaviour.STRICT if behaviour is Behaviour.IGNORES_LATE else Behaviour.IGNORES_LATE
    assert not replayed(script, behaviour).differs
    done = replayed(script, other)
    assert done.differs
    assert {one.expected for one in done.said} != {one.judgement for one in done.said}


def test_what_does_not_begin_is_not_replayed():
    [script] = script_of(capture(*connection(tcp(VIP, CLIENT, ACK, 5000, 7, number=2))[2:]))
    done = replayed(script)
    assert (done.sent, done.said) == (0, ())
    assert "does not begin with the client's SYN" in done.untold


def test_copies_are_sent_once_and_no_more_than_so_many():
    packets = connection()
    twice = {
        name: pcap([(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)]) for name in ("a", "b")
    }
    [script] = script_of(twice)
    assert len(script.segments) == len(packets)
    many = [tcp(CLIENT, VIP, ACK, 0, 5000, number=number % 60_000 + 1) for number in range(MOST + 5)]
    [script] = script_of(capture(*connection(*many)))
    assert (len(script.segments), script.is_cut) == (MOST, True)


def test_the_command_tells_conntrack_s_word_beside_the_capture_s(tmp_path):
    case, said = random.Random(cover.set_seed()).choice(
        [("beyond-window", "INVALID, `SEQ is over"), ("syn-fin", "INVALID, `invalid tcp flag combination`")]
    )
    path = tmp_path / "run.pcapng"
    assert lab("run", case, "--fix", "none", "--pcapng", path).returncode == 0
    done = lab("explain", path, "--replay", COLUMNS="1000")
    assert done.returncode == 1, done.stderr
    assert "segments; all of them judged as the model expects" in done.stdout
    assert f"bytes: {said}" in done.stdout
    told = json.loads(lab("explain", path, "--replay", "--json").stdout)
    [again] = told["replayed"]
    assert (again["differs"], again["said"][0]["judgement"]) == (False, "INVALID")


def test_an_entry_that_was_gone_is_there_in_a_replay(tmp_path):
    path = tmp_path / "run.pcapng"
    assert lab("run", "entry-deleted", "--fix", "none", "--pcapng", path).returncode == 0
    done = lab("explain", path, "--replay", COLUMNS="1000")
    assert "there the entry was gone (deleted, or expired), or a setting is another one" in done.stdout


def test_what_cannot_be_replayed_is_said(tmp_path):
    done = lab("explain", "-", "--replay")
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input is there once" in done.stderr
    (tmp_path / "fine.pcap").write_bytes(capture(*connection())["x.pcap"])
    done = lab("explain", tmp_path / "fine.pcap", "--replay")
    assert done.returncode == 0
    assert "Nothing is replayed" in done.stdout


def test_more_connections_than_are_replayed_are_said(monkeypatch):
    odd = tcp(VIP, CLIENT, SYN | 1 | ACK, 5000, 4_294_970_000, number=2)
    told = explain(readers(capture(*connection(odd))), Behaviour.IGNORES_LATE)
    monkeypatch.setattr("lab.capture.resending.MOST_CONNECTIONS", 0)
    done = Replayed(told.connections[0].client, told.connections[0].target, "6.18", Behaviour.STRICT, 0, ())
    assert notes(told, [done]) == ["Replayed are the first 0 connections; 1 more have findings."]
    assert "Nothing is replayed" in notes(told, [])[0]


def test_headers_that_were_cut_are_not_replayed_and_the_explanation_stands(tmp_path):
    late = tcp(VIP, CLIENT, ACK, 5000 - 2**30 - 2**29, 4_294_970_000, number=2, window=501)
    path = tmp_path / "cut.pcap"
    packets = [(MOMENT + number * 1000, packet) for number, packet in enumerate(connection(late))]
    path.write_bytes(pcap(packets, snaplen=44))
    done = lab("explain", path, "--replay", COLUMNS="1000")
    assert (done.returncode, done.stderr) == (1, "")
    assert "5: ACK of the server" in done.stdout
    assert "Not replayed: packet 1 is cut within its TCP header by the snaplen" in done.stdout
