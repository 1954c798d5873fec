"""The command. Thin: it parses, calls and prints; and it imports the rooms only when a command needs them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from lab.errors import InputError, LabError
from lab.words import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.cases import Case
    from lab.fixes import Fix
    from lab.result import Report
    from lab.topology.model import Topology

INTERRUPTED = 128 + 2  # as a shell tells of SIGINT

app = typer.Typer(
    name="lab",
    help="Reproduce, explain and judge kube-proxy's and conntrack's subtleties on the kernel in front of you.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topology_app = typer.Typer(help="Help with writing topology files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(topology_app, name="topology")


def _examples(*commands: str) -> str:
    # The first character keeps the help's formatter from filling the lines.
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def _complete(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def _case_names() -> Iterable[str]:
    from lab.cases import CASES

    return CASES


def _fix_names() -> Iterable[str]:
    from lab.fixes import FIXES

    return FIXES


def _topology_names() -> Iterable[str]:
    from lab.topology.reader import shipped

    return [name for name, _path in shipped()]


def _lab_names() -> Iterable[str]:
    from lab.standing.record import labs

    with contextlib.suppress(LabError):
        return [lab.name for lab in labs()]
    return ()


ModeOption = Annotated[
    ProxyMode | None, typer.Option("--proxy-mode", help="kube-proxy's mode, instead of the topology's.")
]
VersionOption = Annotated[
    str | None, typer.Option("--proxy-version", help="Whose rules, such as v1.14, instead of the topology's.")
]
BackendOption = Annotated[
    Backend | None, typer.Option("--backend", help="In iptables mode, which program loads the rules.")
]
FamilyOption = Annotated[Family, typer.Option("--family", help="The address family.")]
LabOption = Annotated[
    str | None,
    typer.Option("--lab", metavar="NAME", help="Which lab, where several stand.", autocompletion=_complete(_lab_names)),
]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="A host of the lab.")]
TopologyArgument = Annotated[
    str, typer.Argument(help="A topology by name or file, - for stdin.", autocompletion=_complete(_topology_names))
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(
    short_help="Break real connections and judge what this kernel makes of it.",
    epilog=_examples(
        "lab run",
        "lab run beyond-window --fix none --family ipv6",
        "lab run --proxy-mode nftables --json result.json",
        "lab run beyond-window --repeat 1000 --no-timeline",
    )
    + """

