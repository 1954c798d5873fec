# SPDX-License-Identifier: MIT
"""`lab report`, `lab schema`: results that were saved, told again in any form; and the forms that programs get."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lab.cli.arguments import Files, app, complete, examples
from lab.cli.documents import DOCUMENTS, schema_of
from lab.cli.kube_proxy import with_groups
from lab.cli.screen import console, tell, tell_all
from lab.errors import NO_ANSWER, InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.cli.report_files import Outputs
    from lab.results.reach import ReachReport
    from lab.results.saved import Found


@app.command(
    short_help="Report saved results again, in any form, or what changed between two.",
    epilog=examples(
        "lab report run.json",
        "lab report run.json --html run.html --pcapng run.pcapng",
        "lab report debian.json fedora.json.gz --md kernels.md",
        "lab report reach.json --html reach.html",
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
        typer.Argument(
            metavar="RESULT", help="What --json of `lab run`, `lab matrix` or `lab reach` wrote; - for stdin."
        ),
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
    from lab.results.reach import ReachReport
    from lab.results.result import Report

    if compare:
        _compare(results, files)
    outputs = Outputs(**vars(files))
    read = [(name, _read(name)) for name in results]
    if reach := [one for _name, one in read if isinstance(one, ReachReport)]:
        _report_reach(reach, read, outputs)
    found = gathered([(_stem(name), one) for name, one in read if not isinstance(one, ReachReport)])
    written = outputs.write(found)
    if outputs.on_stdout:
        pass
    elif isinstance(found, Report):
        print_report(found, timeline=True)
    else:
        print_matrix(found)
    raise typer.Exit((0 if found.good else 1) if written else NO_ANSWER)


def _report_reach(found: list[ReachReport], read: Sequence[tuple[str, object]], outputs: Outputs) -> NoReturn:
    """Report what `lab reach` found out.

    :raises InputError: there are other results as well, or they do not fit together.
    """
    from lab.cli.reach import print_reach
    from lab.results.reach_saved import joined

    if others := [name for name, one in read if one not in found]:
        raise InputError("no results of `lab reach`, and others are", source=others[0], cure="report them apart")
    try:
        told = joined(found)
    except ValueError as error:
        raise InputError(str(error), cure="report them apart") from None
    written = outputs.write_reach(told)
    if not outputs.on_stdout:
        print_reach(told)
    raise typer.Exit((0 if told.good else 1) if written else NO_ANSWER)


def _compare(results: Sequence[str], files: Files) -> None:
    from lab.results.changes import changes, same

    if any(vars(files).values()):
        raise InputError("--compare, and files of results", cure="it prints what changed; write files without it")
    if len(results) != 2:
        raise InputError(f"--compare takes two files, not {len(results)}", cure="the earlier one first")
    before, after = ((name, _trials(name)) for name in results)
    found = list(changes(before, after))
    screen = console()
    for words in found:
        tell(screen, words)
    count = same(before[1], after[1])
    tell(screen, f"{count} {'trial' if count == 1 else 'trials'} came out the same.")
    raise typer.Exit(1 if found else 0)


def _trials(name: str) -> Found:
    """Read a file of trials.

    :raises InputError: it cannot be read, or holds none.
    """
    from lab.results.reach import ReachReport

    found = _read(name)
    if isinstance(found, ReachReport):
        raise InputError("results of `lab reach` are not compared", source=name, cure="report both as one table")
    return found


def _read(name: str) -> Found | ReachReport:
    """Read a file of results.

    :raises InputError: it cannot be read, or holds none.
    """
    from lab.cli.packed import unpacked
    from lab.results import reach_saved
    from lab.results.saved import from_data, parsed

    source = "<stdin>" if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source=source) from None
    try:
        read = parsed(unpacked(data, source))
        return reach_saved.from_data(*read) if reach_saved.KEY in read[0] else from_data(*read)
    except (ValueError, RecursionError) as error:
        raise InputError(str(error), source=source) from None


def _stem(name: str) -> str:
    return Path(name).name.removesuffix(".gz").removesuffix(".zst").removesuffix(".json")


@app.command(
    short_help="Print the JSON Schema of what --json tells.",
    epilog=examples("lab schema", "lab schema result > result.schema.json", "lab schema explain"),
)
def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Of what; else the names are listed, each with the command that tells it.",
            autocompletion=complete(lambda: DOCUMENTS),
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of what a command tells programs by --json; that of topologies is by `lab topology schema`.

    Each document has a version, which changes where a program would notice. Members may come to it without that.
    """
    import json

    if name is None:
        width = max(map(len, DOCUMENTS))
        tell_all(f"{one:{width}}  {document.command}" for one, document in DOCUMENTS.items())
        return
    if name not in DOCUMENTS:
        raise InputError(f"there is no schema {name!r}", cure=nearest(name, list(DOCUMENTS)))
    print(json.dumps(schema_of(name), indent=2))
