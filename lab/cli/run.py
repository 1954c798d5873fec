# SPDX-License-Identifier: MIT
"""`lab run`, `lab list`, `lab show`: the catalogue, tried and told."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import (
    AnyFamilyOption,
    Files,
    JobsOption,
    JsonOption,
    NodeOption,
    ObjectsOption,
    Programs,
    Proxy,
    Selected,
    ServiceOption,
    app,
    case_names,
    chosen,
    complete,
    examples,
    service_option,
    topology_names,
)
from lab.cli.documents import JsonPlace
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.programs import with_programs
from lab.cli.screen import console, draw, tell, tell_all
from lab.errors import INTERRUPTED, NO_ANSWER, InputError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.said import Settings
    from lab.results.matrix import Matrix
    from lab.results.result import Report
    from lab.topology.model import Topology
    from lab.trial.batch import Selection
    from lab.trial.setting import Setting
    from lab.trial.shared import SharedLabs


@app.command(
    cls=CommandWithSettings,
    short_help="Break real connections and judge what this kernel makes of it.",
    epilog=examples(
        "lab run",
        "lab run beyond-window --fix none --family ipv6",
        "lab run --proxy-mode nftables --json result.json",
        "lab run --topology mine.yaml --service shop/web",
        "lab run --node iptables-save.txt",
        "ssh node sudo iptables-save | lab run --node -",
        "lab run --html run.html --pcapng run.pcapng",
        "lab run beyond-window --trace",
        "lab run --kube-proxy ./kube-proxy --proxy-mode nftables",
        "lab run --all --no-timeline",
        "lab run beyond-window --repeat 1000 --no-timeline",
    )
    + """

Exit code: 0 when every trial gave what this kernel is expected to give, 1 when one did not or could not be run,
2 where that is not known or not written: an error in what was given, a machine that ran out of something;
130 for Ctrl-C, 141 where whoever reads the output has gone.""",
)
@with_settings(TOPOLOGYS)
def run(
    *,
    selected: Selected,
    topology: Annotated[
        str | None,
        typer.Option(
            metavar="TOPOLOGY",
            help="A topology by name or file, - for stdin. Else each case's own: kube-proxy for most.",
            autocompletion=complete(topology_names),
        ),
    ] = None,
    node: NodeOption = None,
    objects: ObjectsOption = None,
    service: ServiceOption = None,
    family: AnyFamilyOption = None,
    proxy: Proxy,
    programs: Programs,
    jobs: JobsOption = None,
    files: Files,
    trace: Annotated[
        bool, typer.Option("--trace", help="Have the kernel tell which rules decided. With --node it always does.")
    ] = False,
    timeline: Annotated[
        bool | None,
        typer.Option(
            "--timeline/--no-timeline",
            help="Print the packets of the first trial, and of those not as expected; or leave them away.",
            show_default=False,
        ),
    ] = None,
    settings: Settings,
) -> None:
    """Break real connections on purpose, each in a lab of its own, and judge what this kernel makes of it."""
    from lab.cli.node import own_node, trials
    from lab.cli.report_files import Outputs
    from lab.topology.reader import load

    files.check()
    paths = vars(files)
    if timeline and "-" in paths.values():
        raise InputError("--timeline, and results on stdout", cure="leave it away: nothing else is printed")
    chosen_programs = with_programs(programs, settings)
    if node or objects:
        own = own_node(node, objects, topology, proxy, programs, settings, service=service, family=family)
        outputs = Outputs(**paths)
        if jobs is not None:
            print("lab: --jobs is for labs of the lab's own: trials on a real node share one", file=sys.stderr)
        report = trials(
            own,
            selected,
            (family,) if family else own.families,
            partial(_run, repeat=selected.repeat, jobs=1),
            partial(_print_answer, quiet=outputs.on_stdout),
        )
        reports, timeline = [report], bool(timeline)
    else:
        family = family or Family.IPV4
        place = None if topology is None else load(topology)
        selections = [_select(selected, place, family, proxy, service, one) for one in chosen_programs]
        outputs = Outputs(**paths)
        for remark in dict.fromkeys(remark for selection in selections for remark in selection.remarks):
            print(f"lab: {remark}", file=sys.stderr)
        tried = ([replace(one, traced=trace) for one in selection.settings] for selection in selections)
        reports = [_run(one, family, selected.repeat, jobs) for one in tried]
    found = _kept(chosen_programs, reports)
    written = outputs.write(found)
    if not outputs.on_stdout:
        _print(found, timeline=timeline)
        if selected.all_ and not selected.slow:
            tell_all([_left_out()])
    raise typer.Exit((0 if found.good else 1) if written else NO_ANSWER)


def _kept(programs: Sequence[Settings], reports: Sequence[Report]) -> Report | Matrix:
    """Return what was found, with when and how, and keep what came of its trials for `lab show`."""
    from lab.cli.report_files import stamped
    from lab.results.history import remember

    made = [stamped(one) for one in reports]
    for report in made:
        if trouble := remember(report):
            print(f"lab: not kept for `lab show`: {trouble}", file=sys.stderr)
    return made[0] if len(made) == 1 else stamped(_side_by_side(programs, made))


def _select(
    selected: Selected, place: Topology | None, family: Family, proxy: Proxy, service: str | None, settings: Settings
) -> Selection:
    from lab.trial import batch
    from lab.trial.fix_file import find_fix

    with service_option():
        return batch.select(
            selected.chosen_cases(),
            selected.chosen_fixes(find_fix),
            place,
            family,
            (proxy.proxy_mode, proxy.proxy_version, proxy.backend),
            service,
            settings=settings,
            named=bool(selected.cases),
        )


def _side_by_side(programs: Sequence[Settings], reports: Sequence[Report]) -> Matrix:
    from lab.results.matrix import side_by_side

    names = [one.program.label if one.program else "" for one in programs]
    return side_by_side(list(zip(names, reports, strict=True)))


def _print(found: Report | Matrix, *, timeline: bool | None) -> None:
    from lab.results.matrix import Matrix

    if isinstance(found, Matrix):
        from lab.cli.matrix import print_matrix

        print_matrix(found)
    else:
        print_report(found, timeline=timeline is not False)


def _left_out() -> str:
    from lab.cases import CASES

    count = sum(case.slow for case in CASES.values())
    return f"left out: {count} slow {'case' if count == 1 else 'cases'}; --slow runs {'it' if count == 1 else 'them'}"


def _print_answer(report: Report, *, quiet: bool) -> None:
    """Print what is known of a node of the user's own before everything else is."""
    from lab.report.own_node import answer
    from lab.report.table import sentences

    for sentence in sentences(answer(report)) if not quiet else ():
        tell(console(), sentence)
    sys.stdout.flush()  # whoever reads a pipe wants it now as well


