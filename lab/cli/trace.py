# SPDX-License-Identifier: MIT
"""`lab trace`: the rules that packets meet, as the kernel tells it: a trial's, or one of the user's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from lab.cli.arguments import (
    AnyFamilyOption,
    JsonOption,
    NodeOption,
    ObjectsOption,
    Programs,
    Proxy,
    ServiceOption,
    app,
    case_names,
    complete,
    examples,
    fix_names,
    hosts_of,
    lab_names,
    one_word,
    refuse_beside_lab,
    topology_names,
)
from lab.cli.documents import JsonPlace
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.programs import with_program
from lab.cli.screen import console, tell
from lab.errors import INTERRUPTED, InputError
from lab.kubeproxy.settings import TOPOLOGYS
from lab.tones import OOPS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from lab.cli.traced import TracedTrial
    from lab.evidence.packet import SocketAddress
    from lab.fixes import Fix
    from lab.kubeproxy.said import Settings
    from lab.results.result import Result
    from lab.scenario.own_packet import Sent, TracedPacket
    from lab.standing.tracing import Asked
    from lab.topology.model import Topology

T = TypeVar("T")

_ONLY_INVALID = "of a trial under load only INVALID packets are traced, and there were none"
_USUAL = "kube-proxy"  # the topology of a packet of one's own, where none is named


class _Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True)
class Where:
    """Options that say where packets are sent."""

    topology: Annotated[
        str | None,
        typer.Option(
            metavar="TOPOLOGY",
            help="A topology by name or file, - for stdin. Else the case's own, or kube-proxy.",
            autocompletion=complete(topology_names),
        ),
    ] = None
    node: NodeOption = None
    objects: ObjectsOption = None
    service: ServiceOption = None
    family: AnyFamilyOption = None


@dataclass(frozen=True)
class Own:
    """Options for a packet of the user's own."""

    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="HOST",
            help="Who sends it, as HOST or HOST:PORT; else the first client.",
            autocompletion=complete(hosts_of(_USUAL)),
        ),
    ] = None
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="ADDRESS", help="Send one packet of your own to this ADDRESS or ADDRESS:PORT."),
    ] = None
    protocol: Annotated[_Protocol | None, one_word(_Protocol, "--protocol", "What it is; else tcp.")] = None
    flags: Annotated[
        str | None, typer.Option("--flags", metavar="FLAGS", help="Its TCP flags by their letters, of SAFRPU; else S.")
    ] = None


@app.command(
    cls=CommandWithSettings,
    short_help="Show which rules packets meet: a trial's, or one of your own.",
    epilog=examples(
        "lab trace beyond-window",
        "lab trace beyond-window --fix drop-forward --proxy-mode nftables",
        "lab trace beyond-window --node iptables-save.txt --full",
        "lab trace --from client --to 192.168.0.2:80",
        "lab trace --to 10.0.1.2:80 --flags FPU --node iptables-save.txt",
        "lab trace --lab mine --from client --to 192.168.0.2:80",
        "lab trace service-cidr-late --json > walks.json",
    )
    + """

Exit code: 0 when the trial gave what is expected, or the packet was sent, and all was traced; 1 when not;
2 where nobody knows.""",
)
@with_settings(TOPOLOGYS)
def trace(
    *,
    case: Annotated[
        str | None,
        typer.Argument(metavar="CASE", help="A case from `lab list`.", autocompletion=complete(case_names)),
    ] = None,
    own: Own,
    fix: Annotated[
        str,
        typer.Option(metavar="FIX", help="A fix from `lab list`, or a file.", autocompletion=complete(fix_names)),
    ] = "none",
    where: Where,
    proxy: Proxy,
    programs: Programs,
    full: Annotated[
        bool, typer.Option("--full", help="Also rules that did not match, and chains that led to nothing.")
    ] = False,
    json: JsonOption = None,
    lab: Annotated[
        str | None,
        typer.Option(
            "--lab",
            metavar="NAME",
            help="Send the packet in a lab that stands, as it is now.",
            autocompletion=complete(lab_names),
        ),
    ] = None,
    settings: Settings,
) -> None:
    """Run one trial, and show the walk of its packets through the nodes' rules: the handshake, the judged one, resets.

    Or that of one packet of your own. Hook by hook and rule by rule as the kernel tells it, in either mode:
    kube-proxy's rules and everybody else's.
    """
    from lab.trial.fix_file import find_fix

    place = JsonPlace(json)
    if case is not None and own != Own():
        raise InputError("a CASE, and a packet of your own besides", cure="leave one of them away")
    if lab is not None and case is not None:
        raise InputError("a CASE, and --lab", cure=f"`lab inject {case} --lab {lab}` plays one there")
    if lab is not None:
        its = {
            "--topology": where.topology,
            "--node": where.node,
            "--objects": where.objects,
            "--fix": fix != "none",
            "--proxy-mode": proxy.proxy_mode,
            "--proxy-version": proxy.proxy_version,
            "--backend": proxy.backend,
            "--kube-proxy": programs.kube_proxy,
            "kube-proxy's settings": settings.said or settings.document,
        }
        refuse_beside_lab([name for name, given in its.items() if given])
    if case is None and own.to is None:
        raise InputError("neither a CASE nor --to", cure="name a case from `lab list`, or say where a packet goes")
    if lab is not None:
        _trace_in(lab, own, where, full=full, place=place)
    found = find_fix(fix)
    if programs.kube_proxy and (where.node or where.objects):
        raise InputError("--node and --kube-proxy", cure="the node's own rules say it: leave one of them away")
    settings = with_program(programs, settings)
    if case is not None:
        _trace_case(case, found, where, proxy, settings, full=full, place=place)
    else:
        _trace_own(own, found, where, proxy, settings, full=full, place=place)


