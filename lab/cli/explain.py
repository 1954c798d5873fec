# SPDX-License-Identifier: MIT
"""`lab explain`: captures, listings and logs of the user's own, and what they tell."""

from __future__ import annotations

import contextlib
import gc
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lab.cli.arguments import JsonOption, app, complete, examples
from lab.cli.documents import JsonPlace
from lab.cli.progress import Progress, Told
from lab.cli.replaying import check_names, notes, replayed
from lab.cli.screen import console, steps
from lab.errors import InputError, LabError
from lab.vocabulary import Behaviour

if TYPE_CHECKING:
    from lab.capture.explanation import Explanation
    from lab.capture.replayed import Replayed
    from lab.reasons import Release

#: The first release that ignores late packets (:class:`lab.vocabulary.Behaviour`).
_IGNORES_LATE_FROM: Final = (6, 1)


def _usual_kernels() -> Iterable[str]:
    """List a kernel of each kind, for completion."""
    return ("5.10", "6.1")


@app.command(
    short_help="Explain captures, conntrack listings and kernel logs of your own: INVALID packets, leaks, resets.",
    epilog=examples(
        "lab explain capture.pcap",
        "lab explain client-side.pcapng server-side.pcapng.gz --kernel 5.10",
        "tcpdump -i any -w - tcp port 80 | lab explain -",
        "dmesg | lab explain -",
        "lab explain capture.pcap conntrack-L.txt dmesg.txt",
        "lab explain capture.pcap --json > explained.json",
        "lab explain capture.pcap --replay",
    )
    + """

Exit code: 0 when nothing is wrong with any connection, 1 when something is, 2 where that is not known: a file that is
nothing of the kind.""",
)
def explain(
    *,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Captures (pcap, pcapng), or text: of tcpdump, of conntrack -L, -E or -S, of the kernel's log; within"
            " gzip, xz or zstd too. - for stdin.",
        ),
    ],
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel",
            metavar="RELEASE",
            help="The node's kernel, such as 5.10 or `uname -r` says; else 6.1 or later.",
            autocompletion=complete(_usual_kernels),
        ),
    ] = None,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Send the connections of which conntrack did not like a packet once more, through a lab's node on this"
            " kernel, and tell its judgement of each segment beside the model's.",
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Explain what happened in captures: which packets conntrack called INVALID, and what came of it.

    Several files are of the same time, such as captures of both sides of a node, and what conntrack listed and the
    kernel logged there. What a file is, is told by what is in it. Packets are named by their numbers. Every reason
    that conntrack logs is in `lab show --reasons`.
    """
    from lab.capture.explain import explain as explained
    from lab.capture.reader import Reader
    from lab.capture.text import Text, is_text
    from lab.report.explained import lines

    gc.disable()  # nothing becomes free before the end, and looking for it takes a quarter of the time
    place = JsonPlace(json)
    release = None if kernel is None else _release(kernel)
    behaviour = Behaviour.IGNORES_LATE if release is None else _judges(release)
    if len(set(files)) < len(files):
        raise InputError("the same file twice", cure="name each once")
    if replay:
        check_names(files)
    with contextlib.ExitStack() as opened:
        progress = Progress(opened.enter_context(steps()))
        readers, texts = [], []
        for name in files:
            stream = opened.enter_context(_opened(name, progress))
            called = "<stdin>" if name == "-" else name
            if is_text(stream):
                texts.append(Text(stream, called))
            else:
                readers.append(Reader(stream, called))
        told = explained(readers, behaviour, texts, assumed=release is None, release=release)
    gc.freeze()  # or Python would look through all of it once more at its end
    again: list[Replayed] = []
    unsent: LabError | None = None
    if replay:
        try:
            again = replayed(told, [reader.name for reader in readers], texts, _opened)
        except LabError as error:
            unsent = error
    place.write("explain", lambda: _as_data(told, again if replay else None))
    if not place.on_stdout:
        from rich.control import strip_control_codes

        width = console().width
        for words in (
            *lines(told, assumed=kernel is None, replayed=again),
            *(notes(told, again) if replay and unsent is None else ()),
        ):
            further = " " * (len(words) - len(words.lstrip(" *>")))
            filled = textwrap.fill(words, width, subsequent_indent=further, break_on_hyphens=False)
            print(strip_control_codes(filled))
    if unsent is not None:
        raise LabError(f"not replayed: {unsent}") from unsent
    raise typer.Exit(1 if told.found else 0)


def behaviour_of(kernel: str) -> Behaviour:
    """Return how a kernel judges.

    :raises InputError: it is no release.
    """
    return _judges(_release(kernel))


def _release(kernel: str) -> Release:
    found = re.match(r"v?(\d+)\.(\d+)(?!\d)", kernel)
    if found is None:
        raise InputError(f"--kernel: {kernel!r} is no release", cure="such as 5.10, or what `uname -r` says there")
    return int(found[1]), int(found[2])


def _judges(release: Release) -> Behaviour:
    return Behaviour.IGNORES_LATE if release >= _IGNORES_LATE_FROM else Behaviour.STRICT


def _opened(name: str, progress: Progress) -> io.BufferedReader:
    """Return a file to read from.

    :raises InputError: it cannot be read.
    """
    from lab.capture.frames import BUFFER

    try:
        file = Told(0 if name == "-" else name, closefd=name != "-")
        file.tell_to(progress)
        stream: io.BufferedReader = io.BufferedReader(file, BUFFER)
        stream.peek(1)  # what cannot be read at all is told here, by its name
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source="<stdin>" if name == "-" else name) from None
    return stream


def _as_data(told: Explanation, again: Sequence[Replayed] | None) -> dict[str, object]:
    data = asdict(told)
    if again is not None:
        data["replayed"] = [{**asdict(one), "differs": one.differs} for one in again]
    return data
