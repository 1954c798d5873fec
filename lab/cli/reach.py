# SPDX-License-Identifier: MIT
"""`lab reach`: does this client get through to this Service, by which endpoint, as which source?"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import (
    AnyFamilyOption,
    BackendOption,
    JsonFlag,
    NodeOption,
    ObjectsOption,
    Programs,
    Proxy,
    app,
    complete,
    complete_list,
    examples,
    fix_names,
    hosts_of,
    one_word,
    topology_names,
    version_names,
)
from lab.cli.command import at_least
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.objects import NodesOption, made_of, texts_of
from lab.cli.programs import with_programs
from lab.cli.screen import console, draw, steps, tell
from lab.errors import INTERRUPTED, NO_ANSWER, InputError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.kubeproxy.said import Settings
    from lab.results.reach import Reaches, ReachReport
    from lab.topology.model import Topology
    from lab.topology.node_change import NodeChange
    from lab.trial.reach import Chosen

_USUAL = "uplink"

_FromOption = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="HOST",
        help="Who asks; may be repeated. Else one host of each kind and place.",
        autocompletion=complete(hosts_of(_USUAL)),
    ),
]


class _To(StrEnum):
    VIP = "vip"
    NODE_PORT = "nodeport"
    LOAD_BALANCER = "loadbalancer"
    EXTERNAL_IP = "external-ip"
    LOCALHOST = "localhost"
    ENDPOINT = "endpoint"
    ALL = "all"


class _Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ALL = "all"


class _Modes(StrEnum):
    IPTABLES = "iptables"
    NFTABLES = "nftables"
    BOTH = "both"


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
        "lab reach services --proxy-mode both --html reach.html",
        "lab reach services --service ranges --from outside --trace",
        "lab reach services --kube-proxy ./kube-proxy --proxy-mode both",
    )
    + """

