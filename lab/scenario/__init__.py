# SPDX-License-Identifier: MIT
"""What a case runs on: a running lab with its instruments, the steps it may take and the checks it may make."""

from __future__ import annotations

from lab.scenario.base import Scenario
from lab.scenario.connection import ConnectionScenario
from lab.scenario.datagrams import DatagramsScenario, LastDatagramScenario
from lab.scenario.downloads import DownloadsScenario
from lab.scenario.errors import HalfOpenError, RefusedError
from lab.scenario.processor import one_processor
from lab.scenario.retrying import RetryingScenario
from lab.scenario.scripted import ScriptedScenario

__all__ = [
    "ConnectionScenario",
    "DatagramsScenario",
    "DownloadsScenario",
    "HalfOpenError",
    "LastDatagramScenario",
    "RefusedError",
    "RetryingScenario",
    "Scenario",
    "ScriptedScenario",
    "one_processor",
]
