# SPDX-License-Identifier: MIT
"""What `lab rules` tells programs: of differences, of an upgrade, and of sysctls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.kubeproxy.changes.change import Area
from lab.rules.effects import Effect, Kind
from lab.rules.other_releases import ends
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.rules.diff import Comparison
    from lab.rules.since import Step, Upgrade
    from lab.rules.source import Proxy


@dataclass(frozen=True)
class ToldDifference:
    """One difference; its members are those of :class:`lab.rules.diff.Difference`."""

    kind: Kind
    table: str
    name: str
    expected: str | None
    found: str | None
    line: int | None
    effect: Effect
    service: str | None
    note: str | None
    cause: int | None


@dataclass(frozen=True)
class ToldCause:
    """What explains differences, and how many of them."""

    setting: str
    sentence: str
    cure: str | None
    explains: int


@dataclass(frozen=True)
class Compared:
    """A node's rules beside kube-proxy's.

    :param node: its name; None where nobody says it.
    :param known: whether this release's rules are known.
    """

    node: str | None
    mode: ProxyMode
    version: str
    known: bool
    family: Family
    same: bool
    changes_traffic: bool
    differences: tuple[ToldDifference, ...]
    causes: tuple[ToldCause, ...]
    fitting_versions: tuple[str, ...]
    fitting_first: str | None
    fitting_last: str | None
    nearest_version: str | None
    left_by_nearest_version: int
    left_out: tuple[str, ...]
    partial: bool
    notes: tuple[str, ...]


def compared(comparison: Comparison, proxy: Proxy) -> Compared:
    """Return a comparison for a program."""
    first, last = _fitting_ends(comparison, proxy)
    return Compared(
        node=proxy.node or None,
        mode=proxy.mode,
        version=proxy.options.version,
        known=proxy.options.release.known,
        family=proxy.options.family,
        same=comparison.same,
        changes_traffic=any(one.effect is Effect.TRAFFIC for one in comparison.differences),
        differences=tuple(ToldDifference(**one._asdict()) for one in comparison.differences),
        causes=tuple(
            ToldCause(
                cause.setting,
                cause.sentence,
                cause.cure,
                sum(one.cause == number for one in comparison.differences),
            )
            for number, cause in enumerate(comparison.causes)
        ),
        fitting_versions=tuple(comparison.fitting),
        fitting_first=first,
        fitting_last=last,
        nearest_version=comparison.nearest,
        left_by_nearest_version=comparison.left,
        left_out=comparison.left_out,
        partial=comparison.partial,
        notes=(*proxy.notes, *comparison.notes),
    )


def _fitting_ends(comparison: Comparison, proxy: Proxy) -> tuple[str, str] | tuple[None, None]:
    """Return the first and the last release that fit; None where none does."""
    if not comparison.fitting:
        return None, None
    if comparison.same and not comparison.chosen:  # the others were not tried
        return comparison.fitting[0], comparison.fitting[-1]
    return ends(comparison.fitting, proxy.mode)


@dataclass(frozen=True)
class ToldChange:
    """One change on the way from one release to another, with the rules that it takes away and brings."""

    name: str
    release: str
    patches: tuple[str, ...]
    pulls: tuple[int, ...]
    what: str
    effect: Area
    undone: bool
    gone: tuple[str, ...]
    new: tuple[str, ...]
    stopped: str | None


@dataclass(frozen=True)
class Upgraded:
    """What a node's rules become by another release."""

    node: str | None
    mode: ProxyMode
    family: Family
    since: str
    version: str
    known: bool
    changes: tuple[ToldChange, ...]


def upgraded(proxy: Proxy, upgrade: Upgrade) -> Upgraded:
    """Return an upgrade for a program."""
    return Upgraded(
        node=proxy.node or None,
        mode=proxy.mode,
        family=proxy.options.family,
        since=upgrade.before.name,
        version=upgrade.after.name,
        known=upgrade.after.known,
        changes=tuple(map(_change, upgrade.steps)),
    )


def _change(step: Step) -> ToldChange:
    return ToldChange(
        name=step.change.name,
        release=f"v1.{step.change.minor}",
        patches=tuple(f"v1.{minor}.{patch}" for minor, patch in step.change.patches),
        pulls=tuple(step.change.pulls),
        what=step.change.what,
        effect=step.change.area,
        undone=step.undone,
        gone=step.gone,
        new=step.new,
        stopped=step.stopped,
    )


@dataclass(frozen=True)
class ToldSysctl:
    """A sysctl; where it is ``only_raised``, the kernel keeps more than ``value``."""

    name: str
    value: int
    only_raised: bool


@dataclass(frozen=True)
class SysctlsOfNode:
    """What the kube-proxy of a node sets below /proc/sys."""

    node: str | None
    mode: ProxyMode
    version: str
    known: bool
    sysctls: tuple[ToldSysctl, ...]


def sysctls_of(proxy: Proxy) -> SysctlsOfNode:
    """Return what a kube-proxy sets, for a program."""
    return SysctlsOfNode(
        node=proxy.node or None,
        mode=proxy.mode,
        version=proxy.options.version,
        known=proxy.options.release.known,
        sysctls=tuple(ToldSysctl(one.name, one.value, one.only_raised) for one in proxy.sysctls),
    )
