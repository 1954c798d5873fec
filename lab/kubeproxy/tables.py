"""The text of an iptables-restore input while it grows, and the two inputs that a renderer returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.kubeproxy.services import Target


NODE_PORTS_COMMENT = '"kubernetes service nodeports; NOTE: this must be the last rule in this chain"'


@dataclass(frozen=True)
class IptablesRules:
    """What kube-proxy gives to iptables, as two inputs for ``iptables-restore --noflush --counters``.

    :param restore: the filter and nat tables' KUBE chains, in one input.
    :param jumps: the jumps from the built-in chains, and the canaries: kube-proxy makes them by single calls.
        To be loaded once, after ``restore``: loaded again they would stand there twice.
    """

    restore: str
    jumps: str


@dataclass
class Tables:
    """Lines of the filter and nat tables: chains are declared before rules."""

    filter_chains: list[str] = field(default_factory=list)
    filter_rules: list[str] = field(default_factory=list)
    nat_chains: list[str] = field(default_factory=list)
    nat_rules: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Write the input."""
        lines = [
            "*filter",
            *self.filter_chains,
            *self.filter_rules,
            "COMMIT",
            "*nat",
            *self.nat_chains,
            *self.nat_rules,
            "COMMIT",
            "",
        ]
        return "\n".join(lines)


def chain(name: str) -> str:
    """Declare a chain; in an existing one it deletes the rules (``MakeChainLine``)."""
    return f":{name} - [0:0]"


def delete(tables: Tables, declarations: Iterable[str]) -> None:
    """Delete chains of the nat table: declaring one deletes its rules, without which it could not go."""
    for declaration in declarations:
        tables.nat_chains.append(declaration)
        tables.nat_rules.append(f"-X {declaration.split()[0].removeprefix(':')}")


def jumps_text(jumps: Iterable[tuple[str, str, str, str]], chains: Iterable[tuple[str, str]] = ()) -> str:
    """Write the jumps' input.

    :param jumps: table, chain to jump to, chain to jump from, match with comment. Each is put first in its
        chain, so the last one stands at the top.
    :param chains: table and name of chains that nothing else makes.
    """
    tables: dict[str, list[str]] = {}
    for table, name in chains:
        tables.setdefault(table, []).append(chain(name))
    for table, target, source, match in jumps:
        words = ["-I", source, match, "-j", target]
        tables.setdefault(table, []).append(" ".join(word for word in words if word))
    return "".join("\n".join([f"*{table}", *lines, "COMMIT", ""]) for table, lines in tables.items())


def balance(targets: tuple[Target, ...], decimals: int) -> list[str]:
    """Return each balancing rule's match: the i-th of n has probability 1/(n-i), the last has none."""
    count = len(targets)
    return [f" -m statistic --mode random --probability {1 / left:.{decimals}f}" for left in range(count, 1, -1)] + [""]
