# SPDX-License-Identifier: MIT
"""`lab rules`: what a node is given."""

from __future__ import annotations

import gc
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lab.cli.arguments import (
    FamilyOption,
    Programs,
    Proxy,
    app,
    complete,
    examples,
    json_option,
    topology_names,
    version_names,
)
from lab.cli.comparison import told
from lab.cli.documents import JsonPlace
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.cli.programs import with_program
from lab.cli.screen import steps, tell_all
from lab.errors import InputError
from lab.kubeproxy.releases import MINORS
from lab.kubeproxy.settings import SETTINGS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.said import Settings
    from lab.rules.source import Choice
    from lab.rules.source import Proxy as Source

AUTO: Final = "auto"
"""For --proxy-version: the release that fits."""


@dataclass(frozen=True)
class Asked:
    """Options that ask for something else than the rules as they are written."""

    saved: Annotated[
        bool,
        typer.Option(
            "--saved",
            help="As iptables-save or nft list gives them back, loaded by this kernel (very many: not loaded).",
        ),
    ] = False
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare with what iptables-save, iptables -S or nft [-j] list printed on a node; - for stdin. With"
            f" --proxy-version {AUTO}, the release that fits. With --kube-proxy, alone: with what the program writes.",
        ),
    ] = None
    since: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="What an upgrade changes in the rules, from this version to --proxy-version, else the newest known.",
            autocompletion=complete(version_names),
        ),
    ] = None
    sysctls: Annotated[
        bool,
        typer.Option(
            "--sysctls",
            help="Print the sysctls that kube-proxy sets, as sysctl -p takes them; but for nf_conntrack_max, which is"
            " the machine's.",
        ),
    ] = False
    json: Annotated[
        str | None,
        json_option("Print the differences, the changes or the sysctls as JSON instead; --json=FILE writes it there."),
    ] = None

    def check(self, version: str | None) -> None:
        """Check that these go together.

        :raises InputError: they do not.
        """
        asked = {
            "--since": self.since is not None,
            "--diff": self.diff is not None,
            "--saved": self.saved,
            "--sysctls": self.sysctls,
        }
        given = [option for option, is_given in asked.items() if is_given]
        if len(given) > 1:
            raise InputError(" and ".join(given), cure="give one of them")
        if self.json is not None and (self.saved or not given):
            cure = "give --diff FILE, --since VERSION or --sysctls too"
            raise InputError("--json is for differences, changes and sysctls", cure=cure)
        if version == AUTO and self.diff is None:
            cure = f"name the release that {given[0]} is for" if given else "give --diff FILE too"
            raise InputError(f"--proxy-version {AUTO}, and nothing to fit", cure=cure)

    def check_for_program(self) -> None:
        """Check that this may be asked of a kube-proxy program.

        :raises InputError: it may not.
        """
        if given := "--since" if self.since is not None else "--sysctls" if self.sysctls else "":
            raise InputError(f"--kube-proxy and {given}", cure="leave one of them away")
        if self.diff:
            raise InputError("--kube-proxy and --diff FILE", cure="--diff alone compares with what the program writes")


@app.command(
    cls=CommandWithSettings,
    short_help="Print kube-proxy's rules, or compare them with a real node's.",
    epilog=examples(
        "lab rules",
        "lab rules kube-proxy --proxy-version v1.15 --family ipv6 --saved",
        "kubectl get services,endpointslices -A -o yaml | lab rules - --cluster-cidr 10.244.0.0/16",
        "lab rules objects.yaml --since v1.28 --proxy-version v1.33",
        "lab rules objects.yaml --diff node.txt --proxy-version v1.29 --node-name worker-1",
        "lab rules --sysctls --proxy-version v1.28",
        "lab rules objects.yaml --kube-proxy ./kube-proxy --diff",
    )
    + """

Exit code: 0; with --diff 0 when the node has these rules and 1 when they differ; 2 for an error.""",
)
@with_settings(SETTINGS)
def rules(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A topology by name or file, or a YAML file of Services and EndpointSlices; - for stdin.",
            autocompletion=complete(topology_names),
        ),
    ] = "kube-proxy",
    proxy: Proxy,
    programs: Programs,
    family: FamilyOption = Family.IPV4,
    asked: Asked,
    settings: Settings,
) -> None:
    """Print kube-proxy's rules as it writes them: the input of iptables-restore, or of nft.

    With --saved, print what this kernel makes of them. With --diff, compare that with a real node's rules: what is
    missing there, extra, different, or moved to where it acts differently; first what changes where packets go, and
    what explains it: another version, name or setting than was given. Rules of others are left out.
    """
    from lab.rules.source import Choice, proxies

    gc.disable()  # looking for cycles takes half of the time with many Services, and there are none
    asked.check(proxy.proxy_version)
    choice = Choice(proxy.proxy_mode, proxy.proxy_version, proxy.backend)
    if programs.kube_proxy:
        from lab.cli.program_rules import of_program

        raise typer.Exit(of_program(source, choice, with_program(programs, settings), family, asked))
    if asked.diff is not None:
        raise typer.Exit(_compare(source, asked.diff, family, choice, settings, JsonPlace(asked.json)))
    if asked.since is not None and choice.version is None:
        choice = replace(choice, version=MINORS[-1])
    with steps() as say:
        say(f"reading {'stdin' if source == '-' else source}")
        chosen = proxies(source, family, choice, settings)
    if choice.backend is not None and not asked.saved:
        raise InputError("--backend, and kube-proxy writes the same for both", cure="give --saved too")
    for note in dict.fromkeys(note for one in chosen for note in one.notes):
        print(f"lab: {note}", file=sys.stderr)
    if asked.since is not None:
        _print_upgrade(chosen, asked.since, JsonPlace(asked.json))
    elif asked.sysctls:
        _print_sysctls(chosen, JsonPlace(asked.json))
    else:
        _print_rules(chosen, saved=asked.saved, load=choice.backend is not None)


