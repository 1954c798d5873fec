# SPDX-License-Identifier: MIT
"""`lab matrix`: the same trials on several kernels."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import (
    AllFlag,
    BackendOption,
    CasesArgument,
    FamilyOption,
    FixOption,
    HtmlOption,
    JunitOption,
    MarkdownOption,
    ModeOption,
    RepeatOption,
    ResultsOption,
    SlowFlag,
    VersionOption,
    app,
    chosen,
    chosen_cases,
    console,
    draw,
    examples,
)
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.errors import INTERRUPTED, NO_ANSWER, InputError, MissingError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kernels.cluster import Cluster
    from lab.kernels.on_kernel import Trials
    from lab.kubeproxy.said import Settings
    from lab.results.matrix import Matrix

_MEMORY = 512  # MiB
_KERNELS = "5.10,6.1,6.12,6.18,newest"


def _complete_kernels(incomplete: str) -> list[str]:
    """Complete the last name of a list with commas."""
    from lab.cli.kernels import kernel_names

    before, comma, last = incomplete.rpartition(",")
    names = [name for name in kernel_names() if name not in before.split(",")]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


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
    cases: CasesArgument = None,
    kernels: Annotated[
        str,
        typer.Option(
            metavar="KERNEL,...",
            help="As `lab kernels` knows them: a series, newest, a version, a file; or running, this machine's own.",
            autocompletion=_complete_kernels,
        ),
    ] = _KERNELS,
    fix: FixOption = None,
    proxy_mode: ModeOption = None,
    proxy_version: VersionOption = None,
    backend: BackendOption = None,
    family: FamilyOption = Family.IPV4,
    all_: AllFlag = False,
    slow: SlowFlag = False,
    repeat: RepeatOption = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many guests at a time; else one for each processor.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Boot them on a Dask cluster's workers instead, such as tcp://10.0.0.1:8786."
        ),
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=128, metavar="MIB", help="What each guest has.", show_default=str(_MEMORY))
    ] = None,
    limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long a guest may take for its trials.")
    ] = 1800,
    json: ResultsOption = None,
    html: HtmlOption = None,
    junit: JunitOption = None,
    md: MarkdownOption = None,
    *,
    settings: Settings,
) -> None:
    """Run the same trials on several kernels, each booted in a guest of its own, and say what differs between them."""
    from lab import fixes
    from lab.cli.report_files import Outputs
    from lab.kernels.on_kernel import RUNNING, Trials
    from lab.trial import batch

    names = list(dict.fromkeys(filter(None, (name.strip() for name in kernels.split(",")))))
    if not names:
        raise InputError("--kernels names none", cure=f"such as {_KERNELS}")
    of_guests = {"--jobs": jobs, "--scheduler": scheduler, "--memory": memory}
    unused = [option for option, value in of_guests.items() if value is not None]
    if names == [RUNNING] and unused:
        raise InputError(
            f"{unused[0]} is for guests, and {RUNNING} is none", cure="leave it away, or name another kernel"
        )
    proxy = (proxy_mode or settings.mode, proxy_version, backend)
    wanted = chosen_cases(cases, all_=all_, slow=slow)
    fixed = chosen(fix, fixes.find, fixes.FIXES.values() if all_ else fixes.DEFAULT_FIXES)
    # What every guest would refuse is refused here, and what a file says is read here.
    selection = batch.select(wanted, fixed[:1], None, family, proxy, settings=settings)
    for remark in selection.remarks:
        print(f"lab: {remark}", file=sys.stderr)
    options = [f"--family={family}", f"--repeat={repeat}", *(f"--fix={one.name}" for one in fixed)]
    choices = zip(("--proxy-mode", "--proxy-version", "--backend"), proxy, strict=True)
    options += [f"{option}={choice}" for option, choice in choices if choice is not None]
    options += dict.fromkeys(said for setting in selection.settings for said in setting.said)
    outputs = Outputs(json=json, html=html, junit=junit, md=md)
    trials = Trials(tuple(case.name for case in wanted), tuple(options), limit, memory or _MEMORY)
    found = _run(names, trials, jobs or os.cpu_count() or 1, scheduler)
    written = outputs.write(found)
    if not outputs.on_stdout:
        _print(found)
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


def _print(found: Matrix) -> None:
    from lab.report import table
    from lab.report.closing import preface

    screen = console()
    for words in preface(found):
        screen.print(words, soft_wrap=True)
    draw(screen, partial(table.tables, found))
    for line in (*table.timelines(found), *table.lines(found)):
        screen.print(line, soft_wrap=True)
