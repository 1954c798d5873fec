"""Writes the README's tables: what is expected of every case with every fix on kernels that ignore late packets.

`python docs/make/catalogue.py` prints it, and what each fix was worth. That the kernel does so is what the trials
prove; the tests compare the README with this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lab.cases import CASES, GROUPS, Case
from lab.fixes import BE_LIBERAL, BE_LIBERAL_LATE, DAEMONSET, DAEMONSET_TODAY, FIXES, NONE, Fix
from lab.results.result import Expectation
from lab.topology.reader import load
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, ProxyMode

#: On a node whose kube-proxy writes no drop of its own these do what another one does.
ALIKE = ((DAEMONSET, NONE), (BE_LIBERAL_LATE, BE_LIBERAL), (DAEMONSET_TODAY, BE_LIBERAL))
SHOWN = [fix for fix in FIXES.values() if fix not in [one for one, _other in ALIKE]]
MANY = 6  # names that a cell has no room for
FINE = ("delivered", "dropped", "leaked")


def expected(case: Case, fix: Fix) -> Expectation:
    return case.expected(Behaviour.IGNORES_LATE, fix.protection)


def table() -> Iterator[str]:
    yield _row("case", "judged by conntrack", *(fix.name for fix in SHOWN))
    yield _row(*["---"] * (2 + len(SHOWN)))
    for title, cases in GROUPS.items():
        yield _row(f"*{title}*", *[""] * (1 + len(SHOWN)))
        for case in cases:
            outcomes = [expected(case, fix).outcome for fix in SHOWN]
            cells = (outcome if outcome in FINE else f"**{outcome}**" for outcome in outcomes)
            yield _row(_name(case), expected(case, NONE).judgement or "-", *cells)


def _name(case: Case) -> str:
    node = load(case.topology).nodes[0]
    other = f" ({node.proxy_mode} {node.proxy_version})" if node.proxy_mode is not ProxyMode.IPTABLES else ""
    return f"{case.name}{other}{' (slow)' if case.slow else ''}"


#: From an end to nothing that anybody would notice.
RANKS = dict.fromkeys(Outcome, 0) | dict.fromkeys((Outcome.LEAKED, Outcome.RETRIED), 1)
RANKS |= dict.fromkeys((Outcome.DROPPED, Outcome.DELIVERED), 2)


def worth() -> Iterator[str]:
    """What each fix made of the catalogue, beside what came of the same cases without it."""
    yield _row("fix", "better", "worse", "as bad, in another way")
    yield _row(*["---"] * 4)
    for fix in SHOWN:
        if fix is not NONE:
            changes = [(case, expected(case, NONE).outcome, expected(case, fix).outcome) for case in CASES.values()]
            better = [case for case, before, after in changes if RANKS[after] > RANKS[before]]
            worse = [(case, after) for case, before, after in changes if RANKS[after] < RANKS[before]]
            bad = [one for one in changes if RANKS[one[1]] == RANKS[one[2]] < RANKS[Outcome.DELIVERED]]
            otherwise = [(case, after) for case, before, after in bad if before is not after]
            yield _row(fix.name, f"{len(better)} of {len(changes)}", _named(worse), _named(otherwise))


def _named(cases: list[tuple[Case, Outcome]]) -> str:
    if len(cases) > MANY:
        kinds = Counter(outcome for _case, outcome in cases)
        return f"{len(cases)}: {', '.join(f'{count} {outcome}' for outcome, count in kinds.most_common())}"
    return ", ".join(f"{case.name} ({outcome})" for case, outcome in cases) or "none"


def _row(*fields: str) -> str:
    return f"| {' | '.join(fields)} |"


if __name__ == "__main__":
    print("\n".join([*table(), "", *worth()]))
