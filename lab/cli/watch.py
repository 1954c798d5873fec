# SPDX-License-Identifier: MIT
"""`lab watch`: what passes a lab that stands, or this machine, while one looks on."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer

from lab.cli.arguments import app, complete, examples, host_names, json_option, lab_names
from lab.cli.screen import console
from lab.errors import InputError, MissingError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.observed.lines import Seen
    from lab.observed.told import Line
    from lab.observed.wanted import Wanted
    from lab.standing.record import StandingLab
    from lab.vocabulary import Behaviour
    from lab.watch.host import WatchedHost
    from lab.watch.save import Saved
    from lab.watch.session import End
    from lab.watch.watch import Watch

_REMEMBERED: Final = 32  # packets of a connection, for the capture of those that leak
#: What this machine is called among hosts.
HERE: Final = "here"


@dataclass(frozen=True)
class _Places:
    """What is watched.

    :param hosts: that are shown; those of a lab, or :data:`HERE`.
    :param lab: None for this machine.
    """

    hosts: tuple[str, ...]
    lab: StandingLab | None

    def __str__(self) -> str:
        return "this machine" if self.lab is None else f"the lab {self.lab.name}"


@app.command(
    short_help="Look on: packets, entries, leaks and resets, in a lab that stands or on this node.",
    epilog=examples(
        "lab watch",
        "lab watch fixed --host node --flow 192.168.0.2:80",
        "lab watch --json | jq 'select(.kind == \"leak\")'",
        "sudo lab watch --here --for 10m",
        "sudo lab watch --here --save leaks.pcapng --prometheus /var/lib/node_exporter/lab.prom > /dev/null",
    )
    + """

