# SPDX-License-Identifier: MIT
"""Whether a screen may be drawn upon, instead of being written to line by line."""

from __future__ import annotations

import os


def moves(descriptor: int) -> bool:
    """Return whether lines on a terminal may be wiped and written anew.

    Not where NO_COLOR is set (https://no-color.org): who asks for it wants no control sequences, or cannot read them.
    """
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