def _run(
    settings: Sequence[Setting], family: Family, repeat: int, jobs: int | None, labs: SharedLabs | None = None
) -> Report:
    import asyncio

    from lab.netns import userns
    from lab.trial import batch, workers

    userns.ensure()
    try:
        count, most = len(settings) * repeat, jobs or workers.processors()
        with workers.started(settings, count, most, labs) as runner:
            return asyncio.run(batch.run(settings, family, repeat, runner))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def print_report(report: Report, *, timeline: bool, standing: bool = False) -> None:
    """Print a report.

    :param timeline: with the packets of the first trial, and of those not as expected.
    :param standing: it is of a lab that stands.
    """
    from rich.text import Text

    from lab.report import table, terminal
    from lab.report.advice import advice
    from lab.report.closing import afterwards, preface, remarks
    from lab.report.own_node import effects, remedies
    from lab.report.timeline import timeline_lines
    from lab.results.matrix import alone

    matrix = alone(report)
    screen = console()
    first = next((tally.sample for tally in report.tallies if tally.sample is not None), None)
    if timeline and first is not None:
        tell(screen, terminal.heading(first))
        for line in timeline_lines(first.timeline):
            tell(screen, line)
        screen.print()
        for line in table.timelines(matrix, but=first):
            tell(screen, line)
    is_own = first is not None and bool(first.trial.given)
    for sentence in table.sentences([*effects(report), *remedies(report)] if is_own else []):
        tell(screen, sentence)
    for words in preface(matrix):
        tell(screen, Text(words))
    draw(screen, partial(terminal.tables, report.tallies, brief=is_own))
    for sentence in table.sentences(afterwards(matrix) if is_own else remarks(matrix)):
        tell(screen, sentence)
    by_programs = first is not None and bool(first.trial.program)
    told = advice(programs=by_programs, standing=standing) if first is not None and not is_own else ()
    for words in told:  # it is about the lab's nodes
        tell(screen, words)


@app.command(
    "list",
    short_help="List cases, fixes and topologies.",
    epilog=examples("lab list", "lab list --json", "lab list --md > catalogue.md"),
)
def list_(
    json: JsonOption = None,
    md: Annotated[
        bool, typer.Option("--md", help="Print what is expected of every case with every fix, as tables in Markdown.")
    ] = False,
) -> None:
    """List the cases by what they are about, the fixes and the topologies that come along, each in a line."""
    if json is not None and md:
        raise InputError("--json and --md", cure="one form a call")
    if md:
        from lab.cli.catalogue_markdown import markdown

        print(*markdown(), sep="\n")
        return
    from lab.cli import listed

    place = JsonPlace(json)
    place.write("list", lambda: asdict(listed.catalogue()))
    if not place.on_stdout:
        tell_all(listed.lines())


@app.command(
    short_help="Show a case's story, what is expected of it, and what came of it.",
    epilog=examples(
        "lab show beyond-window",
        "lab show ack-above ack-below",
        "lab show retried --json",
        "lab show --reasons",
    ),
)
def show(
    cases: Annotated[
        list[str] | None,
        typer.Argument(metavar="CASE", help="Cases from `lab list`.", autocompletion=complete(case_names)),
    ] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Show every reason that conntrack can give instead, and what it means.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Show a case's story, where people met it, and what is expected of it by kernel behaviour and fix.

    And what came of it when it was run last on this machine, with each fix: `lab run` keeps that below $XDG_STATE_HOME.
    """
    if reasons:
        from lab.cli.reasons import show_reasons

        show_reasons(cases or [], json=json)
        return
    from lab.cases import find
    from lab.results.history import recall

    if not cases:
        raise InputError("there is no case", cure="name one of `lab list`, or give --reasons")
    found = [(case, recall(case.name)) for case in chosen(cases, find, ())]
    place = JsonPlace(json)
    from lab.cli.catalogue import shown, story

    place.write("show", lambda: {"cases": [asdict(shown(case, last)) for case, last in found]})
    if place.on_stdout:
        return
    from rich.text import Text

    screen = console()
    for case, last in found:
        if (case, last) != found[0]:
            screen.print()
        for part in story(case, last):
            if isinstance(part, Text):
                tell(screen, part)
            else:
                draw(screen, lambda _width, table=part: [table])  # type: ignore[misc]
