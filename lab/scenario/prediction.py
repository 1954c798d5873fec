# SPDX-License-Identifier: MIT
"""What the model of conntrack's window expects of the kernel, at each node by what came there."""

from __future__ import annotations

from collections.abc import Mapping

from lab.errors import InputError
from lab.evidence.entry import Entry
from lab.evidence.judgement import Judgement
from lab.evidence.packet import TCP, Packet
from lab.evidence.window import Prediction, Tracker, by_state
from lab.fabric.lab import Lab
from lab.scenario.recorder import Recorder
from lab.vocabulary import BE_LIBERAL, Behaviour


def tracker(lab: Lab, recorder: Recorder, behaviour: Behaviour | None, node: str, entry: Entry) -> Tracker:
    """Return what a node knows of an entry, by the model, from the packets of it that came to this node.

    :raises InputError: nobody has asked this kernel what it makes of packets out of the window.
    """
    if behaviour is None:
        raise InputError("the kernel's behaviour is not known in this scenario", cure="give it to the scenario")
    liberal = lab.hosts[node].namespace.sysctl(BE_LIBERAL) != "0"
    return Tracker(entry.original[0], behaviour, liberal).after(_packets_of(recorder, node, entry))


def predict(
    lab: Lab, recorder: Recorder, behaviour: Behaviour | None, packet: Packet, entries: Mapping[str, Entry]
) -> dict[str, Prediction]:
    """Return what the model expects of a segment at each node that has an entry of its connection."""
    found: dict[str, Prediction] = {}
    for node, entry in entries.items() if behaviour is not None else ():
        from_client = packet.source == entry.original[0]
        decided = by_state(entry.tcp_state, from_client=from_client)
        found[node] = decided or tracker(lab, recorder, behaviour, node, entry).judge(packet)[0]
    return found


def _packets_of(recorder: Recorder, node: str, entry: Entry) -> list[Packet]:
    """Return the packets that a node's entry has seen: it begins with a NEW one."""
    recorder.read()
    packets: list[Packet] = []
    for judged in recorder.judged:
        packet = judged.packet
        own = judged.host == node and packet.protocol == TCP
        if own and (packet.source, packet.destination) in (entry.original, entry.reply):
            packets = [packet] if judged.judgement is Judgement.NEW else [*packets, packet]
    return packets
