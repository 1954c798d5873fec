"""The model of the window check against the kernel: random segments, verdict by verdict, and not one may differ.

Both ends are scripted, so no kernel answers and only conntrack's own state moves.
"""

import asyncio
import os
import random

import pytest

from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress, decode
from lab.evidence.window import ACCEPTED, Prediction, SideWindow, Tracker
from lab.fabric.lab import Lab
from lab.scenario import ScriptedScenario
from lab.trial import probe
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import Segment, craft

SEGMENTS = int(os.environ.get("LAB_SEGMENTS", "250"))  # for each kind of connection
TOP = 2**32


def begin(scenario, port, answer):
    """Begin another connection; return the model of it."""
    scenario.begin(port)
    scenario.client.begin(0)
    scenario.server.begin(0)  # numbers are absolute here: they are to cross the wrap
    return Tracker(scenario.client.own, answer)


def near(rng, number):
    """Choose a number at or around another, or anywhere."""
    kind = rng.random()
    if kind < 0.6:
        return number + rng.randint(-3, 3)
    if kind < 0.9:
        return number + rng.choice((-1, 1)) * rng.randint(0, 300_000)
    return rng.randrange(TOP)


async def differences(scenario, answer, rng, port, scales, selects):
    """Talk at random over one connection; return where kernel and model differ, and what was predicted."""
    tracker = begin(scenario, port, answer)
    predictions = []

    def say(peer, flags, sequence, acknowledgement, **more):
        nonlocal tracker
        prediction, tracker = tracker.judge(peer.send(flags, sequence, acknowledgement, **more))
        predictions.append(prediction)

    # Close below the wrap, so that half of the connections cross it.
    first = [TOP - rng.randint(1, 100_000) if rng.random() < 0.5 else rng.randrange(TOP) for _ in range(2)]
    opened = [
        [*([("WScale", scale)] if scale is not None else []), *([("SAckOK", b"")] if selects else [])]
        for scale in scales
    ]
    say(scenario.client, "S", first[0], 0, window=64240, options=opened[0])
    say(scenario.server, "SA", first[1], first[0] + 1, window=65160, options=opened[1])
    say(scenario.client, "A", first[0] + 1, first[1] + 1)
    for _ in range(SEGMENTS // 10):
        peer = rng.choice((scenario.client, scenario.server))
        own, other = tracker.original, tracker.reply
        if peer is scenario.server:
            own, other = other, own
        length = rng.choice((0, 1, 7, 1400))
        edges = (
            own.limit,
            own.limit + other.window - length,
            own.end - other.window - length,
            own.end,
            own.end - length,
        )
        oldest = other.end - max(66000, own.window)
        acknowledgement = near(rng, rng.choice((other.end, other.end, other.end, oldest)))
        options = []
        if selects and rng.random() < 0.3:
            left = near(rng, other.end) % TOP
            options = [("SAck", (left, (left + rng.randint(1, 2000)) % TOP))]
        say(
            peer,
            rng.choice(("A", "PA")),
            near(rng, rng.choice(edges)),
            acknowledgement,
            window=rng.choice((0, 1, 60, 500, 65535)),
            payload=b"x" * length,
            options=options,
        )
    heard = await scenario.judged()
    found = []
    for number, (prediction, word) in enumerate(zip(predictions, heard, strict=True)):
        judgement = Judgement.NEW if number == 0 else prediction.judgement
        if word.judgement is not judgement:
            found.append((port, number, str(prediction), str(word.judgement), word.reason, word.packet.tcp))
    return found, predictions


@pytest.mark.lab_kernel
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(
    ("scales", "selects"),
    [((10, 7), True), ((None, None), False), ((14, None), True), ((0, 3), False)],
    ids=["scaled-sack", "plain", "one-scales-sack", "scaled"],
)
def test_the_model_and_the_kernel_agree(scales, selects, family):
    async def talk():
        answer = await probe.ask(family)
        rng = random.Random(f"{scales} {selects} {family}")
        found, seen = [], set()
        with Lab(probe.topology(family), family=family) as lab:
            scenario = ScriptedScenario(lab, probe.roles(family), family, answer)
            for port in range(1024, 1034):
                more, predictions = await differences(scenario, answer, rng, port, scales, selects)
                found += more
                seen |= {(one.judgement, one.condition) for one in predictions}
            assert scenario.finish().faults == ()
        return answer, found, seen

    answer, found, seen = asyncio.run(talk())
    assert found == []
    # The segments must have come to every corner, or their agreement proves nothing.
    mild = Judgement.INVALID if answer is Behaviour.STRICT else Judgement.IGNORED
    assert {(Judgement.ACCEPTED, ""), (Judgement.INVALID, "I"), (Judgement.INVALID, "III"), (mild, "II")} <= seen


CLIENT, SERVER = SocketAddress("10.0.0.2", 9), SocketAddress("10.0.1.2", 80)
WINDOW = 64512


def established(answer, **more):
    """A fresh connection, nothing in flight: both sides at 1,000, the client's window of 63 scaled by 10."""
    return Tracker(
        CLIENT,
        answer,
        original=SideWindow(1000, 1000 + 65160, WINDOW, 10, True, True),
        reply=SideWindow(1000, 1000 + WINDOW, 65160, 7, True, True),
        **more,
    )


def from_server(sequence, acknowledgement=1000, payload=b"", options=()):
    return decode(craft(Segment(SERVER, CLIENT, sequence, acknowledgement, "PA", 500, payload, options=options)))


LATE = -100_000 % TOP


@pytest.mark.parametrize(
    ("packet", "strict", "lenient"),
    [
        # The table of consequences for A = 1000 and W = 64512, from the kernel's source.
        (from_server(1000 + WINDOW), "accepted", "accepted"),
        (from_server(1001 + WINDOW), "INVALID by condition I: 1 byte", "ignored by condition I: 1 byte"),
        (from_server(999 + 2 * WINDOW), "INVALID by condition I", "ignored by condition I: 64,511 bytes"),
        (from_server(1000 + 2 * WINDOW), "INVALID by condition I", "INVALID by condition I: 64,512 bytes"),
        (from_server(1000 + 2**29), "INVALID by condition I", "INVALID by condition I: 536,806,400 bytes"),
        (from_server(1000 + LATE), "INVALID by condition II", "ignored by condition II: 35,488 bytes"),
        (from_server(1000, 1001), "INVALID by condition III: 1 byte", "INVALID by condition III: 1 byte"),
        (from_server(1000, 1000 - 66_001), "INVALID by condition IV: 1 byte", "ignored by condition IV: 1 byte"),
        (
            from_server(1000, options=[("SAck", (1000, 1500))]),
            "INVALID by condition III: 500 bytes",
            "INVALID by condition III: 500 bytes",
        ),
    ],
)
def test_each_condition_at_its_edge(packet, strict, lenient):
    for answer, words in ((Behaviour.STRICT, strict), (Behaviour.IGNORES_LATE, lenient)):
        prediction, after = established(answer).judge(packet)
        assert str(prediction).startswith(f"expected {words}")
        followed = words.startswith("ignored by condition I:")
        if words != "accepted":
            assert (after != established(answer)) == followed
    assert established(Behaviour.STRICT, liberal=True).judge(packet)[0].judgement is Judgement.ACCEPTED


def test_a_prediction_in_words():
    assert str(ACCEPTED) == "expected accepted"
    assert str(Prediction(Judgement.INVALID, "I", 2)) == "expected INVALID by condition I: 2 bytes out of it"


@pytest.mark.lab_kernel
@pytest.mark.parametrize("family", list(Family))
def test_what_is_picked_up_in_its_middle_is_never_out_of_the_window(family):
    async def talk():
        answer = await probe.ask(family)
        rng = random.Random(f"middle {family}")
        with Lab(probe.topology(family), family=family) as lab:
            scenario = ScriptedScenario(lab, probe.roles(family), family, answer)
            tracker, predictions = begin(scenario, 1024, answer), []
            for number in range(100):
                peer = rng.choice((scenario.client, scenario.server)) if number else scenario.client
                packet = peer.send("PA", rng.randrange(TOP), rng.randrange(TOP), payload=b"middle")
                prediction, tracker = tracker.judge(packet)
                predictions.append(prediction.judgement)
            return predictions, [word.judgement for word in await scenario.judged()]

    predictions, words = asyncio.run(talk())
    assert words[0] is Judgement.NEW
    assert predictions[1:] == words[1:] == [Judgement.ACCEPTED] * 99
    assert predictions[0] is Judgement.ACCEPTED
