"""The stage on which a case plays: a running lab with its instruments, and the words to disturb and to look."""

from __future__ import annotations

from lab.scenario.base import HalfOpenError, RefusedError, Scene, one_processor
from lab.scenario.connection import Stage
from lab.scenario.downloads import LoadStage
from lab.scenario.retrying import RetryingStage
from lab.scenario.scripted import Scripted

__all__ = ["HalfOpenError", "LoadStage", "RefusedError", "RetryingStage", "Scene", "Scripted", "Stage", "one_processor"]
