# SPDX-License-Identifier: MIT
"""What a person types on the node to have a fix there: the very change that the trials had."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from lab.results.result import Remedy
from lab.topology.kube_proxy import addition
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.fixes import Fix
    from lab.topology.model import Host, Topology

_TABLE: Final = re.compile(r"\*([a-z]+)$")


def remedies(topology: Topology, node: str, families: Sequence[Family], fixes: Iterable[Fix]) -> Iterator[Remedy]:
    """Yield how each fix is made on a node, and how it stays; of those that change nothing there, nothing.

    :param families: those that were tried.
    """
    host = topology.host(node)
    mode = host.proxy_mode or ProxyMode.IPTABLES
    for fix in fixes:
        commands = tuple(dict.fromkeys(_commands(topology, host, mode, families, fix)))
        if commands:
            yield Remedy(fix.name, commands, fix.lasting.get(mode, ""))


def _commands(topology: Topology, host: Host, mode: ProxyMode, families: Sequence[Family], fix: Fix) -> Iterator[str]:
    change = fix.change
    for key, value in change.sysctls.items():
        yield f"sysctl -w {key.replace('/', '.')}={value}"
    for family in families:
        added = addition(topology, family, change, mode)
        if mode is ProxyMode.IPTABLES:
            yield from _iptables(f"{family.iptables}-{host.backend}", added)
        else:
            yield from (f"nft '{line}'" for line in added.splitlines() if line)
    for text in change.texts:
        names = [one.iptables for one in families if text.family in (None, one)]
        loader = ["nft -f"] if text.mode is ProxyMode.NFTABLES else [f"{name}-restore --noflush" for name in names]
        yield from (f"{one} {text.source}" for one in loader)
    yield from (line for line in change.script.splitlines() if not line.startswith("#!"))


def _iptables(program: str, restore: str) -> Iterator[str]:
    """Yield a call for each rule of an iptables-restore input."""
    table = "filter"
    for line in restore.splitlines():
        if found := _TABLE.match(line):
            table = found[1]
        elif line.startswith("-"):
            yield f"{program} -w -t {table} {line}"
