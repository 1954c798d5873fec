"""Captures of two points by clocks that drift, or that somebody sets: told as by one clock."""

import copy
import functools
import io
import random
import re
from ipaddress import ip_address

import pytest

from lab.capture import ahead
from lab.capture.order import in_order
from lab.capture.reader import Reader
from lab.evidence.packet import ACK, PSH, RST, SYN
from lab.verdict import Outcome
from tests.support.captures import MOMENT, pcap, pcapng, tcp
from tests.support.explaining import explained

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 8080)
OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07"
SIZE, WINDOW = 1448, 2000
BETWEEN = 150_000  # ns from one point to the other
LASTS = 600  # seconds
HALF = LASTS // 2 * 10**9


class Download:
    """A download in bursts, as the client's and the server's side of a node have it; times begin at 0.

    :param lost: one data packet of so many gets lost between the two and is sent again; 0: none.
    """

    def __init__(self, *, lost=0, bursts=30, each=100, client=CLIENT, vip=VIP, first=1000):
        self.ends = client, vip
        self.seen = {"client": [], "server": []}
        self.number, self.now, self.asked, self.sent = 0, 0, first + 1, first + 4001
        self.rng = random.Random(7)
        self.client(SYN, first, 0, options=OPTIONS)
        self.server(SYN | ACK, first + 4000, first + 1, options=OPTIONS)
        self.client(ACK, self.asked, self.sent)
        for burst in range(bursts):
            self.now = (burst * LASTS * 10**9) // bursts + 10**7
            self.burst(each, lost)

    def burst(self, each, lost):
        self.client(ACK | PSH, self.asked, self.sent, b"?" * 10)
        self.asked += 10
        gone, acknowledged = [], self.sent
        for count in range(each):
            self.now += 250_000
            is_lost = lost and self.rng.randrange(lost) == 0
            self.server(ACK, self.sent, self.asked, bytes(SIZE), lost=is_lost)
            gone += [self.sent] * bool(is_lost)
            self.sent += SIZE
            acknowledged = acknowledged if gone else self.sent
            if count % 2:
                self.client(ACK, self.asked, acknowledged)
        self.now += 30_000_000
        for again in gone:
            self.server(ACK, again, self.asked, bytes(SIZE))
        self.now += 1_000_000
        self.client(ACK, self.asked, self.sent)

    def client(self, flags, sequence, acknowledgement, payload=b"", **rest):
        self.number += 1
        rest |= {"window": WINDOW, "number": self.number % 65535 + 1}
        self.now += 2 * BETWEEN
        self.seen["client"].append((self.now, tcp(*self.ends, flags, sequence, acknowledgement, payload, **rest)))
        at = self.now + BETWEEN
        self.seen["server"].append((at, tcp(self.ends[0], POD, flags, sequence, acknowledgement, payload, **rest)))

    def server(self, flags, sequence, acknowledgement, payload=b"", *, lost=False, **rest):
        self.number += 1
        rest |= {"window": WINDOW, "number": self.number % 65535 + 1}
        self.now += 2 * BETWEEN
        self.seen["server"].append(
            (self.now, tcp(POD, self.ends[0], flags, sequence, acknowledgement, payload, **rest))
        )
        if not lost:
            at = self.now + BETWEEN
            self.seen["client"].append((at, tcp(*self.ends[::-1], flags, sequence, acknowledgement, payload, **rest)))

    def files(self, *, form=pcap, **clocks):
        """Return both captures, each by its clock: what that makes of a time."""
        made = {}
        for name, packets in self.seen.items():
            clock = clocks.get(name, int)
            ordered = sorted(packets, key=lambda one: one[0])
            timed = [(MOMENT + clock(time), packet) for time, packet in ordered]
            made[f"{name}.pcap"] = form(timed, nano=True) if form is pcap else form(timed)
        return made


def drifting(ppm, ahead=0):
    return lambda time: time + time * ppm // 10**6 + ahead


def stepping(by):
    return lambda time: time + by * (time >= HALF)


@functools.cache
def by_one_clock(download):
    return told_of(download.files())


def told_of(files):
    """Return what is told of the only connection, without the times."""
    told = explained(files)
    [one] = told.connections
    findings = [(found.kind, found.words, [place.number for place in found.packets]) for found in one.findings]
    return one.outcome, findings, told.notes


HEALTHY, LOSSY = Download(), Download(lost=80)


def told_as_by_one_clock(download, **clocks):
    """Check that what is told is what is told by one clock, and return what is told of the clocks."""
    plain, told = by_one_clock(download), told_of(download.files(**clocks))
    assert told[:2] == plain[:2]
    return [note for note in told[2] if note not in plain[2]]


@pytest.mark.parametrize("download", [HEALTHY, LOSSY], ids=["healthy", "lossy"])
@pytest.mark.parametrize(
    ("ppm", "side", "form"),
    [(100, "server", pcap), (-100, "client", pcapng), (500, "client", pcap), (-500, "server", pcapng)],
)
def test_clocks_that_drift_are_followed(download, ppm, side, form):
    [note] = told_as_by_one_clock(download, form=form, **{side: drifting(ppm, 3600 * 10**9)})
    fast = (ppm > 0) is (side == "server")
    assert f"its clock is 3,600.000 s {'ahead of' if side == 'server' else 'behind'} that of client.pcap" in note
    assert f"it goes {'fast' if fast else 'slow'} against that by" in note
    assert f"({abs(ppm)} ppm), which is followed" in note


