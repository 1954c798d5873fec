# SPDX-License-Identifier: MIT
"""`lab --version` and `lab help`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.arguments import app, complete, examples
from lab.cli.command import Group
from lab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable


def command_names() -> Iterable[str]:
    """List the commands, for completion."""
    group: Any = typer.main.get_command(app)
    return list(group.commands)


def _print_version(asked: bool) -> None:
    if asked:
        from lab import __version__

        print(f"kube-proxy-lab {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Reproduce, explain and judge kube-proxy's and conntrack's subtleties on the kernel in front of you."""


@app.command("help", short_help="Show the help of a command.", epilog=examples("lab help run", "lab help kernels run"))
def help_(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="Which; else all are listed.", autocompletion=complete(command_names)),
    ] = None,
) -> None:
    """Show the help of a command, as its --help does."""
    shown = context.find_root()
    for word in command or ():
        if not isinstance(shown.command, Group):
            raise InputError(f"`{shown.command_path}` is one command", cure=f"leave {word!r} away")
        name, found, _rest = shown.command.resolve_command(shown, [word])
        shown = found.make_context(name, [], parent=shown, resilient_parsing=True)
    print(shown.get_help())
