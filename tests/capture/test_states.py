"""The model of an entry against the kernel's: random segments in every state, word by word, and not one may differ.

Both ends are scripted, so no kernel answers and only conntrack's own state moves.
"""

import asyncio
import os
import random
from collections import Counter

import pytest

from lab.capture.judging import Conntrack
from lab.capture.states import State
from lab.evidence.judgement import Judgement
from lab.evidence.packet import TCP
from lab.fabric.lab import Lab
from lab.scenario import ScriptedScenario
from lab.trial import probe
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel

SEQUENCES = int(os.environ.get("LAB_SEQUENCES", "100"))
LENGTH = 14  # segments of one connection, at most
AT_ONCE = 5  # connections, before their judgements are waited for
TOP = 2**32
OPTIONS = ((), (("WScale", 7), ("SAckOK", b"")), (("WScale", 10),), (("SAckOK", b""),), (("MSS", 1400),))
#: How a connection begins, by flags and who sends them: mostly as connections do.
BEGINNINGS = (
    *(("cS", "sSA", "cA"),) * 6,
    ("cS", "sSA"),
    ("cS",),
    ("cS", "sA"),
    ("cS", "sS"),
    ("cA",),
    ("sA",),
    ("cPA", "sPA", "cA"),
    ("cS", "sSA", "cA", "cFA", "sA"),
    ("cS", "sSA", "cA", "cFA", "sFA"),
    ("cS", "sSA", "cA", "sFA", "cFA", "sA"),
    ("cS", "sSA", "cA", "sFA", "cA", "cFA"),
    ("cS", "sSA", "cA", "sR"),
    ("cS", "sSA", "cA", "cR"),
    ("cS", "sRA"),
    (),
)


class Talk:
    """Two ends that know what they have said, and do not hold to it."""

    def __init__(self, scenario, rng):
        self.scenario, self.rng = scenario, rng
        self.ends = {"c": scenario.client, "s": scenario.server}
        self.next = {}
        self.said = []  # ends of whatever was sent, in whichever way
        for peer in self.ends.values():
            peer.begin(0)
        for who in "cs":
            self.next[who] = rng.choice((rng.randrange(TOP), TOP - rng.randrange(3000), rng.randrange(3000)))

    def say(self, who, flags, *, wild):
        """Send a segment: as it should be, or near to something that was said."""
        rng, other = self.rng, "s" if who == "c" else "c"
        sequence, acknowledgement = self.next[who], self.next[other]
        if "S" in flags and wild and rng.random() < 0.8:
            sequence = (sequence + rng.choice((1, 7, 100_000, 4_000_000, 2**30, -5, -100_000))) % TOP
        elif wild and rng.random() < 0.5:
            sequence = self.near(self.next[who])
        if wild and rng.random() < 0.5:
            acknowledgement = self.near(self.next[other])
        length = rng.choice((0, 0, 1, 700)) if flags in ("A", "PA", "FA") else 0
        packet = self.ends[who].send(
            flags,
            sequence,
            acknowledgement,
            payload=b"x" * length,
            window=rng.choice((500, 500, 64000, 1, 0)),
            options=rng.choice(OPTIONS[1:]) if "S" in flags else (),
        )
        if "R" not in flags and (not wild or rng.random() < 0.5):
            self.next[who] = packet.end
        self.said.append(packet.end)
        return packet

    def near(self, number):
        rng = self.rng
        kind = rng.random()
        if kind < 0.4 and self.said:
            number = rng.choice(self.said[-4:])
        elif kind < 0.5:
            return 0
        elif kind < 0.6:
            return rng.randrange(TOP)
        return (number + rng.choice((0, 0, 0, 1, -1, 5, -5, 70_000, -70_000, 2**29))) % TOP


def talk(scenario, behaviour, rng, port):
    """Send one sequence; return what was sent, with the model's word and the state before, and the model."""
    scenario.begin(port)
    said, client = Talk(scenario, rng), scenario.client.own
    model = Conntrack(client, behaviour)
    steps = [(one[0], one[1:], False) for one in rng.choice(BEGINNINGS)]
    while len(steps) < rng.randint(4, LENGTH):
        flags = rng.choice(("S", "S", "SA", "SA", "A", "A", "PA", "FA", "R", "RA", "SFA"))
        steps.append((rng.choice("cs"), flags, rng.random() < 0.6))
    told = []
    for who, flags, wild in steps:
        packet = said.say(who, flags, wild=wild)
        before = model.entry
        told.append((packet, before, model.judge(packet, from_client=who == "c")))
    return told, model, (client, scenario.client.to)


async def differences(scenario, behaviour, rng, ports, seen):
    """Send some sequences; return where kernel and model differ: of each the story up to there."""
    sequences = [talk(scenario, behaviour, rng, port) for port in ports]
    heard = await scenario.judged()
    table, found = scenario._nodes.table("node"), []
    for told, model, ends in sequences:
        for number, (_packet, before, word) in enumerate(told):
            judged = heard.pop(0)
            seen[before, word.judgement] += 1
            if plain(judged) is not word.judgement:
                story = [f"{one[1]} {one[0]} {one[0].tcp}: {one[2]}" for one in told[: number + 1]]
                found.append("\n  ".join([*story, f"{judged.judgement} {judged.reason}"]))
                break
        else:
            entry = table.entry(TCP, *ends)
            # One in CLOSE lives for 10 s, which on a slow machine may be over.
            if entry.tcp_state != model.entry if entry else model.entry not in ("NONE", "CLOSE"):
                story = [f"{one[1]} {one[0]} {one[0].tcp}: {one[2]}" for one in told]
                found.append("\n  ".join([*story, f"ends in {entry}, expected {model.entry}"]))
        del heard[: len(told) - number - 1]
    return found


def plain(judged):
    """Return conntrack's word as the model has it, to which NEW is nothing else than accepted."""
    if judged.state == "new":
        return Judgement.IGNORED if judged.reason else Judgement.ACCEPTED
    return judged.judgement


@pytest.mark.parametrize("family", list(Family))
def test_model_and_kernel_agree_in_every_state(family):
    async def run():
        behaviour = await probe.ask(family)
        seed = os.environ.get("LAB_STATES_SEED", "17")
        rng = random.Random(f"{family} {seed}")
        found, seen = [], Counter()
        done = 0
        while done < SEQUENCES and len(found) < 5:
            with Lab(probe.topology(family), family=family) as lab:
                scenario = ScriptedScenario(lab, probe.roles(family), family, behaviour)
                for _batch in range(10):
                    ports = range(1024 + done, 1024 + done + AT_ONCE)
                    found += await differences(scenario, behaviour, rng, ports, seen)
                    done += AT_ONCE
                scenario.finish()
        return found, seen

    found, seen = asyncio.run(run())
    assert not found, "\n".join(found)
    # Else their agreement proves nothing of some states.
    assert {state for state, _word in seen} == {*tuple(State)[:10]}
    assert {word for _state, word in seen} == {Judgement.ACCEPTED, Judgement.IGNORED, Judgement.INVALID}
