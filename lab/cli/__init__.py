"""The command. Thin: it parses, calls and prints; and it imports the rooms only when a command needs them.

The modules stand in the order in which `lab --help` lists their commands.
"""

from __future__ import annotations

import sys

# isort: off
from lab.cli import run, rules, labs, matrix, kernels  # noqa: F401  each registers its commands

# isort: on
from lab.cli.words import app
from lab.errors import InputError, LabError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command; errors that a user can cure are one line each."""
    try:
        app()
    except InputError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(2)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read the output has enough; Python would complain once more when it flushes.
        sys.stdout = None
        sys.exit(141)
