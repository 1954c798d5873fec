# SPDX-License-Identifier: MIT
"""Which releases of kube-proxy write the same rules, so that a node may have any of them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from lab.kubeproxy.changes import CHANGES, Change
from lab.kubeproxy.releases import NEWEST, OLDEST, Release, find_release
from lab.rules.whatifs import WhatIf, with_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.vocabulary import ProxyMode

VERSION: Final = "--proxy-version"
_NEWEST_PATCH: Final = 1 << 30


@cache
def releases(mode: ProxyMode) -> list[tuple[str, ...]]:
    """Return the names of the releases that have a mode, oldest first; those that write the same stand together.

    A minor stands for its newest patch, ``v1.33.5`` for the patches up to it that wrote the same.
    """
    shapes: dict[frozenset[Change], list[str]] = {}
    for minor, patch in sorted(_known(), key=lambda one: (one[0], _NEWEST_PATCH if one[1] is None else one[1])):
        release = find_release(f"v1.{minor}" if patch is None else f"v1.{minor}.{patch}")
        if release.has_mode(mode):
            shapes.setdefault(_shape(release, mode), []).append(release.name)
    return [tuple(names) for names in shapes.values()]


def place_of(release: Release, mode: ProxyMode) -> int:
    """Return the place among :func:`releases` of those that write what a release writes."""
    shape = _shape(release, mode)
    names = releases(mode)
    same = (number for number, some in enumerate(names) if _shape(find_release(some[0]), mode) == shape)
    return next(same, len(names) - 1)


def _shape(release: Release, mode: ProxyMode) -> frozenset[Change]:
    return frozenset(one for one in release.changes if mode in one.modes and one.shapes_rules)


def of_release(names: Sequence[str], mode: ProxyMode) -> WhatIf:
    """Return what a node of other releases is, of those that write the same."""
    sentence = f"The rules are those of kube-proxy {span(names, mode)}."
    return WhatIf(VERSION, sentence, f"give {VERSION} {names[-1]}", with_options(version=names[-1]))


def span(names: Sequence[str], mode: ProxyMode) -> str:
    """Return which releases these are, that stand beside each other among :func:`releases`."""
    first, last = ends(names, mode)
    if first == last:
        return first
    return f"{last} from {first} on" if first.startswith(f"{last}.") else f"{first} to {last}"


def ends(names: Sequence[str], mode: ProxyMode) -> tuple[str, str]:
    """Return the first and the last of releases that stand beside each other among :func:`releases`.

    The last of a minor without its patch is the newest of that.
    """
    every = [name for some in releases(mode) for name in some]
    first, last = names[0], names[-1]
    minor, *patch = first.split(".")[1:]
    before = every[every.index(first) - 1].split(".") if every.index(first) else []
    if before[1:2] == [minor]:
        first = f"v1.{minor}.{int(before[2]) + 1}"
    elif patch:
        first = f"v1.{minor}.0"
    return first, last


def _known() -> Iterator[tuple[int, int | None]]:
    """Return each minor, and the patch releases before one that changed something in the rules."""
    shaping = [change for change in CHANGES.values() if change.shapes_rules]
    for minor in range(OLDEST, NEWEST + 1):
        yield minor, None
        patches = {patch for change in shaping for own, patch in change.patches if own == minor}
        yield from ((minor, patch - 1) for patch in patches if patch)
