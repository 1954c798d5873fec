# SPDX-License-Identifier: MIT
"""Reports: made from results alone, so that they can be made anywhere. Touches no kernel."""

from __future__ import annotations
