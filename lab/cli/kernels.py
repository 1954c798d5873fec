# SPDX-License-Identifier: MIT
"""`lab kernels`: other kernels than the one that runs."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import JsonOption, app, complete, examples
from lab.cli.command import App, at_least, program_words
from lab.cli.documents import JsonPlace
from lab.cli.screen import steps, tell_all
from lab.errors import INTERRUPTED, NO_ANSWER, InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.kernels import Cache

kernels_app = App(help="Other kernels: list and fetch them, run a command in a guest.")
app.add_typer(kernels_app, name="kernels")


def kernel_names() -> Iterable[str]:
    """List names of kernels, for completion."""
    from lab.kernels import Cache
    from lab.kernels.find import NEWEST, RUNNING, cached

    there = [release for release, _version, _directory in cached(Cache.default())]
    return [NEWEST, RUNNING, "5.10", "6.1", "6.12", "6.18", *there]


CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", envvar="LAB_KERNELS_CACHE", metavar="DIRECTORY", help="Where kernels and images are kept.",
        show_default="kube-proxy-lab/kernels in the user's cache directory",
    ),
]  # fmt: skip


def _cache(directory: Path | None) -> Cache:
    from lab.kernels import Cache

    return Cache(directory.absolute()) if directory else Cache.default()


@kernels_app.command(
    "list",
    short_help="List the kernels that can be had.",
    epilog=examples("lab kernels list", "lab kernels list --json"),
)
def list_(cache: CacheOption = None, json: JsonOption = None) -> None:
    """List the newest kernel of each series in Debian's archive, what is in the cache, and the one that runs."""
    from lab.kernels.stock import lines, take_stock

    place = JsonPlace(json)
    with steps() as say:
        say("asking Debian's archive for its kernels")
        stock = take_stock(_cache(cache))
    for trouble in stock.trouble:
        print(f"lab: {trouble}", file=sys.stderr)
    place.write("kernels", lambda: asdict(stock))
    if not place.on_stdout:
        tell_all(lines(stock))


@kernels_app.command(
    short_help="Fetch kernels from Debian's archive.",
    epilog=examples("lab kernels fetch 5.10 6.1 newest", "lab kernels fetch 6.12.118"),
)
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="KERNEL", help="A series, a version, or newest.", autocompletion=complete(kernel_names)),
    ],
    cache: CacheOption = None,
) -> None:
    """Fetch the newest kernels of these names, as the archive has them now, and check them by its signature."""
    from lab.kernels.find import fetch as fetch_all

    for kernel in fetch_all(names, _cache(cache)):
        print(f"{kernel.name}: Linux {kernel.version}, {kernel.release}")


@kernels_app.command(
    "run",
    short_help="Run a command on another kernel, in a guest.",
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "lab kernels run 5.10 -- lab run --no-timeline",
        "lab kernels run newest -- pytest tests/conntrack",
        "lab kernels run --results out 6.1 -- sh -c 'lab run --json $LAB_RESULTS/result.json'",
        "lab kernels run ~/linux/arch/x86/boot/bzImage:/tmp/lib/modules/7.4.0 -- lab run",
    )
    + """

The command runs as root from a copy of the current checkout, with nothing to write to but memory and the directory
LAB_RESULTS. Exit code: the command's own; 2 when the guest failed, and for an error in what was given.""",
)
def run(
    kernel: Annotated[
        str,
        typer.Argument(
            metavar="KERNEL",
            help="A series, a version, newest, running, VMLINUZ, VMLINUZ:MODULES or a .deb.",
            autocompletion=complete(kernel_names),
        ),
    ],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run there, with its words.")],
    results: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Where to put what the command left in LAB_RESULTS.")
    ] = None,
    limit: Annotated[
        float, typer.Option(metavar="SECONDS", parser=at_least(1.0), help="How long the guest may take.")
    ] = 600,
    memory: Annotated[int, typer.Option(metavar="MIB", parser=at_least(128), help="The guest's memory.")] = 512,
    cpus: Annotated[int, typer.Option(metavar="N", parser=at_least(1), help="The guest's processors.")] = 1,
    cache: CacheOption = None,
) -> None:
    """Boot a guest with another kernel, run a command there, and bring back its output and its results."""
    import asyncio
    from shutil import get_terminal_size

    from lab.cli.report_files import put
    from lab.kernels import make_image, resolve
    from lab.kernels.guest import run_until_interrupted

    if results is not None and results.exists() and not results.is_dir():
        raise InputError("--results wants a directory", source=results)
    # What is printed there is read here. A mistake is told before anything is fetched.
    columns = f"COLUMNS={get_terminal_size().columns}"
    words = ["env", columns, *program_words(command, "KERNEL")]
    kept = _cache(cache)
    chosen = resolve(kernel, kept)
    image = make_image(chosen, kept)
    try:
        done = asyncio.run(run_until_interrupted(chosen, words, image=image, limit=limit, memory=memory, cpus=cpus))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None
    print(done.output, end="")
    if results is not None:
        for name, data in done.files.items():
            path = results / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                put(path, data)
            except OSError as error:
                raise OutputError(str(path), error) from None
    if done.failure:
        failure = done.with_cure("--limit")
        print(done.console, f"lab: the guest with Linux {chosen.version}: {failure}", sep="\n", file=sys.stderr)
    raise typer.Exit(NO_ANSWER if done.failure or done.exit_code is None else done.exit_code)
