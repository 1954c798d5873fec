# SPDX-License-Identifier: MIT
"""What a change between kube-proxy's releases is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lab.vocabulary import ProxyMode

BOTH: Final = (ProxyMode.IPTABLES, ProxyMode.NFTABLES)
IPTABLES: Final = (ProxyMode.IPTABLES,)
NFTABLES: Final = (ProxyMode.NFTABLES,)


class Area(StrEnum):
    """What a change between releases is about."""

    TRAFFIC = "where packets go"
    NODE = "what the node is set to"
    ENTRIES = "which conntrack entries of UDP flows are deleted"
    FORM = "how the same is written"


@dataclass(frozen=True, eq=False)
class Change:
    """One difference between kube-proxy's releases.

    :param name: unique, in lower case with hyphens.
    :param minor: the first minor release that has it, N of v1.N.
    :param what: what it does, in one sentence.
    :param area: what it changes.
    :param modes: the proxy modes in which it shows.
    :param patches: patch releases of earlier minors from which they have it too, or of ``minor`` itself where its
        first patches lack it, as (minor, patch).
    :param pulls: upstream's pull requests, where known.
    :param read: no dump shows it: it was read in upstream's source, or seen with other objects or settings.
    """

    name: str
    minor: int
    what: str
    area: Area = Area.TRAFFIC
    modes: tuple[ProxyMode, ...] = IPTABLES
    patches: tuple[tuple[int, int], ...] = ()
    pulls: tuple[int, ...] = ()
    read: bool = False

    @property
    def shapes_rules(self) -> bool:
        """Whether it is about the rules; others are about what else a node is."""
        return self.area in (Area.TRAFFIC, Area.FORM)

    @property
    def releases(self) -> tuple[str, ...]:
        """The first releases that have it: of earlier minors the patch from which on they do, and of its own."""
        patches = dict(self.patches)
        first = () if self.minor in patches else (f"v1.{self.minor}",)
        return (*(f"v1.{minor}.{patch}" for minor, patch in patches.items()), *first)

    def within(self, minor: int, patch: int | None) -> bool:
        """Return whether a release has it.

        :param patch: None stands for the newest patch of the minor.
        """
        first = dict(self.patches).get(minor, 0 if minor >= self.minor else None)
        return first is not None and (patch is None or patch >= first)
