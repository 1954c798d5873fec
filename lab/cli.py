"""The command. Thin: it parses, calls and prints; and it imports the rooms only when a command needs them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

import typer

from lab.errors import INTERRUPTED, InputError, LabError
from lab.words import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.cases import Case
    from lab.fixes import Fix
    from lab.matrix import Matrix
    from lab.result import Report
    from lab.rules.source import Choice, NodeSettings
    from lab.standing.control import Word
    from lab.topology.model import Topology

Chosen = TypeVar("Chosen")

_ANY_WIDTH = 10_000  # columns; more than a table needs

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
endpoints_app = typer.Typer(
    help="Change the endpoints of a lab that stands, while traffic runs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(endpoints_app, name="endpoints")


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


@app.command(
    short_help="Break real connections and judge what this kernel makes of it.",
    epilog=_examples(
        "lab run",
        "lab run beyond-window --fix none --family ipv6",
        "lab run --proxy-mode nftables --json result.json",
        "lab run --all --no-timeline",
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
            help="Cases from `lab list`, instead of the bug and its controls.",
            autocompletion=_complete(_case_names),
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            help="A fix from `lab list`; may be repeated. Else: none, drop-forward, be-liberal.",
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
    all_: Annotated[bool, typer.Option("--all", help="Every case but the slow ones, and every fix.")] = False,
    slow: Annotated[bool, typer.Option("--slow", help="The slow cases, alone or with --all.")] = False,
    repeat: Annotated[int, typer.Option(min=1, metavar="N", help="Run every trial N times.")] = 1,
    json: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the results as JSON, with every timeline; - for stdout."),
    ] = None,
    html: HtmlOption = None,
    junit: JunitOption = None,
    md: MarkdownOption = None,
    timeline: Annotated[
        bool, typer.Option("--timeline/--no-timeline", help="Print the first trial's packets, one by one.")
    ] = True,
) -> None:
    """Break real connections on purpose, each in a lab of its own, and judge what this kernel makes of it."""
    from lab import cases as catalogue
    from lab import fixes
    from lab.remembered import remember

    chosen_cases = _chosen(cases, catalogue.find, catalogue.usual(all_=all_, slow=slow))
    chosen_fixes = _chosen(fix, fixes.find, fixes.FIXES.values() if all_ else fixes.DEFAULT_FIXES)
    outputs = _open_outputs(json=json, html=html, junit=junit, md=md)
    report = _run(chosen_cases, chosen_fixes, topology, (proxy_mode, proxy_version, backend), family, repeat)
    remember(report)
    _write(outputs, report)
    if sys.stdout not in outputs.values():
        _print_report(report, timeline=timeline)
        if all_ and not slow and not cases:
            print(_left_out(sum(case.slow for case in catalogue.CASES.values())))
    raise typer.Exit(0 if report.good else 1)


def _left_out(count: int) -> str:
    return f"left out: {count} slow {'case' if count == 1 else 'cases'}; --slow runs {'it' if count == 1 else 'them'}"


def _topology(reference: str, mode: ProxyMode | None, version: str | None, backend: Backend | None) -> Topology:
    from lab.kubeproxy.versions import find_version
    from lab.topology.reader import load
    from lab.trial import with_proxy

    if version is not None:
        find_version(version)
    return with_proxy(load(reference), mode, version, backend)


def _chosen(names: list[str] | None, find: Callable[[str], Chosen], otherwise: Iterable[Chosen]) -> list[Chosen]:
    return [find(name) for name in dict.fromkeys(names)] if names else list(otherwise)


def _open_outputs(**paths: str | None) -> dict[str, TextIO]:
    """Open the files before the trials, so that a mistyped path costs none of them.

    :param paths: by what is to be written there; - for stdout, None for what nobody wants.
    """
    outputs = {form: _open_output(path) for form, path in paths.items() if path is not None}
    if outputs:
        from lab.report import forms  # noqa: F401  before the trials as well: a checkout may change under a long run
    return outputs


def _open_output(path: str) -> TextIO:
    if path == "-":
        return sys.stdout
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _write(outputs: dict[str, TextIO], found: Report | Matrix) -> None:
    from lab.report import forms

    for form, output in outputs.items():
        print(forms.write(form, found), file=output)
        if output is not sys.stdout:
            output.close()


def _run(
    cases: list[Case],
    fixes: list[Fix],
    topology: str,
    proxy: tuple[ProxyMode | None, str | None, Backend | None],
    family: Family,
    repeat: int,
) -> Report:
    import asyncio

    from lab import campaign
    from lab.kubeproxy.versions import find_version
    from lab.netns import userns
    from lab.topology.reader import load

    _mode, version, _backend = proxy
    if version is not None:
        find_version(version)
    settings = campaign.settings(cases, fixes, load(topology), family, proxy)
    userns.ensure()
    try:
        return asyncio.run(campaign.run(settings, family, repeat))
    except asyncio.CancelledError:
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
    if not (console.is_terminal or "COLUMNS" in os.environ):
        console.width = _ANY_WIDTH  # a file or a pipe has none: there a table is as wide as it has to be
    for drawn in terminal.tables(report.tallies, console.width):
        console.print(drawn)
    for line in terminal.conclusion(report):
        console.print(line, soft_wrap=True)


@app.command("list", short_help="List cases, fixes and topologies.")
def list_() -> None:
    """List the cases, the fixes and the topologies that come along, each in a line."""
    from lab.cases import CASES
    from lab.fixes import FIXES
    from lab.topology.reader import load, shipped

    sections = {
        "cases": {case.name: f"{case.title}{' (slow)' if case.slow else ''}" for case in CASES.values()},
        "fixes": {fix.name: fix.summary for fix in FIXES.values()},
        "topologies": {name: load(path).description for name, path in shipped()},
    }
    width = max(len(name) for section in sections.values() for name in section)
    for title, section in sections.items():
        print(f"{title}:")
        for name, summary in section.items():
            print(f"  {name:{width}}  {summary}")


@app.command(
    short_help="Tell a case's story, what is expected of it, and what came of it.",
    epilog=_examples("lab show beyond-window", "lab show upstream-regression", "lab show retried --json"),
)
def show(
    case: Annotated[str, typer.Argument(help="From `lab list`.", autocompletion=_complete(_case_names))],
    json: JsonFlag = False,
) -> None:
    """Tell a case's story, where people met it, and what is expected of it by kernel behaviour and fix.

    And what came of it when it was run last on this machine, with each fix: `lab run` keeps that below $XDG_STATE_HOME.
    """
    from lab.cases import find
    from lab.remembered import recall

    found = find(case)
    last = recall(found.name)
    if json:
        from json import dumps

        from lab.report.catalogue import as_data

        print(dumps(as_data(found, last), indent=2))
        return
    from rich.console import Console

    from lab.report.catalogue import story

    console = Console(highlight=False)
    for part in story(found, last):
        console.print(part)


@topology_app.command("schema", epilog=_examples("lab topology schema > topology.schema.json"))
def topology_schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    import json

    from lab.topology.reader import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(
    short_help="Print kube-proxy's rules, or compare them with a real node's.",
    epilog=_examples(
        "lab rules",
        "lab rules kube-proxy --proxy-version v1.15 --family ipv6 --saved",
        "kubectl get services,endpointslices -A -o yaml | lab rules - --cluster-cidr 10.244.0.0/16",
        "lab rules objects.yaml --diff node.txt --proxy-version v1.29 --node-name worker-1",
    )
    + """

