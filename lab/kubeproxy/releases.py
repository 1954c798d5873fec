# SPDX-License-Identifier: MIT
"""Releases of kube-proxy by name: each is the set of the changes that it has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from lab.errors import InputError
from lab.kubeproxy.changes import CHANGES, NFT_ALPHA, Area, Change
from lab.vocabulary import ProxyMode

OLDEST: Final = 14
NEWEST: Final = 36
"""First and last minor of which real kube-proxies' rules were seen."""

_NAME: Final = re.compile(r"v?1\.(0|[1-9][0-9]{0,2})(?:\.(0|[1-9][0-9]{0,3}))?((?:[-+][0-9A-Za-z][0-9A-Za-z.+-]*)?)")


@dataclass(frozen=True)
class Release:
    """One kube-proxy release.

    :param minor: N of v1.N.
    :param patch: M of v1.N.M; None where the name has none: then the newest patch of the minor is meant.
    :param suffix: what a vendor or a pre-release adds to the name, such as ``-gke.1``.
    :param changes: what it has.
    """

    minor: int
    patch: int | None
    suffix: str
    changes: frozenset[Change]

    def __contains__(self, change: Change) -> bool:
        return change in self.changes

    @property
    def name(self) -> str:
        """Its name: ``v1.33.6-gke.1``, or ``v1.33`` for the newest patch of it."""
        return f"v1.{self.minor}{'' if self.patch is None else f'.{self.patch}'}{self.suffix}"

    def has_mode(self, mode: ProxyMode) -> bool:
        """Return whether it has a proxy mode."""
        return mode is not ProxyMode.NFTABLES or NFT_ALPHA in self

    def first_with(self, change: Change) -> str:
        """Return the first release, of this minor where it has any, that has a change."""
        patch = dict(change.patches).get(self.minor)
        return f"v1.{change.minor}" if patch is None else f"v1.{self.minor}.{patch}"

    @property
    def known(self) -> bool:
        """Whether rules of this minor were seen; a later one is taken to write those of the last that was."""
        return self.minor <= NEWEST

    @property
    def label(self) -> str:
        """Its name, and that it is not known where it is not."""
        return self.name if self.known else f"{self.name} (not known)"

    def note(self, mode: ProxyMode) -> str | None:
        """Return what has to be known of this name, in a sentence; None where nothing has.

        :param mode: whose rules are meant.
        """
        if not self.known:
            return f"What kube-proxy v1.{self.minor} writes is not known; these are the rules of v1.{NEWEST}."
        if self.patch is None and (patched := self._patched(mode)):
            since = ", ".join(f"{change.name} (v1.{self.minor}.{patch})" for change, patch in patched)
            return f"v1.{self.minor} stands for its newest patch: it has {since}."
        return None

    def _patched(self, mode: ProxyMode) -> list[tuple[Change, int]]:
        """Return the changes of a mode's rules that came with a patch release of this minor."""
        its = (one for one in CHANGES.values() if mode in one.modes and one.area is not Area.ENTRIES)
        found = ((change, dict(change.patches).get(self.minor, 0)) for change in its)
        return [(change, patch) for change, patch in found if patch]


def find_release(name: str) -> Release:
    """Return the release of a name as people write it: ``v1.33``, ``1.33.6``, ``v1.33.6-gke.1``, ``v1.33.6+k3s1``.

    :raises InputError: it is no such name, or is of a release before those that are known.
    """
    return _find(name)


@cache
def _find(name: str) -> Release:
    parsed = _NAME.fullmatch(name)
    if parsed is None:
        begun = re.search(r"1\.[0-9]{2}", name)
        likely = f"did you mean 'v{begun[0]}'?" if begun and f"v{begun[0]}" in MINORS else None
        cure = likely or "write it as v1.33, v1.33.6 or v1.33.6-gke.1"
        raise InputError(f"{name!r} is no version of kube-proxy", cure=cure)
    minor, patch = int(parsed[1]), int(parsed[2]) if parsed[2] else None
    if parsed[3] and patch is None:
        raise InputError(f"{name!r} names no patch release", cure=f"write it as v1.{minor}.0{parsed[3]}")
    if minor < OLDEST:
        cure = f"known are v1.{OLDEST} to v1.{NEWEST}"
        raise InputError(f"no kube-proxy version {name!r} is known", cure=cure)
    changes = frozenset(change for change in CHANGES.values() if change.within(minor, patch))
    return Release(minor, patch, parsed[3], changes)


MINORS: Final = tuple(f"v1.{minor}" for minor in range(OLDEST, NEWEST + 1))
"""The minors that are known, oldest first."""
