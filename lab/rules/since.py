# SPDX-License-Identifier: MIT
"""What an upgrade of kube-proxy changes in the rules: change by change, with the rules of the objects at hand."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.kubeproxy.changes import CHANGES, Area, Change
from lab.kubeproxy.releases import MINORS, Release, find_release

if TYPE_CHECKING:
    from lab.rules.source import Proxy

_SHOWN: Final = 6  # lines of one change
_HOST: Final = re.compile(r"(?<=[0-9a-f:])/(?:32|128)(?= |$)")


@dataclass(frozen=True)
class Step:
    """One change on the way from one release to another.

    :param undone: the newer release lacks it, as a patch release of an older minor may have it already.
    :param gone: what is no longer written, in the words of iptables-restore's or nft's input.
    :param new: what is written instead.
    :param stopped: why the rules cannot be shown with this change alone; they are shown with the next.
    """

    change: Change
    undone: bool
    gone: tuple[str, ...]
    new: tuple[str, ...]
    stopped: str | None = None

    @property
    def acts(self) -> bool:
        """Whether it changes these objects' rules, or may: they could not be written with it alone."""
        return bool(self.gone or self.new or self.stopped)


@dataclass(frozen=True)
class Upgrade:
    """What a kube-proxy's rules become by a change of its release."""

    before: Release
    after: Release
    steps: tuple[Step, ...]

    @property
    def rerouting(self) -> tuple[Step, ...]:
        """The changes by which packets of these very objects may go elsewhere."""
        return tuple(step for step in self.steps if step.change.area is Area.TRAFFIC and (step.gone or step.new))


def upgrade(proxy: Proxy, since: str) -> Upgrade:
    """Apply the changes between two releases one after the other, oldest first.

    :param proxy: as it is after the upgrade.
    :param since: the release before it.
    :raises InputError: ``since`` is no release that is known, or none in which this kube-proxy's mode is.
    """
    before, after = find_release(since), proxy.options.release
    if not before.known:
        cure = f"known are {MINORS[0]} to {MINORS[-1]}"
        raise InputError(f"what kube-proxy {before.name} writes is not known", cure=cure)
    changed = [one for one in CHANGES.values() if proxy.mode in one.modes and (one in before) != (one in after)]
    changed.sort(key=lambda one: one.minor)
    current, has = _lines(_with(proxy, before)), before.changes
    steps: list[Step] = []
    for change in changed:
        has = has ^ {change}
        last = change is changed[-1]
        try:
            lines = _lines(_with(proxy, dataclasses.replace(after, changes=has)))
        except InputError as error:
            if last:
                raise
            steps.append(Step(change, change in before, (), (), str(error)))
            continue
        gone, new = current - lines, lines - current
        steps.append(Step(change, change in before, tuple(gone.elements()), tuple(new.elements())))
        current = lines
    return Upgrade(before, after, tuple(steps))


def _with(proxy: Proxy, release: Release) -> Proxy:
    return dataclasses.replace(proxy, options=proxy.options.with_release(release))


def _lines(proxy: Proxy) -> Counter[str]:
    """Count what is written; that v1.14 to v1.23 write /32 behind an address means nothing."""
    lines = "".join(proxy.render()).splitlines()
    return Counter(_HOST.sub("", line) for line in lines if line.startswith((":", "-", "add ")))


def said(found: Upgrade, proxy: Proxy) -> Iterator[str]:
    """Yield it in lines, for people."""
    mode, family = proxy.mode, proxy.options.family
    way = "down to" if found.after.minor < found.before.minor else "to"
    names = f"kube-proxy {found.before.name} {way} {found.after.name} ({mode} mode, {family})"
    if not found.steps:
        yield f"{names}: nothing changes in the rules."
        return
    rerouting = [step.change.name for step in found.rerouting]
    count = f"{len(found.steps)} change{'s' * (len(found.steps) != 1)}"
    where = "where packets of these objects go"
    if rerouting:
        yield f"{names}: {count}. Of these may change {where}: {', '.join(rerouting)}."
    else:
        yield f"{names}: {count}, none of {where}."
    acting = [step for step in found.steps if step.acts]
    for step in sorted(acting, key=lambda step: step.change.area is not Area.TRAFFIC):
        yield ""
        yield from _step(step)
    if idle := [step for step in found.steps if not step.acts]:
        yield ""
        yield "Nothing of these objects' rules is changed by:"
        yield from (f"  {_title(step)}" for step in idle)


def _title(step: Step) -> str:
    change = step.change
    pulls = "".join(f", #{pull}" for pull in change.pulls)
    undone = ", taken back" if step.undone else ""
    return f"{change.name} (v1.{change.minor}{pulls}{undone}): {change.what}."


def _step(step: Step) -> Iterator[str]:
    change = step.change
    yield _title(step)
    yield f"  {change.area}{'' if not change.read else '; read in the source, or seen with other objects'}"
    if step.stopped:
        yield f"  not shown alone: {step.stopped}"
    for sign, unsorted in (("-", step.gone), ("+", step.new)):
        lines = sorted(unsorted, key=lambda line: line.startswith((":", "add chain", "add set", "add map")))
        yield from (f"  {sign} {line}" for line in lines[:_SHOWN])
        if len(lines) > _SHOWN:
            yield f"  {sign} and {len(lines) - _SHOWN} more (--json has them all)"
