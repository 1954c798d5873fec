# SPDX-License-Identifier: MIT
"""The way in: Ctrl-C is answered from the first import on, and with the exit code that a shell gives it."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from lab.errors import INTERRUPTED


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(INTERRUPTED)  # as an exception: whatever is open is closed on the way out


def main() -> None:
    """Run the command."""
    signal.signal(signal.SIGINT, _interrupted)
    try:
        from lab import cli

        cli.main()
    finally:
        # What is left are threads that close descriptors: milliseconds, and nothing to interrupt.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
