# SPDX-License-Identifier: MIT
"""Which rule of a node decided about a question's first packet, by the kernel's own trace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lab.errors import LabError
from lab.evidence.traced import walk_of
from lab.evidence.walk import Step, Walk, kin
from lab.fabric.loaded import Loaded, loaded_on
from lab.scenario.lost import Losses
from lab.scenario.tracer import Tracer, own_hook

if TYPE_CHECKING:
    from lab.evidence.packet import Packet
    from lab.fabric.lab import Lab
    from lab.vocabulary import Family

#: Rules that choose another destination, of iptables and of nft.
_DESTINATION: Final = re.compile(r"-j (?:DNAT|REDIRECT|TPROXY)\b|\b(?:dnat|redirect|tproxy)\b")


class Deciding:
    """The traces of all nodes of a running lab, question by question.

    :ivar untold: in sentences, of what nothing can be told.
    """

    def __init__(self, lab: Lab, family: Family) -> None:
        self._tracers: dict[str, Tracer] = {}
        self._loaded: dict[str, Loaded] = {}
        self._losses: dict[str, Losses] = {}
        self.untold: dict[str, None] = {}
        for node in lab.topology.nodes:
            tracer = self._tracers[node.name] = lab.keep(Tracer(lab.hosts[node.name]))
            loaded = loaded_on(lab.hosts[node.name], tracer.chains, family, lab.changes)
            self._loaded[node.name] = loaded
            self._losses[node.name] = Losses(lab, node.name)
            if loaded.is_legacy:
                whose = f"The rules that iptables-legacy loaded at {node.name}"
                self.untold[f"{whose} are traced by `lab trace` alone: here nothing is told of them."] = None

    def forget(self) -> None:
        """Forget what was told until now."""
        for node, tracer in self._tracers.items():
            tracer.forget()
            self._losses[node].forget()

    def rule(self, packet: Packet | None) -> str:
        """Return which rule dropped a packet, else which ones chose its destination, and where it vanished.

        Empty where no rule has done anything of the kind.
        """
        walks = list(self._walks(packet)) if packet else []
        for walk in walks:
            if walk.fate:
                return f"dropped at {walk.node} by {walk.fate.words}"
        chosen = [f"led on at {walk.node} by {step.words}" for walk in walks for step in _choices(walk)]
        return "; ".join(dict.fromkeys((*chosen, *(walk.vanishing for walk in walks if walk.vanished))))

    def _walks(self, packet: Packet) -> Iterator[Walk]:
        wanted = kin(packet)
        for node, tracer in self._tracers.items():
            told = [one for one in tracer.read() if kin(one.packet) == wanted]
            if tracer.lost:
                self.untold[f"The kernel lost a part of the trace at {node}."] = None
            for one in told:
                try:
                    walk = walk_of(node, one, self._loaded[node], own_hook)
                except LabError as error:
                    self.untold[f"Not traced at {node}: {error}."] = None
                    continue
                yield self._losses[node].told(walk)


def _choices(walk: Walk) -> Iterator[Step]:
    return (step for step in walk.steps if step.place and _DESTINATION.search(step.place.rule.text))