def _place(where: Where, proxy: Proxy, settings: Settings) -> tuple[Topology | None, Where, Proxy]:
    """Return what is to be built where that was said, with what --node says in the place of other options."""
    from lab.cli.node import own_node
    from lab.topology.reader import load

    if not where.node and not where.objects:
        return (load(where.topology) if where.topology else None), where, proxy
    own = own_node(
        *(where.node, where.objects, where.topology, proxy, Programs(), settings),
        service=where.service,
        family=where.family,
    )
    _tell(own.notes)
    chosen = replace(where, service=own.service, family=where.family or own.families[0])
    return own.topology, chosen, replace(proxy, backend=None)


def _tell(words: Iterable[str]) -> None:
    for one in words:
        print(f"lab: {one}", file=sys.stderr)


def _run(answer: Coroutine[Any, Any, T]) -> T:
    import asyncio

    from lab.netns import interrupt, userns

    async def run() -> T:
        with interrupt.cancels_task():
            return await answer

    userns.ensure()
    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None


# --- a trial -------------------------------------------------------------------------------------------------


def _trace_case(
    case: str, fix: Fix, where: Where, proxy: Proxy, settings: Settings, *, full: bool, place: JsonPlace
) -> None:
    from lab.cases import find
    from lab.cli.traced import TracedTrial
    from lab.trial import batch, probe, runner

    found = find(case)
    built, where, proxy = _place(where, proxy, settings)
    chosen = (proxy.proxy_mode, proxy.proxy_version, proxy.backend)
    family = where.family or Family.IPV4
    selection = batch.select([found], [fix], built, family, chosen, where.service, settings=settings)
    _tell(selection.remarks)
    setting = replace(selection.settings[0], traced=True)

    async def run() -> Result:
        return await runner.run(setting, await probe.ask(family))

    result = _run(run())
    timeline = result.timeline
    told = TracedTrial(result.trial, result.verdict, timeline.walks, timeline.untraced)
    place.write("trace", lambda: _as_data(told))
    if not place.on_stdout:
        _print(_lines_of(result, full=full))
    raise typer.Exit(0 if result.as_expected and not timeline.untraced else 1)


def _lines_of(result: Result, *, full: bool) -> Iterable[Text | str]:
    from rich.text import Text

    from lab.evidence.timeline import DownloadsTimeline
    from lab.report import terminal
    from lab.report.decided import decided
    from lab.report.walks import drawn, untraced

    yield terminal.heading(result)
    yield from drawn(result.timeline.walks, full=full)
    yield from untraced(result.timeline.untraced)
    if not result.timeline.walks and not result.timeline.untraced:
        under_load = isinstance(result.timeline, DownloadsTimeline)
        yield f"nothing to show: {_ONLY_INVALID if under_load else 'no packet came to the rules of a node'}"
    yield from decided(result.timeline)
    yield from (Text(words, OOPS) for words in (result.surprise, *result.verdict.disagreements) if words)


