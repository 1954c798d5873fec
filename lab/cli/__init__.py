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
# each registers its commands
from lab.cli import run, reach, trace, explain, collect, rules, topology, labs, services, standing  # noqa: F401
from lab.cli import watch  # noqa: F401
from lab.cli import matrix, report, kernels, about  # noqa: F401

# isort: on
from lab.cli import output
from lab.cli.arguments import app
from lab.cli.command import USAGE_ERROR, usage_error
from lab.errors import NO_ANSWER, LabError, ReaderGoneError, UnknownNameError, tell_warnings, told

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
            code = app(prog_name="lab", standalone_mode=False)
    except ReaderGoneError as error:
        sys.exit(error.exit_code)
    except USAGE_ERROR as error:
        _fail(usage_error(error))
    except UnknownNameError as error:
        from lab.trial.names import explained

        _fail(str(explained(error)))
    except LabError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(str(told(error)))
    except MemoryError:
        _fail("out of memory (`ulimit -v`, a container's limit, or the machine's memory)")
    except Exception:  # a bug of the lab's own, which is no answer either
        traceback.print_exc()
        sys.exit(NO_ANSWER)
    sys.exit(code)


def _check_descriptors() -> None:
    """Refuse what not even an event loop can be made with, for Python tells that in many lines."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < _LEAST_DESCRIPTORS:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _fail(words: str, code: int = NO_ANSWER) -> NoReturn:
    print(f"lab: {words}", file=sys.stderr)
    sys.exit(code)
