"""Packets that are taken in by a look at them, and the same ones the long way: one explanation, whatever they are."""

import gc
import io
import random
import struct
from collections import Counter

import pytest

from lab.capture import following, telling
from lab.capture.connection import Connection
from lab.capture.explain import explain
from lab.capture.explanation import Counted
from lab.capture.ordinary import Ordinary
from lab.capture.plain import Plain
from lab.capture.reader import Reader
from lab.capture.text import Text
from lab.evidence.packet import ACK, FIN, PSH, RST, SYN
from lab.report.explained import lines
from lab.vocabulary import Behaviour
from tests.support.captures import MOMENT, linked, pcap, pcapng, tcp, udp

TOP = 2**32
SCALE = b"\x01\x03\x03\x07"


def explained(data, behaviour=Behaviour.IGNORES_LATE, texts=()):
    return explain([Reader(io.BufferedReader(io.BytesIO(data)), "x.pcap")], behaviour, texts)


@pytest.fixture
def both_ways(monkeypatch):
    """Explain a capture in both ways, and return the explanation and how many packets were taken."""
    taken = []
    advance = Plain._advance

    def counted(*arguments):
        taken.append(advance(*arguments))
        return taken[-1]

    def both(data, behaviour=Behaviour.IGNORES_LATE, texts=()):
        taken.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Plain, "_advance", counted)
            quick = explained(data, behaviour, texts)
        count = sum(taken)
        with monkeypatch.context() as patched:
            patched.setattr(Plain, "taker", lambda *_any: None)
            assert explained(data, behaviour, texts) == quick
        return quick, count

    return both


class Talk:
    """One connection, most of whose packets are in order, and some of which are whatever else there is."""

    def __init__(self, rng, port):
        self.rng = rng
        ipv6 = rng.random() < 0.3
        self.ends = {
            True: ("fd00::2" if ipv6 else "10.0.0.2", port),
            False: ("fd00::80" if ipv6 else "192.168.0.2", 80),
        }
        self.pod = ("fd00::1:2" if ipv6 else "10.0.1.2", 80)
        self.sent = {
            side: (TOP - rng.randint(1, 9000)) if rng.random() < 0.5 else rng.randrange(TOP) for side in (1, 0)
        }
        self.number = {True: rng.randrange(9), False: rng.randrange(9)}
        self.stamped = rng.random() < 0.6
        self.seen_from_its_start = rng.random() < 0.8
        self.numbered = rng.random() < 0.8

    def packet(self, side, flags, sequence, acknowledgement, payload=b"", window=2000, options=b"", source=None):
        if self.stamped and not options:
            options = b"\x01\x01\x08\x0a" + struct.pack("!II", self.number[side], 5)
        number = self.number[side] % 65536 if self.numbered else 0
        ends = (source or self.ends[side], self.ends[not side])
        return tcp(*ends, flags, sequence, acknowledgement, payload, window=window, options=options, number=number)

    def handshake(self):
        client, server = self.sent[True], self.sent[False]
        yield self.packet(True, SYN, client, 0, options=SCALE)
        yield self.packet(False, SYN | ACK, server, client + 1, options=SCALE)
        self.sent = {True: client + 1, False: server + 1}
        yield self.packet(True, ACK, self.sent[True], self.sent[False])

    def plain(self):
        side = self.rng.random() < 0.4
        self.number[side] += 1
        data = bytes(self.rng.choice((0, 0, 1, 700, 1400, 20_000)))
        made = self.packet(side, ACK | self.rng.choice((0, PSH)), self.sent[side], self.sent[not side], data)
        self.sent[side] += len(data)
        return made

    def odd(self):
        rng, side = self.rng, self.rng.random() < 0.5
        self.number[side] += rng.choice((0, 1))
        sequence, acknowledgement = self.sent[side], self.sent[not side]
        kind = rng.randrange(12)
        if kind == 0:  # lost before the capture
            self.sent[side] += 1400
        elif kind == 1:
            return self.packet(side, ACK, sequence - 1400, acknowledgement, bytes(1400))
        elif kind == 2:
            return self.packet(side, ACK, sequence, acknowledgement - rng.choice((0, 1400, 200_000)))
        elif kind == 3:
            sack = b"\x01\x01\x05\x0a" + struct.pack("!II", acknowledgement % TOP, (acknowledgement + 9) % TOP)
            return self.packet(side, ACK, sequence, acknowledgement, options=sack)
        elif kind == 4:
            return self.packet(side, ACK, sequence, acknowledgement, window=rng.choice((0, 1, 65535)))
        elif kind == 5:
            return self.packet(side, ACK, sequence + rng.choice((1, 9000, 2**29)), acknowledgement, b"beyond")
        elif kind == 6:
            return self.packet(side, ACK, sequence, acknowledgement + rng.choice((1, 10**6)))
        elif kind == 7:
            return self.packet(False, ACK | PSH, self.sent[False] + 2**29, self.sent[True], b"leak", source=self.pod)
        elif kind == 8 and rng.random() < 0.2:
            return self.packet(side, RST, sequence - rng.choice((0, 0, 3, 9000)), 0)
        elif kind == 9 and rng.random() < 0.3:
            self.sent[side] += 1
            return self.packet(side, ACK | FIN, sequence, acknowledgement)
        elif kind == 10 and rng.random() < 0.3:
            return self.packet(side, rng.choice((SYN, SYN | ACK, 0, SYN | FIN)), sequence + 77, acknowledgement)
        elif kind == 11:
            whole = bytearray(self.packet(side, ACK, sequence, acknowledgement, bytes(30)))
            if whole[0] == 0x45:
                whole[6 + rng.randrange(2)] ^= rng.choice((0x20, 1))  # a fragment
            return bytes(whole)
        return None

    def packets(self, count):
        if self.seen_from_its_start:
            yield from self.handshake()
        for _ in range(count):
            made = self.plain() if self.rng.random() < 0.96 else self.odd()
            if made is not None:
                yield made
                if self.rng.random() < 0.01:
                    yield made  # captured twice
        if self.rng.random() < 0.3:
            yield from self.handshake()


