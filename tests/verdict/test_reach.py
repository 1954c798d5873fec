"""Whether what was seen of a question is what was expected, from plain data alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Fate, Question, Reached, Target
from lab.verdict.reach import Allowed, Expected, surprises

OWN = SocketAddress("10.0.0.2", 40000)
QUESTION = Question("client", Target.VIP, SocketAddress("192.168.0.2", 80))


def connected(server="a", source="10.0.0.2"):
    at = SocketAddress("10.0.1.2", 8080)
    return Reached(QUESTION, Fate.CONNECTED, OWN, server, at, SocketAddress(source, 1024))


def stopped(fate, at="node", how=""):
    return Reached(QUESTION, fate, OWN, at=at, how=how)


TWO = Expected((Fate.CONNECTED,), (Allowed("a"), Allowed("b", "10.0.9.1")), why="because")


@pytest.mark.parametrize(
    ("expected", "seen", "told"),
    [
        (TWO, [connected("a"), connected("b", "10.0.9.1")], []),
        (TWO, [connected("a", "10.0.9.1")], ["a, as 10.0.9.1"]),
        (TWO, [connected("b")], ["b, as 10.0.0.2"]),
        (TWO, [connected("c")], ["c, as 10.0.0.2"]),
        (TWO, [connected("a")] * 9, []),
        (TWO, [connected("a")] * 10, ["never b"]),
        (TWO, [connected("a"), stopped(Fate.TIMES_OUT)], ["times out at node"]),
        (TWO, [stopped(Fate.NOT_HERE)], []),
        (replace(TWO, sticks=True), [connected("a")] * 10, []),
        (replace(TWO, sticks=True), [connected("a"), connected("b", "10.0.9.1")], ["one client, and yet a and b"]),
        (Expected((Fate.REFUSED,), at="node"), [stopped(Fate.REFUSED)], []),
        (Expected((Fate.REFUSED,), at="node"), [stopped(Fate.REFUSED, "b", "RST")], ["refused by b (RST)"]),
        (Expected((Fate.TIMES_OUT,), at="node"), [stopped(Fate.TIMES_OUT, "other")], ["times out at other"]),
        (Expected((Fate.TIMES_OUT,)), [stopped(Fate.TIMES_OUT, "other")], []),
    ],
)
def test_what_is_unexpected_is_told_once(expected, seen, told):
    assert list(surprises(expected, seen, 10)) == told


def test_what_is_expected_in_words():
    assert str(TWO) == "a, as the client itself or b, as 10.0.9.1"
    assert str(Expected((Fate.TIMES_OUT, Fate.STRANGER), at="node")) == ("times out or answered by a stranger at node")
    mixed = Expected((Fate.CONNECTED, Fate.TIMES_OUT), (Allowed("a"),))
    assert str(mixed) == "a, as the client itself or times out"
