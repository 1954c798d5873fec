# SPDX-License-Identifier: MIT
"""What became of a trial, decided from its evidence alone: one module a kind of evidence."""

from __future__ import annotations

from lab.verdict.verdict import Outcome, Verdict

__all__ = ["Outcome", "Verdict"]
