"""The differences between kube-proxy's rules and a node's: a table for people, JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from lab.kubeproxy.sysctls import text
from lab.rules.diff import Kind
from lab.words import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.rules.diff import Comparison, Difference
    from lab.rules.source import Proxy

_STYLES: Final = {Kind.MISSING: "red", Kind.EXTRA: "yellow", Kind.DIFFERENT: "cyan", Kind.MOVED: "cyan"}


def table(comparison: Comparison) -> Table:
    """Show each difference: what it is, where, and in what words on either side."""
    shown = Table("", "chain", "rule", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for difference in comparison.differences:
        kind = Text(difference.kind, style=_STYLES[difference.kind])
        place = Text(f"{difference.table} {difference.name}".strip(), overflow="fold")
        shown.add_row(kind, place, Text("\n".join(_sides(difference)), overflow="fold"))
    return shown


def _sides(difference: Difference) -> list[str]:
    place = "the node" if difference.line is None else f"line {difference.line}"
    found = f"{place}: {difference.found}"
    if difference.kind is Kind.MOVED:
        return [f"kube-proxy has here: {difference.expected}", found]
    sides = [difference.expected] if difference.found is None else []
    if difference.found is not None and difference.expected is not None:
        sides.append(f"kube-proxy: {difference.expected}")
    if difference.found is not None:
        sides.append(found)
    return [side for side in sides if side]


def conclusion(comparison: Comparison, proxy: Proxy, source: str) -> list[str]:
    """Say in a few lines what was compared, what was not, and what came out."""
    whose = f"kube-proxy {proxy.options.release.label} ({proxy.mode}, {proxy.options.family})"
    counts = [(kind, sum(one.kind is kind for one in comparison.differences)) for kind in Kind]
    if comparison.same:
        result = f"{source} has the rules of {whose}."
    else:
        said = ", ".join(f"{count} {kind}" for kind, count in counts if count)
        result = f"{source} differs from the rules of {whose}: {said}."
    return [*proxy.notes, *comparison.left_out, result]


def to_json(comparison: Comparison, proxy: Proxy) -> str:
    """Write the comparison as JSON."""
    answer = {
        "node": proxy.node or None,
        "mode": proxy.mode,
        "version": proxy.options.version,
        "family": proxy.options.family,
        "same": comparison.same,
        "differences": [asdict(difference) for difference in comparison.differences],
        "left_out": comparison.left_out,
        "notes": proxy.notes,
    }
    return json.dumps(answer, indent=2)


def sysctls_as_text(proxies: Sequence[Proxy]) -> str:
    """Write what each kube-proxy sets, for ``sysctl -p``."""
    lines = []
    for proxy in proxies:
        lines += [f"# {proxy.node or 'kube-proxy'}: {proxy.options.version}, {proxy.mode} mode\n", text(proxy.sysctls)]
        if note := proxy.options.release.note(proxy.mode):
            lines.append(f"# {note}\n")
        if proxy.mode is ProxyMode.NFTABLES:
            lines.append("# net.ipv4.conf.all.route_localnet is left as it is, where iptables mode set it as well\n")
    return "".join(lines)


def sysctls_as_json(proxies: Sequence[Proxy]) -> str:
    """Write what each kube-proxy sets as JSON."""
    answer = [
        {
            "node": proxy.node or None,
            "mode": proxy.mode,
            "version": proxy.options.version,
            "sysctls": [
                {"name": one.name, "value": one.value, "only_raised": one.only_raised} for one in proxy.sysctls
            ],
        }
        for proxy in proxies
    ]
    return json.dumps(answer, indent=2) + "\n"
