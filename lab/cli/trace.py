# SPDX-License-Identifier: MIT
"""`lab trace`: the rules that a trial's packets meet, as the kernel tells it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import (
    AnyFamilyOption,
    JsonFlag,
    NodeOption,
    ObjectsOption,
    Proxy,
    ServiceOption,
    app,
    case_names,
    complete,
    examples,
    fix_names,
    topology_names,
)
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.screen import console
from lab.errors import INTERRUPTED
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubeproxy.said import Settings
    from lab.results.result import Result
    from lab.trial.setting import Setting


@app.command(
    cls=CommandWithSettings,
    short_help="Show which rules a trial's packets meet, one by one.",
    epilog=examples(
        "lab trace beyond-window",
        "lab trace beyond-window --fix drop-forward --proxy-mode nftables",
        "lab trace beyond-window --node iptables-save.txt --full",
        "lab trace service-cidr-late --json > walks.json",
    )
    + """

Exit code: 0 when the trial gave what is expected and its packets were traced, 1 when not, 2 where nobody knows.""",
)
@with_settings(TOPOLOGYS)
def trace(
    *,
    case: Annotated[
        str,
        typer.Argument(metavar="CASE", help="A case from `lab list`.", autocompletion=complete(case_names)),
    ],
    fix: Annotated[
        str,
        typer.Option(metavar="FIX", help="A fix from `lab list`, or a file.", autocompletion=complete(fix_names)),
    ] = "none",
    topology: Annotated[
        str | None,
        typer.Option(
            metavar="TOPOLOGY",
            help="A topology by name or file, - for stdin. Else the case's own.",
            autocompletion=complete(topology_names),
        ),
    ] = None,
    node: NodeOption = None,
    objects: ObjectsOption = None,
    service: ServiceOption = None,
    family: AnyFamilyOption = None,
    proxy: Proxy,
    full: Annotated[
        bool, typer.Option("--full", help="Also rules that did not match, and chains that led to nothing.")
    ] = False,
    json: JsonFlag = False,
    settings: Settings,
) -> None:
    """Run one trial, and show the walk of its packets through the nodes' rules: the handshake, the judged one, resets.

    Hook by hook and rule by rule as the kernel tells it, in either mode: kube-proxy's rules and everybody else's.
    """
    from lab.cases import find
    from lab.cli.node import own_node
    from lab.topology.reader import load
    from lab.trial import batch
    from lab.trial.fix_file import find_fix

    place = None if topology is None else load(topology)
    if node or objects:
        own = own_node(node, objects, topology, proxy, settings, service=service, family=family)
        place, service, proxy, family = own.topology, own.service, replace(proxy, backend=None), own.families[0]
        for note in own.notes:
            print(f"lab: {note}", file=sys.stderr)
    chosen = (proxy.proxy_mode, proxy.proxy_version, proxy.backend)
    wanted = ([find(case)], [find_fix(fix)], place, family or Family.IPV4, chosen, service)
    selection = batch.select(*wanted, settings=settings)
    for remark in selection.remarks:
        print(f"lab: {remark}", file=sys.stderr)
    [setting] = selection.settings
    result = _run(replace(setting, traced=True))
    if json:
        print(_json(result))
    else:
        _print(result, full=full)
    raise typer.Exit(0 if result.as_expected and not result.timeline.untraced else 1)


def _run(setting: Setting) -> Result:
    import asyncio

    from lab.netns import interrupt, userns
    from lab.trial import probe, runner

    async def run() -> Result:
        with interrupt.cancels_task():
            return await runner.run(setting, await probe.ask(setting.family))

    userns.ensure()
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


def _print(result: Result, *, full: bool) -> None:
    from lab.report import terminal
    from lab.report.decided import decided
    from lab.report.walks import drawn, untraced

    screen, timeline = console(), result.timeline
    screen.print(terminal.heading(result), soft_wrap=True)
    for line in (*drawn(timeline.walks, full=full), *untraced(timeline)):
        screen.print(line, soft_wrap=True)
    for words in decided(timeline):
        screen.print(words, soft_wrap=True)
    for words in result.verdict.disagreements:
        screen.print(words, style="bold red", soft_wrap=True)


def _json(result: Result) -> str:
    from pydantic import TypeAdapter

    told = {
        "trial": result.trial,
        "verdict": result.verdict,
        "walks": result.timeline.walks,
        "untraced": result.timeline.untraced,
    }
    return TypeAdapter(dict[str, object]).dump_json(told, indent=2).decode()
