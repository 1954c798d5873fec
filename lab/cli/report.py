# SPDX-License-Identifier: MIT
"""`lab report`, `lab schema`: results that were saved, told again in any form; and the form that they are saved in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import Files, app, complete, examples
from lab.cli.kube_proxy import with_groups
from lab.cli.screen import console
from lab.errors import NO_ANSWER, InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.results.saved import Found


@app.command(
    short_help="Report saved results again, in any form, or what changed between two.",
    epilog=examples(
        "lab report run.json",
        "lab report run.json --html run.html --pcapng run.pcapng",
        "lab report debian.json fedora.json.gz --md kernels.md",
        "lab report --compare yesterday.json today.json",
    )
    + """

Exit code: 0 when every trial gave what its kernel is expected to give, 1 when one did not; with --compare: 0 when
nothing changed, 1 when something did; 2 where that is not known: a file that is none of results.""",
)
@with_groups
def report(
    *,
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULT", help="What --json of `lab run` or `lab matrix` wrote; - for stdin."),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Say what changed from the first file to the second.")
    ] = False,
    files: Files,
) -> None:
    """Report results that were saved, on any machine; of several kernels as one table."""
    from lab.cli.matrix import print_matrix
    from lab.cli.report_files import Outputs
    from lab.cli.run import print_report
    from lab.results.gathered import gathered
    from lab.results.result import Report

    if compare:
        _compare(results, files)
    outputs = Outputs(**vars(files))
    found = gathered([(_stem(name), _read(name)) for name in results])
    written = outputs.write(found)
    if outputs.on_stdout:
        pass
    elif isinstance(found, Report):
        print_report(found, timeline=True)
    else:
        print_matrix(found)
    raise typer.Exit((0 if found.good else 1) if written else NO_ANSWER)


def _compare(results: Sequence[str], files: Files) -> None:
    from lab.results.changes import changes, same

    if any(vars(files).values()):
        raise InputError("--compare, and files of results", cure="it prints what changed; write files without it")
    if len(results) != 2:
        raise InputError(f"--compare takes two files, not {len(results)}", cure="the earlier one first")
    before, after = ((name, _read(name)) for name in results)
    found = list(changes(before, after))
    screen = console()
    for words in found:
        screen.print(words, soft_wrap=True, markup=False)
    count = same(before[1], after[1])
    screen.print(f"{count} {'trial' if count == 1 else 'trials'} came out the same.", soft_wrap=True)
    raise typer.Exit(1 if found else 0)


def _read(name: str) -> Found:
    """Read a file of results.

    :raises InputError: it cannot be read, or holds none.
    """
    from lab.cli.packed import unpacked
    from lab.results.saved import from_json

    source = "<stdin>" if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source=source) from None
    try:
        return from_json(unpacked(data, source))
    except (ValueError, RecursionError) as error:
        raise InputError(str(error), source=source) from None


def _stem(name: str) -> str:
    return Path(name).name.removesuffix(".gz").removesuffix(".zst").removesuffix(".json")


def _schema_names() -> Sequence[str]:
    from lab.results.saved import KINDS

    return list(KINDS)


@app.command(
    short_help="Print the JSON Schema of saved results.",
    epilog=examples("lab schema result > result.schema.json", "lab schema matrix"),
)
def schema(
    name: Annotated[
        str,
        typer.Argument(
            metavar="result|matrix",
            help="Of what `lab run --json` writes, or of what `lab matrix --json` does.",
            autocompletion=complete(_schema_names),
        ),
    ],
) -> None:
    """Print the JSON Schema of what --json writes; that of topologies is by `lab topology schema`."""
    import json

    from lab.results import saved

    if name not in saved.KINDS:
        raise InputError(f"there is no schema {name!r}", cure=nearest(name, saved.KINDS))
    print(json.dumps(saved.schema(name), indent=2))
