"""Downloads under load: on the kernel, with real programs; and what is decided from what was counted."""

import asyncio
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lab
from lab.cases import CASES, congested
from lab.errors import InputError, MissingError
from lab.evidence.judgement import Judged, Judgement
from lab.evidence.packet import ACK, TCP, Packet, SocketAddress, TcpHeader
from lab.evidence.timeline import Counters, Download, DownloadsTimeline, Load
from lab.fabric import congestion
from lab.fixes import BE_LIBERAL, FIXES, NONE
from lab.netns import ProgramError
from lab.report.timeline import timeline_text
from lab.results.result import Report, Tally
from lab.results.saved import from_json, to_json
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.verdict.downloads import decide
from lab.vocabulary import Backend, Behaviour, Family, ProxyMode
from tests.support import cover
from tests.support.timelines import between

AT_FULL_LENGTH = cover.at_full_length()

KINDS = {
    "iptables-nft": (ProxyMode.IPTABLES, None, Backend.NFT),
    "iptables-legacy": (ProxyMode.IPTABLES, None, Backend.LEGACY),
    "nftables": (ProxyMode.NFTABLES, None, None),
}
SLOW = congested.CASES
CONGESTED = CASES["congested"]

needs_programs = pytest.mark.lab_needs_tool("nginx", "curl", "tc")


# --- from what was counted --------------------------------------------------------------------------

VIP, POD, CLIENT = (SocketAddress(*one) for one in (("192.168.0.2", 80), ("10.0.2.2", 80), ("10.0.0.2", 34567)))
WHOLE = Download(0, "", 1000, True)
RESET = Download(56, "curl: (56) Recv failure: Connection reset by peer", 400, True)
STILL = Download(28, "curl: (28) Operation timed out", 400, True)
UNDER = "SEQ is under lower bound 4711 (already ACKed data retransmitted)"


def judged(number, state, reason=UNDER):
    packet = Packet(POD, CLIENT, TCP, number, 100, TcpHeader(number, 16, ACK, 64))
    return Judged("node", number, packet, state, reason)


def timeline(downloads=(WHOLE, WHOLE), *, invalid=0, ignored=0, late=5, held=9, reset=0, established=100, **changes):
    words = [judged(number, "invalid") for number in range(invalid)]
    words += [judged(invalid + number, "established") for number in range(ignored)]
    whole = DownloadsTimeline(
        **between(CLIENT, VIP, POD),
        sightings=(),
        judged=tuple(words),
        entry=None,
        counters=Counters({"invalid": invalid, "established": established}, {"invalid": invalid}, None),
        refusal=None,
        complete=True,
        load=Load(1000, tuple(downloads), 2.0, held, late, {"client": 0, "server": reset}),
    )
    return dataclasses.replace(whole, **changes)


@pytest.mark.parametrize(
    ("seen", "outcome", "judgement"),
    [
        (timeline(ignored=3), Outcome.DELIVERED, Judgement.IGNORED),
        (timeline(), Outcome.DELIVERED, Judgement.ACCEPTED),
        (timeline(established=0), Outcome.DELIVERED, Judgement.UNTRACKED),
        (timeline(invalid=3), Outcome.DELIVERED, Judgement.INVALID),
        (timeline((WHOLE, RESET), invalid=3, reset=1), Outcome.RESET, Judgement.INVALID),
        (timeline((WHOLE, RESET), invalid=3, reset=0), Outcome.LOST, Judgement.INVALID),
        (timeline((RESET, STILL), ignored=3, reset=1), Outcome.STALLED, Judgement.IGNORED),
        (timeline((dataclasses.replace(WHOLE, received=999), WHOLE), ignored=1), Outcome.LOST, Judgement.IGNORED),
        (timeline(late=0), Outcome.DELIVERED, None),
    ],
)
def test_outcomes(seen, outcome, judgement):
    verdict = decide(seen)
    assert (verdict.outcome, verdict.judgement, verdict.disagreements) == (outcome, judgement, ())


def test_no_late_packet_is_no_pass_on_any_kernel_under_any_fix():
    for case, fix, kernel in itertools.product(SLOW, FIXES.values(), Behaviour):
        expected = case.expected(kernel, fix.protection)
        verdict = decide(timeline(late=0))
        assert (verdict.judgement, verdict.outcome) != (expected.judgement, expected.outcome)


def test_no_connection():
    verdict = decide(timeline(load=None, refusal="ECONNREFUSED"))
    assert (verdict.outcome, verdict.judgement) == (Outcome.REFUSED, None)
    assert verdict.because == ("no connection: ECONNREFUSED",)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (timeline((dataclasses.replace(WHOLE, intact=False),)), "bytes that the server does not have there"),
        (timeline(held=0), "the router held nothing back"),
        (timeline(ignored=2, late=0), "let 2 late packets through, and the client's kernel counted none"),
        (timeline(reset=1), "all downloads are whole, and yet 1 connections were reset"),
        (timeline(invalid=2, counters=Counters({"invalid": 3}, {"invalid": 2}, None)), "logged 2 INVALID packets and"),
        (timeline(faults=("the log lost packets",)), "the log lost packets"),
    ],
)
def test_witnesses_that_disagree(seen, words):
    assert any(words in disagreement for disagreement in decide(seen).disagreements)


