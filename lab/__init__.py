# SPDX-License-Identifier: MIT
"""A lab that reproduces, explains and judges kube-proxy's and conntrack's subtleties on the running kernel.

The names here are what a case, a fix, a test or a script of one's own needs; whatever else the rooms of the lab hold
may change with any release. Each is imported when it is first asked for: ``import lab`` itself costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes longer than all of this
if TYPE_CHECKING:
    from lab.cases.case import Case, Elsewhere, on_every_kernel, row
    from lab.errors import LabError
    from lab.evidence.judgement import Judgement
    from lab.fabric.lab import Lab
    from lab.fixes import Fix, Protection
    from lab.results.result import Expectation, Result
    from lab.scenario.connection import ConnectionScenario
    from lab.scenario.scripted import ScriptedScenario
    from lab.topology.node_change import NodeChange
    from lab.topology.reader import load as load_topology
    from lab.trial.probe import ask as ask_kernel
    from lab.trial.runner import run as run_trial
    from lab.trial.setting import Setting
    from lab.verdict import Outcome
    from lab.vocabulary import Behaviour, Family

    __version__: str

__all__ = [
    "Behaviour",
    "Case",
    "ConnectionScenario",
    "Elsewhere",
    "Expectation",
    "Family",
    "Fix",
    "Judgement",
    "Lab",
    "LabError",
    "NodeChange",
    "Outcome",
    "Protection",
    "Result",
    "ScriptedScenario",
    "Setting",
    "__version__",
    "ask_kernel",
    "load_topology",
    "on_every_kernel",
    "row",
    "run_trial",
]

# Where each name lives, and what it is called there. A test holds them against the imports above.
_PLACES = {
    "Behaviour": "vocabulary:Behaviour",
    "Case": "cases.case:Case",
    "ConnectionScenario": "scenario.connection:ConnectionScenario",
    "Elsewhere": "cases.case:Elsewhere",
    "Expectation": "results.result:Expectation",
    "Family": "vocabulary:Family",
    "Fix": "fixes:Fix",
    "Judgement": "evidence.judgement:Judgement",
    "Lab": "fabric.lab:Lab",
    "LabError": "errors:LabError",
    "NodeChange": "topology.node_change:NodeChange",
    "Outcome": "verdict:Outcome",
    "Protection": "fixes:Protection",
    "Result": "results.result:Result",
    "ScriptedScenario": "scenario.scripted:ScriptedScenario",
    "Setting": "trial.setting:Setting",
    "ask_kernel": "trial.probe:ask",
    "load_topology": "topology.reader:load",
    "on_every_kernel": "cases.case:on_every_kernel",
    "row": "cases.case:row",
    "run_trial": "trial.runner:run",
}


if not TYPE_CHECKING:  # a type checker knows the names above, and no others

    def __getattr__(name):  # noqa: ANN001, ANN202 - not for the type checker
        """Import what is asked for."""
        if name in _PLACES:
            from importlib import import_module

            place, _, there = _PLACES[name].partition(":")
            found = globals()[name] = getattr(import_module(f"lab.{place}"), there)
            return found
        if name == "__version__":  # reading the distribution's metadata costs milliseconds
            from importlib.metadata import version

            return version("kube-proxy-lab")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
