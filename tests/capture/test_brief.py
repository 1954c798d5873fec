"""Datagrams that are taken in by a look at them, and the same ones the long way: one explanation, whatever they are."""

import io
import random
import struct

import pytest

from lab.capture import datagrams
from lab.capture.brief import Brief
from lab.capture.explain import explain
from lab.capture.plain import Plain
from lab.capture.reader import Reader
from lab.vocabulary import Behaviour
from tests.support.captures import MOMENT, icmp, linked, pcap, pcapng, tcp, udp

SECOND = 10**9


def explained(data):
    return explain([Reader(io.BufferedReader(io.BytesIO(data)), "x.pcap")], Behaviour.IGNORES_LATE)


@pytest.fixture
def both_ways(monkeypatch):
    """Explain a capture in both ways, and return the explanation and how many exchanges were brief to their end."""
    brief = []

    def counted(self):
        for one in self._all.values():
            brief.append(isinstance(one, Brief))
            yield self._in_full(one) if not brief[-1] or one.waiting or one.unanswered else one

    def both(data):
        brief.clear()
        with monkeypatch.context() as patched:
            patched.setattr(datagrams.Datagrams, "exchanges", property(lambda self: list(counted(self))))
            quick = explained(data)
        with monkeypatch.context() as patched:
            patched.setattr(Plain, "taker", lambda *_any: None)
            assert explained(data) == quick
        return quick, sum(brief)

    return both


class Talk:
    """What some clients ask of some servers, most of which is answered, and whatever else there is."""

    def __init__(self, rng):
        self.rng = rng
        self.sent = []  # what may come once more

    def ends(self):
        rng = self.rng
        port, server = rng.choice((5, 7, 53, 40000, 40001, *range(50000, 50020))), rng.randint(2, 4)
        asked = rng.choice((53, 53, 53, 123, 514, 5353, 4789, 45000))
        return ((f"fd00::{port % 3}", port), (f"fd00::1:{server}", asked)) if rng.random() < 0.2 else (
            (f"10.0.0.{port % 3}", port), (f"10.96.0.{server}", asked))  # fmt: skip

    def packets(self):
        rng = self.rng
        client, server = self.ends()
        begins = struct.pack("!H", rng.randrange(4)) + bytes(rng.choice((0, 1, 40, 90)))
        number, other = (rng.choice((0, rng.randrange(65536))) for _ in range(2))
        question, answer = udp(client, server, begins, number=number), udp(server, client, begins + b"!", number=other)
        strange = udp((server[0][:-1] + "9", server[1]), client, begins, number=other)
        cut = linked(question, 1)[14 : rng.randrange(20, 60)]
        kind = rng.randrange(24)
        made = {
            0: [question],
            1: [answer],
            2: [question, strange],
            3: [question, question],
            4: [question, icmp("10.96.0.9" if ":" not in server[0] else "fd00::9", client[0], 3, 3, question)],
            5: [question, question, answer, answer],
            6: [rng.choice(self.sent or [question])],
            7: [
                question,
                udp(client, ("10.0.9.9" if ":" not in server[0] else "fd00::9:9", 53), begins, number=number),
            ],
            8: [cut],
            9: [tcp(client, server, 2, 1, 0)],
        }.get(kind, [question, answer])
        self.sent = [*self.sent[-50:], *made]
        return made


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("form", ["pcap", "pcapng", "raw"])
def test_what_a_look_tells_is_what_the_long_way_tells(both_ways, monkeypatch, seed, form):
    rng = random.Random(seed)
    monkeypatch.setattr(datagrams, "_MOST", rng.choice((5, 20, 20_000)))
    monkeypatch.setattr(datagrams, "_RECENT", rng.choice((3, 20, 4096)))
    talk, packets, time = Talk(rng), [], MOMENT
    for _ in range(rng.choice((20, 300))):
        for packet in talk.packets():
            time += rng.choice((1000, 1000, 10**6, 11 * SECOND))
            packets.append((time, linked(packet, 101 if form == "raw" else 1)))
    data = {"pcap": pcap, "pcapng": pcapng, "raw": pcap}[form](packets, link=101 if form == "raw" else 1)
    both_ways(data)


def test_the_exchanges_of_a_resolver_are_brief(both_ways):
    packets = []
    for n in range(200):
        client, server = ("10.0.0.2", 40000 + n % 150), ("10.96.0.10", 53)
        asked = [struct.pack("!H", 2 * n + one) for one in range(2)]
        packets += [udp(client, server, one + bytes(30), number=n) for one in asked]
        packets += [udp(server, client, one + bytes(40), number=n) for one in reversed(asked)]
    told, brief = both_ways(pcap([(MOMENT + at * 1000, linked(one, 1)) for at, one in enumerate(packets)], link=1))
    assert brief == len(told.connections) == 150
    assert (told.packets, told.found) == (800, False)
    assert {one.packets for one in told.connections} == {4, 8}
