"""Captures in which packets do not stand by their times."""

import random

import pytest

from lab.capture import frames, pcapng
from lab.evidence.packet import ACK
from tests.capture.test_reader import CLIENT, VIP, read
from tests.support.captures import MOMENT, linked, tcp
from tests.support.captures import pcap as in_pcap
from tests.support.captures import pcapng as in_pcapng

MILLISECOND = 1_000_000
FORMS = [in_pcap, in_pcapng]


def timed(count, gap=MILLISECOND // 10):
    """Packets whose acknowledgement is their place."""
    return [(MOMENT + number * gap, linked(tcp(VIP, CLIENT, ACK, 1, number), 1)) for number in range(count)]


def placed(data):
    found, notes = read(data)
    assert notes == []
    return [(frame.packet.tcp.acknowledgement, frame.number) for frame in found]


@pytest.fixture
def in_small_parts(monkeypatch):
    """Have files read in parts of few packets, so that swapped ones are in two of them."""
    monkeypatch.setattr(frames, "BUFFER", 1000)
    monkeypatch.setattr(pcapng, "_BATCH", 7)


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("form", FORMS)
def test_what_came_a_little_late_is_put_in_its_place(form):
    right = timed(400)
    chance = random.Random(1)
    order = sorted(range(400), key=lambda place: place + chance.uniform(0, 20))
    assert order != sorted(order)
    found = placed(form([right[place] for place in order], link=1))
    assert [place for place, _number in found] == list(range(400))
    assert all(order[number - 1] == place for place, number in found)  # numbers are the file's


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("form", FORMS)
def test_a_clock_that_was_set_back_and_a_file_behind_another_stay(form):
    first = timed(200)
    again = [(time - 15 * MILLISECOND, packet) for time, packet in first]
    found = placed(form(first + again, link=1))
    assert [number for _place, number in found] == list(range(1, 401))


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_file_is_put_in_order_until_there(form):
    right = timed(5)
    data = form([right[place] for place in (0, 2, 1, 3, 4)], link=1)[:-30]
    found, notes = read(data)
    assert [frame.number for frame in found] == [1, 3, 2, 4]
    assert len(notes) == 1