def test_reasons_are_told_without_their_numbers():
    assert (
        decide(timeline(invalid=2, ignored=3)).reason == "SEQ is under lower bound (already ACKed data retransmitted)"
    )


def test_what_it_prints():
    text = timeline_text(timeline((WHOLE, RESET), invalid=3, ignored=1, reset=1))
    assert "2 downloads of 1,000 bytes at once, from 192.168.0.2:80: 2.0 s" in text
    assert "curl: (56) Recv failure: Connection reset by peer" in text
    assert "INVALID: 3 packets" in text
    assert "connections reset: at client 0, at server 1" in text


# --- on the kernel ----------------------------------------------------------------------------------


def run(case, fix, family=Family.IPV4, kind="iptables-nft"):
    answer = asyncio.run(probe.ask(family))
    topology = with_proxy(load(case.topology), *KINDS[kind])
    return asyncio.run(runner.run(Setting(case, fix, topology, family), answer))


# Some seconds each: one of each kind of node, unless everything is wanted.
EVERYTHING = list(itertools.product(SLOW, FIXES.values(), KINDS, Family))
SOME = [
    (CONGESTED, NONE, "iptables-nft", Family.IPV4),
    (CONGESTED, BE_LIBERAL, "iptables-legacy", Family.IPV6),
    (CASES["congested-without-nat"], NONE, "nftables", Family.IPV4),
]


@pytest.mark.lab_kernel
@pytest.mark.lab_kernel_feature("sch_htb", "nft_numgen")
@needs_programs
@pytest.mark.parametrize(
    ("case", "fix", "kind", "family"),
    EVERYTHING if AT_FULL_LENGTH else SOME,
    ids=lambda value: getattr(value, "name", str(value)) if not isinstance(value, Family) else str(value),
)
def test_every_trial_gives_what_this_kernel_is_expected_to_give(case, fix, kind, family):
    result = run(case, fix, family, kind)
    assert result.verdict.disagreements == ()
    assert (result.verdict.judgement, result.verdict.outcome) == (
        result.expected.judgement,
        result.expected.outcome,
    )
    report = Report("0", "6", {family: result.behaviour}, (Tally(result.trial).and_then(result),))
    assert from_json(to_json(report)) == report


@pytest.mark.lab_kernel
@needs_programs
def test_a_router_that_holds_nothing_back_is_no_pass(monkeypatch):
    monkeypatch.setattr(congestion, "_SHARE", congestion._SHARE.replace("meta length > 1000", "meta length > 65000"))
    result = run(CONGESTED, NONE)
    assert "the router held nothing back" in result.verdict.disagreements
    assert not result.as_expected


@pytest.mark.lab_kernel
@needs_programs
def test_what_does_not_get_through_at_all_is_found_without_waiting():
    begun = time.monotonic()
    result = run(CONGESTED, FIXES["notrack"])
    assert (result.verdict.outcome, result.as_expected) == (Outcome.REFUSED, True)
    assert time.monotonic() - begun < 2


@pytest.mark.lab_kernel
@pytest.mark.parametrize(
    ("program", "package"),
    [
        pytest.param("nginx", "nginx", marks=pytest.mark.lab_needs_tool("ip")),  # looked for before the others
        *(pytest.param(*one, marks=needs_programs) for one in (("curl", "curl"), ("tc", "iproute2"))),
        pytest.param("setpriv", "util-linux", marks=needs_programs),
    ],
)
def test_a_program_that_is_missing_is_named_with_its_package(program, package, monkeypatch):
    import shutil

    find = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == program else find(name, **more))
    with pytest.raises(MissingError, match=f"{program} is not installed: apt install {package}"):
        run(CONGESTED, NONE)


@pytest.mark.lab_kernel
@needs_programs
def test_nginx_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr("lab.traffic.http._CONFIGURATION", "no such directive;")
    with pytest.raises(ProgramError, match='unknown directive "no"'):
        run(CONGESTED, NONE)


@pytest.mark.lab_kernel
@needs_programs
def test_a_topology_without_a_router_is_refused():
    with pytest.raises(InputError, match="a router with two links between the node and server"):
        run(dataclasses.replace(CONGESTED, topology="kube-proxy"), NONE)


def mine(session):
    """Return the processes of a session that still run, and what they are."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            name, fields = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        state, _parent, _group, number = fields.split()[:4]
        if int(number) == session and state not in "ZX":
            found[int(entry.name)] = name
    return found


def wait_until(condition, bound=20):
    end = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.lab_kernel
@needs_programs
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_a_slow_case_that_is_ended_in_its_middle_leaves_nothing(number, tmp_path):
    files = sorted(Path("/var/log").rglob("nginx*")) if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "lab", "run", "congested", "--fix", "none"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        | {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(Path(lab.__file__).parents[1]), os.environ.get("PYTHONPATH")])
            )
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        wait_until(lambda: list(mine(process.pid).values()).count("curl") == 8 or process.poll() is not None)
        assert "nginx" in mine(process.pid).values(), process.stderr.read()
        os.kill(process.pid, number)
        output, errors = process.communicate(timeout=20)
        wait_until(lambda: not mine(process.pid), bound=2)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert output == errors == ""
    assert list(tmp_path.iterdir()) == []
    assert files == (sorted(Path("/var/log").rglob("nginx*")) if os.geteuid() == 0 else [])
