"""Writes the README's table: what is expected of every case with every fix on kernels that ignore late packets.

`python tests/docs/catalogue.py` prints it. That the kernel does so is what the trials prove; the tests compare the
README with this.
"""

from __future__ import annotations

from collections.abc import Iterator

from lab.cases import GROUPS, Case
from lab.fixes import BE_LIBERAL, BE_LIBERAL_LATE, DAEMONSET, DAEMONSET_TODAY, FIXES, NONE, Fix
from lab.result import Expectation
from lab.words import Behaviour

#: On a node whose kube-proxy writes no drop of its own these do what another one does.
ALIKE = ((DAEMONSET, NONE), (BE_LIBERAL_LATE, BE_LIBERAL), (DAEMONSET_TODAY, BE_LIBERAL))
SHOWN = [fix for fix in FIXES.values() if fix not in [one for one, _other in ALIKE]]
FINE = ("delivered", "dropped", "leaked")


def expected(case: Case, fix: Fix) -> Expectation:
    return case.expected(Behaviour.IGNORES_LATE, fix.protection)


def table() -> Iterator[str]:
    yield _row("case", "conntrack's word", *(fix.name for fix in SHOWN))
    yield _row(*["---"] * (2 + len(SHOWN)))
    for title, cases in GROUPS.items():
        yield _row(f"*{title}*", *[""] * (1 + len(SHOWN)))
        for case in cases:
            outcomes = [expected(case, fix).outcome for fix in SHOWN]
            name = f"{case.name} (slow)" if case.slow else case.name
            cells = (outcome if outcome in FINE else f"**{outcome}**" for outcome in outcomes)
            yield _row(name, expected(case, NONE).judgement or "-", *cells)


def _row(*fields: str) -> str:
    return f"| {' | '.join(fields)} |"


if __name__ == "__main__":
    print("\n".join(table()))
