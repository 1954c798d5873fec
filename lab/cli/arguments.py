# SPDX-License-Identifier: MIT
"""What the commands share: the application, options and arguments, and completion."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from lab.cli.command import ALONE, OR_ALONE, App, Choice, at_least, complete_behind, one_of, words_of
from lab.errors import InputError, LabError, ServiceError
from lab.kubeproxy.said import NOTHING_SAID
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.cases import AnyCase
    from lab.fixes import Fix
    from lab.kubeproxy.said import Settings
    from lab.topology.model import Topology

Chosen = TypeVar("Chosen")

app = App(name="lab")

#: By which a command is told each of a program's own flags, which stand after ``--``.
PROGRAM_FLAG: Final = "--kube-proxy-flag"


def examples(*commands: str) -> str:
    """Return examples for the foot of a command's help."""
    # The first character keeps the help's formatter from filling the lines.
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def complete(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes one of these names in a shell."""
    return lambda incomplete: [name for name in names() if name.startswith(incomplete)]


def complete_list(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes the last name of a list with commas, by one that is not among those before it."""

    def completed(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        others = before.split(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in others]

    return completed


def one_word(words: type[Choice], option: str, meaning: str, *, default: str | bool = True) -> Any:  # noqa: ANN401
    """Return an option whose value is one of a few words, as typer's Option is.

    :param default: how its default is shown, where that is not the value itself.
    """
    return typer.Option(
        option,
        metavar=words_of(list(words)),
        parser=one_of(words),
        help=meaning,
        show_default=default,
        autocompletion=complete(lambda: words),
    )


def hosts_of(topology: str) -> Callable[[], Iterable[str]]:
    """Return what lists the hosts of a topology, that which is built where none is named, for completion."""

    def names() -> Iterable[str]:
        from lab.topology.reader import load

        return [host.name for host in load(topology).hosts]

    return names


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


def host_names() -> Iterable[str]:
    """List the hosts of the labs that stand, for completion; none where that cannot be known."""
    from lab.standing.record import labs

    with contextlib.suppress(LabError):
        return dict.fromkeys(host.name for lab in labs() for host in lab.hosts)
    return ()


def version_names() -> Iterable[str]:
    """List kube-proxy's minor releases, for completion."""
    from lab.kubeproxy.releases import MINORS

    return MINORS


@contextlib.contextmanager
def service_option() -> Iterator[None]:
    """Have what is wrong with a Service that was named begin with the option.

    :raises ServiceError: it was raised in the block.
    """
    try:
        yield
    except ServiceError as error:
        raise error.said_in("--service") from None


CasesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CASE",
        help="Cases from `lab list`, instead of the bug and its controls.",
        autocompletion=complete(case_names),
    ),
]
FixesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="FIX",
        help="A fix from `lab list`, for `lab run` also a file; may be repeated. Else: none, drop-forward, be-liberal.",
        autocompletion=complete(fix_names),
    ),
]
RepeatOption = Annotated[
    int, typer.Option(metavar="N", parser=at_least(1), help="Run every trial N times.", show_default=False)
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "-j", metavar="N", parser=at_least(1), help="How many trials at a time; else one for each processor."
    ),
]
ModeOption = Annotated[
    ProxyMode | None,
    one_word(ProxyMode, "--proxy-mode", "kube-proxy's mode, instead of the topology's."),
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
    Backend | None,
    one_word(Backend, "--backend", "In iptables mode, which program loads the rules."),
]
AnyFamilyOption = Annotated[
    Family | None, one_word(Family, "--family", "The address family.", default="ipv4, or that of --node")
]
FamilyOption = Annotated[Family, one_word(Family, "--family", "The address family.")]
ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service", metavar="SERVICE", help="Which Service is asked, instead of the first: [NAMESPACE/]NAME[:PORT]."
    ),
]


def refuse_beside_lab(given: Sequence[str]) -> None:
    """Refuse what says how a lab is built, where one stands already.

    :raises InputError: something does.
    """
    if given:
        cure = "leave it away, or `lab up` another one"
        raise InputError(f"{given[0]}, and --lab, which names a lab that is built", cure=cure)


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
HostArgument = Annotated[
    str, typer.Argument(metavar="HOST", help="A host of the lab.", autocompletion=complete(host_names))
]


def json_option(words: str) -> Any:  # noqa: ANN401 - what typer's Option is said to return
    """Return the option by which a command tells programs, which stands alone or has a file behind a ``=``."""
    return typer.Option("--json", metavar=ALONE, help=words, autocompletion=complete_behind)


