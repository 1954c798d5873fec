# SPDX-License-Identifier: MIT
"""`lab reach`: does this client get through to this Service, by which endpoint, as which source?"""

from __future__ import annotations

import sys
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
    read_topology,
    topology_names,
    version_names,
)
from lab.cli.command import at_least
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.screen import console, draw, steps
from lab.errors import InputError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.kubeproxy.said import Settings
    from lab.results.reach import Reaches
    from lab.topology.model import Topology
    from lab.topology.node_change import NodeChange
    from lab.trial.reach import Chosen

_USUAL = "uplink"


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
        "lab reach --node iptables-save.txt",
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
        str | None,
        typer.Argument(
            metavar="TOPOLOGY",
            help=f"A topology by name or file, - for stdin. Else {_USUAL}.",
            autocompletion=complete(topology_names),
            show_default=False,
        ),
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="HOST",
            help="Who asks; may be repeated. Else one host of each kind and place.",
            autocompletion=complete(hosts_of(_USUAL)),
        ),
    ] = None,
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
    json: JsonFlag = False,
    settings: Settings,
) -> None:
    """Ask Services by real connections and datagrams: one client and one address a cell.

    Each cell says which endpoint answered and as whom it saw the client, or how it failed, and at which host.
    """
    from lab.cli.node import own_node
    from lab.evidence.reach import Target
    from lab.netns import userns
    from lab.trial.fix_file import find_fix
    from lab.trial.reach import Chosen

    change = find_fix(fix).change
    versions: list[str | None] = [one.strip() for one in (proxy_version or "").split(",") if one.strip()]
    if node or objects:
        given = Proxy(None if proxy_mode is None else ProxyMode.IPTABLES, proxy_version, backend)
        own = own_node(node, objects, topology, given, Programs(), settings, service=service, family=family)
        for note in own.notes:
            print(f"lab: {note}", file=sys.stderr)
        topologies, service = [own.topology], service or own.service
        family = family or own.families[0]
    else:
        topologies = list(_topologies(topology or _USUAL, proxy_mode, versions or [None], backend, settings))
    chosen = Chosen(
        tuple(from_ or ()),
        service,
        () if to is _To.ALL else (Target(to),),
        () if protocol is _Protocol.ALL else (protocol.value,),
        repeat or 0,
    )
    userns.ensure()
    found = _found(topologies, family or Family.IPV4, chosen, change, affinity=affinity)
    if json:
        from json import dumps

        print(dumps([one.as_data() for one in found], indent=2))
    else:
        _print(found)
    raise typer.Exit(0 if all(one.good for one in found) else 1)


def _topologies(
    reference: str, modes: _Modes | None, versions: Sequence[str | None], backend: Backend | None, settings: Settings
) -> Iterator[Topology]:
    """Yield the topology with each kube-proxy that is asked for; a version without a mode is told and left out.

    :raises InputError: there is none of this name, or none of the versions has the mode.
    """
    from lab.kubeproxy.releases import find_release

    wanted: list[ProxyMode | None] = list(ProxyMode) if modes is _Modes.BOTH else [ProxyMode(modes) if modes else None]
    pairs = [(mode, version) for mode in wanted for version in versions]
    lacking = [(mode, one) for mode, one in pairs if mode and one and not find_release(one).has_mode(mode)]
    if lacking == pairs:
        raise InputError(f"kube-proxy {lacking[0][1]} has no {lacking[0][0]} mode", cure="take v1.29 or later")
    for without, one in lacking:
        print(f"lab: kube-proxy {one} has no {without} mode: left out", file=sys.stderr)
    for mode, version in pairs:
        if (mode, version) not in lacking:
            chosen = None if mode is ProxyMode.NFTABLES and modes is _Modes.BOTH else backend
            yield read_topology(reference, Proxy(mode, version, chosen), settings)


def _found(
    topologies: Sequence[Topology],
    family: Family,
    chosen: Chosen,
    change: NodeChange,
    *,
    affinity: bool,
) -> list[Reaches]:
    from lab.trial.reach import reach as asked
    from lab.trial.reach import with_affinity

    found = []
    with steps() as step:
        for number, topology in enumerate(topologies, 1):
            step(f"asking in {topology.name}, {number} of {len(topologies)}")
            found.append(asked(with_affinity(topology) if affinity else topology, family, chosen, change))
    return found


def _print(found: Sequence[Reaches]) -> None:
    from lab.report.reach import lines, tables

    screen = console()
    first = found[0]
    proxies = first.proxies if len(found) == 1 else f"{len(found)} kube-proxies"
    screen.print(f"{first.topology}, {proxies}, {first.family}", soft_wrap=True)
    draw(screen, lambda _width: tables(found))
    for line in lines(found):
        screen.print(line, soft_wrap=True)