def mixture(rng, count, each):
    """Make packets of several connections, in turn by chance."""
    talks = [list(Talk(rng, 10_000 + number).packets(each)) for number in range(count)]
    while talks:
        one = rng.choice(talks)
        yield from (one.pop(0) for _ in range(min(len(one), rng.choice((1, 1, 9)))))
        talks = [talk for talk in talks if talk]


@pytest.mark.parametrize("behaviour", Behaviour)
@pytest.mark.parametrize(("form", "link"), [(pcap, 1), (pcap, 101), (pcapng, 1)])
def test_whatever_is_among_them(behaviour, form, link, both_ways):
    rng = random.Random(17)
    packets = taken = 0
    findings = set()
    for _ in range(6):
        seen = [
            (MOMENT + place * 1000, linked(packet, link))
            for place, packet in enumerate(mixture(rng, 4, rng.choice((30, 200))))
        ]
        quick, count = both_ways(form(seen, link=link, snaplen=rng.choice((54, 64, 70, 262144))), behaviour)
        packets, taken = packets + len(seen), taken + count
        findings |= {finding.kind for one in quick.connections for finding in one.findings}
    assert packets / 6 < taken < packets
    assert {"out-of-window", "reset", "retransmission", "zero-window"} <= findings


def short(port, *, reset=False, again=False):
    """Yield the packets of a connection from its SYN to its end."""
    client, vip, one = ("10.0.0.2", port), ("192.168.0.2", 80), port
    yield tcp(client, vip, SYN, one, 0, options=SCALE)
    yield tcp(vip, client, SYN | ACK, 500, one + 1, options=SCALE)
    yield tcp(client, vip, ACK, one + 1, 501)
    yield tcp(client, vip, ACK | PSH, one + 1, 501, b"request")
    yield tcp(vip, client, ACK, 501, one + 8, b"answer")
    yield tcp(vip, client, ACK | FIN, 507, one + 8)
    yield tcp(client, vip, ACK | FIN, one + 8, 508)
    yield tcp(vip, client, ACK, 508, one + 9)
    if again:
        yield tcp(vip, client, ACK, 501, one + 8, b"answer")
    if reset:
        yield tcp(client, vip, RST, one + 9, 0)


def test_a_connection_of_which_there_is_nothing_to_tell_is_never_looked_at_in_full(monkeypatch):
    from lab.capture.connection import Connection

    packets = [packet for port in (1000, 1001, 1002) for packet in short(port)]
    packets.append(udp(("10.0.0.2", 4000), ("10.96.0.10", 53), b"question"))  # a file's last packet is always looked at
    data = pcap([(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)])
    with monkeypatch.context() as patched:
        patched.setattr(Plain, "taker", lambda *_any: None)
        in_full = explained(data)
    monkeypatch.setattr(Connection, "__init__", lambda *_any: pytest.fail("looked at in full"))
    assert explained(data) == in_full
    assert [one.packets for one in in_full.connections] == [8, 8, 8, 1]


@pytest.mark.parametrize("fault", [{"reset": True}, {"again": True}])
def test_what_comes_behind_the_end_finds_the_connection_as_if_all_of_it_had_been_looked_at(both_ways, fault):
    packets = [*short(1000), *short(1001, **fault)]
    told, _taken = both_ways(pcap([(MOMENT + number * 1000, packet) for number, packet in enumerate(packets)]))
    assert [one.packets for one in told.connections] == [8, 9]
    assert bool(told.connections[1].findings) is ("again" in fault)


def listed(sysctl):
    """Return what `sysctl` prints of one of conntrack's; nothing of none."""
    line = f"net.netfilter.nf_conntrack_tcp_{sysctl}\n".encode()
    return [Text(io.BufferedReader(io.BytesIO(line)), "sysctl.txt")] if sysctl else []


