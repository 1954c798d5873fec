"""The quick window check against the model that is held against the kernel: random segments, and not one may differ."""

import random

import pytest

from lab.capture.quick import QuickWindow
from lab.evidence.packet import ACK, SYN, TCP, Packet, SocketAddress, TcpHeader
from lab.evidence.window import ACCEPTED, Tracker
from lab.vocabulary import Behaviour

CLIENT, SERVER = SocketAddress("10.0.0.2", 34567), SocketAddress("192.168.0.2", 80)
TOP = 2**32


def segment(from_client, sequence, acknowledgement, length=0, window=64240, flags=ACK, scale=None):
    tcp = TcpHeader(sequence % TOP, acknowledgement % TOP, flags, window, scale)
    ends = (CLIENT, SERVER) if from_client else (SERVER, CLIENT)
    return Packet(*ends, TCP, 0, length, tcp)


@pytest.mark.parametrize("behaviour", Behaviour)
def test_it_accepts_what_the_model_accepts_and_knows_the_same_afterwards(behaviour):
    rng = random.Random(17)
    accepted = refused = 0
    for _ in range(300):
        first = [TOP - rng.randint(1, 100_000) if rng.random() < 0.5 else rng.randrange(TOP) for _ in range(2)]
        scales = rng.choice(((7, 9), (None, 7), (0, 0), (14, 2)))
        tracker = Tracker(CLIENT, behaviour).after(
            (
                segment(True, first[0], 0, flags=SYN, scale=scales[0]),
                segment(False, first[1], first[0] + 1, flags=SYN | ACK, scale=scales[1]),
                segment(True, first[0] + 1, first[1] + 1),
            )
        )
        for _ in range(60):
            side = rng.random() < 0.5
            own, other = (tracker.original, tracker.reply) if side else (tracker.reply, tracker.original)
            length = rng.choice((0, 1, 1400, 60_000))
            edge = rng.choice((own.end, own.end - length, own.limit, own.end - other.window - length))
            old = other.end - max(66000, own.window)
            numbers = (edge + rng.randint(-2, 2), rng.choice((other.end, old, other.end - 700)) + rng.randint(-2, 2))
            packet = segment(side, *numbers, length, rng.choice((0, 1, 500, 65535)))
            quick = QuickWindow(tracker)
            assert quick.tracker == tracker
            prediction, after = tracker.judge(packet)
            tcp = packet.tcp
            fine = quick.accepts(tcp.sequence, length, tcp.acknowledgement, tcp.window, from_client=side)
            assert fine is (prediction is ACCEPTED), (packet, tracker)
            if fine:
                assert quick.tracker == after
            accepted, refused = accepted + fine, refused + (not fine)
            tracker = after
    assert accepted > 3000
    assert refused > 3000
