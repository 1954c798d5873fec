"""The stage on which a case plays: a running lab with its instruments, and the words to disturb and to look."""

from __future__ import annotations

from lab.stage.connection import Stage
from lab.stage.load import LoadStage
from lab.stage.retrying import RetryingStage
from lab.stage.scene import HalfOpenError, RefusedError, Scene, one_processor
from lab.stage.scripted import Scripted

__all__ = ["HalfOpenError", "LoadStage", "RefusedError", "RetryingStage", "Scene", "Scripted", "Stage", "one_processor"]
