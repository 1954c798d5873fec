# SPDX-License-Identifier: MIT
"""Captured connections, each in a lab of its own: conntrack's word on every segment."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final

from lab.capture.naming import Naming
from lab.capture.replayed import Replayed, Said, plain
from lab.capture.resending import Script, Segment
from lab.evidence.judgement import Judged, Judgement
from lab.fabric.lab import Lab
from lab.scenario.replaying import ReplayScenario
from lab.scenario.roles import roles_in
from lab.topology.model import Topology
from lab.topology.reader import load
from lab.trial.probe import ask
from lab.vocabulary import Behaviour, Family

_USUAL: Final = 1500 - 60 - 60  # bytes of payload that a usual link carries, whatever the headers
_WIDEST: Final = 65535  # bytes: the largest MTU of a veth


async def replay_all(
    scripts: Sequence[Script], found: Collection[tuple[str, int]], named: Naming, say: Callable[[str], None]
) -> list[Replayed]:
    """Send connections through a node of a lab, one after the other, and return what its conntrack said.

    :param found: the packets that something was found of, by file and number.
    :param named: calls packets by their numbers.
    :param say: is told what is done.
    :raises MissingError: the machine lacks what a lab needs.
    :raises LabError: a lab could not be built, or did not judge all of it.
    """
    behaviours: dict[Family, Behaviour] = {}
    done = []
    for number, script in enumerate(scripts, 1):
        say(f"replaying connection {number} of {len(scripts)}")
        family = Family.IPV6 if ":" in script.client.address else Family.IPV4
        if family not in behaviours:
            behaviours[family] = await ask(family)
        done.append(await replay(script, found, named, behaviours[family]))
    return done


async def replay(script: Script, found: Collection[tuple[str, int]], named: Naming, behaviour: Behaviour) -> Replayed:
    """Send one connection.

    :param behaviour: this kernel's.
    :raises LabError: as of several.
    """
    family = Family.IPV6 if ":" in script.client.address else Family.IPV4
    ends, kernel = (script.client, script.target), platform.release()
    if not script.begins:
        words = "it does not begin with the client's SYN, so a lab's node would know less of it than yours did"
        return Replayed(*ends, kernel, behaviour, 0, (), words)
    cut = next((one for one in script.segments if one.packet.tcp is not None and one.packet.tcp.is_cut), None)
    if cut is not None:
        words = f"{named.packet(cut.place)} is cut within its TCP header by the snaplen (tcpdump -s 96 keeps it)"
        return Replayed(*ends, kernel, behaviour, 0, (), words)
    topology = load("kube-proxy")
    if any(segment.length > _USUAL for segment in script.segments):
        topology = _wide(topology)
    with Lab(topology, family=family) as lab:
        judged = await ReplayScenario(lab, roles_in(topology, family), family).replay(script.segments)
    words_of = zip(script.segments, judged, script.expected(behaviour), strict=True)
    said = [_said(segment, one, word.judgement if word else None) for segment, one, word in words_of]
    told = tuple(
        one
        for one in said
        if one.differs or plain(one.judgement) is not Judgement.ACCEPTED or (one.place.file, one.place.number) in found
    )
    return Replayed(*ends, kernel, behaviour, len(said), told, is_cut=script.is_cut)


def _wide(topology: Topology) -> Topology:
    """Return the same with links that carry segments which a network card would have cut or put together."""
    links = (replace(link, ends=tuple(replace(end, mtu=_WIDEST) for end in link.ends)) for link in topology.links)
    return replace(topology, links=tuple(links))


def _said(segment: Segment, judged: Judged, expected: Judgement | None) -> Said:
    assert segment.packet.tcp is not None
    who = "client" if segment.from_client else "server"
    what = f"{segment.packet.tcp.flag_names} of the {who}, {segment.length:,} bytes"
    return Said(segment.place, what, judged.judgement, judged.reason, expected)
