# SPDX-License-Identifier: MIT
"""What changes in a lab that stays beside its endpoints: its Services, and whether its kube-proxies run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import JsonOption, KeepConntrackFlag, LabOption, app, complete, examples, host_names
from lab.cli.command import App
from lab.cli.documents import JsonPlace
from lab.cli.labs import tell_lag
from lab.cli.screen import tell_all
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.standing.control import ProxyWord, ServiceWord

services_app = App(help="Change the Services of a lab that stands, while traffic runs.")
app.add_typer(services_app, name="services")
proxy_app = App(help="Stop, start and restart the kube-proxy of a node of a lab that stands.")
app.add_typer(proxy_app, name="kube-proxy")

FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Services and EndpointSlices (or Endpoints), as kubectl prints or applies them; - for stdin.",
    ),
]
NodeArgument = Annotated[
    str, typer.Argument(metavar="NODE", help="A node of the lab.", autocompletion=complete(host_names))
]


@services_app.command(
    "list",
    short_help="List the Services of a lab that stands.",
    epilog=examples("lab services list", "lab services list --json"),
)
def services_list(lab: LabOption = None, json: JsonOption = None) -> None:
    """List the Services of a lab that stands: as its nodes' kube-proxies have them, but for those that are stopped."""
    from dataclasses import asdict

    from lab.standing.commands import choose
    from lab.standing.control import service_lines, services

    place = JsonPlace(json)
    found = services(choose(lab))
    place.write("services", lambda: {"services": [asdict(known) for known in found]})
    if not place.on_stdout:
        tell_all(service_lines(found))


@services_app.command(
    "add",
    short_help="Add Services that are not there yet.",
    epilog=examples("lab services add dns.yaml", "lab services add - --lab fixed < dns.yaml"),
)
def services_add(file: FileArgument, lab: LabOption = None, keep_conntrack: KeepConntrackFlag = False) -> None:
    """Add Services and EndpointSlices that are not there yet. Their endpoints are addresses of the lab's hosts.

    They answer at once, at the ports that they have there.
    """
    _put("add", file, lab, keep_conntrack)


@services_app.command(
    "apply",
    short_help="Add Services, or change those that are there.",
    epilog=examples("lab services apply web.yaml", "lab services apply web.yaml --keep-conntrack"),
)
def services_apply(file: FileArgument, lab: LabOption = None, keep_conntrack: KeepConntrackFlag = False) -> None:
    """Have Services and EndpointSlices as a file has them, each in the place of the one of its name."""
    _put("apply", file, lab, keep_conntrack)


@services_app.command(
    "remove",
    short_help="Take Services away, with their endpoints.",
    epilog=examples("lab services remove web", "lab services remove default/dns web", "lab services remove dns.yaml"),
)
def services_remove(
    names: Annotated[
        list[str],
        typer.Argument(metavar="SERVICE|FILE", help="A Service by its name or as namespace/name, or a file of some."),
    ],
    lab: LabOption = None,
    keep_conntrack: KeepConntrackFlag = False,
) -> None:
    """Take Services away, with their EndpointSlices: by name, or those that a file has."""
    from lab.standing.commands import choose
    from lab.standing.control import remove_services, service_lines

    chosen = choose(lab)
    gone = [name for given in names for name in _named(given)]
    tell_all(service_lines(remove_services(chosen, gone, clean_conntrack=not keep_conntrack)))
    tell_lag(chosen)


def _named(given: str) -> list[str]:
    """Return the Services that are meant by a word: those of a file, or the one of this name."""
    from lab.kubernetes.objects import Service

    if given != "-" and not given.endswith((".yaml", ".yml", ".json")):
        return [given]
    keys = [one.key for one in _objects(given) if isinstance(one, Service)]
    if not keys:
        raise InputError("there is no Service in it", source=given)
    return keys


def _put(word: ServiceWord, file: str, lab: str | None, keep_conntrack: bool) -> None:
    from lab.standing.commands import choose
    from lab.standing.control import put_services, service_lines

    chosen = choose(lab)
    objects = _objects(file)
    try:
        found = put_services(chosen, word, objects, clean_conntrack=not keep_conntrack)
    except InputError as error:
        raise InputError(error.message, source="<stdin>" if file == "-" else file) from None
    tell_all(service_lines(found))
    tell_lag(chosen)


def _objects(file: str) -> list[Service | EndpointSlice]:
    """Read Kubernetes objects.

    :raises InputError: with file, line and cure, for the first thing wrong.
    """
    from lab.topology.cluster import is_topology, read_services
    from lab.topology.model import Topology
    from lab.topology.reader import either_of, read

    text, source = read(file)
    if is_topology(text, source) and isinstance(either_of(text, source), Topology):
        raise InputError("is a topology", source=file, cure="give its Services and EndpointSlices alone")
    return read_services(text, source)


@proxy_app.command(
    "stop",
    short_help="Stop a node's kube-proxy: its rules lag from then on.",
    epilog=examples("lab kube-proxy stop node", "lab kube-proxy stop node-b --lab mine"),
)
def kube_proxy_stop(node: NodeArgument, lab: LabOption = None) -> None:
    """Stop a node's kube-proxy. Its rules stay, and no change of endpoints or Services comes to them.

    As on a node that has not synced yet: it sends clients to endpoints that are gone, and to none that are new.
    """
    _act("stop", node, lab)


@proxy_app.command(
    "start",
    short_help="Start a node's kube-proxy that was stopped.",
    epilog=examples("lab kube-proxy start node", "lab kube-proxy start node-b --lab mine"),
)
def kube_proxy_start(node: NodeArgument, lab: LabOption = None) -> None:
    """Start a node's kube-proxy that was stopped: it takes in all that has changed, and deletes UDP entries.

    Which ones is as its release has it, for which all Services are new.
    """
    _act("start", node, lab)


@proxy_app.command(
    "restart",
    short_help="Restart a node's kube-proxy.",
    epilog=examples("lab kube-proxy restart node", "lab kube-proxy restart node-b --lab mine"),
)
def kube_proxy_restart(node: NodeArgument, lab: LabOption = None) -> None:
    """Restart a node's kube-proxy: it sets its sysctls, and deletes UDP entries as its release does when it starts.

    Up to v1.31 those are all of its Services' (kubernetes #122740), from v1.32 on those that lead to no endpoint.
    """
    _act("restart", node, lab)


def _act(word: ProxyWord, node: str, lab: str | None) -> None:
    from lab.standing.commands import choose
    from lab.standing.control import change_kube_proxy

    chosen = choose(lab)
    deleted = change_kube_proxy(chosen, word, node)
    entries = (
        "" if deleted is None else f": it deleted {deleted} conntrack {'entry' if deleted == 1 else 'entries'} of UDP"
    )
    print(f"The kube-proxy of {node} {'is stopped' if word == 'stop' else 'runs'}{entries}.")
    tell_lag(chosen)
