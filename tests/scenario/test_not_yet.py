"""What steps ask for too early, or in vain, is answered by a sentence: no assertion ends a trial."""

import asyncio
import dataclasses
import re
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.fabric.lab import Lab
from lab.scenario import ConnectionScenario, ScriptedScenario
from lab.scenario.datagrams import DatagramsScenario
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import roles_in
from lab.topology.reader import load
from lab.vocabulary import Behaviour, Family


def carry_out(steps, kind=ConnectionScenario):
    async def observe():
        topology = load("kube-proxy")
        with Lab(topology, family=Family.IPV4) as lab:
            scenario = kind(lab, roles_in(topology, Family.IPV4), Family.IPV4, Behaviour.IGNORES_LATE)
            try:
                await steps(scenario)
            finally:
                scenario.finish()

    asyncio.run(observe())


def then(word):
    """Establish, and say a word."""

    async def said(scenario):
        await scenario.establish()
        result = word(scenario)
        if asyncio.iscoroutine(result):
            await result

    return said


def at_once(word):
    async def said(scenario):
        result = word(scenario)
        if asyncio.iscoroutine(result):
            await result

    return said


async def forget_twice(scenario):
    await scenario.establish()
    scenario.forget_entry()
    scenario.forget_entry()


async def ask_the_window_of_none(scenario):
    await scenario.establish()
    scenario.forget_entry()
    scenario.window_at_node()


async def send_an_error_again(scenario):
    await scenario.establish()
    await scenario.inject(scenario.too_big_from_server(1300))
    await scenario.retransmissions(1)


@pytest.mark.lab_kernel
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (at_once(lambda scenario: scenario.forget_entry()), "no entry of 10.0.0.2:34567 > 10.0.1.2:80 to forget"),
        (forget_twice, "no entry of 10.0.0.2:34567 > 192.168.0.2:80 to forget"),
        (ask_the_window_of_none, "no entry of the connection, so it knows no window"),
        (send_an_error_again, "it is no TCP segment"),
        (
            at_once(lambda scenario: scenario.from_server()),
            "the capture on server has seen nothing that 10.0.1.2:80 sent",
        ),
        (
            at_once(lambda scenario: scenario.from_client()),
            "the capture on server has seen nothing that 10.0.0.2:34567 sent",
        ),
        (at_once(lambda scenario: scenario.server_speaks()), "no connection yet"),
        (at_once(lambda scenario: scenario.go_on()), "no connection yet"),
        (then(lambda scenario: scenario.judgement()), "no packet to judge yet"),
        (then(lambda scenario: scenario.judgements_of_nodes()), "no packet to judge yet"),
        (then(lambda scenario: scenario.expect_reason("")), "no packet to judge yet"),
        (then(lambda scenario: scenario.expect_answer("")), "no packet to judge yet"),
        (then(lambda scenario: scenario.unheard), "no packet to judge yet"),
        (then(lambda scenario: scenario.unreachable), "no packet to judge yet"),
        (then(lambda scenario: scenario.taken_by_node), "no packet to judge yet"),
        (then(lambda scenario: scenario.retransmissions(1)), "no packet to judge yet"),
    ],
)
def test_a_word_that_comes_too_early_is_answered(said, answer):
    with pytest.raises(UnseenError, match=re.escape(answer)):
        carry_out(said)


@pytest.mark.lab_kernel
@pytest.mark.parametrize(
    "word", [lambda scenario: scenario.held(1), lambda scenario: scenario.release(), DatagramsScenario.take_back]
)
def test_nothing_is_released_that_was_never_held(word):
    with pytest.raises(UnseenError, match="hold first"):
        carry_out(at_once(word), DatagramsScenario)


@pytest.mark.lab_kernel
def test_a_packet_that_the_lab_cannot_read_is_refused():
    option = (8, b"x")  # of 3 bytes, where timestamps have 10 (RFC 7323, 3.2)

    async def inject(scenario):
        await scenario.establish()
        await scenario.inject(scenario.from_server(options=[option], timestamps=None))

    with pytest.raises(InputError, match="cannot read the packet that it is to inject"):
        carry_out(inject)
    with pytest.raises(InputError, match="cannot read the segment that it is to send"):
        carry_out(at_once(lambda scenario: scenario.client.send("S", options=[option])), ScriptedScenario)


def test_no_assertion_is_left_in_a_scenario():
    scenario = Path(__file__).parents[2] / "lab" / "scenario"
    found = {
        path.name: line.strip()
        for path in scenario.glob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith("assert ")
    }
    assert found == {}


@pytest.mark.lab_kernel
def test_a_first_syn_that_the_node_drops_is_an_outcome(monkeypatch):
    from lab.cases import CASES
    from lab.fixes import NONE
    from lab.trial import runner
    from lab.trial.setting import Setting

    case = CASES["syn-before-service-forgotten"]

    async def dropped(scenario):
        chain = "type filter hook forward priority 0; policy accept;"
        scenario.load(
            "node", f"table inet firewall {{\nchain forward {{\n{chain}\nct state new tcp dport 53 drop\n}}\n}}\n"
        )
        sync = scenario.lab.sync

        def synced(*objects, **more):
            if objects[0]:
                scenario.node.nft.run("delete table inet firewall\n")
            sync(*objects, **more)

        monkeypatch.setattr(scenario.lab, "sync", synced)
        await case.steps(scenario)

    setting = Setting(dataclasses.replace(case, steps=dropped), NONE, load(case.topology), Family.IPV4)
    result = asyncio.run(runner.run(setting, Behaviour.IGNORES_LATE))
    assert not result.as_expected
    assert result.verdict.outcome == "delivered"
    assert "expected a conntrack entry, state SYN_SENT, timeout range(100, 121), assured False, but it is none" in (
        result.verdict.disagreements
    )
