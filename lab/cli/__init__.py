"""The command. Thin: it parses, calls and prints; and it imports the rooms only when a command needs them.

The modules stand in the order in which `lab --help` lists their commands.
"""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

# isort: off
from lab.cli import run, rules, labs, matrix, kernels  # noqa: F401  each registers its commands

# isort: on
from lab.cli import streams
from lab.cli.words import app
from lab.errors import NO_ANSWER, READER_GONE, LabError, MachineError, ReaderGoneError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command; what a user can cure is one line.

    The exit codes 0 and 1 are answers. Whatever comes to here instead of one has another.
    """
    try:
        with streams.checked():
            app()
    except ReaderGoneError:
        sys.exit(READER_GONE)
    except LabError as error:
        _fail(str(error))
    except OSError as error:
        _fail(str(MachineError.of(error) or error))
    except MemoryError:
        _fail("out of memory (`ulimit -v`, a container's limit, or the machine's memory)")
    except Exception:  # a bug of the lab's own, which is no answer either
        traceback.print_exc()
        sys.exit(NO_ANSWER)


def _fail(words: str) -> NoReturn:
    print(f"lab: {words}", file=sys.stderr)
    sys.exit(NO_ANSWER)
