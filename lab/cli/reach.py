# SPDX-License-Identifier: MIT
"""`lab reach`: does this client get through to this Service, by which endpoint, as which source?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lab.cli.arguments import (
    AnyFamilyOption,
    BackendOption,
    JsonOption,
    NodeOption,
    ObjectsOption,
    Programs,
    app,
    complete,
    complete_list,
    examples,
    fix_names,
    hosts_of,
    lab_names,
    refuse_beside_lab,
    topology_names,
    version_names,
)
from lab.cli.command import at_least, words_of
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.objects import NodesOption
from lab.cli.reach_places import BOTH, USUAL, Place
from lab.cli.screen import console, draw, steps, tell
from lab.errors import NO_ANSWER, InputError, nearest
from lab.evidence.reach import PROTOCOLS, Target
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.said import Settings
    from lab.results.reach import Reaches, ReachReport
    from lab.trial.reach import Chosen


_FromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="HOST",
        help="Who asks; may be repeated. Else one host of each kind and place.",
        autocompletion=complete(hosts_of(USUAL)),
    ),
]


_EVERY: Final = "all"


def _word(words: Iterable[str], option: str, meaning: str) -> Any:  # noqa: ANN401 - as typer's Option is
    """Return an option whose value is one of a few words, which it stays."""
    known = list(words)

    def read(given: str) -> str:
        if given in known:
            return str(given)
        raise typer.BadParameter(f"there is no {given!r} ({nearest(given, known)})")

    return typer.Option(
        option, metavar=words_of(known), parser=read, help=meaning, autocompletion=complete(lambda: known)
    )


@app.command(
    cls=CommandWithSettings,
    short_help="Ask Services by real connections: who answers, as whom it sees the client, or where it stops.",
    epilog=examples(
        "lab reach",
        "lab reach services --from outside --to nodeport",
        "lab reach mine.yaml --service shop/web --protocol udp",
        "lab reach services --proxy-version v1.20,v1.31,v1.36 --proxy-mode both",
        "lab reach endpoints --to vip --repeat 90",
        "lab reach objects.yaml --nodes nodes.yaml --service shop/web",
        "lab reach --node iptables-save.txt",
        "lab reach --lab kube-proxy --from client",
        "lab reach services --proxy-mode both --html reach.html",
        "lab reach services --service ranges --from outside --trace",
        "lab reach services --kube-proxy ./kube-proxy --proxy-mode both",
    )
    + """

