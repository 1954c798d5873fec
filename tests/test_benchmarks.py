"""The benchmarks are programs that judge nothing; what they look at has to be there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).with_name("benchmarks")


def test_every_part_of_a_trial_that_is_timed_is_a_method(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    spec = importlib.util.spec_from_file_location("trial_benchmark", BENCHMARKS / "trial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "trial_benchmark", module)
    spec.loader.exec_module(module)
    with module.clocked(module.Clock()):
        pass
