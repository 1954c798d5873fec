"""What trials leave on the wire, with nothing else told, is explained as the trials were judged."""

import dataclasses
import io
import json
import random

import pytest

from lab.capture.explain import explain
from lab.capture.plain import Plain
from lab.capture.reader import Reader
from lab.cases import CASES
from lab.evidence.judgement import Judgement
from lab.evidence.packet import TCP
from lab.evidence.sighting import LOCAL
from lab.fixes import FIXES
from lab.results.saved import from_json
from lab.verdict import Outcome
from lab.vocabulary import Behaviour
from tests.support.captures import linked, pcap
from tests.support.command import lab

pytestmark = pytest.mark.lab_kernel

#: What a capture cannot tell apart, or what is about something else than one packet: the case that is named instead.
NAMED = {
    "client-on-node": "beyond-window",
    "client-on-node-behind": "upstream-regression",
    "client-masqueraded": "beyond-window",
    "client-outside-cluster": "beyond-window",
    "client-beyond-window-routed": "client-beyond-window",
    "judged-on-both-nodes": "beyond-window",
    "redirected-in-pod": "client-beyond-window",
    "retried": "beyond-window",
    "egress-late-reset": "reset-behind",
    "entry-flushed": "entry-deleted",
    "entry-deleted-strictly": "entry-deleted",
    "entry-expired": "entry-deleted",
    "entry-expired-half-closed": "entry-deleted",
    "entry-deleted-on-clients-node": "entry-deleted",
    **dict.fromkeys(
        (
            *("in-window", "client-on-node-in-window", "client-masqueraded-in-window", "endpoint-removed"),
            *("local-pod-ready", "local-pod-terminating", "answer-by-node", "answer-across-bridge-called"),
        ),
        "",
    ),
    "redirected-in-pod-in-window": "",
    "bad-checksum-unchecked": "",
    **dict.fromkeys(("port-reused", "last-ack-unchallenged", "snat-ports-left", "snat-port-again"), ""),
    **dict.fromkeys(("address-recycled", "address-recycled-forgotten"), ""),
    **dict.fromkeys(
        (
            *("promiscuous-bridge-off", "stale-udp-entry-cleaned", "kube-proxy-restarted", "snat-port-race-random"),
            *("dns-race-one-endpoint", "dns-race-two-endpoints"),  # which later kernels resolve
            # That there is a Service cannot be seen.
            *("udp-before-service", "service-cidr-late", "service-cidr-late-synced"),
        ),
        "",
    ),
    **dict.fromkeys(("hairpin", "hairpin-node-unnamed", "hairpin-unmasqueraded", "affinity-moves", "affinity-off"), ""),
    **dict.fromkeys(("local-pod-replaced", "local-pod-replaced-forgotten", "local-pod-replaced-internal"), ""),
    **dict.fromkeys(("vxlan-right-checksum", "vxlan-zero-checksum"), ""),
    **dict.fromkeys(
        ("source-filtered", "source-filtered-loosely", "source-conflicts", "source-conflicts-accepted"), ""
    ),
    "udp-before-service-cleaned": "udp-before-service",
    "udp-scaled-to-zero-forgotten": "udp-scaled-to-zero",
    "udp-service-deleted-forgotten": "udp-service-deleted",
    "path-mtu-told": "icmp-error",
    "answer-across-bridge": "answer-past-node",
    "redirected-in-pod-with-drop": "client-beyond-window",
    **dict.fromkeys(("port-reused-after-reset", "port-reused-syn-twice"), "reset-exact-from-client"),
    "egress-reset-again": "reset-exact-from-client",
    **dict.fromkeys(("stale-syn-ack", "stale-syn-ack-again"), "syn-ack-again"),
    **dict.fromkeys(("reset-after-syn", "reset-after-syn-from-server", "port-reused-challenged"), "syn-from-client"),
    **dict.fromkeys(("syn-before-service", "syn-before-service-forgotten"), ""),
    "tour-of-states": "bad-checksum",
}
#: Judged by their last question, where the first one is lost as well.
FIRST_IS_LOST = ("udp-before-service-cleaned", "service-cidr-late-synced", "local-pod-replaced-forgotten")
#: What a capture shows another end of than the trial has, which is about one packet: and why.
ENDS = {
    # To the trial there is no connection; on the wire nobody says no, and the SYN stays without an answer.
    "local-pod-terminating": Outcome.STALLED,
    "syn-before-service": Outcome.STALLED,
    **dict.fromkeys(("source-filtered", "source-conflicts", "source-conflicts-accepted"), Outcome.STALLED),
    # The RST that made it so.
    "egress-reset-again": Outcome.KILLED,
    # Nobody answers to what leaks.
    "egress-fin-unknown": Outcome.LEAKED,
    # Behind the last point at which is captured.
    "redirected-in-pod-with-drop": Outcome.DELIVERED,
}
#: Of some kernels the last packet is a RST that goes nowhere: whether that is known, or it may be under way still, is
#: by how much later the capture ends.
LAST_IS_GONE = {"reset-after-syn": {Outcome.DROPPED}}
#: Of these a capture does not tell all: why not, in words that are told instead.
UNTOLD = {
    "an entry that was deleted or expired and that the client's next packet made anew (`conntrack -E`)": (
        *("entry-deleted-client-first", "entry-expired-client-first", "entry-deleted-on-servers-node"),
        *("egress-data-unknown", "picked-up"),
    ),
    "what the node has set (`sysctl -a`)": ("picked-up-strictly",),
    "if these are two ways, and not two halves of a capture, conntrack on each sees one direction alone": (
        *("asymmetric-route", "asymmetric-route-clients-half"),
    ),
    "for want of a free port to masquerade it to, which a capture does not tell (`conntrack -S`: insert_failed": (
        *("snat-ports-used-up", "snat-port-in-time-wait", "snat-port-in-close"),
    ),
    "the checksums of tunnels' own packets are not looked at": (
        *("vxlan-wrong-checksum", "vxlan-wrong-checksum-unchecked"),
    ),
    "A capture without link headers does not tell which way a frame went": ("promiscuous-bridge",),
}
QUICK = [name for name, case in CASES.items() if not case.slow]
TOLD = [name for name in QUICK if not any(name in names for names in UNTOLD.values())]
DROPPED = ("beyond-window", "first-invalid-byte", "ack-above", "syn-fin", "reset-behind")
#: Whose captures are split, each piece by a clock of its own.
CLOCKED = (
    "in-window",
    "beyond-window",
    "upstream-regression",
    "reset-behind",
    "port-reused",
    "icmp-error",
)
#: The same to the endpoint and the client.
SAME = {Outcome.CONNECTED: Outcome.DELIVERED, Outcome.RETRIED: Outcome.RESET}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Every case without a fix, and some with the drop; results by case and fix."""
    path = tmp_path_factory.mktemp("capture") / "run.json"
    found = {}
    for names, fix in ((QUICK, "none"), (DROPPED, "drop-forward")):
        done = lab("run", *names, "--fix", fix, "--packets", "--json", path)
        assert done.returncode == 0, done.stdout + done.stderr
        for one in from_json(path.read_bytes()).tallies:
            if one.sample is not None:
                found[one.trial.case, one.trial.fix] = one.sample
    return found


def time(sighting):
    return sighting.time


def captured(result, *ends):
    """Return classic captures of what was seen, one of each interface: nothing but times and bytes."""
    seen = sorted(
        (one for one in result.timeline.sightings if one.data and one.interface != LOCAL), key=lambda one: one.time
    )
    places = dict.fromkeys(f"{one.host}:{one.interface}" for one in seen)
    return {
        place: pcap([(one.time, one.data) for one in seen if f"{one.host}:{one.interface}" == place], nano=True)
        for place in places
        if not ends or place in ends
    }


def explained(files, behaviour=Behaviour.IGNORES_LATE):
    return explain([Reader(io.BufferedReader(io.BytesIO(data)), name) for name, data in files.items()], behaviour)


def findings(told):
    return [finding for one in told.connections for finding in one.findings]


def test_every_case_is_accounted_for():
    assert {*NAMED, *NAMED.values()} - {""} <= set(CASES)
    assert {name for names in UNTOLD.values() for name in names} <= set(CASES)
    assert len(TOLD) > 40


@pytest.mark.parametrize("name", TOLD)
def test_a_trial_is_explained_as_it_was_judged(name, results):
    result = results.get((name, "none"))
    if result is None:
        pytest.skip("this machine lacks something for the case")
    told = explained(captured(result), result.behaviour)
    verdict = result.verdict
    outcomes = {SAME.get(one.outcome, one.outcome) for one in told.connections}
    expected = Outcome.LOST if name in FIRST_IS_LOST else verdict.outcome
    expected = ENDS.get(name, expected)
    assert {SAME.get(expected, expected), *LAST_IS_GONE.get(name, ())} & outcomes, told
    judged = {finding.judgement for finding in findings(told)}
    if verdict.judgement in (Judgement.INVALID, Judgement.IGNORED):
        by_entry = NAMED.get(name, name).startswith(
            "entry-deleted"
        )  # gone: why what leaks is INVALID is not to be seen
        assert (None if by_entry else verdict.judgement) in judged, told
    elif verdict.judgement is Judgement.ACCEPTED:
        assert Judgement.INVALID not in judged, told
    names = {finding.case for finding in findings(told)} - {""}
    expected = NAMED.get(name, name)
    if result.behaviour is Behaviour.IGNORES_LATE or not name.startswith("last-ignored-byte"):
        assert expected in names if expected else not names, told
    assert {fix for finding in findings(told) for fix in finding.fixes} <= set(FIXES)


@pytest.mark.parametrize(("why", "name"), [(why, name) for why, names in UNTOLD.items() for name in names])
def test_what_a_capture_does_not_tell_is_said(why, name, results):
    result = results.get((name, "none"))
    if result is None:
        pytest.skip("this machine lacks something for the case")
    told = explained(captured(result), result.behaviour)
    words = [*told.notes, *(word for one in told.connections for word in one.untold)]
    assert any(why in word for word in (*words, *(finding.words for finding in findings(told)))), told


@pytest.mark.parametrize("name", DROPPED)
def test_a_drop_is_seen(name, results):
    told = explained(captured(results[name, "drop-forward"]))
    [one] = told.connections
    assert one.outcome is Outcome.DROPPED
    assert "did not come as far" in one.findings[0].words
    assert "leaked" not in one.findings[0].words


def test_the_packets_are_named_by_their_numbers(results):
    result = results["beyond-window", "none"]
    injected = result.timeline.injected
    told = explained(captured(result))
    [one] = told.connections
    assert (one.target, one.endpoint) == (result.timeline.target, result.timeline.server_address)
    [first, leak, reset] = one.findings[0].packets

    def packet(place):
        frames = Reader(io.BufferedReader(io.BytesIO(captured(result)[place.file])), place.file)
        return next(frame.packet for frame in frames if frame.number == place.number)

    assert packet(first).likeness == injected.packet.likeness
    assert (packet(leak).likeness, packet(leak).source) == (injected.packet.likeness, one.endpoint)
    assert (packet(reset).tcp.flag_names, packet(reset).tcp.sequence) == ("RST", injected.packet.tcp.acknowledgement)
    assert one.findings[0].excess == injected.predictions[result.timeline.node].excess
    assert one.findings[0].condition == "I"


@pytest.mark.parametrize(
    ("points", "outcome", "leaked"),
    [
        (("node:client", "node:server"), Outcome.RESET, True),  # both sides of the node
        (("client:eth0", "server:eth0"), Outcome.RESET, True),  # both pods
        (("client:eth0",), Outcome.RESET, True),  # whoever came there from a stranger's address
        (("server:eth0",), Outcome.RESET, False),  # that it leaked cannot be seen there; who answered can
    ],
)
def test_from_whatever_points_it_was_captured(points, outcome, leaked, results):
    told = explained(captured(results["beyond-window", "none"], *points))
    [one] = told.connections
    assert one.outcome is outcome
    finding = one.findings[0]
    assert ("leaked" in finding.words) is leaked
    assert "answers it" in finding.words
    assert finding.case == "beyond-window"


def without_times(told):
    """Return the connections with what is said of them, and of which packets."""
    return [
        dataclasses.replace(
            one,
            asked=None,
            findings=tuple(
                dataclasses.replace(
                    finding,
                    packets=tuple(dataclasses.replace(place, time=0) for place in finding.packets),
                    hops=tuple(
                        dataclasses.replace(hop, place=dataclasses.replace(hop.place, time=0)) for hop in finding.hops
                    ),
                )
                for finding in one.findings
            ),
        )
        for one in told.connections
    ]


def shifted(result, rng):
    """Return what was captured at each interface, by clocks that are apart by up to an hour."""
    seen = sorted(
        (one for one in result.timeline.sightings if one.data and one.interface != LOCAL), key=lambda one: one.time
    )
    files = {}
    for place in dict.fromkeys(f"{one.host}:{one.interface}" for one in seen):
        ahead = rng.randrange(-3600, 3600) * 10**9 + rng.randrange(10**9)
        kept = [(one.time + ahead, one.data) for one in seen if f"{one.host}:{one.interface}" == place]
        files[place] = pcap(kept, nano=True)
    return files


@pytest.mark.parametrize("name", CLOCKED)
def test_clocks_that_are_apart_are_put_onto_one(name, results):
    """The same trial once more, each interface captured by a clock of its own."""
    result = results.get((name, "none"))
    if result is None:
        pytest.skip("this machine lacks something for the case")
    told = explained(shifted(result, random.Random(17)), result.behaviour)
    assert without_times(told) == without_times(explained(captured(result), result.behaviour))
    ends = len({(one.host, one.interface) for one in result.timeline.sightings if one.interface != LOCAL})
    assert sum("its clock is" in note for note in told.notes) == ends - 1


def test_captures_that_share_no_packet_are_not_put_onto_one_clock(results):
    files = captured(results["beyond-window", "none"], "client:eth0")
    files |= captured(results["snat-port-race", "none"], "node:client")
    told = explained(files)
    assert "node:client: shares no packet with client:eth0" in told.notes[0]


def test_a_look_at_a_packet_tells_as_much_as_the_long_way(results, monkeypatch):
    """Of each point alone, for there packets are taken by a look at them."""
    captures = [
        ({place: data}, result.behaviour)
        for result in results.values()
        for place, data in captured(result, "client:eth0", "server:eth0").items()
    ]
    quick = [explained(files, behaviour) for files, behaviour in captures]
    monkeypatch.setattr(Plain, "taker", lambda *_any: None)
    assert quick == [explained(files, behaviour) for files, behaviour in captures]
    assert len(quick) > 100


def on_any(result, *, told=True, link=276):
    """Return what `tcpdump -i any` on the node writes.

    :param told: which way packets go, and by which interface.
    """
    seen = sorted((one for one in result.timeline.sightings if one.host == "node" and one.interface != LOCAL), key=time)
    if not told:
        return {"any.pcap": pcap([(one.time, one.data) for one in seen])}
    index = {"client": 3, "server": 4}
    packets = [
        (one.time, linked(one.data, link, outgoing=one.outgoing, index=index[one.interface]))
        for one in seen
        if one.data
    ]
    return {"any.pcap": pcap(packets, link=link)}


@pytest.mark.parametrize("link", [113, 276])
def test_a_capture_of_any_interface_has_each_packet_once_per_hop(link, results):
    told = explained(on_any(results["beyond-window", "none"], link=link))
    [one] = told.connections
    assert one.outcome is Outcome.RESET
    assert [finding.case for finding in one.findings] == ["beyond-window"]
    assert "leaked" in one.findings[0].words
    assert explained(on_any(results["in-window", "none"], link=link)).found is False


def test_where_hops_are_not_told_apart_nothing_is_said_to_leak(results):
    told = explained(on_any(results["beyond-window", "none"], told=False))
    assert {one.outcome for one in told.connections} == {Outcome.RESET}
    assert {finding.case for finding in findings(told)} == {"beyond-window"}
    assert "leaked: packet" not in str(told)


def test_an_answer_that_never_comes_back_is_told_by_where_it_was_seen_last(results):
    """The node takes it for its own: the client's side was captured, and has nothing."""
    result = results.get(("source-conflicts-accepted", "none"))
    if result is None:
        pytest.skip("this machine lacks something for the case")
    [one] = explained(captured(result), result.behaviour).connections
    assert one.findings[0].words.startswith(
        "the client does not get the answer to its SYN: the SYN,ACK was seen last as"
    )
    assert "of node:server, not translated back: it leaked, or was dropped" in one.findings[0].words
    assert not explained(captured(result, "server:eth0")).found  # what came of it is not to be seen there