Exit code: 0 when each is as Kubernetes documents it for the nodes' kube-proxy, or nobody says what is to become of it,
1 when one is not, 2 where that is not known: an error in what was given, a machine that ran out of something; 130 for
Ctrl-C, 141 where whoever reads the output has gone.""",
)
@with_settings(TOPOLOGYS)
def reach(
    *,
    topology: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TOPOLOGY",
            help=f"A topology by name or file, - for stdin. Else {USUAL}. Or files of a cluster's objects, as kubectl"
            " prints them, of which one is made.",
            autocompletion=complete(topology_names),
            show_default=False,
        ),
    ] = None,
    topology_: Annotated[
        list[str] | None,
        typer.Option(
            "--topology",
            metavar="TOPOLOGY",
            help="The same, as other commands have it.",
            autocompletion=complete(topology_names),
        ),
    ] = None,
    from_: _FromOption = None,
    service: Annotated[
        str | None,
        typer.Option(metavar="SERVICE", help="Which Service is asked, instead of each: [NAMESPACE/]NAME[:PORT]."),
    ] = None,
    to: Annotated[str, _word([*Target, _EVERY], "--to", "Which of its addresses.")] = _EVERY,
    protocol: Annotated[str, _word([*PROTOCOLS, _EVERY], "--protocol", "By which protocol.")] = _EVERY,
    family: AnyFamilyOption = None,
    proxy_mode: Annotated[
        str | None, _word([*ProxyMode, BOTH], "--proxy-mode", "kube-proxy's mode, instead of the topology's.")
    ] = None,
    proxy_version: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION,...",
            help="Whose rules, such as v1.14, v1.33.6 or v1.33.6-gke.1, instead of the topology's.",
            autocompletion=complete_list(version_names),
        ),
    ] = None,
    backend: BackendOption = None,
    programs: Programs,
    nodes: NodesOption = None,
    fix: Annotated[
        str, typer.Option(metavar="FIX", help="A fix from `lab list`, or a file.", autocompletion=complete(fix_names))
    ] = "none",
    node: NodeOption = None,
    objects: ObjectsOption = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=at_least(1),
            help="Ask N times each, and count. Else as often as it takes to hear of every endpoint.",
            show_default=False,
        ),
    ] = None,
    lab: Annotated[
        str | None,
        typer.Option(
            "--lab", metavar="NAME", help="Ask in a lab that stands, as it is now.", autocompletion=complete(lab_names)
        ),
    ] = None,
    affinity: Annotated[
        bool, typer.Option("--affinity", help="Give the Services session affinity by the client's address.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Have the kernel tell which rule decided about each question.")
    ] = False,
    json: JsonOption = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write one HTML page: the answer, the tables, and each cell.")
    ] = None,
    settings: Settings,
) -> None:
    """Ask Services by real connections and datagrams: one client and one address a cell.

    Each cell says which endpoint answered and as whom it saw the client, or how it failed, and at which host.
    """
    from lab.cli.report_files import Outputs
    from lab.trial.reach import Chosen

    outputs = Outputs(json=json, html=html)
    if topology and topology_:
        raise InputError("a topology as argument, and by --topology", cure="leave one of them away")
    references = topology or topology_
    chosen = Chosen(
        tuple(from_ or ()),
        service,
        () if to == _EVERY else (Target(to),),
        () if protocol == _EVERY else (protocol,),
        repeat or 0,
    )
    if lab is not None:
        its = {
            "a topology": references,
            "--node": node,
            "--objects": objects,
            "--nodes": nodes,
            "--fix": fix != "none",
            "--proxy-mode": proxy_mode,
            "--proxy-version": proxy_version,
            "--backend": backend,
            "--kube-proxy": programs.kube_proxy,
            "--affinity": affinity,
            "kube-proxy's settings": settings.said or settings.document,
        }
        refuse_beside_lab([name for name, given in its.items() if given])
        found = _standing(lab, family, chosen, traced=trace)
    else:
        place = Place(references, nodes, node, objects, proxy_mode, proxy_version, backend, programs, fix, settings)
        found = place.ask(chosen, family, affinity=affinity, traced=trace)
    told = _report(found)
    written = outputs.write_reach(told)
    if not outputs.on_stdout:
        print_reach(told)
    raise typer.Exit((0 if told.good else 1) if written else NO_ANSWER)


def _standing(name: str, family: Family | None, chosen: Chosen, *, traced: bool) -> list[Reaches]:
    from lab.standing import control
    from lab.standing.commands import choose

    found = choose(name)
    with steps() as step:
        step(f"asking in the lab {found.name}")
        return [replace(control.reach(found, family, chosen, traced=traced), again=f"--lab {found.name}")]


def _report(found: Sequence[Reaches]) -> ReachReport:
    from platform import release

    from lab import __version__
    from lab.cli.report_files import stamped
    from lab.results.reach import ReachReport

    return stamped(ReachReport(__version__, release(), tuple(found)))


def print_reach(told: ReachReport) -> None:
    """Print what was found out: the tables, and what is not as expected."""
    from lab.report.reach import lines, tables

    screen, found = console(), told.reaches
    first = found[0]
    proxies = first.proxies if len(found) == 1 else f"{len(found)} kube-proxies"
    tell(screen, f"{first.topology}, {proxies}, {first.family}")
    draw(screen, lambda _width: tables(found))
    for line in lines(found):
        tell(screen, line)