JsonOption = Annotated[str | None, json_option("Print JSON instead; --json=FILE writes it there, *.gz compressed.")]
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


@dataclass(frozen=True)
class Selected:
    """Options that say what is tried, and how often."""

    cases: CasesArgument = None
    fix: FixesOption = None
    all_: Annotated[bool, typer.Option("--all", help="Every case but the slow ones, and every fix.")] = False
    slow: Annotated[bool, typer.Option("--slow", help="The slow cases, alone or with --all.")] = False
    repeat: RepeatOption = 1

    def chosen_cases(self) -> list[AnyCase]:
        """Return the cases that are named, each once, or else those that --all and --slow mean.

        :raises InputError: there is no such case, or both were given.
        """
        from lab.cases import find, usual

        for flag, given in (("--all", self.all_), ("--slow", self.slow)):
            if self.cases and given:
                cure = f"leave {flag} away, or the names"
                cure += "; for every fix of one case, name each by --fix" if self.all_ else ""
                raise InputError(f"cases by name, and {flag} besides", cure=cure)
        return chosen(self.cases, find, usual(all_=self.all_, slow=self.slow))

    def chosen_fixes(self, find: Callable[[str], Fix] | None = None) -> list[Fix]:
        """Return the fixes that are named, each once, or else those that --all means.

        :param find: finds one by what was given; None for those of the catalogue alone.
        :raises InputError: there is no such fix.
        """
        from lab import fixes

        return chosen(self.fix, find or fixes.find, fixes.FIXES.values() if self.all_ else fixes.DEFAULT_FIXES)


@dataclass(frozen=True)
class Proxy:
    """Options that say which kube-proxy, None for what a topology says."""

    proxy_mode: ModeOption = None
    proxy_version: VersionOption = None
    backend: BackendOption = None


@dataclass(frozen=True)
class Programs:
    """Options that have kube-proxy programs write the rules."""

    kube_proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--kube-proxy",
            metavar="PATH",
            help="A kube-proxy program, which writes the node's rules instead of the lab. Flags of its own come last,"
            " after --.",
        ),
    ] = None
    kube_proxy_flags: Annotated[list[str] | None, typer.Option(PROGRAM_FLAG, hidden=True)] = None
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="With several --kube-proxy: each starts by the rules of the one before.")
    ] = False


@dataclass(frozen=True)
class Files:
    """Options that say where results go."""

    json: Annotated[
        str | None,
        typer.Option(metavar=OR_ALONE, help="Write the results as JSON; - for stdout, *.gz and *.zst compressed."),
    ] = None
    packets: Annotated[bool, typer.Option("--packets", help="With --json: all packets of every trial in it.")] = False
    html: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write one HTML page: the answer, the table, and each trial drawn."),
    ] = None
    junit: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write JUnit XML for a CI system: a suite a kernel.")
    ] = None
    md: Annotated[str | None, typer.Option(metavar="FILE", help="Write the table in Markdown.")] = None
    pcapng: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write every packet at every interface, commented, for Wireshark."),
    ] = None

    def check(self) -> None:
        """Check that no file is called as a case is, which somebody meant to stand beside an option that is alone.

        :raises InputError: one is, and is not there yet.
        """
        from lab.cases import CASES

        for option, place in vars(self).items():
            if isinstance(place, str) and place in CASES and not os.path.lexists(place):
                cure = f"write --{option}=- for standard output, or --{option}=./{place}"
                raise InputError(f"--{option} {place}: a case, and no file", cure=cure)


def read_topology(reference: str, proxy: Proxy, settings: Settings = NOTHING_SAID) -> Topology:
    """Read a topology, with other settings for the kube-proxy of its nodes.

    :raises InputError: there is none of this name, it is wrong, or no such version is known.
    """
    from lab.kubeproxy.releases import find_release
    from lab.topology.reader import load
    from lab.topology.with_settings import with_proxy

    if proxy.proxy_version is not None:
        find_release(proxy.proxy_version)
    return with_proxy(load(reference), proxy.proxy_mode, proxy.proxy_version, proxy.backend, settings)


def chosen(names: list[str] | None, find: Callable[[str], Chosen], otherwise: Iterable[Chosen]) -> list[Chosen]:
    """Return what is named, each once, or else ``otherwise``."""
    return [find(name) for name in dict.fromkeys(names)] if names else list(otherwise)
