# SPDX-License-Identifier: MIT
"""What is done inside a lab that stays: try cases, look at its packets and at its entries."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli.arguments import (
    HostArgument,
    JsonOption,
    LabOption,
    ServiceOption,
    app,
    case_names,
    complete,
    examples,
    host_names,
    lab_names,
    one_word,
    service_option,
)
from lab.cli.command import App, at_least
from lab.cli.documents import JsonPlace
from lab.cli.output import STDOUT
from lab.cli.screen import steps, tell_all
from lab.errors import InputError, OutputError, ReaderGoneError
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.conntrack.flows import Flows
    from lab.standing.live import Output
    from lab.standing.record import StandingLab

conntrack_app = App(help="List, create and delete the conntrack entries of a host of a lab that stands.")
app.add_typer(conntrack_app, name="conntrack")

ProtocolOption = Annotated[
    str | None, typer.Option("--protocol", metavar="PROTOCOL", help="Of this protocol: tcp, udp, icmp, icmpv6, sctp.")
]
SourceOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS", help="Whose first packet came from this ADDRESS or ADDRESS:PORT.", show_default=False
    ),
]
DestinationOption = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Whose first packet went to this ADDRESS or ADDRESS:PORT, as its client sent it.",
        show_default=False,
    ),
]


@app.command(
    short_help="Try a case in a lab that stands.",
    epilog=examples(
        "lab inject beyond-window",
        "lab inject beyond-window --lab fixed --family ipv6",
        "lab inject beyond-window --connection client",
    )
    + """

Exit code: 0 when it gave what this kernel is expected to give, 1 when it did not or could not be run to its end, 2 for
an error in what was given, and where no connection comes about in that lab to try it on.""",
)
def inject(
    case: Annotated[
        str, typer.Argument(metavar="CASE", help="A case from `lab list`.", autocompletion=complete(case_names))
    ],
    lab: LabOption = None,
    family: Annotated[
        Family | None, one_word(Family, "--family", "The address family.", default="the first that the lab has")
    ] = None,
    service: ServiceOption = None,
    connection: Annotated[
        str | None,
        typer.Option(
            metavar="CLIENT",
            help="On a connection that somebody has open: by its client's name or address, with :PORT where it has"
            " several; or `only`, where there is one.",
        ),
    ] = None,
) -> None:
    """Play a case's packet into a lab that stands, on a connection of its own, and print what came of it.

    The lab's own servers and everybody's connections go on, and what the case changes is taken back: look at it with
    `lab capture` or tcpdump meanwhile. What others send there meanwhile stands in the timeline too.

    With --connection it is played into one that somebody has open (`nc` in another terminal), whose numbers are read
    off its sockets; nothing else touches it, and the case must be about one packet.
    """
    from lab.cases import find
    from lab.cli.run import print_report
    from lab.standing import control
    from lab.standing.commands import choose

    name = find(case).name
    if connection == "":
        raise InputError("--connection names none", cure="write a host or an address, with or without :PORT, or only")
    if connection is not None and (family or service):
        raise InputError("--connection besides --family or --service", cure="leave these away: it has both")
    chosen = choose(lab)
    with steps() as say, service_option():
        say(f"trying {name} in the lab {chosen.name}")
        report, remarks = control.inject(chosen, name, family, service, connection)
    for remark in remarks:
        print(f"lab: {remark}", file=sys.stderr)
    print_report(report, timeline=True, standing=True)
    raise typer.Exit(0 if report.good else 1)


@app.command(
    short_help="Write what passes a lab that stands, live, for Wireshark.",
    epilog=examples(
        "lab capture web.pcapng",
        "lab capture | wireshark -k -i -",
        "lab capture fixed --host node | tshark -r -",
        "lab capture fixed web.pcapng",
    )
    + """

Exit code: 0 at Ctrl-C and when the lab ends; the file is whole then. 141 when the reader of a pipe has gone.""",
)
def capture(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Which lab, where several stand. A word with a '.' or a '/' is the FILE.",
            show_default=False,
            autocompletion=complete(lab_names),
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Where to, as pcapng; - for standard output, as without one."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="This host alone; may be repeated.", autocompletion=complete(host_names)),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Write every packet at every interface of every host, live, until Ctrl-C.

    Each interface is named by its host, as in node:client, and times are in nanoseconds.
    """
    from lab import __version__
    from lab.standing.live import LiveCapture

    chosen, place = _captured(name, file, lab)
    hosts = [chosen.host(name) for name in dict.fromkeys(host)] if host else chosen.hosts
    with closing(LiveCapture(chosen, hosts, __version__)) as live:
        try:
            with opened_output(place) as output:
                into = "" if place == "-" else f" into {place}"
                told = f"{live.interfaces} interfaces of the lab {chosen.name}{into}"
                print(f"lab: capturing at {told}; Ctrl-C ends it", file=sys.stderr, flush=True)
                live.write_to(output)
        except OutputError:
            print(f"lab: {live.packets} packets, as far as it was written", file=sys.stderr)
            raise
        missed = f", and {lost} that the kernel could not hand over" if (lost := live.lost()) else ""
        print(f"lab: {live.packets} packets{missed}", file=sys.stderr)


def _captured(name: str | None, file: str | None, lab: str | None) -> tuple[StandingLab, str]:
    """Return which lab is meant, and where its packets go; a file is told by what no lab's name has.

    :raises InputError: no lab is meant, or more than one.
    :raises MissingError: the caller is not root.
    """
    from lab.standing.commands import choose

    if name is None or (file is None and (name == "-" or "." in name or "/" in name)):
        return choose(lab), name or "-"
    as_file = f"for a file {name}.pcapng or ./{name}"
    if lab is not None:
        raise InputError(f"a lab by {name!r} and by --lab {lab!r}", cure=f"name it once; {as_file}")
    try:
        return choose(name), file or "-"
    except InputError as error:
        if file is not None:
            raise
        raise InputError(error.message, cure="; ".join(filter(None, (error.cure, as_file)))) from None