Exit code: 0 when every trial gave what this kernel is expected to give, 1 when one did not or could not be run,
2 for an error in what was given, 130 for Ctrl-C.""",
)
def run(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CASE",
            help="Cases from `lab list`; all when none is named.",
            autocompletion=_complete(_case_names),
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            help="A fix from `lab list`; may be repeated. All when none is named.",
            autocompletion=_complete(_fix_names),
        ),
    ] = None,
    topology: Annotated[
        str,
        typer.Option(help="A topology by name or file, - for stdin.", autocompletion=_complete(_topology_names)),
    ] = "kube-proxy",
    proxy_mode: ModeOption = None,
    proxy_version: VersionOption = None,
    backend: BackendOption = None,
    family: FamilyOption = Family.IPV4,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Run every trial N times.")] = 1,
    json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the results as JSON, with every timeline; - for stdout."),
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline/--no-timeline", help="Print the first trial's packets, one by one.")
    ] = True,
) -> None:
    """Break real connections on purpose, each in a lab of its own, and judge what this kernel makes of it."""
    from lab import cases as catalogue
    from lab import fixes

    chosen_cases = [catalogue.find(name) for name in dict.fromkeys(cases or catalogue.CASES)]
    chosen_fixes = [fixes.find(name) for name in dict.fromkeys(fix or fixes.FIXES)]
    built = _topology(topology, proxy_mode, proxy_version, backend)
    output = _open_for_json(json)
    report = _run(chosen_cases, chosen_fixes, built, family, repeat)
    if output is not None:
        from lab.result import to_json

        print(to_json(report), file=output)
        output.close()
    if json != "-":
        _print_report(report, timeline=timeline)
    raise typer.Exit(0 if report.good else 1)


def _topology(reference: str, mode: ProxyMode | None, version: str | None, backend: Backend | None) -> Topology:
    from lab.kubeproxy.versions import find_version
    from lab.topology.reader import load
    from lab.trial import with_proxy

    if version is not None:
        find_version(version)
    return with_proxy(load(reference), mode, version, backend)


def _open_for_json(path: str | None) -> TextIO | None:
    """Open the file before the trials, so that a mistyped path costs none of them."""
    if path is None:
        return None
    if path == "-":
        return sys.stdout
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _run(cases: list[Case], fixes: list[Fix], topology: Topology, family: Family, repeat: int) -> Report:
    import asyncio

    from lab import campaign
    from lab.netns import userns

    userns.ensure()
    try:
        return asyncio.run(campaign.run(cases, fixes, topology, family, repeat))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _print_report(report: Report, *, timeline: bool) -> None:
    from rich.console import Console

    from lab.report import terminal

    console = Console(highlight=False)
    first = next((tally.sample for tally in report.tallies if tally.sample is not None), None)
    if timeline and first is not None:
        console.print(terminal.heading(first), soft_wrap=True)
        for line in terminal.timeline_lines(first.timeline):
            console.print(line, soft_wrap=True)
        console.print()
    for family, behaviour in report.behaviours.items():
        console.print(f"Linux {report.kernel}, {family}: {behaviour.words}.", soft_wrap=True)
    console.print(terminal.table(report.tallies))
    for line in terminal.conclusion(report):
        console.print(line, soft_wrap=True)


@app.command("list", short_help="List cases, fixes and topologies.")
def list_() -> None:
    """List the cases, the fixes and the topologies that come along, each in a line."""
    from lab.cases import CASES
    from lab.fixes import FIXES
    from lab.topology.reader import load, shipped

    sections = {
        "cases": {case.name: case.title for case in CASES.values()},
        "fixes": {fix.name: fix.summary for fix in FIXES.values()},
        "topologies": {name: load(path).description for name, path in shipped()},
    }
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(f"{title}:")
        for name, summary in section.items():
            print(f"  {name:{width}}  {summary}")


@topology_app.command("schema", epilog=_examples("lab topology schema > topology.schema.json"))
def topology_schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    import json

    from lab.topology.reader import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(
    short_help="Print the rules that the nodes of a topology get.",
    epilog=_examples("lab rules", "lab rules kube-proxy --proxy-version v1.15 --family ipv6"),
)
def rules(
    topology: TopologyArgument = "kube-proxy",
    proxy_mode: ModeOption = None,
    proxy_version: VersionOption = None,
    backend: BackendOption = None,
    family: FamilyOption = Family.IPV4,
) -> None:
    """Print what the nodes of a topology are given: the input of iptables-restore, or of nft."""
    from lab.fabric import NodeChange, proxy_options, render_rules

    built = _topology(topology, proxy_mode, proxy_version, backend)
    if not built.nodes:
        raise InputError(f"{topology}: no host has proxy-mode, so there are no rules")
    for node in built.nodes:
        print(f"# {node.name}: kube-proxy {family}")
        options = proxy_options(built, node, family, NodeChange())
        for text in render_rules(built, options, NodeChange(), node.proxy_mode or ProxyMode.IPTABLES):
            print(text, end="")


@app.command(
    short_help="Build a lab that stays until `lab down`.",
    epilog=_examples("lab up kube-proxy", "lab up kube-proxy --name fixed --fix drop-forward"),
)
def up(
    topology: TopologyArgument,
    name: Annotated[str | None, typer.Option(help="The lab's name, instead of the topology's.")] = None,
    fix: Annotated[str, typer.Option(help="A fix from `lab list`.", autocompletion=_complete(_fix_names))] = "none",
    proxy_mode: ModeOption = None,
    proxy_version: VersionOption = None,
    backend: BackendOption = None,
    family: Annotated[Family | None, typer.Option(help="Build one address family, not both.")] = None,
) -> None:
    """Build a lab that stays until `lab down`, with servers at its endpoints and names for `ip netns`.

    It needs root.
    """
    from lab.fixes import find
    from lab.standing.up import suggestions
    from lab.standing.up import up as build

    built = _topology(topology, proxy_mode, proxy_version, backend)
    try:
        lab = build(built, name=name, family=family, fix=find(fix).name)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    print(f"The lab {lab.name} stands, owned by process {lab.owner}. Try:")
    for command in suggestions(built, lab, family):
        print(f"  {command}")


@app.command(short_help="List the labs that stand.", epilog=_examples("lab status", "lab status --json"))
def status(json: JsonFlag = False) -> None:
    """List the labs that stand, with their hosts, and those whose owner is dead."""
    from lab.standing.commands import status_json, status_lines
    from lab.standing.record import labs

    if json:
        print(status_json(labs()))
    else:
        print(*status_lines(labs()), sep="\n")


@app.command(
    "exec",
    short_help="Run a program in a host of a lab that stands.",
    context_settings={"allow_interspersed_args": False},
    epilog=_examples("lab exec client -- curl http://192.168.0.2", "lab exec --lab fixed node -- ip address"),
)
def exec_(
    host: HostArgument,
    command: Annotated[list[str], typer.Argument(metavar="CMD", help="What to run there.")],
    lab: LabOption = None,
) -> None:
    """Run a program in a host of a lab that stands; its exit code is passed on."""
    from lab.standing.commands import choose, enter

    chosen = choose(lab)
    enter(chosen, chosen.host(host), command[1:] if command[0] == "--" else command)


@app.command(
    short_help="Open a shell in a host of a lab that stands.",
    epilog=_examples("lab shell node", "lab shell --lab fixed client"),
)
def shell(host: HostArgument, lab: LabOption = None) -> None:
    """Open a shell in a host of a lab that stands; its prompt names the host."""
    from lab.standing.commands import choose
    from lab.standing.commands import shell as open_shell

    chosen = choose(lab)
    open_shell(chosen, chosen.host(host))


@app.command(short_help="End a lab that stands.", epilog=_examples("lab down", "lab down fixed", "lab down --all"))
def down(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Which, where several stand.", autocompletion=_complete(_lab_names)),
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


@app.command(
    short_help="Say what this machine has and lacks for a lab.", epilog=_examples("lab doctor", "lab doctor --json")
)
def doctor(json: JsonFlag = False) -> None:
    """Say what this machine has and lacks for a lab, and whether it is itself a node with the bug.

    Nothing is changed. Exit code: 0 when a lab can run here, 1 when something necessary is missing.
    """
    from lab.doctor import examine, lines, to_json

    diagnosis = examine()
    if json:
        print(to_json(diagnosis))
    else:
        print(*lines(diagnosis), sep="\n")
    raise typer.Exit(0 if diagnosis.ready else 1)


def main() -> None:
    """Run the command; errors that a user can cure are one line each."""
    try:
        app()
    except InputError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(2)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read the output has enough; Python would complain once more when it flushes.
        sys.stdout = None
        sys.exit(141)


if __name__ == "__main__":
    main()
