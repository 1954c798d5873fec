# SPDX-License-Identifier: MIT
"""What the nodes of a running lab count of packets that they lose without a rule, held against a packet's walk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.conntrack.netlink import ConntrackTable
from lab.evidence.timeline import LOSING
from lab.evidence.walk import Role, Walk
from lab.netns import mib

if TYPE_CHECKING:
    from lab.fabric.lab import Lab


@dataclass(frozen=True)
class _Counts:
    stack: dict[str, int]
    conntrack: dict[str, int]


class Losses:
    """The counters of a node from the moment on at which this is made."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._namespace = lab.hosts[node].namespace
        self._table = lab.keep(ConntrackTable(self._namespace))
        self.forget()

    def forget(self) -> None:
        """Count from here on."""
        self._before = self._now()

    def _now(self) -> _Counts:
        return _Counts(mib.counters(self._namespace), self._table.statistics())

    def told(self, walk: Walk) -> Walk:
        """Return a walk with what was counted since, where that says why it was not heard of any more.

        That is of one that vanished, and of the judged one that the node's own UDP or TCP had to take.
        """
        # Read only where it matters: it takes longer than all else that is asked of a packet.
        if walk.vanished:
            now = self._now()
            counted = mib.moved(self._before.stack, now.stack)
            by_conntrack = ", ".join(
                f"{name} {count:,}"
                for name in LOSING
                if (count := now.conntrack.get(name, 0) - self._before.conntrack.get(name, 0)) > 0
            )
            return replace(walk, counted=counted, by_conntrack=by_conntrack)
        if walk.role is Role.JUDGED and walk.came_to_sockets:
            stack = mib.counters(self._namespace)
            return replace(walk, counted=mib.wrong_checksums(self._before.stack, stack, walk.packet.protocol))
        return walk