def _print_rules(chosen: Sequence[Source], *, saved: bool, load: bool) -> None:
    """Print the rules as kube-proxy writes them, or as they are saved."""
    with steps() as say:
        say("loading and saving the rules" if saved else "writing the rules")
        texts, notes = _saved(chosen, load=load) if saved else _rendered(chosen)
    for note in notes:
        print(f"lab: {note}", file=sys.stderr)
    for one, text in zip(chosen, texts, strict=True):
        print(f"# {one.title}", text, sep="\n", end="")


def _rendered(chosen: Sequence[Source]) -> tuple[list[str], list[str]]:
    return ["".join(proxy.render()) for proxy in chosen], []


def _saved(chosen: Sequence[Source], *, load: bool) -> tuple[list[str], list[str]]:
    """Return the rules as they are saved, and what has to be said of how they were come by, once."""
    from lab.rules.saving import save

    found = [save(proxy, load=load) for proxy in chosen]
    return [one.text for one in found], list(dict.fromkeys(one.note for one in found if one.note))


def _print_upgrade(chosen: Sequence[Source], since: str, place: JsonPlace) -> None:
    """Print what changes in the rules from one version to another."""
    from lab.rules.since import said, upgrade
    from lab.rules.told import upgraded

    found = [(proxy, upgrade(proxy, since)) for proxy in chosen]
    place.write("rules-since", lambda: {"nodes": [asdict(upgraded(*one)) for one in found]})
    if place.on_stdout:
        return
    for proxy, one in found:
        lines = list(said(one, proxy))
        tell_all([*([f"# {proxy.node}"] if proxy.node else []), *lines])


def _print_sysctls(chosen: Sequence[Source], place: JsonPlace) -> None:
    from lab.rules.sysctls_output import sysctls_as_text
    from lab.rules.told import sysctls_of

    place.write("rules-sysctls", lambda: {"nodes": [asdict(sysctls_of(one)) for one in chosen]})
    if not place.on_stdout:
        print(sysctls_as_text(chosen), end="")


def _compare(source: str, diff: str, family: Family, choice: Choice, settings: Settings, place: JsonPlace) -> int:
    """Compare a node's rules with kube-proxy's, print the differences, and return the exit code."""
    from lab.rules.check import compared, fitted, read_node, read_text
    from lab.rules.read_dump import given
    from lab.rules.source import proxies

    name = "<stdin>" if diff == "-" else diff
    rules = given(read_text(diff), name)
    auto = choice.version == AUTO
    if auto:
        choice = replace(choice, version=MINORS[-1])
    with steps() as say:
        say(f"reading {'stdin' if source == '-' else source}")
        proxy, *others = proxies(source, family, choice, settings, rules.mode)
    if others:
        names = ", ".join(one.node for one in (proxy, *others))
        raise InputError(f"{source} has several nodes: {names}", cure="say by --node-name whose rules these are")
    if choice.backend is not None:
        print("lab: --backend makes no difference: both programs save the same but for its order", file=sys.stderr)
    with steps() as say:
        say(f"comparing with {name}")
        found = read_node(rules, proxy)
        del rules  # of many Services they are large
        if auto:
            say(f"trying which release fits {name}")
            proxy, comparison = fitted(proxy, found)
        else:
            comparison = compared(proxy, found)
    return told(comparison, proxy, name, place)
