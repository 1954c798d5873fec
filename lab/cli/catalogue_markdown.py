# SPDX-License-Identifier: MIT
"""The catalogue in Markdown: what is expected of every case with every fix, and what each fix changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from lab.cases import CASES, GROUPS, AnyCase
from lab.fixes import BE_LIBERAL, BE_LIBERAL_LATE, DAEMONSET, DAEMONSET_TODAY, FIXES, NONE, Fix
from lab.results.result import Expectation
from lab.topology.reader import load
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, ProxyMode

#: On a node whose kube-proxy writes no drop of its own these do what another one does, so they have no column.
ALIKE: Final = ((DAEMONSET, NONE), (BE_LIBERAL_LATE, BE_LIBERAL), (DAEMONSET_TODAY, BE_LIBERAL))
_SHOWN: Final = [fix for fix in FIXES.values() if fix not in [one for one, _other in ALIKE]]
_MANY: Final = 6  # names that a cell has no room for
_FINE: Final = (Outcome.DELIVERED, Outcome.DROPPED, Outcome.LEAKED)

#: From an end to nothing that anybody would notice.
_RANKS: Final = {
    **dict.fromkeys(Outcome, 0),
    **dict.fromkeys((Outcome.LEAKED, Outcome.RETRIED), 1),
    **dict.fromkeys((Outcome.DROPPED, Outcome.DELIVERED), 2),
}

_BASIS: Final = (
    "Expected on Linux from 6.1 on, on nodes of kube-proxy v1.14 in iptables mode unless a case names another; "
    "`lab run --all` tries it on the running kernel."
)

_OUTCOMES: Final = (
    "*reset*, *killed*, *stalled* and *lost* end the connection or the question, *duplicated* brings it to the pod "
    "twice, *refused* never lets it begin, whether somebody refuses or nobody answers, *retried* is a connection that "
    "died and was begun again. "
    "*leaked* shows an untranslated packet to somebody, and nothing dies of it. "
    "*dropped* and *delivered* are as they should be."
)


def markdown() -> Iterator[str]:
    """Return the lines of the catalogue's tables, with a few words about each."""
    yield from (_BASIS, "", _OUTCOMES, "", *_table(), "")
    yield from ("## Where Linux up to 6.0 gives something else", "", "The cells that differ there:", "", *_older(), "")
    yield from ("## Where kube-proxy's release or mode makes another thing of it", "", *_elsewhere(), "")
    yield from ("## What each fix changes", "", "Compared with the same cases without it:", "", *_worth())


def expected(case: AnyCase, fix: Fix, behaviour: Behaviour = Behaviour.IGNORES_LATE) -> Expectation:
    """Return what is expected of a case with a fix."""
    return case.expected(behaviour, fix.protection)


def _table() -> Iterator[str]:
    yield _row("case", "judged by conntrack", *(fix.name for fix in _SHOWN))
    yield _row(*["---"] * (2 + len(_SHOWN)))
    for title, cases in GROUPS.items():
        yield _row(f"*{title}*", *[""] * (1 + len(_SHOWN)))
        for case in cases:
            cells = (_cell(expected(case, fix).outcome) for fix in _SHOWN)
            yield _row(_name(case), expected(case, NONE).judgement or "-", *cells)


def _cell(outcome: Outcome) -> str:
    return outcome if outcome in _FINE else f"**{outcome}**"


def _name(case: AnyCase) -> str:
    node = load(case.topology).nodes[0]
    other = f" ({node.proxy_mode} {node.proxy_version})" if node.proxy_mode is not ProxyMode.IPTABLES else ""
    return f"{case.name}{other}{' (slow)' if case.slow else ''}"


def _older() -> Iterator[str]:
    yield _row("case", "judged by conntrack", *(fix.name for fix in _SHOWN))
    yield _row(*["---"] * (2 + len(_SHOWN)))
    for case in CASES.values():
        pairs = [(expected(case, fix), expected(case, fix, Behaviour.STRICT)) for fix in _SHOWN]
        if any(new != old for new, old in pairs):
            outcomes = ("" if new.outcome is old.outcome else _cell(old.outcome) for new, old in pairs)
            yield _row(case.name, pairs[0][1].judgement or "-", *outcomes)


def _elsewhere() -> Iterator[str]:
    yield _row("case", "nodes", "judged by conntrack", *(fix.name for fix in _SHOWN))
    yield _row(*["---"] * (3 + len(_SHOWN)))
    for case in CASES.values():
        for nodes in case.elsewhere:
            row = nodes.expectations[Behaviour.IGNORES_LATE]
            cells = (_cell(row(fix.protection).outcome) for fix in _SHOWN)
            yield _row(case.name, nodes.where, row(NONE.protection).judgement or "-", *cells)


def _worth() -> Iterator[str]:
    yield _row("fix", "better", "worse", "as bad, in another way")
    yield _row(*["---"] * 4)
    for fix in _SHOWN:
        if fix is not NONE:
            changes = [(case, expected(case, NONE).outcome, expected(case, fix).outcome) for case in CASES.values()]
            better = [case for case, before, after in changes if _RANKS[after] > _RANKS[before]]
            worse = [(case, after) for case, before, after in changes if _RANKS[after] < _RANKS[before]]
            bad = [one for one in changes if _RANKS[one[1]] == _RANKS[one[2]] < _RANKS[Outcome.DELIVERED]]
            otherwise = [(case, after) for case, before, after in bad if before is not after]
            yield _row(fix.name, f"{len(better)} of {len(changes)}", _named(worse), _named(otherwise))


def _named(cases: list[tuple[AnyCase, Outcome]]) -> str:
    if len(cases) > _MANY:
        kinds = Counter(outcome for _case, outcome in cases)
        return f"{len(cases)}: {', '.join(f'{count} {outcome}' for outcome, count in kinds.most_common())}"
    return ", ".join(f"{case.name} ({outcome})" for case, outcome in cases) or "none"


def _row(*fields: str) -> str:
    return f"| {' | '.join(fields)} |"