def without_icmp(result):
    kept = tuple(one for one in result.timeline.sightings if one.packet.icmp is None)
    return dataclasses.replace(result, timeline=dataclasses.replace(result.timeline, sightings=kept))


@pytest.mark.parametrize("points", [(), ("node:client", "node:server"), ("client:eth0",)])
def test_a_path_mtu_that_nobody_tells_of_is_known_by_what_stays_away(points, results):
    """As where the capture's filter was for TCP alone. The trial sends it twice, which from one side is not enough."""
    result = results["path-mtu-filtered", "none"]
    [one] = explained(captured(without_icmp(result), *points), result.behaviour).connections
    found = [finding for finding in one.findings if finding.kind == "black-hole"]
    assert [finding.case for finding in found] == ["path-mtu-filtered"] * (not points)
    if found:
        assert "1,400 bytes of the client, sent 2 times" in found[0].words
        assert one.outcome is Outcome.STALLED


def test_older_kernels_judge_otherwise(results):
    files = captured(results["upstream-regression", "none"])
    [new] = [one for one in findings(explained(files)) if one.condition]
    [old] = [one for one in findings(explained(files, Behaviour.STRICT)) if one.condition]
    assert (new.judgement, new.condition) == (Judgement.IGNORED, "II")
    assert "INVALID by condition II" in old.words
    assert new.excess == old.excess > 30_000


