"""What a play asks for too early, or in vain, is answered by a sentence: no assertion ends a trial."""

import asyncio
import dataclasses
import re
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.fabric.lab import Lab
from lab.scenario import Scripted, Stage
from lab.scenario.datagrams import Datagrams
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import cast
from lab.topology.reader import load
from lab.vocabulary import Behaviour, Family


def play(play, kind=Stage):
    async def perform():
        topology = load("kube-proxy")
        with Lab(topology, family=Family.IPV4) as lab:
            stage = kind(lab, cast(topology, Family.IPV4), Family.IPV4, Behaviour.IGNORES_LATE)
            try:
                await play(stage)
            finally:
                stage.finish()

    asyncio.run(perform())


def then(word):
    """Establish, and say a word."""

    async def said(stage):
        await stage.establish()
        result = word(stage)
        if asyncio.iscoroutine(result):
            await result

    return said


def at_once(word):
    async def said(stage):
        result = word(stage)
        if asyncio.iscoroutine(result):
            await result

    return said


async def forget_twice(stage):
    await stage.establish()
    stage.forget_entry()
    stage.forget_entry()


async def ask_the_window_of_none(stage):
    await stage.establish()
    stage.forget_entry()
    stage.window_at_node()


async def send_an_error_again(stage):
    await stage.establish()
    await stage.inject(stage.too_big_from_server(1300))
    await stage.retransmissions(1)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (at_once(lambda stage: stage.forget_entry()), "no entry of 10.0.0.2:34567 > 10.0.1.2:80 to forget"),
        (forget_twice, "no entry of 10.0.0.2:34567 > 192.168.0.2:80 to forget"),
        (ask_the_window_of_none, "no entry of the connection, so it knows no window"),
        (send_an_error_again, "it is no TCP segment"),
        (at_once(lambda stage: stage.from_server()), "the capture on server has seen nothing that 10.0.1.2:80 sent"),
        (at_once(lambda stage: stage.from_client()), "the capture on server has seen nothing that 10.0.0.2:34567 sent"),
        (at_once(lambda stage: stage.server_speaks()), "no connection yet"),
        (at_once(lambda stage: stage.go_on()), "no connection yet"),
        (then(lambda stage: stage.judgement()), "no packet to judge yet"),
        (then(lambda stage: stage.words_of_nodes()), "no packet to judge yet"),
        (then(lambda stage: stage.expect_reason("")), "no packet to judge yet"),
        (then(lambda stage: stage.expect_answer("")), "no packet to judge yet"),
        (then(lambda stage: stage.unheard), "no packet to judge yet"),
        (then(lambda stage: stage.unreachable), "no packet to judge yet"),
        (then(lambda stage: stage.taken_by_node), "no packet to judge yet"),
        (then(lambda stage: stage.retransmissions(1)), "no packet to judge yet"),
    ],
)
def test_a_word_that_comes_too_early_is_answered(said, answer):
    with pytest.raises(UnseenError, match=re.escape(answer)):
        play(said)


@pytest.mark.kernel
@pytest.mark.parametrize("word", [lambda stage: stage.held(1), lambda stage: stage.release(), Datagrams.take_back])
def test_nothing_is_released_that_was_never_held(word):
    with pytest.raises(UnseenError, match="hold first"):
        play(at_once(word), Datagrams)


@pytest.mark.kernel
def test_a_packet_that_the_lab_cannot_read_is_refused():
    option = (8, b"x")  # of 3 bytes, where timestamps have 10 (RFC 7323, 3.2)

    async def inject(stage):
        await stage.establish()
        await stage.inject(stage.from_server(options=[option], timestamps=None))

    with pytest.raises(InputError, match="cannot read the packet that it is to inject"):
        play(inject)
    with pytest.raises(InputError, match="cannot read the segment that it is to send"):
        play(at_once(lambda stage: stage.client.say("S", options=[option])), Scripted)


def test_no_assertion_is_left_on_the_stage():
    stage = Path(__file__).parents[2] / "lab" / "scenario"
    found = {
        path.name: line.strip()
        for path in stage.glob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith("assert ")
    }
    assert found == {}


@pytest.mark.kernel
def test_a_first_syn_that_the_node_drops_is_an_outcome(monkeypatch):
    from lab.cases import CASES
    from lab.fixes import NONE
    from lab.trial import runner
    from lab.trial.setting import Setting

    case = CASES["syn-before-service-forgotten"]

    async def dropped(stage):
        chain = "type filter hook forward priority 0; policy accept;"
        stage.load(
            "node", f"table inet firewall {{\nchain forward {{\n{chain}\nct state new tcp dport 53 drop\n}}\n}}\n"
        )
        sync = stage.lab.sync

        def synced(*objects, **more):
            if objects[0]:
                stage.node.nft.run("delete table inet firewall\n")
            sync(*objects, **more)

        monkeypatch.setattr(stage.lab, "sync", synced)
        await case.play(stage)

    setting = Setting(dataclasses.replace(case, play=dropped), NONE, load(case.topology), Family.IPV4)
    result = asyncio.run(runner.run(setting, Behaviour.IGNORES_LATE))
    assert not result.as_expected
    assert result.verdict.outcome == "delivered"
    assert "expected a conntrack entry, state SYN_SENT, timeout range(100, 121), assured False, but it is none" in (
        result.verdict.disagreements
    )
