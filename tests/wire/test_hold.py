"""Packets are held with their translation chosen and without an entry, and go on in the order that is said."""

import asyncio

import pytest

from lab.cases.snat_port_race import PLAIN, masquerade
from lab.errors import MissingError
from lab.fabric.lab import Lab
from lab.scenario.datagrams import DatagramsScenario
from lab.scenario.roles import roles_in
from lab.topology.reader import load
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel

QUESTIONS = ("first", "the second")


def timeline_of(family, steps):
    async def whole():
        topology = load("dns")
        with Lab(topology, family=family) as lab:
            scenario = DatagramsScenario(lab, roles_in(topology, family), family)
            scenario.hold()
            for port, question in enumerate(QUESTIONS, 40_000):
                scenario.ask(question, port=port)
            await steps(scenario, await scenario.held(2))
            return scenario.finish()

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
    async def steps(scenario, held):
        pods = {address for _host, address in scenario.roles.servers}
        assert {packet.destination for packet in held} <= pods
        assert scenario.entry() is None
        scenario.release(*held)
        assert scenario.entry() is not None
        await scenario.settle()

    timeline = timeline_of(family, steps)
    assert timeline.complete
    assert timeline.faults == ()


def test_held_packets_go_on_in_the_order_that_is_said(family):
    async def steps(scenario, held):
        scenario.release(*reversed(held))
        await scenario.settle()

    timeline = timeline_of(family, steps)
    assert arrivals(timeline) == [*reversed(QUESTIONS)]
    assert all(exchange.answered for exchange in timeline.exchanges)


def test_what_is_taken_back_is_gone(family):
    async def steps(scenario, held):
        scenario.take_back(held[1])
        scenario.release(held[0])
        await scenario.settle()

    timeline = timeline_of(family, steps)
    assert arrivals(timeline) == [QUESTIONS[0]]
    assert len(timeline.exchanges) == 1
    assert timeline.counters.statistics["insert_failed"] == 0


def test_a_kernel_that_cannot_is_said_to_be_one(family, monkeypatch):
    monkeypatch.setattr("lab.wire.hold._TARGET", b"NOSUCHTHING\0")
    with pytest.raises(MissingError, match="NETFILTER_XT_TARGET_NFQUEUE"):
        timeline_of(family, lambda scenario, held: None)


@pytest.mark.parametrize("together", [True, False])
def test_it_is_the_race_that_loses_a_packet(together):
    """A test of the tests: without the race, one after the other, masquerading finds another port."""
    topology, family = load("dns"), Family.IPV4

    async def whole():
        with Lab(topology, family=family) as lab:
            scenario = DatagramsScenario(lab, PLAIN.roles(topology, family), family)
            if together:
                await PLAIN.steps(scenario)
            else:
                masquerade(scenario, "masquerade")
                scenario.ask("one")
                await scenario.settle()
                scenario.ask("another", client="client-2")
                await scenario.settle()
            return scenario.finish()

    timeline = asyncio.run(whole())
    assert sorted(exchange.answered for exchange in timeline.exchanges) == [not together, True]
    assert timeline.counters.statistics["insert_failed"] == int(together)