def test_the_lab_s_own_capture_tells_the_same_whatever_its_comments_say(tmp_path):
    path = tmp_path / "run.pcapng.gz"
    assert lab("run", "beyond-window", "--fix", "none", "--pcapng", path).returncode == 0
    done = lab("explain", path)
    assert done.returncode == 1, done.stderr
    first, second, third, *_others = done.stdout.splitlines()
    assert first == "10.0.0.2:34567 > 192.168.0.2:80, which is 10.0.1.2:80: reset"
    assert "at client:eth0, node:client, node:server, server:eth0" in second
    assert "7 bytes: INVALID by condition I" in third
    assert "`lab show beyond-window` tells of it. Helps: drop-forward, be-liberal." in done.stdout
    told = json.loads(lab("explain", path, "--json", "--kernel", "5.10.0-28-amd64").stdout)
    assert told["behaviour"] == "strict"
    assert told["connections"][0]["findings"][0]["case"] == "beyond-window"


def test_a_copy_of_a_datagram_is_told_where_the_capture_says_which_way_frames_went(tmp_path):
    path = tmp_path / "run.pcapng"
    done = lab("run", "promiscuous-bridge", "--fix", "none", "--pcapng", path)
    if not path.exists():
        pytest.skip(f"this machine lacks something for the case: {done.stderr}")
    told = lab("explain", path, COLUMNS="1000").stdout
    assert told.splitlines()[0].endswith(": duplicated")
    assert "is the same as before once more at" in told
    assert "`lab show promiscuous-bridge` tells of it." in told


def test_every_packet_of_a_trial_is_read(results):
    result = results["in-window", "none"]
    told = explained(captured(result))
    seen = [one for one in result.timeline.sightings if one.interface != LOCAL and one.packet.protocol == TCP]
    assert told.packets == len(seen) > 40
    assert not told.found


def test_where_the_entry_is_gone_no_fix_is_said_to_help(results):
    """As the catalogue has it: the packet is NEW, and every fix leaves it."""
    result = results["entry-deleted", "none"]
    told = explained(captured(result), result.behaviour)
    [found] = [one for one in findings(told) if one.case == "entry-deleted"]
    assert found.fixes == ()
