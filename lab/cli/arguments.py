# SPDX-License-Identifier: MIT
"""What the commands share: the application, options and arguments, completion, and a terminal to draw on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from lab.errors import InputError, LabError
from lab.kubeproxy.said import NOTHING_SAID
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lab.cases import AnyCase
    from lab.kubeproxy.said import Settings
    from lab.topology.model import Topology

Chosen = TypeVar("Chosen")

#: Columns; more than a table needs.
ANY_WIDTH: Final = 10_000
_LEAST_WIDTH: Final = 20  # columns; in less there is no room for a word

app = typer.Typer(
    name="lab",
    help="Reproduce, explain and judge kube-proxy's and conntrack's subtleties on the kernel in front of you.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def examples(*commands: str) -> str:
    """Return examples for the foot of a command's help."""
    # The first character keeps the help's formatter from filling the lines.
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def complete(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes one of these names in a shell."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def case_names() -> Iterable[str]:
    """List the catalogue's cases, for completion."""
    from lab.cases import CASES

    return CASES


def fix_names() -> Iterable[str]:
    """List the fixes, for completion."""
    from lab.fixes import FIXES

    return FIXES


def topology_names() -> Iterable[str]:
    """List the topologies that come along, for completion."""
    from lab.topology.reader import shipped

    return [name for name, _path in shipped()]


def lab_names() -> Iterable[str]:
    """List the labs that stand, for completion; none where that cannot be known."""
    from lab.standing.record import labs

    with contextlib.suppress(LabError):
        return [lab.name for lab in labs()]
    return ()


def version_names() -> Iterable[str]:
    """List kube-proxy's minor releases, for completion."""
    from lab.kubeproxy.releases import MINORS

    return MINORS


CasesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CASE",
        help="Cases from `lab list`, instead of the bug and its controls.",
        autocompletion=complete(case_names),
    ),
]
FixOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A fix from `lab list`; may be repeated. Else: none, drop-forward, be-liberal.",
        autocompletion=complete(fix_names),
    ),
]
AllFlag = Annotated[bool, typer.Option("--all", help="Every case but the slow ones, and every fix.")]
SlowFlag = Annotated[bool, typer.Option("--slow", help="The slow cases, alone or with --all.")]
RepeatOption = Annotated[int, typer.Option(min=1, metavar="N", help="Run every trial N times.")]
ResultsOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write the results as JSON, with every timeline; - for stdout."),
]
ModeOption = Annotated[
    ProxyMode | None, typer.Option("--proxy-mode", help="kube-proxy's mode, instead of the topology's.")
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        "--proxy-version",
        metavar="VERSION",
        help="Whose rules, such as v1.14, v1.33.6 or v1.33.6-gke.1, instead of the topology's.",
        autocompletion=complete(version_names),
    ),
]
BackendOption = Annotated[
    Backend | None, typer.Option("--backend", help="In iptables mode, which program loads the rules.")
]
FamilyOption = Annotated[Family, typer.Option("--family", help="The address family.")]
ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service", metavar="SERVICE", help="Which Service is asked, instead of the first: [NAMESPACE/]NAME[:PORT]."
    ),
]
LabOption = Annotated[
    str | None,
    typer.Option("--lab", metavar="NAME", help="Which lab, where several stand.", autocompletion=complete(lab_names)),
]
NodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--node",
        metavar="FILE",
        help="A node of your own by its rules: what iptables-save or nft printed there, a node.tar of `lab collect`, a"
        " directory of these; - for stdin. Several are parts of one node.",
    ),
]
ObjectsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--objects",
        metavar="FILE",
        help="With --node: what kubectl get services,endpointslices -A -o yaml prints. Else the rules say it.",
    ),
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="A host of the lab.")]
TopologyArgument = Annotated[
    str, typer.Argument(help="A topology by name or file, - for stdin.", autocompletion=complete(topology_names))
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HtmlOption = Annotated[
    str | None,
    typer.Option("--html", metavar="FILE", help="Write the table as one HTML page; every cell opens to its timeline."),
]
JunitOption = Annotated[
    str | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML for a CI system: a suite a kernel.")
]
MarkdownOption = Annotated[str | None, typer.Option("--md", metavar="FILE", help="Write the table in Markdown.")]
ServiceArgument = Annotated[
    str, typer.Argument(metavar="SERVICE", help="A Service: its name, or namespace/name where several have it.")
]
AddressArgument = Annotated[str, typer.Argument(metavar="ADDRESS", help="An address of a host of the lab.")]
KeepConntrackFlag = Annotated[
    bool,
    typer.Option(
        "--keep-conntrack",
        help="Leave stale conntrack entries of UDP flows where they are, which kube-proxy would delete.",
    ),
]


def read_topology(
    reference: str,
    mode: ProxyMode | None,
    version: str | None,
    backend: Backend | None,
    settings: Settings = NOTHING_SAID,
) -> Topology:
    """Read a topology, with other settings for the kube-proxy of its nodes; None keeps what it says.

    :raises InputError: there is none of this name, it is wrong, or no such version is known.
    """
    from lab.kubeproxy.releases import find_release
    from lab.topology.reader import load
    from lab.topology.with_settings import with_proxy

    if version is not None:
        find_release(version)
    return with_proxy(load(reference), mode, version, backend, settings)


def chosen(names: list[str] | None, find: Callable[[str], Chosen], otherwise: Iterable[Chosen]) -> list[Chosen]:
    """Return what is named, each once, or else ``otherwise``."""
    return [find(name) for name in dict.fromkeys(names)] if names else list(otherwise)


def chosen_cases(names: list[str] | None, *, all_: bool, slow: bool) -> list[AnyCase]:
    """Return the cases that are named, each once, or else those that --all and --slow mean.

    :raises InputError: there is no such case, or both were given.
    """
    from lab.cases import find, usual

    for flag, given in (("--all", all_), ("--slow", slow)):
        if names and given:
            cure = f"leave {flag} away, or the names"
            cure += "; for every fix of one case, name each by --fix" if all_ else ""
            raise InputError(f"cases by name, and {flag} besides", cure=cure)
    return chosen(names, find, usual(all_=all_, slow=slow))


def console() -> Console:
    """Return the terminal to draw on; a file or a pipe has no width, unless COLUMNS gives it one."""
    from rich.console import Console

    made = Console(highlight=False)
    if not (made.is_terminal or "COLUMNS" in os.environ):
        made.width = ANY_WIDTH
    made.width = max(made.width, _LEAST_WIDTH)
    return made


@contextlib.contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Return what says on a terminal's standard error what is done now; at the end nothing of it is left there."""
    shown = os.isatty(2)

    def say(what: str) -> None:
        if shown:
            print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def draw(on: Console, tables: Callable[[int], Iterable[Table]]) -> None:
    """Print tables; where words have no room beside each other, a line for each cell.

    :param tables: makes them for a number of columns.
    """
    from rich.measure import Measurement

    from lab.report.unfolded import unfolded

    made = list(tables(on.width))
    unbounded = on.options.update(width=ANY_WIDTH)
    if all(Measurement.get(on, unbounded, table).minimum <= on.width for table in made):
        for table in made:
            _print(on, table)
        return
    for table in tables(ANY_WIDTH):
        for line in unfolded(table):
            on.print(line, soft_wrap=True)


def _print(on: Console, table: Table) -> None:
    """Print a table; of what is piped on, no line ends with the blanks that fill its last column."""
    if on.is_terminal:
        on.print(table)
        return
    with on.capture() as captured:
        on.print(table)
    for line in captured.get().splitlines():
        on.print(line.rstrip(), markup=False, emoji=False, soft_wrap=True)
