# SPDX-License-Identifier: MIT
"""The way in: Ctrl-C is answered from the first import on, and with the exit code that a shell gives it."""

from __future__ import annotations

import gc
import signal
import sys
from types import FrameType
from typing import Final

from lab.errors import INTERRUPTED

#: How many new objects start a collection. By Python's 700 a tenth of a short command is searching what it imported.
_OBJECTS: Final = 100_000


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(INTERRUPTED)  # as an exception: whatever is open is closed on the way out


def main() -> None:
    """Run the command."""
    signal.signal(signal.SIGINT, _interrupted)
    gc.set_threshold(_OBJECTS)
    sys.modules.setdefault("lab.__main__", sys.modules[__name__])  # that the process is the command's, also by -m
    try:
        from lab import cli

        cli.main()
    finally:
        # What is left are threads that close descriptors: milliseconds, and nothing to interrupt.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