def _print(lines: Iterable[Text | str]) -> None:
    screen = console()
    for line in lines:
        tell(screen, line)


def _as_data(told: TracedTrial | TracedPacket) -> dict[str, Any]:
    from pydantic import TypeAdapter

    data: dict[str, Any] = TypeAdapter(type(told)).dump_python(told, mode="json")
    return data


# --- a packet of the user's own ------------------------------------------------------------------------------


def _trace_own(
    own: Own, fix: Fix, where: Where, proxy: Proxy, settings: Settings, *, full: bool, place: JsonPlace
) -> None:
    from ipaddress import ip_address

    from lab.cli.arguments import read_topology
    from lab.topology.kube_proxy import topology_notes
    from lab.trial.own_packet import send

    built, where, proxy = _place(where, proxy, settings)
    asked = _asked(own, where)
    if built is None or built.nodes[0].given is None:
        built = read_topology(where.topology or _USUAL, proxy, settings)
        _tell(dict.fromkeys(topology_notes(built, Family.of(ip_address(asked.destination.address)))))
    wanted = asked.made_in(built)
    _tell_sent(_run(send(built, fix, wanted, where.service)), full=full, place=place)


def _trace_in(name: str, own: Own, where: Where, *, full: bool, place: JsonPlace) -> None:
    """Send a packet in a lab that stands."""
    from lab.standing import control
    from lab.standing.commands import choose

    asked = _asked(own, where)
    _tell_sent(control.trace(choose(name), asked), full=full, place=place)


def _tell_sent(traced: TracedPacket, *, full: bool, place: JsonPlace) -> NoReturn:
    sent = traced.sent
    place.write("trace-packet", lambda: _as_data(traced))
    if not place.on_stdout:
        _print(_lines_of_own(sent, full=full))
    raise typer.Exit(1 if sent.refusal or sent.untraced or sent.faults else 0)


def _asked(own: Own, where: Where) -> Asked:
    """Return the packet that the options speak of.

    :raises InputError: there is no such packet.
    """
    from lab.scenario.own_packet import Protocol
    from lab.standing.tracing import Asked

    protocol = Protocol(own.protocol or "tcp")
    if own.flags is not None and (protocol is not Protocol.TCP or set(own.flags) - set("SAFRPU") or not own.flags):
        raise InputError(f"--flags {own.flags!r}", cure="letters of SAFRPU, for --protocol tcp")
    destination = _address(own.to or "")
    family = Family.IPV6 if ":" in destination.address else Family.IPV4
    if where.family not in (None, family):
        raise InputError(f"--to {own.to} and --family {where.family}", cure="leave one of them away")
    name, _, port = (own.from_ or "").partition(":")
    source = _port(port, "--from") if port else None
    return Asked(name or None, source, destination, protocol, own.flags or "S", where.service)


def _address(given: str) -> SocketAddress:
    """Read an address with or without a port; of one of IPv6 with a port, the address is in brackets."""
    from ipaddress import ip_address

    from lab.evidence.packet import SocketAddress

    found = re.fullmatch(r"\[([^]]+)\](?::(\d+))?|([^:]+)(?::(\d+))?|([0-9a-fA-F:.]+)", given)
    try:
        address = str(ip_address((found[1] or found[3] or found[5]) if found else given))
    except ValueError:
        raise InputError(f"--to {given!r} is no address", cure="write 192.168.0.2:80, or [fd00::2]:80") from None
    port = (found[2] or found[4]) if found else None
    return SocketAddress(address, _port(port, "--to") if port else 80)


def _port(given: str, option: str) -> int:
    if not given.isdecimal() or not 0 < int(given) < 1 << 16:
        raise InputError(f"{option}: {given!r} is no port", cure="1 to 65535")
    return int(given)


def _lines_of_own(sent: Sent, *, full: bool) -> Iterable[Text | str]:
    from rich.text import Text

    from lab.report.walks import drawn, named, untraced

    yield from drawn(sent.walks, full=full)
    yield from untraced(sent.untraced)
    if sent.refusal:
        yield Text(f"its sender's stack did not send it: {sent.refusal}", OOPS)
    else:
        yield f"the packet {sent.end}"
        yield from (f"answered by {named(packet)}" for packet in sent.answers)
        if not sent.answers:
            yield "nobody answered its sender"
    yield from (Text(words, OOPS) for words in sent.faults)
