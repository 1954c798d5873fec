# SPDX-License-Identifier: MIT
"""`lab collect`: what to run on a node, so that it can be judged here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lab.cli.arguments import app, examples
from lab.errors import InputError, LabError, MissingError


@app.command(
    short_help="Print a script that collects a node's rules and settings for `lab run --node`.",
    epilog=examples(
        "lab collect > collect.sh; ssh root@worker-1 sh -s - < collect.sh > node.tar",
        "lab collect --here node.tar",
        "lab run --node node.tar",
    ),
)
def collect(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="With --here, where to write the archive; - for stdout.")
    ] = "",
    here: Annotated[bool, typer.Option("--here", help="Run the script on this machine: it only reads.")] = False,
) -> None:
    """Print a POSIX shell script that reads what matters of a node, and writes it to one archive.

    It changes nothing, leaves out what is secret, and says what it could not read.
    """
    from importlib.resources import files

    script = files("lab.node").joinpath("collect.sh").read_text(encoding="utf-8")
    if not here:
        if file:
            raise InputError(f"a file to write, {file}, without --here", cure="give --here, or the file to the script")
        print(script, end="")
        return
    _run(script, file or "node.tar")


def _run(script: str, file: str) -> None:
    """Run the script on this machine.

    :raises InputError: nothing can be written there.
    :raises LabError: it wrote no archive.
    """
    import subprocess

    from lab.cli.report_files import open_output

    open_output("archive", file)  # before anything is read: it takes seconds
    sys.stdout.flush()
    try:
        done = subprocess.run(["sh", "-s", "--", file], input=script, text=True, check=False)
    except FileNotFoundError:
        raise MissingError("sh", "a POSIX shell, of any package") from None
    if done.returncode:
        raise LabError(f"{file}: no archive was written, see above")
