# SPDX-License-Identifier: MIT
"""Labs that stay: build, enter, change and end them; and what this machine has for one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lab.cli.arguments import (
    AddressArgument,
    HostArgument,
    JsonOption,
    KeepConntrackFlag,
    LabOption,
    Programs,
    Proxy,
    ServiceArgument,
    app,
    complete,
    examples,
    fix_names,
    lab_names,
    one_word,
    read_topology,
    topology_names,
)
from lab.cli.command import App, program_words
from lab.cli.documents import JsonPlace
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.programs import with_program
from lab.cli.screen import steps, tell_all
from lab.errors import NO_ANSWER, InputError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.kubeproxy.said import Settings
    from lab.standing.control import Word
    from lab.standing.record import StandingLab

_AFFECTED: Final = 3  # exit code

endpoints_app = App(help="Change the endpoints of a lab that stands, while traffic runs.")
app.add_typer(endpoints_app, name="endpoints")


@app.command(
    cls=CommandWithSettings,
    short_help="Build a lab that stays until `lab down`.",
    epilog=examples(
        "lab up kube-proxy",
        "lab up kube-proxy --name fixed --fix drop-forward",
        "lab up kube-proxy --kube-proxy ./kube-proxy --proxy-mode nftables -- --v=4",
    ),
)
@with_settings(TOPOLOGYS)
def up(
    *,
    topology: Annotated[
        str,
        typer.Argument(
            metavar="TOPOLOGY",
            help="A topology by name or file, - for stdin.",
            autocompletion=complete(topology_names),
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The lab's name, instead of the topology's.")] = None,
    fix: Annotated[
        str, typer.Option(metavar="FIX", help="A fix from `lab list`.", autocompletion=complete(fix_names))
    ] = "none",
    family: Annotated[
        Family | None,
        one_word(Family, "--family", "Build one address family, not both."),
    ] = None,
    proxy: Proxy,
    programs: Programs,
    settings: Settings,
) -> None:
    """Build a lab that stays until `lab down`, with servers at its endpoints and names for `ip netns`.

    It needs root.
    """
    from lab.fixes import find
    from lab.standing.up import suggestions
    from lab.standing.up import up as build
    from lab.topology.kube_proxy import topology_notes

    built = read_topology(topology, proxy, with_program(programs, settings))
    for note in dict.fromkeys(note for one in Family if family in (None, one) for note in topology_notes(built, one)):
        print(f"lab: {note}", file=sys.stderr, flush=True)  # before the words of the owner
    lab = build(built, name=name, family=family, fix=find(fix).name)
    print(f"The lab {lab.name} stands, owned by process {lab.owner}. Try:")
    for command in suggestions(built, lab, family):
        print(f"  {command}")


@app.command(short_help="List the labs that stand.", epilog=examples("lab status", "lab status --json"))
def status(json: JsonOption = None) -> None:
    """List the labs that stand, with their hosts, and those whose owner is dead."""
    from lab.standing.commands import status_lines, told
    from lab.standing.record import labs

    place = JsonPlace(json)
    found = labs()
    place.write("status", lambda: {"labs": [asdict(told(one)) for one in found]})
    if not place.on_stdout:
        tell_all(status_lines(found))


@app.command(
    "exec",
    short_help="Run a program in a host of a lab that stands.",
    context_settings={"allow_interspersed_args": False},
    epilog=examples("lab exec client -- curl http://192.168.0.2", "lab exec --lab fixed node -- ip address"),
)
def exec_(
    host: HostArgument,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run there, with its words.")],
    lab: LabOption = None,
) -> None:
    """Run a program in a host of a lab that stands; its exit code is passed on.

    Besides: 127 where there is no such program, 126 where it cannot be executed, 2 for another error.
    """
    from lab.standing.commands import choose, enter

    chosen = choose(lab)
    enter(chosen, chosen.host(host), program_words(command, "HOST"))


@app.command(
    short_help="Open a shell in a host of a lab that stands.",
    epilog=examples("lab shell node", "lab shell --lab fixed client"),
)
def shell(host: HostArgument, lab: LabOption = None) -> None:
    """Open a shell in a host of a lab that stands; its prompt names the host."""
    from lab.standing.commands import choose
    from lab.standing.commands import shell as open_shell

    chosen = choose(lab)
    open_shell(chosen, chosen.host(host))


@app.command(short_help="End a lab that stands.", epilog=examples("lab down", "lab down fixed", "lab down --all"))
def down(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Which lab, where several stand.", autocompletion=complete(lab_names)),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every lab that stands.")] = False,
) -> None:
    """End a lab that stands, or remove what one with a dead owner has left."""
    from lab.standing.commands import choose
    from lab.standing.commands import down as end
    from lab.standing.record import labs

    if all_ and name is not None:
        raise InputError("a name and --all", cure="give one of them")
    for lab in labs() if all_ else (choose(name),):
        end(lab)
        print(f"The lab {lab.name} is gone.")


@endpoints_app.command(
    "list",
    short_help="List the endpoints of a lab that stands.",
    epilog=examples("lab endpoints list", "lab endpoints list --json"),
)
def endpoints_list(lab: LabOption = None, json: JsonOption = None) -> None:
    """List the endpoints of a lab that stands: ready, draining (on their way out, but serving), unready."""
    from lab.standing.commands import choose
    from lab.standing.control import endpoints, lines

    place = JsonPlace(json)
    found = endpoints(choose(lab))
    place.write("endpoints", lambda: {"endpoints": [asdict(known) for known in found]})
    if not place.on_stdout:
        tell_all(lines(found))


@endpoints_app.command(
    "add",
    short_help="Add a ready endpoint to a Service.",
    epilog=examples("lab endpoints add web 10.0.1.2", "lab endpoints add default/web fd00:10:0:1::2 --lab fixed"),
)
def endpoints_add(
    service: ServiceArgument, address: AddressArgument, lab: LabOption = None, keep_conntrack: KeepConntrackFlag = False
) -> None:
    """Add a ready endpoint to a Service, or make one ready again that drains.

    Every pod of the lab answers at the Service's ports, so any may become an endpoint.
    """
    _change_endpoints("add", service, address, lab, keep_conntrack)


@endpoints_app.command(
    "remove",
    short_help="Take an endpoint away.",
    epilog=examples("lab endpoints remove web 10.0.1.2", "lab endpoints remove dns 10.0.1.2 --keep-conntrack"),
)
def endpoints_remove(
    service: ServiceArgument, address: AddressArgument, lab: LabOption = None, keep_conntrack: KeepConntrackFlag = False
) -> None:
    """Take an endpoint away from a Service: nothing new goes there, and what is connected goes on."""
    _change_endpoints("remove", service, address, lab, keep_conntrack)


@endpoints_app.command(
    "drain", short_help="Have an endpoint on its way out.", epilog=examples("lab endpoints drain web 10.0.1.2")
)
def endpoints_drain(
    service: ServiceArgument, address: AddressArgument, lab: LabOption = None, keep_conntrack: KeepConntrackFlag = False
) -> None:
    """Mark an endpoint as Kubernetes marks that of a pod on its way out: terminating, not ready, but serving.

    What is connected goes on; new connections come only while no endpoint of the Service is ready.
    """
    _change_endpoints("drain", service, address, lab, keep_conntrack)


def _change_endpoints(word: Word, service: str, address: str, lab: str | None, keep_conntrack: bool) -> None:
    from lab.standing.commands import choose
    from lab.standing.control import change, lines

    chosen = choose(lab)
    tell_all(lines(change(chosen, word, service, address, clean_conntrack=not keep_conntrack)))
    tell_lag(chosen)


def tell_lag(lab: StandingLab) -> None:
    """Tell of nodes to which a change did not come."""
    from lab.standing.commands import lag

    for words in lag(lab):
        print(f"lab: {words}", file=sys.stderr)


@app.command(
    short_help="Report whether this machine is an affected node, and what it lacks for a lab.",
    epilog=examples("lab doctor", "lab doctor --all", "sudo lab doctor --exit-code; test $? = 3 && echo affected")
    + """

Exit code: 0 when a lab can run here, 1 when something necessary is missing. With --exit-code 0 when this machine is
not affected, 3 when it is, 2 when that is not known.""",
)
def doctor(
    all_: Annotated[bool, typer.Option("--all", help="List what is well, too.")] = False,
    json: JsonOption = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 where this machine is an affected node.")
    ] = False,
) -> None:
    """Report whether this machine is itself a node with the bug, and what it has and lacks for a lab.

    Nothing is changed. Only root can read a node's rules.
    """
    from lab.doctor.exposure import Exposure
    from lab.doctor.machine import examine, lines

    place = JsonPlace(json)
    with steps() as say:
        say("examining this machine")
        diagnosis = examine()
    place.write("doctor", lambda: {"ready": diagnosis.ready, **asdict(diagnosis)})
    if not place.on_stdout:
        tell_all(lines(diagnosis, every=all_))
    if exit_code:
        codes = {Exposure.AFFECTED: _AFFECTED, Exposure.UNKNOWN: NO_ANSWER}
        raise typer.Exit(codes.get(diagnosis.exposure, 0))
    raise typer.Exit(0 if diagnosis.ready else 1)
