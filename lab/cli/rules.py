# SPDX-License-Identifier: MIT
"""`lab rules` and `lab topology`: what a node is given, and how a lab is written down."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lab.cli.arguments import (
    ANY_WIDTH,
    BackendOption,
    FamilyOption,
    ModeOption,
    app,
    complete,
    console,
    draw,
    examples,
    steps,
    topology_names,
    version_names,
)
from lab.cli.kube_proxy import CommandWithSettings, with_settings
from lab.errors import InputError
from lab.kubeproxy.settings import SETTINGS
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.kubeproxy.said import Settings
    from lab.rules.source import Choice, Proxy

AUTO: Final = "auto"
"""For --proxy-version: the release that fits."""

topology_app = typer.Typer(help="Help with writing topology files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(topology_app, name="topology")


@topology_app.command("schema", epilog=examples("lab topology schema > topology.schema.json"))
def topology_schema() -> None:
    """Print the JSON Schema of topology files, for editors."""
    import json

    from lab.topology.reader import json_schema

    print(json.dumps(json_schema(), indent=2))


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
    )
    + """

Exit code: 0; with --diff 0 when the node has these rules and 1 when they differ; 2 for an error.""",
)
@with_settings(SETTINGS)
def rules(
    source: Annotated[
        str,
        typer.Argument(
            help="A topology by name or file, or a YAML file of Services and EndpointSlices; - for stdin.",
            autocompletion=complete(topology_names),
        ),
    ] = "kube-proxy",
    proxy_mode: ModeOption = None,
    proxy_version: Annotated[
        str | None,
        typer.Option(help="Whose rules, such as v1.14, instead of the topology's; with --diff also auto: what fits."),
    ] = None,
    backend: BackendOption = None,
    family: FamilyOption = Family.IPV4,
    saved: Annotated[
        bool,
        typer.Option(
            "--saved",
            help="As iptables-save or nft list gives them back, loaded by this kernel (very many: not loaded).",
        ),
    ] = False,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare with what iptables-save, iptables -S or nft [-j] list printed on a node; - for stdin.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="What an upgrade from this version changes in the rules, by change.",
            autocompletion=complete(version_names),
        ),
    ] = None,
    sysctls: Annotated[
        bool,
        typer.Option(
            "--sysctls",
            help="Print the sysctls that kube-proxy sets, as sysctl -p takes them; but for nf_conntrack_max, which is"
            " the machine's.",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the differences, the changes or the sysctls as JSON.")
    ] = False,
    *,
    settings: Settings,
) -> None:
    """Print kube-proxy's rules as it writes them: the input of iptables-restore, or of nft.

    With --saved, print what this kernel makes of them. With --diff, compare that with a real node's rules: what is
    missing there, extra, different, or moved to where it acts differently; first what changes where packets go, and
    what explains it: another version, name or setting than was given. Rules of others are left out.
    """
    from lab.rules.source import Choice, proxies

    gc.disable()  # looking for cycles takes half of the time with many Services, and there are none
    asked = {"--since": since is not None, "--diff": diff is not None, "--saved": saved, "--sysctls": sysctls}
    if sum(asked.values()) > 1:
        given = " and ".join(option for option, is_given in asked.items() if is_given)
        raise InputError(given, cure="give one of them")
    if json and (saved or not any(asked.values())):
        cure = "give --diff FILE, --since VERSION or --sysctls too"
        raise InputError("--json is for differences, changes and sysctls", cure=cure)
    if diff == source == "-":
        raise InputError("both the objects and the node's rules from stdin", cure="give one of them as a file")
    if proxy_version == AUTO and diff is None:
        others = [option for option, is_given in asked.items() if is_given]
        cure = f"name the release that {others[0]} is for" if others else "give --diff FILE too"
        raise InputError(f"--proxy-version {AUTO}, and nothing to fit", cure=cure)
    choice = Choice(proxy_mode, proxy_version, backend)
    if diff is not None:
        raise typer.Exit(_compare(source, diff, family, choice, settings, json=json))
    with steps() as say:
        say(f"reading {'stdin' if source == '-' else source}")
        chosen = proxies(source, family, choice, settings)
    if backend is not None and not saved:
        raise InputError("--backend, and kube-proxy writes the same for both", cure="give --saved too")
    for note in dict.fromkeys(note for proxy in chosen for note in proxy.notes):
        print(f"lab: {note}", file=sys.stderr)
    if since is not None:
        _print_upgrade(chosen, since, json=json)
        return
    if sysctls:
        _print_sysctls(chosen, json=json)
        return
    with steps() as say:
        say("loading and saving the rules" if saved else "writing the rules")
        texts, notes = _saved(chosen, load=backend is not None) if saved else _rendered(chosen)
    for note in notes:
        print(f"lab: {note}", file=sys.stderr)
    for proxy, text in zip(chosen, texts, strict=True):
        print(f"# {proxy.title}", text, sep="\n", end="")


def _rendered(chosen: Sequence[Proxy]) -> tuple[list[str], list[str]]:
    return ["".join(proxy.render()) for proxy in chosen], []


def _saved(chosen: Sequence[Proxy], *, load: bool) -> tuple[list[str], list[str]]:
    """Return the rules as they are saved, and what has to be said of how they were come by, once."""
    from lab.rules.saving import save

    found = [save(proxy, load=load) for proxy in chosen]
    return [one.text for one in found], list(dict.fromkeys(one.note for one in found if one.note))


def _print_upgrade(chosen: Sequence[Proxy], since: str, *, json: bool) -> None:
    """Print what changes in the rules from one version to another."""
    from lab.rules.since import said, to_json, upgrade

    found = [(proxy, upgrade(proxy, since)) for proxy in chosen]
    if json:
        print(to_json(found))
        return
    for note in dict.fromkeys(one.before.note(proxy.mode) for proxy, one in found if not one.before.known):
        print(f"lab: {note}", file=sys.stderr)
    for proxy, one in found:
        lines = list(said(one, proxy))
        print(*([f"# {proxy.node}"] if proxy.node else []), *lines, sep="\n")


def _print_sysctls(chosen: Sequence[Proxy], *, json: bool) -> None:
    from lab.rules.sysctls_output import sysctls_as_json, sysctls_as_text

    print((sysctls_as_json if json else sysctls_as_text)(chosen), end="")


def _compare(source: str, diff: str, family: Family, choice: Choice, settings: Settings, *, json: bool) -> int:
    """Compare a node's rules with kube-proxy's, print the differences, and return the exit code."""
    from dataclasses import replace

    from lab.kubeproxy.releases import MINORS
    from lab.rules.check import compared, fitted, read_node, read_text
    from lab.rules.output import conclusion, table, to_json
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
    if json:
        print(to_json(comparison, proxy))
        return 0 if comparison.same else 1
    screen = console()
    if not screen.is_terminal:
        screen.width = ANY_WIDTH  # what is piped on is not wrapped: a rule is one line
    if drawn := table(comparison):
        draw(screen, lambda _width: [drawn])
    for line in conclusion(comparison, proxy, name):
        screen.print(line, markup=False, soft_wrap=True)
    return 0 if comparison.same else 1
