# SPDX-License-Identifier: MIT
"""`lab matrix`: the same trials on several kernels."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import FamilyOption, Files, Proxy, Selected, app, complete_list, examples
from lab.cli.command import at_least
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.screen import console, draw, tell
from lab.errors import INTERRUPTED, NO_ANSWER, InputError, MissingError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.kernels.cluster import Cluster
    from lab.kernels.on_kernel import Trials
    from lab.kubeproxy.said import Settings
    from lab.results.matrix import Matrix

_MEMORY = 512  # MiB
_KERNELS = "5.10,6.1,6.12,6.18,newest"


def _kernel_names() -> Iterable[str]:
    """List the kernels that can be had, for completion."""
    from lab.cli.kernels import kernel_names

    return kernel_names()


@dataclass(frozen=True)
class Guests:
    """Options that say where guests run, and what they have."""

    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            parser=at_least(1),
            help="How many guests at a time; else one for each processor.",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Boot them on a Dask cluster's workers instead, such as tcp://10.0.0.1:8786."
        ),
    ] = None
    memory: Annotated[
        int | None,
        typer.Option(metavar="MIB", parser=at_least(128), help=f"What each guest has; else {_MEMORY}."),
    ] = None
    limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=at_least(1.0),
            help="How long a guest may take; else as long as so many trials may need on a busy machine.",
        ),
    ] = None

    def check(self, kernels: Sequence[str]) -> None:
        """Check that there is a guest which these options are for.

        :raises InputError: there is none.
        """
        from lab.kernels.on_kernel import RUNNING

        of_guests = {"--jobs": self.jobs, "--scheduler": self.scheduler, "--memory": self.memory}
        unused = [option for option, value in of_guests.items() if value is not None]
        if kernels == [RUNNING] and unused:
            cure = "leave it away, or name another kernel"
            raise InputError(f"{unused[0]} is for guests, and {RUNNING} is none", cure=cure)


@app.command(
    cls=CommandWithSettings,
    short_help="Run the same trials on several kernels, and put them into one table.",
    epilog=examples(
        "lab matrix",
        "lab matrix --kernels 5.10,6.12,running --html matrix.html",
        "lab matrix upstream-regression --kernels 5.10,newest --fix none --family ipv6",
        "lab matrix --all --md matrix.md --json matrix.json --jobs 4",
        "lab matrix --scheduler tcp://10.0.0.1:8786",
    )
    + """

Exit code: 0 when every trial gave what its kernel is expected to give, 1 when one did not or a kernel gave no results,
2 where that is not known or not written: an error in what was given, a machine that ran out of something;
130 for Ctrl-C, 141 where whoever reads the output has gone.""",
)
@with_settings(TOPOLOGYS)
def matrix(
    *,
    selected: Selected,
    kernels: Annotated[
        str,
        typer.Option(
            metavar="KERNEL,...",
            help="As `lab kernels` knows them: a series, newest, a version, a file; or running, this machine's own.",
            autocompletion=complete_list(_kernel_names),
        ),
    ] = _KERNELS,
    family: FamilyOption = Family.IPV4,
    proxy: Proxy,
    guests: Guests,
    files: Files,
    settings: Settings,
) -> None:
    """Run the same trials on several kernels, each booted in a guest of its own, and say what differs between them."""
    from lab.cli.report_files import Outputs, stamped
    from lab.kernels.on_kernel import Trials
    from lab.trial import batch

    names = list(dict.fromkeys(filter(None, (name.strip() for name in kernels.split(",")))))
    if not names:
        raise InputError("--kernels names none", cure=f"such as {_KERNELS}")
    guests.check(names)
    choice = (proxy.proxy_mode or settings.mode, proxy.proxy_version, proxy.backend)
    cases, fixes = selected.chosen_cases(), selected.chosen_fixes()
    # What every guest would refuse is refused here, and what a file says is read here.
    selection = batch.select(cases, fixes[:1], None, family, choice, settings=settings)
    for remark in selection.remarks:
        print(f"lab: {remark}", file=sys.stderr)
    options = [f"--family={family}", f"--repeat={selected.repeat}", *(f"--fix={one.name}" for one in fixes)]
    choices = zip(("--proxy-mode", "--proxy-version", "--backend"), choice, strict=True)
    options += [f"{option}={chosen}" for option, chosen in choices if chosen is not None]
    options += dict.fromkeys(said for setting in selection.settings for said in setting.said)
    files.check()
    outputs = Outputs(**vars(files))
    memory = guests.memory or _MEMORY
    per_case = len(fixes) * selected.repeat
    trials = Trials(tuple(case.name for case in cases), tuple(options), guests.limit, memory, per_case)
    found = stamped(_run(names, trials, guests.jobs or os.cpu_count() or 1, guests.scheduler))
    written = outputs.write(found)
    if not outputs.on_stdout:
        print_matrix(found)
    raise typer.Exit((0 if found.good else 1) if written else NO_ANSWER)


def _run(names: list[str], trials: Trials, jobs: int, scheduler: str | None) -> Matrix:
    import asyncio
    import contextlib

    from lab.kernels.sweep import ThisMachine, run

    try:
        with ThisMachine(jobs) as machine, contextlib.ExitStack() as stack:
            guests = stack.enter_context(_cluster(scheduler)) if scheduler else machine
            # Where there is room for more guests than kernels, several share a kernel's trials.
            return run(names, trials, machine, guests, _say, shares=max(1, guests.room // len(names)))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def _cluster(address: str) -> Cluster:
    try:
        from lab.kernels.cluster import Cluster
    except ImportError:
        raise MissingError("distributed is not installed", "pip install 'kube-proxy-lab[cluster]'") from None
    return Cluster(address)


def _say(kernel: str, what: str) -> None:
    print(f"lab: {kernel}: {what}", file=sys.stderr, flush=True)


def print_matrix(found: Matrix) -> None:
    """Print a table with a column a kernel or a program, and what it means."""
    from rich.text import Text

    from lab.report import table
    from lab.report.closing import preface

    screen = console()
    for words in preface(found):
        tell(screen, Text(words))
    draw(screen, partial(table.tables, found))
    for line in (*table.timelines(found), *table.lines(found)):
        tell(screen, line)
