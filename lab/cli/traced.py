# SPDX-License-Identifier: MIT
"""What `lab trace` tells programs."""

from __future__ import annotations

from dataclasses import dataclass

from lab.evidence.walk import Walk
from lab.results.result import Trial
from lab.verdict import Verdict


@dataclass(frozen=True)
class TracedTrial:
    """A trial, and the walks of its packets; ``untraced`` is what of them could not be told, in sentences."""

    trial: Trial
    verdict: Verdict
    walks: tuple[Walk, ...]
    untraced: tuple[str, ...]
