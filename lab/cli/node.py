# SPDX-License-Identifier: MIT
"""A node of the user's own, as commands are told of it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from lab.cli.arguments import service_option
from lab.cli.screen import steps
from lab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.cases import AnyCase
    from lab.cli.arguments import Programs, Proxy, Selected
    from lab.fixes import Fix
    from lab.kubeproxy.said import Settings
    from lab.results.result import Report
    from lab.trial.batch import Selection
    from lab.trial.own_node import OwnNode
    from lab.vocabulary import Family

    #: Tries settings in a family.
    Run: TypeAlias = Callable[..., Report]


def own_node(
    sources: Sequence[str] | None,
    objects: Sequence[str] | None,
    topology: str | None,
    proxy: Proxy,
    programs: Programs,
    settings: Settings,
    *,
    service: str | None,
    family: Family | None,
) -> OwnNode:
    """Return the node that --node and --objects speak of.

    :raises InputError: they cannot be read, or something else was given that a node's own rules decide.
    """
    from lab.netns import userns
    from lab.node.read import read
    from lab.trial import own_node as own

    if not sources:
        raise InputError("--objects without --node", cure="give the node's rules as well, by --node")
    others = {
        "--topology": topology,
        "--proxy-mode": proxy.proxy_mode,
        "--proxy-version": proxy.proxy_version,
        "--kube-proxy": programs.kube_proxy,
        "a setting of kube-proxy": settings.said or settings.mode,
    }
    if given := next((option for option, value in others.items() if value), None):
        raise InputError(f"--node and {given}", cure="the node's own rules say it: leave one of them away")
    with steps() as step, service_option():
        step("reading the node's rules")
        bundle = read(sources, objects or ())
        userns.ensure()
        step("trying which of its rules this kernel loads")
        return own.own_node(bundle, service=service, family=family, backend=proxy.backend)


def trials(
    own: OwnNode, selected: Selected, families: Sequence[Family], run: Run, say: Callable[[Report], None]
) -> Report:
    """Try a node of the user's own, first what answers the question.

    Rules that take long to load are believed to be loadable, until they are refused.

    Without cases named that is the whole catalogue, as far as it can be had there, and each fix with what is reset and
    with the bug and its controls.

    :param say: is told of the answer as soon as there is one.
    """
    from contextlib import closing
    from functools import partial

    from lab.fabric.given import NotLoadedError
    from lab.trial.own_node import tried
    from lab.trial.shared import SharedLabs

    with closing(SharedLabs()) as labs:  # one for all that is tried, for its rules may take long to load
        in_it = partial(run, labs=labs)
        try:
            return _trials(own, selected, families, in_it, say)
        except NotLoadedError:
            return _trials(tried(own), selected, families, in_it, say)


def _trials(
    own: OwnNode, selected: Selected, families: Sequence[Family], run: Run, say: Callable[[Report], None]
) -> Report:
    from lab.cases import HEADLINE, usual
    from lab.fixes import NONE
    from lab.node.places import NODE
    from lab.report.affected import is_hit
    from lab.results.result import joined
    from lab.trial.fix_file import find_fix
    from lab.trial.own_node import big
    from lab.trial.remedies import remedies

    fixes = [fix for fix in selected.chosen_fixes(find_fix) if fix != NONE]
    is_catalogue = not (selected.cases or selected.all_ or selected.slow or big(own))
    cases = usual(all_=True, slow=False) if is_catalogue else selected.chosen_cases()
    found: list[Report] = []
    plain = {family: _selected(own, family, cases, (NONE,), named=bool(selected.cases)) for family in families}
    for family, selection in plain.items():  # the answers first, and what keeps cases from being tried behind them
        if first := [setting for setting in selection.settings if setting.case is HEADLINE]:
            found.append(run(first, family))
            say(replace(found[-1], notes=own.notes))
    for family, selection in plain.items():
        _tell(selection, family, len(cases), quiet=is_catalogue, named=bool(selected.cases))
        if rest := [setting for setting in selection.settings if setting.case is not HEADLINE]:
            found.append(run(rest, family))
        tallies = [tally for one in found for tally in one.tallies if tally.trial.family is family]
        hit = {tally.trial.case for tally in tallies if is_hit(tally)}
        kept = {case.name for case in usual(all_=False, slow=False)} | hit
        fixed = [one.case for one in selection.settings if not is_catalogue or one.case.name in kept]
        for fix in fixes:  # one after the other, for all trials with one share a lab
            found.append(run(_selected(own, family, fixed, (fix,), named=True).settings, family))
    found.sort(key=lambda one: list(families).index(next(iter(one.behaviours))))
    report = joined(*found)
    return replace(report, notes=own.notes, remedies=tuple(remedies(own.topology, NODE, families, fixes)))


def _selected(
    own: OwnNode, family: Family, cases: Sequence[AnyCase], fixes: Sequence[Fix], *, named: bool
) -> Selection:
    from lab.trial import batch

    return batch.select(cases, fixes, own.topology, family, (None, None, None), own.service, named=named)


def _tell(selection: Selection, family: Family, asked: int, *, quiet: bool, named: bool) -> None:
    """Tell what cannot be tried there, in one line where nobody asked for it by name."""
    if not quiet:
        for remark in selection.remarks:
            print(f"lab: {remark}", file=sys.stderr)
    elif not named and (out := asked - len(selection.settings)):
        print(f"lab: {out} cases cannot be had on this node by {family} (--all says why)", file=sys.stderr)