Exit code of --here: 0 when no packet left untranslated, 1 when this node suffers from the bug, 2 where that is not
known: no packet came through a Service, or not everything could be looked at. Without it: 0 when it is over.""",
)
def watch(
    *,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Which lab, where several stand.", autocompletion=complete(lab_names)),
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="This machine, as a node; it is only read, and nothing on it changes.")
    ] = False,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="This host alone; may be repeated.", autocompletion=complete(host_names)),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow", metavar="ADDRESS", help="Show flows alone that have this ADDRESS or ADDRESS:PORT at an end."
        ),
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="End after so long: 30s, 10m, 1h30m.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the connections that leak, and no others, as pcapng.")
    ] = None,
    prometheus: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Keep the counts there, for node_exporter's textfile collector: *.prom."),
    ] = None,
    json: Annotated[str | None, json_option("Print JSON instead, an object a line.")] = None,
) -> None:
    """Look on at a lab that stands, or with --here at this machine: full screen on a terminal, else a line each.

    Packets at every interface, conntrack's entries as they change, and what is wrong: a leak is a packet that leaves
    with an endpoint's address for a client that only knows the VIP, a reset is the RST that answers it. Of this machine
    only these have lines. In the end it says whether there were any, how often and towards whom.
    """
    from lab.observed.wanted import Wanted
    from lab.watch.watch import Watch

    if json not in (None, "-"):
        raise InputError(f"--json={json}: a line is printed as it comes", cure="`lab watch --json > FILE`")
    seconds = None if for_ is None else _seconds(for_)
    wanted = Wanted.of(flow)
    places = _places(name, host, here=here)
    with ExitStack() as stack:
        publish = None if prometheus is None else _publisher(prometheus)
        saved = None if save is None else stack.enter_context(_saved(save, str(places)))
        hosts = _hosts(places, remembered=_REMEMBERED if save else 0)
        owner = None if places.lab is None else places.lab.owner
        watched = Watch(hosts, owner=owner, save=saved, publish=publish)
        stack.callback(watched.close)
        if json is not None or not _is_screen():
            end = _lines(watched, places, wanted, seconds, json=json is not None)
        else:
            from lab.watch.screen import show

            end = show(watched, str(places), wanted, seconds)
    _conclude(watched, places, end, saved, json=json is not None)
    if here:
        raise typer.Exit(watched.tally.answer.value)


def _seconds(text: str) -> float:
    from lab.kubeproxy.durations import seconds_of

    found = seconds_of(text)
    if found is None or found <= 0:
        raise InputError(f"--for: {text!r} is no time", cure="such as 30s, 10m or 1h30m")
    return float(found)


def _is_screen() -> bool:
    # Textual draws on standard error: where that is no terminal, nobody would see the screen.
    terminals = all(one.isatty() for one in (sys.stdin, sys.stdout, sys.stderr))
    return terminals and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def _places(name: str | None, host: list[str] | None, *, here: bool) -> _Places:
    """Return what is meant.

    :raises InputError: a lab and this machine, or there is no such lab or host.
    """
    if here:
        for given, what in ((name, f"a lab {name!r}"), (host, "--host")):
            if given:
                raise InputError(f"--here is this machine, and {what} besides", cure="give one of them")
        return _Places((HERE,), None)
    from lab.standing.commands import choose

    chosen = choose(name)
    chosen.check()
    return _Places(tuple(chosen.host(one).name for one in dict.fromkeys(host or [])), chosen)


def _hosts(places: _Places, *, remembered: int) -> list[WatchedHost]:
    """Begin to look at hosts.

    :raises MissingError: the caller may not.
    """
    from lab.netns import Namespace
    from lab.netns.features import require
    from lab.standing.names import opened
    from lab.watch.host import WatchedHost

    behaviour = _behaviour()
    if places.lab is None:
        require("nf_conntrack_netlink")
        try:
            namespace = Namespace.open("/proc/thread-self/ns/net")
            return [WatchedHost(HERE, namespace, behaviour, services_only=True, remembered=remembered)]
        except PermissionError:
            raise MissingError("the machine's packets are root's to see", "sudo lab watch --here") from None
    hosts = [one for one in places.lab.hosts if not places.hosts or one.name in places.hosts]
    made: list[WatchedHost] = []
    try:
        for one in hosts:
            namespace = opened(one.namespace)
            made.append(WatchedHost(one.name, namespace, behaviour, services_only=False, remembered=remembered))
    except BaseException:
        for watched in made:
            watched.close()
        raise
    return made


def _behaviour() -> Behaviour:
    from lab.cli.explain import behaviour_of

    return behaviour_of(os.uname().release)


@contextlib.contextmanager
def _saved(place: str, what: str) -> Iterator[Saved]:
    """Open the capture of connections that leak.

    :raises InputError: it cannot be written, or would go to where lines go.
    """
    from lab import __version__
    from lab.cli.growing import Growing
    from lab.watch.save import Saved

    if place == "-":
        raise InputError("--save: standard output has the lines", cure="name a file")
    try:
        output = Growing(place)
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror}") from None
    with output:
        yield Saved(output, place, __version__, what)


def _publisher(place: str) -> Callable[[str], None]:
    """Return what puts a text in the place of the last one, in one step: a reader never sees half of it.

    :raises InputError: it cannot be written there.
    """
    from lab.cli.report_files import put

    target = Path(os.path.realpath(place))
    if target.suffix != ".prom":
        raise InputError(f"--prometheus: node_exporter reads *.prom alone, not {place}", cure="name it so")
    if target.exists() and not target.is_file():
        raise InputError(f"--prometheus: {place} is no file")

    def publish(text: str) -> None:
        try:
            put(target, text.encode())
        except OSError as error:
            raise OutputError(place, error) from None

    return publish


def _lines(watched: Watch, places: _Places, wanted: Wanted, seconds: float | None, *, json: bool) -> End:
    """Print what is seen, a line each."""
    from lab.observed.flows import Flows
    from lab.observed.lines import line, told
    from lab.observed.told import Begin
    from lab.watch.session import follow

    flows = Flows()
    only_found = places.lab is None
    ending = "Ctrl-C ends it" if seconds is None else f"until {_until(seconds)}; Ctrl-C ends it before"
    what = "leaks and resets alone are printed; " if only_found else ""
    print(f"lab: watching {places}; {what}{ending}", file=sys.stderr, flush=True)

    if json:
        _print_line(Begin(watching=str(places), only_found=only_found))
        sys.stdout.flush()
    warned: set[str] = set()

    def say(seen: list[Seen]) -> None:
        for error in watched.unwritten:
            if error.place not in warned:
                warned.add(error.place)
                print(f"lab: {error}; the watch goes on", file=sys.stderr, flush=True)
        if not wanted.is_any:
            seen = flows.chosen(seen, wanted.has)
        for one in seen:
            if not only_found or _is_found(one):
                if json:
                    _print_line(told(one))
                else:
                    print(line(one))

    return follow(watched, say, seconds)


def _is_found(seen: Seen) -> bool:
    from lab.observed.found import Leak, Reset

    return isinstance(seen, Leak | Reset)


def _until(seconds: float) -> str:
    import time

    return time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))


def _print_line(line: Line) -> None:
    from lab.observed.told import as_data

    print(json.dumps(as_data(line), separators=(",", ":")))


def _conclude(watched: Watch, places: _Places, end: End, saved: Saved | None, *, json: bool) -> None:
    """Print why it is over, and what was found."""
    from lab.observed.answer import answered
    from lab.observed.told import answer
    from lab.watch.session import End

    if end is End.LAB:
        print(f"lab: {places} has ended", file=sys.stderr)
    for error in watched.unwritten:
        print(f"lab: {error.place} was not written to the end: {error.reason}", file=sys.stderr)
    if saved is not None:
        print(f"lab: {saved.packets} packets of connections that leaked were saved", file=sys.stderr)
    if json:
        _print_line(answer(watched.tally, watched.seconds))
        return
    is_answer = places.lab is None
    for words in answered(watched.tally, watched.seconds):
        _print(words if is_answer else f"lab: {words}", sys.stdout if is_answer else sys.stderr)


def _print(words: str, where: TextIO) -> None:
    """Print a line; on a terminal filled at words."""
    if where.isatty():
        further = " " * (len(words) - len(words.lstrip()) + 2)
        words = textwrap.fill(words, console().width, subsequent_indent=further, break_on_hyphens=False)
    print(words, file=where)
