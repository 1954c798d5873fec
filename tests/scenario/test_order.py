"""A step goes on by what the judging node has, whichever processor's queue a packet is in."""

import asyncio
import os

import pytest

from lab.evidence.judgement import Judgement
from lab.fabric.lab import Lab
from lab.netns import bound
from lab.scenario import ConnectionScenario, DownloadsScenario, one_processor
from lab.scenario.nodes import Nodes
from lab.scenario.roles import roles_in
from lab.topology.reader import load
from lab.vocabulary import Behaviour, Family
from lab.wire.capture import Capture

pytestmark = pytest.mark.lab_kernel

A_MOMENT = 0.1  # seconds in which a step that does not wait would have gone on: it takes a millisecond
#: Before conntrack: acknowledgements without data from the server are lost on the node.
LOSES = """table inet test_loses {
chain prerouting {
type filter hook prerouting priority -300;
tcp sport 80 tcp flags & (fin | syn | rst | psh | ack) == ack drop
}
}
"""


def carry_out(script, kind=ConnectionScenario):
    """Return the timeline of a script."""

    async def carried_out():
        place = load("kube-proxy")
        with Lab(place, family=Family.IPV4) as lab:
            scenario = kind(lab, roles_in(place, Family.IPV4), Family.IPV4, Behaviour.IGNORES_LATE)
            await script(scenario)
            return scenario.finish()

    return asyncio.run(carried_out())


async def goes_on(task):
    done, _pending = await asyncio.wait({task}, timeout=A_MOMENT)
    return bool(done)


def test_a_half_close_is_over_when_the_node_knows_it():
    async def script(scenario):
        await scenario.establish()
        scenario.load("node", LOSES)
        half_close = asyncio.create_task(scenario.half_close())
        last = len(scenario.seen("server", flags="A", outgoing=True))
        await scenario.until(
            lambda: len(scenario.seen("server", flags="A", outgoing=True)) > last, "the server to acknowledge it"
        )
        assert not await goes_on(half_close)
        scenario.node.nft.run("delete table inet test_loses\n")
        await half_close  # the client sends its FIN again
        states = [event.entry.tcp_state for event in scenario.recorder.entry_events]
        assert states[-2:] == ["LAST_ACK", "TIME_WAIT"]  # the second FIN and its acknowledgement

    assert carry_out(script).faults == ()


@pytest.fixture
def late(monkeypatch):
    """Have the node's capture hold TCP segments back while the list's first is true, as if they were still queued."""
    see, kept, state = Capture.read, [], [True]

    def read(capture):
        seen = see(capture)
        if capture.host != "node":
            return seen
        kept.extend(one for one in seen if one.packet.tcp is not None)
        seen = [one for one in seen if one.packet.tcp is None]
        if not state[0]:
            seen += kept
            kept.clear()
        return seen

    def begin():
        monkeypatch.setattr(Capture, "read", read)
        return state

    return begin


def test_a_barrier_waits_for_what_is_in_another_queue(late):
    async def script(scenario):
        await scenario.establish()
        held = late()
        await scenario.client_end.send(b"?")
        barrier = asyncio.create_task(scenario.barrier())
        assert not await goes_on(barrier)
        passed = sum(one.packet.is_barrier for one in scenario.recorder.judged)
        held[0] = False
        scenario.recorder.read()
        await barrier
        assert sum(one.packet.is_barrier for one in scenario.recorder.judged) > passed  # one more, behind its effect

    assert carry_out(script).faults == ()


def test_what_never_comes_to_the_other_end_is_a_fault(late, monkeypatch):
    monkeypatch.setattr(bound, "SECONDS", A_MOMENT)

    async def script(scenario):
        await scenario.establish()
        late()
        await scenario.client_end.send(b"?")
        await scenario.barrier()

    [fault] = carry_out(script).faults
    assert fault.endswith("for what left a link's end to come to the other")


def test_what_was_invalid_after_the_counting_is_not_logged_either(monkeypatch):
    count, more = Nodes.count, []

    def count_and_inject(nodes, recorder):
        counters = count(nodes, recorder)
        more.pop()()
        return counters

    monkeypatch.setattr(Nodes, "count", count_and_inject)

    async def script(scenario):
        from lab.wire.craft import craft

        await scenario.establish()
        await scenario.inject(scenario.from_server(2**30))
        assert scenario.judgement() is Judgement.INVALID
        injector = scenario.lab.injector("server", scenario.roles.client_address.address)
        data = craft(scenario.from_server(2**30))
        more.append(lambda: injector.send(data))

    timeline = carry_out(script)
    logged = [one for one in timeline.judged if one.state == "invalid"]
    assert len(logged) == timeline.counters.states["invalid"] == timeline.counters.statistics["invalid"]


def test_a_condition_may_look_at_what_was_seen():
    async def script(scenario):
        await scenario.establish()
        question = asyncio.create_task(scenario.client_end.send(b"?"))
        await scenario.until(lambda: len(scenario.seen("server", flags="P", outgoing=False)) == 2, "it to come")
        await question

    carry_out(script)


def test_a_scenario_stays_on_one_processor_until_it_is_over():
    allowed = os.sched_getaffinity(0)

    async def script(scenario):
        assert len(os.sched_getaffinity(0)) == 1
        await scenario.establish()

    carry_out(script)
    assert os.sched_getaffinity(0) == allowed


def test_a_load_has_all_processors():
    allowed = os.sched_getaffinity(0)

    async def script(scenario):
        assert os.sched_getaffinity(0) == allowed

    carry_out(script, DownloadsScenario)


def test_blocks_on_one_processor_may_overlap():
    allowed = os.sched_getaffinity(0)
    first, second = one_processor(), one_processor()
    first.__enter__()
    kept = os.sched_getaffinity(0)
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.sched_getaffinity(0) == kept
    second.__exit__(None, None, None)
    assert os.sched_getaffinity(0) == allowed