@pytest.mark.parametrize(
    ("sysctls", "seconds", "is_found"),
    [("", 29, True), ("", 31, False), ("timeout_last_ack=9", 10, False), ("timeout_last_ack=40", 31, True)],
)
def test_a_port_s_next_syn_finds_the_entry_of_an_ordinary_connection_that_still_lives(
    both_ways, sysctls, seconds, is_found
):
    """It lacks the last ACK, so that the entry is in LAST_ACK, in which a SYN is ignored."""
    over = list(short(1000))[:-1]
    times = [MOMENT + number * 1000 for number in range(len(over))]
    later = times[-1] + seconds * 10**9
    again = tcp(("10.0.0.2", 1000), ("192.168.0.2", 80), SYN, 90_000, 0, options=SCALE)
    packets = [
        *zip(times, over, strict=True),
        (later, again),
        (later + 1000, udp(("10.0.0.2", 4), ("10.0.0.3", 5), b"")),
    ]
    told, _taken = both_ways(pcap(packets), texts=listed(sysctls))
    [_first, second, _other] = told.connections
    assert ("ignored by the table of states" in str(second.findings)) is is_found


@pytest.mark.parametrize(("sysctls", "is_wrong"), [("", True), ("be_liberal=1", False)])
def test_what_an_ordinary_connection_meets_later_is_judged_by_the_sysctls(both_ways, sysctls, is_wrong):
    packets = [*short(1000)][:4]
    packets.append(tcp(("192.168.0.2", 80), ("10.0.0.2", 1000), ACK | PSH, 501 + 2**29, 1008, b"far"))
    seen = [(MOMENT + at * 1000, one) for at, one in enumerate(packets)]
    told, _taken = both_ways(pcap(seen), texts=listed(sysctls))
    assert ("out-of-window" in {one.kind for one in told.connections[0].findings}) is is_wrong


@pytest.mark.parametrize("odd", [False, True])
def test_a_connection_that_is_given_up_is_gone(monkeypatch, odd):
    """At once, for nobody looks for garbage meanwhile: or a long capture of short connections would take all memory."""
    monkeypatch.setattr(following, "_MOST", 5)
    monkeypatch.setattr(following, "_LIVE", 3)
    packets = []
    for port in range(1000, 1060):
        client, server = ("10.0.0.2", port), ("192.168.0.2", 80)
        asked = port * 100
        packets += [
            tcp(client, server, SYN, asked - 1, 0, options=SCALE),
            tcp(server, client, SYN | ACK, 4, asked, options=SCALE),
            tcp(client, server, ACK, asked, 5),
            tcp(client, server, ACK, asked, 5, b"?"),
            tcp(server, client, ACK, 5, asked + 1),
            tcp(server, client, RST if odd else ACK | FIN, 5, asked + 1),
        ]
    data = pcap([(MOMENT + place * 1000, linked(packet, 1)) for place, packet in enumerate(packets)], link=1)
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        told = explained(data)
        left = sum(isinstance(one, Ordinary | Connection) for one in gc.get_objects())
    finally:
        if was_enabled:
            gc.enable()
    assert len(told.connections) == (60 if odd else 5)  # of what was given up, what was found is told
    assert left <= 5


def test_what_is_found_too_often_is_counted(monkeypatch):
    """As in a scan: each connection is told until there are enough of its kind, whether given up or followed."""
    monkeypatch.setattr(following, "_MOST", 5)
    monkeypatch.setattr(following, "_LIVE", 3)
    monkeypatch.setattr(telling, "_MOST", 7)
    packets = []
    for port in range(1000, 1060):
        client, server = ("10.0.0.2", port), ("192.168.0.2", 80)
        packets.append(tcp(client, server, SYN, port * 100, 0, options=SCALE))
        if port % 2:
            packets.append(tcp(server, client, RST | ACK, 0, port * 100 + 1))
    data = pcap([(MOMENT + place * 1000, linked(packet, 1)) for place, packet in enumerate(packets)], link=1)
    told = explained(data)
    kinds = Counter(finding.kind for one in told.connections for finding in one.findings)
    assert kinds == {"refused": 7, "unanswered": 7}
    assert told.counted == (Counted("TCP", 46, {"refused": 23, "unanswered": 23}, 7),)
    assert [one.client.port for one in told.connections] == list(range(1000, 1014))
    assert any(note.startswith("55 connections were given up before the capture's end") for note in told.notes)
    printed = "\n".join(lines(told, assumed=False))
    assert "And 46 connections more are only counted, as of each kind 7 findings are told one by one:" in printed
    assert "refused (23 findings)" in printed


@pytest.mark.parametrize("room", [40, 40_000])
def test_connections_that_hold_much_are_given_up_before_others(monkeypatch, room):
    monkeypatch.setattr(following, "_LIVE", 3)
    monkeypatch.setattr(following, "_ROOM", room)
    packets = []
    for port in range(1000, 1060):
        client, server = ("10.0.0.2", port), ("192.168.0.2", 80)
        packets += [
            tcp(client, server, SYN, port * 100, 0, options=SCALE),
            tcp(server, client, RST | ACK, 0, port * 100 + 1),
        ]
    data = pcap([(MOMENT + place * 1000, linked(packet, 1)) for place, packet in enumerate(packets)], link=1)
    told = explained(data)
    assert len(told.connections) == 60  # each is told
    assert any("49 connections were given up" in note for note in told.notes) is (room == 40)
