# SPDX-License-Identifier: MIT
"""What is done inside a lab that stays: look at its packets and entries."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import LabOption, app, complete, examples, host_names
from lab.cli.output import STDOUT
from lab.errors import InputError, OutputError, ReaderGoneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.standing.live import Output


@app.command(
    short_help="Write what passes a lab that stands, live, for Wireshark.",
    epilog=examples(
        "lab capture web.pcapng", "lab capture | wireshark -k -i -", "lab capture --lab fixed --host node | tshark -r -"
    )
    + """

Exit code: 0 at Ctrl-C and when the lab ends; the file is whole then. 141 when the reader of a pipe has gone.""",
)
def capture(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to, as pcapng; - for standard output.", show_default=False)
    ] = "-",
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="This host alone; may be repeated.", autocompletion=complete(host_names)),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Write every packet at every interface of every host, live, until Ctrl-C.

    Each interface is named by its host, as in node:client, and times are in nanoseconds.
    """
    from lab import __version__
    from lab.standing.commands import choose
    from lab.standing.live import LiveCapture

    chosen = choose(lab)
    hosts = [chosen.host(name) for name in dict.fromkeys(host)] if host else chosen.hosts
    with closing(LiveCapture(chosen, hosts, __version__)) as live, _opened(file) as output:
        told = f"{live.interfaces} interfaces of the lab {chosen.name}"
        print(f"lab: capturing at {told}; Ctrl-C ends it", file=sys.stderr, flush=True)
        live.write_to(output)
        missed = f", and {lost} that the kernel could not hand over" if (lost := live.lost()) else ""
        print(f"lab: {live.packets} packets{missed}", file=sys.stderr)


@contextmanager
def _opened(place: str) -> Iterator[Output]:
    """Open where a capture goes.

    :raises InputError: it is a terminal, or cannot be opened.
    :raises OutputError: by the block: it can no longer be written.
    :raises ReaderGoneError: likewise: whoever read it has gone.
    """
    if place == "-":
        if sys.stdout.isatty():
            cure = "name a file, or pipe it: `lab capture | wireshark -k -i -`"
            raise InputError(f"a capture is no text, and {STDOUT} is a terminal", cure=cure)
        yield sys.stdout.buffer
        return
    try:
        file = open(place, "wb")  # noqa: SIM115 - what the block raises is told otherwise
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror}") from None
    try:
        with file:
            yield file
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise OutputError(place, error) from None