Exit code: 0 when each is as Kubernetes documents it for the nodes' kube-proxy, 1 when one is not, 2 where that is not
known: an error in what was given, a machine that ran out of something; 130 for Ctrl-C, 141 where whoever reads the
output has gone.""",
)
@with_settings(TOPOLOGYS)
def reach(
    *,
    topology: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TOPOLOGY",
            help=f"A topology by name or file, - for stdin. Else {_USUAL}. Or files of a cluster's objects, as kubectl"
            " prints them, of which one is made.",
            autocompletion=complete(topology_names),
            show_default=False,
        ),
    ] = None,
    from_: _FromOption = None,
    service: Annotated[
        str | None,
        typer.Option(metavar="SERVICE", help="Which Service is asked, instead of each: [NAMESPACE/]NAME[:PORT]."),
    ] = None,
    to: Annotated[_To, one_word(_To, "--to", "Which of its addresses.")] = _To.ALL,
    protocol: Annotated[_Protocol, one_word(_Protocol, "--protocol", "By which protocol.")] = _Protocol.ALL,
    family: AnyFamilyOption = None,
    proxy_mode: Annotated[
        _Modes | None, one_word(_Modes, "--proxy-mode", "kube-proxy's mode, instead of the topology's.")
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
    affinity: Annotated[
        bool, typer.Option("--affinity", help="Give the Services session affinity by the client's address.")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Have the kernel tell which rule decided about each question.")
    ] = False,
    json: JsonFlag = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write one HTML page: the answer, the tables, and each cell.")
    ] = None,
    settings: Settings,
) -> None:
    """Ask Services by real connections and datagrams: one client and one address a cell.

    Each cell says which endpoint answered and as whom it saw the client, or how it failed, and at which host.
    """
    from lab.cli.node import own_node
    from lab.cli.report_files import Outputs
    from lab.evidence.reach import Target
    from lab.netns import userns
    from lab.trial.fix_file import find_fix
    from lab.trial.reach import Chosen

    outputs = Outputs(json="-" if json else None, html=html)
    change = find_fix(fix).change
    is_kept = False
    versions = _versions(proxy_version)
    if node or objects:
        given = Proxy(None if proxy_mode is None else ProxyMode.IPTABLES, proxy_version, backend)
        if nodes:
            raise InputError("--nodes with a node's own rules", cure="leave one of them away")
        named = " ".join(topology or ()) or None
        own = own_node(node, objects, named, given, programs, settings, service=service, family=family)
        for note in own.notes:
            print(f"lab: {note}", file=sys.stderr)
        topologies, service = [own.topology], service or own.service
        family = family or own.families[0]
    else:
        base, is_kept = _base(topology or [_USUAL], nodes, service)
        family = family or _only_family(base)
        topologies = [
            made
            for one in with_programs(programs, settings)
            for made in _topologies(base, proxy_mode, versions, backend, one)
        ]
    chosen = Chosen(
        tuple(from_ or ()),
        service,
        () if to is _To.ALL else (Target(to),),
        () if protocol is _Protocol.ALL else (protocol.value,),
        repeat or 0,
    )
    userns.ensure()
    if not topologies:
        raise InputError("none of these kube-proxies has the mode", cure="take v1.29 or later")
    family = family or Family.IPV4
    found = _found(topologies, family, chosen, change, affinity=affinity, traced=trace)
    if is_kept and not (affinity or settings.said or settings.document):
        pairs = zip(found, topologies, strict=True)
        found = [replace(one, again=_again((topology or [_USUAL])[0], made, family, fix)) for one, made in pairs]
    told = _report(found)
    written = outputs.write_reach(told)
    if not outputs.on_stdout:
        print_reach(told)
    raise typer.Exit((0 if told.good else 1) if written else NO_ANSWER)


def _base(references: list[str], nodes: list[str] | None, service: str | None) -> tuple[Topology, bool]:
    """Return what is asked, and whether other commands have it by its name: it was no objects.

    :raises InputError: several topologies, or one with nodes besides.
    """
    from lab.topology.cluster import is_topology
    from lab.topology.reader import parse

    texts = texts_of(references)
    known = [(text, source) for text, source in texts if is_topology(text, source)]
    if not known:
        return made_of(texts, nodes, service).topology, False
    source = known[0][1]
    if len(texts) > 1:
        raise InputError("a topology among several files", source=source, cure="give it alone")
    if nodes:
        raise InputError("a topology, and --nodes", source=source, cure="--nodes is for objects: leave it away")
    return parse(*known[0]), True


def _only_family(topology: Topology) -> Family | None:
    """Return the family of all cluster IPs; None where there are both, or none."""
    addresses = {ip for one in topology.services for ip in one.spec.all_cluster_ips if ip != "None"}
    families = {Family.IPV6 if ":" in ip else Family.IPV4 for ip in addresses}
    return families.pop() if len(families) == 1 else None


def _versions(given: str | None) -> list[str | None]:
    """Return the versions that a list with commas names; of none, what a topology says.

    :raises InputError: the list is there, and empty.
    """
    named: list[str | None] = [one.strip() for one in (given or "").split(",") if one.strip()]
    if given is not None and not named:
        raise InputError(f"--proxy-version {given!r} names none", cure="write v1.20,v1.36")
    return named or [None]


def _topologies(
    place: Topology, modes: _Modes | None, versions: Sequence[str | None], backend: Backend | None, settings: Settings
) -> Iterator[Topology]:
    """Yield the topology with each kube-proxy that is asked for; a version without a mode is told and left out.

    :raises InputError: the one version does not have the mode, or is not known.
    """
    from lab.topology.with_settings import with_proxy

    wanted: list[ProxyMode | None] = list(ProxyMode) if modes is _Modes.BOTH else [ProxyMode(modes) if modes else None]
    own = settings.program.version if settings.program else None
    pairs = [(mode, version) for mode in wanted for version in versions]
    having = [(mode, one) for mode, one in pairs if mode is None or _has(one or own, mode)]
    for mode, version in pairs:
        if (mode, version) not in having:
            left = f"kube-proxy {version or own} has no {mode} mode"
            if not having and len(pairs) == 1:
                raise InputError(left, cure="take v1.29 or later")
            print(f"lab: {left}: left out", file=sys.stderr)
    for mode, version in having:
        chosen = None if mode is ProxyMode.NFTABLES and modes is _Modes.BOTH else backend
        yield with_proxy(place, mode, version, chosen, settings)


def _has(version: str | None, mode: ProxyMode) -> bool:
    from lab.kubeproxy.releases import find_release

    return version is None or find_release(version).has_mode(mode)


def _found(
    topologies: Sequence[Topology],
    family: Family,
    chosen: Chosen,
    change: NodeChange,
    *,
    affinity: bool,
    traced: bool,
) -> list[Reaches]:
    from lab.trial.reach import reach as asked
    from lab.trial.reach import with_affinity

    found = []
    try:
        with steps() as step:
            for number, topology in enumerate(topologies, 1):
                step(f"asking in {topology.name}, {number} of {len(topologies)}")
                place = with_affinity(topology) if affinity else topology
                found.append(asked(place, family, chosen, change, traced=traced))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    return found


def _again(reference: str, topology: Topology, family: Family, fix: str) -> str:
    """Return the options by which another command has the same lab; empty where a program or a setting has a say."""
    node = topology.nodes[0] if topology.nodes else None
    if node is None or node.program is not None or reference == "-":
        return ""
    options = {"--topology": reference, "--proxy-mode": node.proxy_mode, "--proxy-version": node.proxy_version}
    options |= {"--family": family if family is not Family.IPV4 else None, "--fix": fix if fix != "none" else None}
    options |= {"--backend": node.backend if node.backend is not Backend.NFT else None}
    return " ".join(f"{option} {shlex.quote(str(value))}" for option, value in options.items() if value)


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
