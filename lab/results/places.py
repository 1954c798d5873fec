# SPDX-License-Identifier: MIT
"""Where trials were tried, in words: on which kube-proxy's node, in which family and topology, by which Service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from lab.kubeproxy.releases import find_release
from lab.results.result import Trial

#: In the place of a program, in a row of a matrix with a column a program.
OF_COLUMN: Final = "each column's kube-proxy"


def node(trial: Trial) -> str:
    """Return what kind of node judged: kube-proxy's version and mode, who loaded its rules, the family."""
    backend = f"iptables-{trial.backend}, " if trial.backend else ""
    said = "".join(f", {setting}" for setting in trial.settings)
    whose = trial.given or (OF_COLUMN if trial.program == OF_COLUMN else f"kube-proxy {_version(trial)}")
    return f"{whose} in {trial.proxy_mode} mode ({backend}{trial.family}{said})"


def _version(trial: Trial) -> str:
    """Return kube-proxy's version, with the program where one wrote the rules."""
    version = find_release(trial.proxy_version).label
    return f"{version} by {trial.program}" if trial.program else version


def topology(trial: Trial) -> str:
    """Return the topology's name, with the Service that was asked where it is named; of a real node that alone."""
    if trial.given:
        return f"Service {trial.service}"
    return f"{trial.topology}, Service {trial.service}" if trial.service else trial.topology


def _kind(trial: Trial) -> str:
    return "" if trial.given else "topology "


def place(trial: Trial) -> str:
    """Return node, topology and Service: all that two trials of one case and fix may differ in."""
    return f"{node(trial).removesuffix(')')}, {_kind(trial)}{topology(trial)})"


def tried(trials: Iterable[Trial]) -> Iterator[str]:
    """Report where trials were tried, a line for each kind of node; cases are named where places differ."""
    cases: dict[str, dict[str, dict[str, None]]] = {}
    for trial in trials:
        cases.setdefault(f"{node(trial)}, {_kind(trial)}", {}).setdefault(topology(trial), {})[trial.case] = None
    for index, (words, its) in enumerate(cases.items()):
        sizes = Counter({name: len(names) for name, names in its.items()})
        parts = [
            name + (f" for {', '.join(its[name])}" if index or number else "")
            for number, (name, _size) in enumerate(sizes.most_common())
        ]
        yield f"{words}{'; '.join(parts)}"


def names(trials: Iterable[Trial]) -> dict[Trial, str]:
    """Return what to call the case of each trial: with its place where the same case was tried in several."""
    found: dict[Trial, str] = {}
    by_case: dict[str, list[Trial]] = {}
    for trial in trials:
        by_case.setdefault(trial.case, []).append(trial)
    for case, its in by_case.items():
        distinct = [len(set(column)) > 1 for column in zip(*map(_parts, its), strict=True)]
        for trial in its:
            differing = [part for part, differs in zip(_parts(trial), distinct, strict=True) if differs and part]
            found[trial] = f"{case} ({', '.join(differing)})" if differing else case
    return found


def called(trials: Iterable[Trial], named: Mapping[Trial, str]) -> Iterator[str]:
    """Name trials: cases together that have the same fixes.

    :param named: what :func:`names` makes of all trials that there are.
    """
    fixes: dict[str, list[str]] = {}
    for trial in trials:
        fixes.setdefault(named[trial], []).append(trial.fix)
    cases: dict[tuple[str, ...], list[str]] = {}
    for case, its in fixes.items():
        cases.setdefault(tuple(its), []).append(case)
    for given, its_cases in cases.items():
        yield f"{', '.join(its_cases)} with {' or '.join(given)}"


def _parts(trial: Trial) -> tuple[str, ...]:
    backend = f"iptables-{trial.backend}" if trial.backend else ""
    service = f"Service {trial.service}" if trial.service else ""
    mode, where = f"{trial.proxy_mode} mode", f"topology {trial.topology}"
    version = trial.given or _version(trial)
    return (version, mode, backend, trial.family, " ".join(trial.settings), where, service)
