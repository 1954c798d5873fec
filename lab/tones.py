# SPDX-License-Identifier: MIT
"""How a terminal shows what matters: of its own colours, those that can be read on black and on white.

Yellow and cyan are too light for white, blue is too dark for black.
"""

from __future__ import annotations

from typing import Final

FINE: Final = "green"
HARMLESS: Final = "magenta"
OOPS: Final = "bold red"
NOTABLE: Final = "bold"
QUIET: Final = "dim"
