# SPDX-License-Identifier: MIT
"""What the nodes of a running lab count of packets that they lose without a rule, held against a packet's walk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lab.conntrack import netlink
from lab.evidence.timeline import LOSING
from lab.evidence.walk import Role, Walk
from lab.netns import mib

if TYPE_CHECKING:
    from lab.fabric.lab import Lab


class _Read(NamedTuple):
    stack: mib.Reading
    conntrack: netlink.Reading


class Losses:
    """The counters of a node from the moment on at which this is made."""

    def __init__(self, lab: Lab, node: str) -> None:
        namespace = lab.hosts[node].namespace
        self._stack = lab.keep(mib.Files(namespace))
        self._table = lab.keep(netlink.ConntrackTable(namespace))
        self.forget()

    def forget(self) -> None:
        """Count from here on."""
        self._before = self._now()

    def _now(self) -> _Read:
        return _Read(self._stack.read(), self._table.reading())

    def told(self, walk: Walk) -> Walk:
        """Return a walk with what was counted since, where that says why it was not heard of any more.

        That is of one that vanished, and of the judged one that the node's own UDP or TCP had to take.
        """
        # Understood only where it matters: that takes longer than to read it.
        if walk.vanished:
            now = self._now()
            before, after = netlink.counted(self._before.conntrack), netlink.counted(now.conntrack)
            by_conntrack = ", ".join(
                f"{name} {count:,}" for name in LOSING if (count := after.get(name, 0) - before.get(name, 0)) > 0
            )
            moved = mib.moved(mib.counted(self._before.stack), mib.counted(now.stack))
            return replace(walk, counted=moved, by_conntrack=by_conntrack)
        if walk.role is Role.JUDGED and walk.came_to_sockets:
            before, stack = mib.counted(self._before.stack), mib.counted(self._stack.read())
            return replace(walk, counted=mib.wrong_checksums(before, stack, walk.packet.protocol))
        return walk