def test_the_downloads_are_what_they_are_held_for():
    assert told_of(HEALTHY.files())[:2] == (Outcome.CONNECTED, [])
    assert [kind for kind, _words, _packets in told_of(LOSSY.files())[1]] == ["lost", "retransmission"]


@pytest.mark.parametrize("most", [20_000, 97], ids=["read ahead of it", "read up to it"])
@pytest.mark.parametrize("by", [10**9, -(10**9), 5 * 10**7, -5 * 10**7], ids=["+1 s", "-1 s", "+50 ms", "-50 ms"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_clock_that_is_set_changes_nothing(side, by, most, monkeypatch):
    """In the middle of a burst, where each packet that is put elsewhere would be one that is missing."""
    monkeypatch.setattr(ahead, "_MOST", most)
    packets = HEALTHY.seen[side]
    at = packets[len(packets) // 2 + 40][0]
    [note] = told_as_by_one_clock(HEALTHY, **{side: lambda time: time + by * (time >= at)})
    told = re.fullmatch(r"(\w+)\.pcap: from packet ([\d,]+) on its clock is (\S+ m?s) further (\w+): (.*)", note)
    assert told is not None, note
    assert told[3] == ("1.000 s" if abs(by) == 10**9 else "50.000 ms" if told[1] == "server" else told[3])
    assert "times between before and after are wrong by so much at most" in told[5]
    alone = told[1] == "client"  # its own times go back
    assert alone is (side == "client" and by < 0)
    assert ("it was set" if alone else "this one or that of client.pcap was set") in told[5]
    assert told[4] == ("behind" if alone or (by > 0) is (side == "client") else "ahead")
    assert abs(int(told[2].replace(",", "")) - (len(packets) // 2 + 40)) < 5


def test_a_clock_that_is_set_between_the_bursts_changes_nothing():
    [note] = told_as_by_one_clock(HEALTHY, server=stepping(10**9))
    assert "server.pcap: from packet 2,284 on its clock is 1.000 s further ahead" in note


def test_clocks_that_drift_and_are_set_are_told_to_do_both():
    drift, step = told_as_by_one_clock(
        LOSSY, client=drifting(50), server=lambda time: time * 99995 // 100000 - 2 * 10**9 * (time >= HALF)
    )
    assert "it goes slow against that by" in drift
    assert re.search(r"\((9\d|100) ppm\)", drift)
    assert re.search(r" 2\.00\d s further behind", step)


@pytest.mark.parametrize("ppm", [300, -300])
def test_a_point_that_sees_one_way_alone_is_followed(ppm):
    one_way = copy.copy(HEALTHY)
    one_way.seen = {
        "client": HEALTHY.seen["client"],
        "server": [one for one in HEALTHY.seen["server"] if one[1][12:16] == ip_address(POD[0]).packed],
    }
    told_as_by_one_clock(one_way, server=drifting(ppm))


def test_a_leak_by_clocks_that_drift_is_one():
    """That what is followed is the clocks, and not whatever makes a connection healthy."""
    leaking = copy.copy(HEALTHY)
    last = max(time for packets in HEALTHY.seen.values() for time, _packet in packets) + 10**6
    far = tcp(POD, CLIENT, ACK, HEALTHY.sent + 2**29, HEALTHY.asked, b"far", window=WINDOW, number=3)
    reset = tcp(CLIENT, POD, RST, HEALTHY.asked, 0, window=0)
    leaking.seen = {
        "client": [*HEALTHY.seen["client"], (last + BETWEEN, far), (last + 2 * BETWEEN, reset)],
        "server": [*HEALTHY.seen["server"], (last, far), (last + 3 * BETWEEN, reset)],
    }
    told_as_by_one_clock(leaking, server=drifting(-100))
    assert told_of(leaking.files())[0] is Outcome.RESET


def test_clients_on_both_sides_tell_the_clocks_as_well():
    """Then packets of each port go both ways, and only those of one connection one way."""
    here = Download()
    there = Download(client=("10.0.2.2", 40001), vip=("192.168.0.9", 80), first=10**9)
    there.seen = {"client": there.seen["server"], "server": there.seen["client"]}
    both = copy.copy(here)
    both.seen = {side: sorted(here.seen[side] + there.seen[side], key=lambda one: one[0]) for side in here.seen}
    told = explained(both.files(server=drifting(400, 10**9)))
    assert [(one.outcome, one.findings) for one in told.connections] == [(Outcome.CONNECTED, ())] * 2
    assert "1.000 s ahead of that of client.pcap" in told.notes[0]
    assert "(400 ppm)" in told.notes[0]


def test_no_more_than_so_many_packets_are_read_ahead(monkeypatch):
    monkeypatch.setattr(ahead, "_MOST", 50)
    readers = [Reader(io.BufferedReader(io.BytesIO(data)), name) for name, data in HEALTHY.files().items()]
    notes = []
    for told, _one in enumerate(in_order(readers, None, notes)):
        assert sum(reader.read for reader in readers) - told <= 2 * 50
    assert told > 9_000
