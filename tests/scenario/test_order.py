"""A step goes on by what the judging node has, whichever processor's queue a packet is in."""

import asyncio
import os

import pytest

from lab.evidence.judgement import Judgement
from lab.fabric.lab import Lab
from lab.scenario import LoadStage, Stage, one_processor
from lab.scenario.base import Scene
from lab.scenario.recorder import Recorder
from lab.scenario.roles import cast
from lab.topology.reader import load
from lab.vocabulary import Behaviour, Family
from lab.wire.capture import Capture

pytestmark = pytest.mark.kernel

A_MOMENT = 0.1  # seconds in which a step that does not wait would have gone on: it takes a millisecond
#: Before conntrack: acknowledgements without data from the server are lost on the node.
LOSES = """table inet test_loses {
chain prerouting {
type filter hook prerouting priority -300;
tcp sport 80 tcp flags & (fin | syn | rst | psh | ack) == ack drop
}
}
"""


def play(script, kind=Stage):
    """Return the timeline of a script."""

    async def played():
        place = load("kube-proxy")
        with Lab(place, family=Family.IPV4) as lab:
            stage = kind(lab, cast(place, Family.IPV4), Family.IPV4, Behaviour.IGNORES_LATE)
            await script(stage)
            return stage.finish()

    return asyncio.run(played())


async def goes_on(task):
    done, _pending = await asyncio.wait({task}, timeout=A_MOMENT)
    return bool(done)


def test_a_half_close_is_over_when_the_node_knows_it():
    async def script(stage):
        await stage.establish()
        stage.load("node", LOSES)
        half_close = asyncio.create_task(stage.half_close())
        last = len(stage.seen("server", flags="A", outgoing=True))
        await stage.until(
            lambda: len(stage.seen("server", flags="A", outgoing=True)) > last, "the server to acknowledge it"
        )
        assert not await goes_on(half_close)
        stage.node.nft.run("delete table inet test_loses\n")
        await half_close  # the client sends its FIN again
        states = [event.entry.tcp_state for event in stage.recorder.entry_events]
        assert states[-2:] == ["LAST_ACK", "TIME_WAIT"]  # the second FIN and its acknowledgement

    assert play(script).faults == ()


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
    async def script(stage):
        await stage.establish()
        held = late()
        await stage.client_end.send(b"?")
        barrier = asyncio.create_task(stage.barrier())
        assert not await goes_on(barrier)
        passed = sum(one.packet.is_barrier for one in stage.recorder.judged)
        held[0] = False
        stage.recorder.read()
        await barrier
        assert sum(one.packet.is_barrier for one in stage.recorder.judged) > passed  # one more, behind its effect

    assert play(script).faults == ()


def test_what_never_comes_to_the_other_end_is_a_fault(late, monkeypatch):
    monkeypatch.setitem(Recorder.until.__kwdefaults__, "within", A_MOMENT)

    async def script(stage):
        await stage.establish()
        late()
        await stage.client_end.send(b"?")
        await stage.barrier()

    [fault] = play(script).faults
    assert fault.endswith("for what left a link's end to come to the other")


def test_what_was_invalid_after_the_counting_is_not_logged_either(monkeypatch):
    count, more = Scene._count, []

    def count_and_inject(scene):
        counters = count(scene)
        more.pop()()
        return counters

    monkeypatch.setattr(Scene, "_count", count_and_inject)

    async def script(stage):
        from lab.wire.craft import craft

        await stage.establish()
        await stage.inject(stage.from_server(2**30))
        assert stage.judgement() is Judgement.INVALID
        injector = stage.lab.injector("server", stage.cast.client_address.address)
        data = craft(stage.from_server(2**30))
        more.append(lambda: injector.send(data))

    timeline = play(script)
    logged = [one for one in timeline.judged if one.state == "invalid"]
    assert len(logged) == timeline.counters.states["invalid"] == timeline.counters.statistics["invalid"]


def test_a_condition_may_look_at_what_was_seen():
    async def script(stage):
        await stage.establish()
        question = asyncio.create_task(stage.client_end.send(b"?"))
        await stage.until(lambda: len(stage.seen("server", flags="P", outgoing=False)) == 2, "it to come")
        await question

    play(script)


def test_a_scene_stays_on_one_processor_until_it_is_over():
    allowed = os.sched_getaffinity(0)

    async def script(stage):
        assert len(os.sched_getaffinity(0)) == 1
        await stage.establish()

    play(script)
    assert os.sched_getaffinity(0) == allowed


def test_a_load_has_all_processors():
    allowed = os.sched_getaffinity(0)

    async def script(stage):
        assert os.sched_getaffinity(0) == allowed

    play(script, LoadStage)


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
