"""Packets are held with their translation chosen and without an entry, and go on in the order that is said."""

import asyncio

import pytest

from lab.cases.snat_port_race import PLAIN, masquerade
from lab.errors import MissingError
from lab.fabric.lab import Lab
from lab.scenario.datagrams import Datagrams
from lab.scenario.roles import cast
from lab.topology.reader import load
from lab.vocabulary import Family

pytestmark = pytest.mark.kernel

QUESTIONS = ("first", "the second")


def play(family, act):
    async def whole():
        topology = load("dns")
        with Lab(topology, family=family) as lab:
            stage = Datagrams(lab, cast(topology, family), family)
            stage.hold()
            for port, question in enumerate(QUESTIONS, 40_000):
                stage.ask(question, port=port)
            await act(stage, await stage.held(2))
            return stage.finish()

    return asyncio.run(whole())


@pytest.fixture(params=list(Family))
def family(request):
    return request.param


def arrivals(timeline):
    lengths = {len(question): question for question in QUESTIONS}
    return [
        lengths[one.packet.payload_length]
        for one in timeline.sightings
        if one.host.startswith("dns-") and not one.outgoing and one.packet.destination.port == 53
    ]


def test_what_is_held_is_translated_and_has_no_entry(family):
    async def act(stage, held):
        pods = {address for _host, address in stage.cast.servers}
        assert {packet.destination for packet in held} <= pods
        assert stage.entry() is None
        stage.release(*held)
        assert stage.entry() is not None
        await stage.settle()

    timeline = play(family, act)
    assert timeline.complete
    assert timeline.faults == ()


def test_held_packets_go_on_in_the_order_that_is_said(family):
    async def act(stage, held):
        stage.release(*reversed(held))
        await stage.settle()

    timeline = play(family, act)
    assert arrivals(timeline) == [*reversed(QUESTIONS)]
    assert all(exchange.answered for exchange in timeline.exchanges)


def test_what_is_taken_back_is_gone(family):
    async def act(stage, held):
        stage.take_back(held[1])
        stage.release(held[0])
        await stage.settle()

    timeline = play(family, act)
    assert arrivals(timeline) == [QUESTIONS[0]]
    assert len(timeline.exchanges) == 1
    assert timeline.counters.statistics["insert_failed"] == 0


def test_a_kernel_that_cannot_is_said_to_be_one(family, monkeypatch):
    monkeypatch.setattr("lab.wire.hold._TARGET", b"NOSUCHTHING\0")
    with pytest.raises(MissingError, match="NETFILTER_XT_TARGET_NFQUEUE"):
        play(family, lambda stage, held: None)


@pytest.mark.parametrize("together", [True, False])
def test_it_is_the_race_that_loses_a_packet(together):
    """A test of the tests: without the race, one after the other, masquerading finds another port."""
    topology, family = load("dns"), Family.IPV4

    async def whole():
        with Lab(topology, family=family) as lab:
            stage = Datagrams(lab, PLAIN.cast(topology, family), family)
            if together:
                await PLAIN.play(stage)
            else:
                masquerade(stage, "masquerade")
                stage.ask("one")
                await stage.settle()
                stage.ask("another", client="client-2")
                await stage.settle()
            return stage.finish()

    timeline = asyncio.run(whole())
    assert sorted(exchange.answered for exchange in timeline.exchanges) == [not together, True]
    assert timeline.counters.statistics["insert_failed"] == int(together)
