"""What a case runs on: a running lab with its instruments, the steps it may take and the checks it may make."""

from __future__ import annotations

from lab.scenario.base import HalfOpenError, RefusedError, Scenario, one_processor
from lab.scenario.connection import ConnectionScenario
from lab.scenario.downloads import DownloadsScenario
from lab.scenario.retrying import RetryingScenario
from lab.scenario.scripted import ScriptedScenario

__all__ = [
    "ConnectionScenario",
    "DownloadsScenario",
    "HalfOpenError",
    "RefusedError",
    "RetryingScenario",
    "Scenario",
    "ScriptedScenario",
    "one_processor",
]