Exit code: 0; with --diff 0 when the node has these rules and 1 when they differ; 2 for an error in what was given.""",
)
def rules(
    source: Annotated[
        str,
        typer.Argument(
            help="A topology by name or file, or a YAML file of Services and EndpointSlices; - for stdin.",
            autocompletion=_complete(_topology_names),
        ),
    ] = "kube-proxy",
    proxy_mode: ModeOption = None,
    proxy_version: VersionOption = None,
    backend: BackendOption = None,
    family: FamilyOption = Family.IPV4,
    saved: Annotated[
        bool, typer.Option("--saved", help="As iptables-save or nft list gives them back, loaded by this kernel.")
    ] = False,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Compare with what iptables-save or nft list printed on a node; - for stdin."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
    node_name: Annotated[
        str | None, typer.Option(help="The node: which of the topology's; without one, whose endpoints are local.")
    ] = None,
    node_address: Annotated[
        list[str] | None, typer.Option(help="Without a topology: an address of the node; may be repeated.")
    ] = None,
    cluster_cidr: Annotated[
        list[str] | None, typer.Option(help="Without a topology: the pods' range, one a family; may be repeated.")
    ] = None,
    service_cidr: Annotated[
        list[str] | None,
        typer.Option(help="Without a topology: a range of cluster IPs, for nftables mode; may be repeated."),
    ] = None,
    masquerade_all: Annotated[
        bool, typer.Option("--masquerade-all", help="Without a topology: masquerade whatever goes to a VIP.")
    ] = False,
) -> None:
    """Print kube-proxy's rules as it writes them: the input of iptables-restore, or of nft.

    With --saved, print what this kernel makes of them. With --diff, compare that with a real node's rules: what is
    missing there, extra, different, or moved to where it acts differently. Rules of others are left out.
    """
    from lab.rules.source import Choice, NodeSettings, proxies

    if json and diff is None:
        raise InputError("--json is for differences", cure="give --diff FILE too")
    if diff is not None and saved:
        raise InputError("--diff and --saved", cure="give one of them")
    if diff == source == "-":
        raise InputError("both the objects and the node's rules from stdin", cure="give one of them as a file")
    choice = Choice(proxy_mode, proxy_version, backend)
    node = NodeSettings(
        node_name, tuple(node_address or ()), tuple(cluster_cidr or ()), tuple(service_cidr or ()), masquerade_all
    )
    if diff is not None:
        raise typer.Exit(_compare(source, diff, family, choice, node, json=json))
    chosen = proxies(source, family, choice, node)
    if saved:
        from lab.netns import userns
        from lab.rules.scratch import saved as save

        userns.ensure()
        texts = [save(proxy) for proxy in chosen]
    else:
        texts = ["".join(proxy.render()) for proxy in chosen]
    for proxy, text in zip(chosen, texts, strict=True):
        print(f"# {proxy.title}", text, sep="\n", end="")


def _compare(source: str, diff: str, family: Family, choice: Choice, node: NodeSettings, *, json: bool) -> int:
    """Compare a node's rules with kube-proxy's, print the differences, and return the exit code."""
    from lab.netns import userns
    from lab.rules.check import check, read_text
    from lab.rules.dump import mode_of
    from lab.rules.output import conclusion, table, to_json
    from lab.rules.source import proxies

    text = read_text(diff)
    name = "<stdin>" if diff == "-" else diff
    proxy, *others = proxies(source, family, choice, node, mode_of(text, name))
    if others:
        names = ", ".join(one.node for one in (proxy, *others))
        raise InputError(f"{source} has several nodes: {names}", cure="say by --node-name whose rules these are")
    userns.ensure()
    comparison = check(proxy, text, name)
    if json:
        print(to_json(comparison, proxy))
        return 0 if comparison.same else 1
    from rich.console import Console

    # What is piped on is not wrapped: a rule is one line.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    if not comparison.same:
        console.print(table(comparison))
    for line in conclusion(comparison, proxy, name):
        console.print(line, markup=False, soft_wrap=True)
    return 0 if comparison.same else 1


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
    lab = build(built, name=name, family=family, fix=find(fix).name)
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


@endpoints_app.command(
    "list",
    short_help="List the endpoints of a lab that stands.",
    epilog=_examples("lab endpoints list", "lab endpoints list --json"),
)
def endpoints_list(lab: LabOption = None, json: JsonFlag = False) -> None:
    """List the endpoints of a lab that stands: ready, draining (on their way out, but serving), unready."""
    from dataclasses import asdict
    from json import dumps

    from lab.standing.commands import choose
    from lab.standing.control import endpoints, lines

    found = endpoints(choose(lab))
    if json:
        print(dumps([asdict(known) for known in found], indent=2))
    else:
        print(*lines(found), sep="\n")


@endpoints_app.command(
    "add",
    short_help="Add a ready endpoint to a Service.",
    epilog=_examples("lab endpoints add web 10.0.1.2", "lab endpoints add default/web fd00:10:0:1::2 --lab fixed"),
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
    epilog=_examples("lab endpoints remove web 10.0.1.2", "lab endpoints remove dns 10.0.1.2 --keep-conntrack"),
)
def endpoints_remove(
    service: ServiceArgument, address: AddressArgument, lab: LabOption = None, keep_conntrack: KeepConntrackFlag = False
) -> None:
    """Take an endpoint away from a Service: nothing new goes there, and what is connected goes on."""
    _change_endpoints("remove", service, address, lab, keep_conntrack)


@endpoints_app.command(
    "drain", short_help="Have an endpoint on its way out.", epilog=_examples("lab endpoints drain web 10.0.1.2")
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

    print(*lines(change(choose(lab), word, service, address, clean_conntrack=not keep_conntrack)), sep="\n")


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


from lab import cli_kernels, cli_matrix  # noqa: E402, F401  their commands, which use what stands above


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
