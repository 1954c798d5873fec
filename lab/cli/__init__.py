# SPDX-License-Identifier: MIT
"""The command. Thin: it parses, calls and prints; and it imports the rooms only when a command needs them.

The modules stand in the order in which `lab --help` lists their commands.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import traceback
from typing import Final, NoReturn

# isort: off
from lab.cli import run, collect, rules, labs, matrix, kernels  # noqa: F401  each registers its commands

# isort: on
from lab.cli import output
from lab.cli.arguments import app
from lab.errors import NO_ANSWER, READER_GONE, LabError, ReaderGoneError, UnknownNameError, tell_warnings, told

__all__ = ["app", "main"]

_LEAST_DESCRIPTORS: Final = 12


def main() -> None:
    """Run the command; what a user can cure is one line.

    The exit codes 0 and 1 are answers. Whatever comes to here instead of one has another.
    """
    try:
        with output.checked():
            _check_descriptors()
            tell_warnings()
            app()
    except ReaderGoneError:
        sys.exit(READER_GONE)
    except UnknownNameError as error:
        from lab.trial.names import explained

        _fail(str(explained(error)))
    except LabError as error:
        _fail(str(error))
    except OSError as error:
        _fail(str(told(error)))
    except MemoryError:
        _fail("out of memory (`ulimit -v`, a container's limit, or the machine's memory)")
    except Exception:  # a bug of the lab's own, which is no answer either
        traceback.print_exc()
        sys.exit(NO_ANSWER)


def _check_descriptors() -> None:
    """Refuse what not even an event loop can be made with, for Python tells that in many lines."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < _LEAST_DESCRIPTORS:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _fail(words: str) -> NoReturn:
    print(f"lab: {words}", file=sys.stderr)
    sys.exit(NO_ANSWER)
