# SPDX-License-Identifier: MIT
"""What a dump of a node's rules holds of kube-proxy, whichever program printed it.

A dump of a real node holds other people's rules too: of the CNI plug-in, of Docker, the user's own. kube-proxy's are
the chains named KUBE-, and the jumps to these from the built-in chains; with nft, the table ``kube-proxy`` of the
family. What else there is, is counted and left out; in the other family it is kube-proxy's as well, and not compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from lab.errors import InputError
from lab.rules.pieces import CURE, each_line
from lab.vocabulary import ProxyMode

#: The chain by which kube-proxy marks what the kubelet's KUBE-FIREWALL drops, up to v1.24.
MARK_DROP: Final = "KUBE-MARK-DROP"

# Chains with kube-proxy's prefix that others make: the kubelet (pkg/kubelet/kubelet_network_linux.go) and kube-router
# (its network policies and service proxy).
_OTHERS: Final = re.compile(r"KUBE-(KUBELET-CANARY|IPTABLES-HINT|ROUTER-|NWPLCY-|POD-FW-)")
# Chains of ipvs mode (pkg/proxy/ipvs/proxier.go); the first is gone with v1.28, KUBE-NODE-PORT stays.
OF_IPVS: Final = frozenset({"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"})
_TARGET: Final = re.compile(r" -[jg] (\S+)")
_COMMENT: Final = re.compile(r' --comment ("(?:[^"\\]|\\.)*"|\S+)')


class Line(NamedTuple):
    """A rule, an element or a property. ``number`` is its line in the dump, from 1."""

    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Container:
    """What holds rules or elements.

    :param kind: ``chain``, ``set`` or ``map``; ``jumps`` for those from a built-in chain; ``table`` for what an nft
        table says of itself.
    :param table: as in ``nat``, or ``ip kube-proxy``.
    :param lines: rules and properties in their order.
    :param elements: of a set or a map.
    """

    kind: str
    table: str
    name: str
    number: int = 0
    lines: list[Line] = field(default_factory=list)
    elements: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Dump:
    """What of a dump is kube-proxy's.

    :param tables: those that the dump has at all.
    :param others: how many rules of others there were, by table and chain; among them, by its table, those of
        kube-proxy for the other family.
    :param owners: how many rules of others there were, by who wrote them.
    :param counts_by_name: whether any rule counts by nfacct.
    :param entered: chains of kube-proxy that rules of others jump to, by table and name.
    :param notes: what has to be known of how it was read, in sentences.
    :param partial: it is a part of what the program prints: what is not in it may be on the node all the same.
    """

    mode: ProxyMode
    tables: frozenset[str]
    containers: dict[tuple[str, str], Container]
    others: Counter[str]
    owners: Counter[str] = field(default_factory=Counter)
    counts_by_name: bool = False
    entered: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = ()
    partial: bool = False

    def without_comments(self) -> Dump:
        """Return it without what tables, chains, sets and maps say of themselves in comments."""
        containers = {
            place: replace(one, lines=[line for line in one.lines if not line.text.startswith('comment "')])
            for place, one in self.containers.items()
        }
        return replace(
            self, containers={place: one for place, one in containers.items() if one.kind != "table" or one.lines}
        )

    def without_kubelets(self, chains: Sequence[str]) -> Dump:
        """Return it without chains that are the kubelet's, the jumps to them, and what the kubelet marks drops by."""
        containers: dict[tuple[str, str], Container] = {}
        jumps = tuple(f"-j {name}" for name in chains)
        for place, one in self.containers.items():
            if place[1] in chains:
                continue
            if place[1] == MARK_DROP:
                containers[place] = replace(one, lines=[])
            elif one.kind == "chain":
                containers[place] = one
            else:
                containers[place] = replace(one, lines=[line for line in one.lines if not line.text.endswith(jumps)])
        return replace(self, containers=containers)


def is_kube_proxys(chain: str) -> bool:
    """Report whether a chain of iptables is one of kube-proxy's, by its name."""
    return chain.startswith("KUBE-") and not _OTHERS.match(chain)


def target_of(rule: str) -> str:
    """Return what a rule jumps to; empty where it does not. A comment may speak of jumps too."""
    bare = f" {rule}"
    last = bare.rpartition(" -j ")[2]
    if len(last) < len(bare) and " " not in last and '"' not in last:
        return last  # nearly all rules end so, and this is quicker than a pattern
    if " --comment " in bare:
        bare = _COMMENT.sub("", bare)
    target = _TARGET.search(bare)
    return target[1] if target else ""


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines that say something, with their numbers."""
    for number, (_, line) in enumerate(each_line(text), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def no_table(wanted: str, source: str, chains: Collection[str]) -> InputError:
    """Return the error of a dump of nft's without kube-proxy's table.

    :param chains: the names of all chains in it.
    """
    if not OF_IPVS.isdisjoint(chains):
        return of_ipvs(source)
    of_iptables = "KUBE-SERVICES" in chains
    cure = "this node is in iptables mode: give what iptables-save prints" if of_iptables else CURE
    return InputError(f"there is no table {wanted} in it", source=source, cure=cure)


def of_ipvs(source: str, line: int | None = None) -> InputError:
    """Return the error of a dump of a node in ipvs mode."""
    message = "a dump of a node in ipvs mode: its Services are in IPVS and in ipsets, and its rules only mark"
    cure = "look there with 'ipvsadm -Ln' and 'ipset list'; nodes in iptables and nftables mode can be compared"
    return InputError(message, source=source, line=line, cure=cure)
