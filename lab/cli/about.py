# SPDX-License-Identifier: MIT
"""`lab --version` and `lab help`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lab.cli.arguments import app, examples
from lab.cli.command import Group
from lab.errors import InputError


def _complete_command(context: typer.Context, incomplete: str) -> list[str]:
    """Complete a command, behind the name of a group one of the group's."""
    commands: Any = typer.main.get_command(app)
    for word in context.params.get("command") or ():
        commands = getattr(commands, "commands", {}).get(word)
    return [name for name in getattr(commands, "commands", ()) if name.startswith(incomplete)]


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
        typer.Argument(metavar="COMMAND", help="Which; else all are listed.", autocompletion=_complete_command),
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