@contextmanager
def opened_output(place: str) -> Iterator[Output]:
    """Open where a capture goes.

    :raises InputError: it is a terminal, or cannot be opened.
    :raises OutputError: by the block: it can no longer be written.
    :raises ReaderGoneError: likewise: whoever read it has gone.
    """
    from lab.cli.growing import Growing

    target: str | int = place
    if place == "-":
        if sys.stdout.isatty():
            cure = "name a file, or pipe it: `lab capture | wireshark -k -i -`"
            raise InputError(f"a capture is no text, and {STDOUT} is a terminal", cure=cure)
        place, target = STDOUT, sys.stdout.fileno()
    try:
        file = Growing(target)
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror}") from None
    try:
        with file:
            yield file
    except BrokenPipeError:
        raise ReaderGoneError from None
    except OSError as error:
        raise OutputError(place, error) from None


@conntrack_app.command(
    "list",
    short_help="List a host's conntrack entries.",
    epilog=examples("lab conntrack list node", "lab conntrack list node --protocol udp --destination 192.168.0.10:53"),
)
def conntrack_list(
    host: HostArgument,
    protocol: ProtocolOption = None,
    source: SourceOption = "",
    destination: DestinationOption = "",
    lab: LabOption = None,
    json: JsonOption = None,
) -> None:
    """List a host's conntrack entries of both families as `conntrack -L` does, which need not be installed."""
    from dataclasses import asdict

    from lab.conntrack.flows import chosen

    place = JsonPlace(json)
    with _flows(host, lab) as flows:
        found = chosen(flows, protocol, source, destination)
    place.write("conntrack", lambda: {"entries": [asdict(flow) for flow in found]})
    if not place.on_stdout:
        tell_all(map(str, found))
        print(f"lab: {_entries(len(found))}", file=sys.stderr)


@conntrack_app.command(
    "create",
    short_help="Create a conntrack entry on a host.",
    epilog=examples(
        "lab conntrack create node --protocol udp --source 10.0.0.2:5000 --destination 192.168.0.10:53",
        "lab conntrack create node --protocol tcp --source 10.0.0.2:5000 --destination 192.168.0.2:80"
        " --reply-source 10.0.1.2:80 --assured",
    ),
)
def conntrack_create(
    host: HostArgument,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", metavar="PROTOCOL", help="tcp or udp.", autocompletion=complete(lambda: ("tcp", "udp"))
        ),
    ],
    source: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="Where its first packet came from.")],
    destination: Annotated[str, typer.Option(metavar="ADDRESS:PORT", help="Where its client sent that.")],
    reply_source: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT", help="Who answers, where the destination is translated.", show_default=False
        ),
    ] = "",
    reply_destination: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT", help="Who is answered, where the source is translated.", show_default=False
        ),
    ] = "",
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Of TCP, such as SYN_SENT; else ESTABLISHED.")
    ] = None,
    assured: Annotated[
        bool, typer.Option("--assured", help="As one that was answered and goes on; else UNREPLIED.")
    ] = False,
    timeout: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            parser=at_least(1),
            help="For how long it stays where no packet comes; else what the host's kernel gives such an entry"
            " (nf_conntrack_udp_timeout, _stream with --assured, nf_conntrack_tcp_timeout_STATE).",
            show_default=False,
        ),
    ] = None,
    lab: LabOption = None,
) -> None:
    """Create an entry as `conntrack -I` does, such as a stale one that leads to an endpoint which is gone; print it.

    What a client sends by these addresses then follows it, and no rule of the nat table is asked.
    """
    with _flows(host, lab) as flows:
        made = flows.create(
            protocol,
            source,
            destination,
            reply_source=reply_source,
            reply_destination=reply_destination,
            state=state,
            assured=assured,
            timeout=timeout,
        )
    print(made)


@conntrack_app.command(
    "delete",
    short_help="Delete some of a host's conntrack entries.",
    epilog=examples(
        "lab conntrack delete node --protocol udp --destination 192.168.0.10:53",
        "lab conntrack delete node --source 10.0.0.2",
    )
    + """

Exit code: 1 where there was no such entry.""",
)
def conntrack_delete(
    host: HostArgument,
    protocol: ProtocolOption = None,
    source: SourceOption = "",
    destination: DestinationOption = "",
    lab: LabOption = None,
) -> None:
    """Delete the entries that all options choose, and print them."""
    with _flows(host, lab) as flows:
        gone = flows.delete(protocol=protocol, source=source, destination=destination)
    tell_all(map(str, gone))
    print(f"lab: {_entries(len(gone))} deleted", file=sys.stderr)
    raise typer.Exit(0 if gone else 1)


@conntrack_app.command(
    "flush",
    short_help="Delete all of a host's conntrack entries.",
    epilog=examples("lab conntrack flush node", "lab conntrack flush node --lab fixed"),
)
def conntrack_flush(host: HostArgument, lab: LabOption = None) -> None:
    """Delete all of a host's conntrack entries, of both families."""
    with _flows(host, lab) as flows:
        flows.flush()


@contextmanager
def _flows(host: str, lab: str | None) -> Iterator[Flows]:
    from lab.conntrack.flows import Flows
    from lab.standing.commands import choose
    from lab.standing.names import opened

    chosen = choose(lab)
    where = chosen.host(host)
    chosen.check()
    with closing(opened(where.namespace)) as namespace:
        yield Flows(namespace)


def _entries(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"
