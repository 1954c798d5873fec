"""The table of conntrack's reasons: whole, found again by its own words, and what this kernel says of real packets."""

import random
import re
import select

import pytest

from lab.cases import CASES
from lab.conntrack.nflog import REASON_GROUP, PacketLog
from lab.conntrack.witness import load_conntrack, script
from lab.evidence.judgement import Judgement
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.reasons import PROTOCOLS, REASONS, Became, find
from lab.reasons.reason import Wording
from lab.results.saved import from_json
from lab.topology.reader import load
from lab.vocabulary import Behaviour, Family
from tests.support import cover
from tests.support.command import lab

VALUES = {
    "%u": "2153604771",
    "%d": "3",
    "%x": "1f",
    "%s": "SYN_SENT",
    "%pI4": "10.0.0.2",
    "%pI6": "fd00::1",
    "%pV": "x",
}
BY_LOG = [one for one in REASONS if one.wordings and one.in_log]
MADE = [one for one in BY_LOG if any(not CASES[case].slow for case in one.cases)]


def filled(text):
    return re.sub("|".join(sorted(VALUES, key=len, reverse=True)), lambda found: VALUES[found[0]], text)


def test_the_table_is_whole():
    names = [one.name for one in REASONS]
    assert len(set(names)) == len(names) > 40
    for one in REASONS:
        assert bool(one.cases) != bool(one.why_no_case), one.name
        assert set(one.cases) <= set(CASES), one.name
        assert set(one.fixes) <= set(FIXES), one.name
        assert one.protocol == "any" or one.protocol in PROTOCOLS.values(), one.name
        assert set(one.became) == set(Behaviour)


@pytest.mark.parametrize("one", [one for one in REASONS if one.wordings], ids=lambda one: one.name)
def test_each_is_found_by_its_own_words(one):
    number = next((number for number, name in PROTOCOLS.items() if name == one.protocol), None)
    for wording in one.wordings:
        # UDP and UDPLite, or ICMP and ICMPv6, say the same: the number before it tells them apart.
        assert find(filled(wording.text), number) == (one, wording)
    if not one.wordings[0].text.endswith("%pV "):
        assert find(filled(one.wordings[0].text) + " and more", number) is None


def test_other_words_are_none():
    assert find("SEQ is over upper bound x (over the window of the receiver)") is None
    assert find("invalid rst", 17) is None
    assert Wording("a.b %u").pattern.fullmatch("axb 1") is None


# --- what this kernel says ------------------------------------------------------------------------------


def chosen():
    """One case of each reason that cases make; another one by each seed."""
    return {one.name: cover.some([case for case in one.cases if not CASES[case].slow], of=one.name) for one in MADE}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("reasons") / "run.json"
    names = sorted({case for cases in chosen().values() for case in cases})
    done = lab("run", *names, "--fix", "none", "--packets", "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return {one.trial.case: one.sample for one in from_json(path.read_bytes()).tallies if one.sample is not None}


@pytest.mark.lab_kernel
@pytest.mark.parametrize("one", MADE, ids=lambda one: one.name)
def test_the_cases_make_it(one, results):
    for case in chosen()[one.name]:
        if case not in results:
            pytest.skip("this machine lacks something for the case")
        result = results[case]
        judged = [word for word in result.timeline.judged if one.wording(word.reason) is not None]
        if not judged and one.name in ("invalid-new", "seq-over-by-less-than-a-window"):
            pytest.skip("this kernel has no such words")
        assert judged, (case, [word.reason for word in result.timeline.judged if word.reason])
        became = {Became.INVALID: Judgement.INVALID, Became.IGNORED: Judgement.IGNORED}[one.became[result.behaviour]]
        assert {word.judgement for word in judged} == {became}
        for word in judged:
            assert one.wording(word.reason).behaviour in (None, result.behaviour)


def udp(**fields):
    from scapy.layers.inet import IP, UDP
    from scapy.packet import Raw

    return IP(src="10.0.0.2", dst="10.0.1.2") / UDP(sport=5, dport=6, **fields) / Raw(b"hello")


def icmp(**fields):
    from scapy.layers.inet import ICMP, IP

    return IP(src="10.0.0.2", dst="10.0.1.2") / ICMP(**fields)


def ipv4(protocol, payload):
    from scapy.layers.inet import IP
    from scapy.packet import Raw

    return IP(src="10.0.0.2", dst="10.0.1.2", proto=protocol) / Raw(payload)


def icmpv6(kind, payload, hop_limit=255, **fields):
    from scapy.layers.inet6 import ICMPv6Unknown, IPv6

    header = IPv6(src=fields.pop("src", "fe80::1"), dst="fd00:10:0:1::2", hlim=hop_limit)
    return header / ICMPv6Unknown(type=kind, msgbody=payload, **fields)


#: What no case sends, and what every kernel says of it.
SENT = {
    "udp-checksum": lambda: udp(chksum=1),
    "udp-truncated": lambda: udp(len=200),
    "udp-short": lambda: ipv4(17, b"\0\1\0\2\0"),
    "icmp-checksum": lambda: icmp(chksum=1),
    "icmp-type": lambda: icmp(type=99),
    "sctp-short": lambda: ipv4(132, bytes(8)),
    "sctp-crc": lambda: ipv4(132, bytes.fromhex("00010002 00000000 00000000 01000014") + bytes(16)),
    "tcp-truncated": lambda: ipv4(6, bytes.fromhex("00010002 00000000 00000000 f0100000 00000000")),
    "icmpv6-checksum": lambda: icmpv6(128, b"\0\0\0\0", src="fd00:10::2", cksum=1),
    "icmpv6-redirect-from-afar": lambda: icmpv6(137, bytes(36), hop_limit=64),
}


@pytest.mark.lab_kernel
@pytest.mark.parametrize("name", random.Random(cover.set_seed()).sample(sorted(SENT), len(SENT)))
def test_what_no_case_sends_is_said_as_well(name):
    one = next(one for one in REASONS if one.name == name)
    family = Family.IPV6 if "v6" in name else Family.IPV4
    with Lab(load("kube-proxy"), family=family) as running:
        node = running.hosts["node"]
        load_conntrack(node.nft)
        log = running.keep(PacketLog(node.namespace))
        node.nft.run(script())
        target = "fd00:10:0:1::2" if family is Family.IPV6 else "10.0.1.2"
        running.keep(running.injector("client", target)).send(bytes(SENT[name]()))
        assert select.select([log], [], [], 30)[0]
        records = log.read()
    said = [record.words for record in records if record.group == REASON_GROUP]
    states = [record.words for record in records if record.group != REASON_GROUP]
    number, text = re.fullmatch(r"nf_ct_proto_(\d+): (.*)", said[0]).groups()
    assert find(text, int(number))[0] is one
    assert set(states) - {"untracked"} == {"invalid"}  # untracked: neighbour discovery
