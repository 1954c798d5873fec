# SPDX-License-Identifier: MIT
"""nftables mode: the lines of one transaction, and what was written of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import InputError
from lab.kubeproxy import changes
from lab.kubeproxy.faults import refuse_comment
from lab.kubeproxy.nftables_names import MARK, table_of
from lab.kubeproxy.options import ProxyOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.kubeproxy.nftables_layout import BaseChain, Jump


class Transaction:
    """Writes the lines of one transaction."""

    comments = True
    """Whether tables, chains, sets and maps carry comments, besides rules and elements."""

    def __init__(self, options: ProxyOptions) -> None:
        self.options = options
        self.release = options.release
        self.ip = options.family.nft
        self.address = f"{options.family}_addr"
        self.table = table_of(options.family)
        self.lines: list[str] = []
        # What was written, for a sync to compare with: elements by container and key, the rest by name.
        self.elements: dict[str, dict[str, str]] = {}
        self.chains: dict[str, None] = {}
        self.affinities: dict[str, None] = {}
        # From v1.36 the mark is set where the jump to the chain was.
        self.mark = f"mark set mark or {MARK}" if changes.ENDPOINT_MAPS in self.release else "jump mark-for-masquerade"
        self.from_pods, self.from_elsewhere = self._pods_matches()

    def _pods_matches(self) -> tuple[str | None, str | None]:
        """Return the matches of what local pods send, and of what others do; None where they are not told."""
        match = self.options.pods_match
        if match is None:
            return None, None
        option, value = match
        if option == "-s":
            return f"{self.ip} saddr {value}", f"{self.ip} saddr != {value}"
        key = "iifname" if changes.INTERFACE_BY_NAME in self.release else "iif"
        if key == "iif" and value.endswith("+"):
            message = f"kube-proxy {self.options.version} in nftables mode loads no rule with an interface name prefix"
            raise InputError(f"{message} (Interface does not exist)", cure="take v1.33.6, v1.34.2 or later")
        name = f'"{value.removesuffix("+")}{"*" if value.endswith("+") else ""}"'
        return f"{key} {name}", f"{key} != {name}"

    def text(self) -> str:
        """Return the transaction."""
        return "\n".join([*self.lines, ""])

    def rule(self, chain: str, rule: str, comment: str | None = None) -> None:
        """Add a rule."""
        said = f' comment "{comment}"' if comment else ""
        self.lines.append(f"add rule {self.table} {chain} {rule}{said}")

    def chain(self, name: str) -> None:
        """Add a chain without rules."""
        self.chains[name] = None
        self.lines += [f"add chain {self.table} {name}", f"flush chain {self.table} {name}"]

    def container(self, kind: str, name: str, contents: str, comment: str, flags: str = "") -> None:
        """Add a set or a map without elements."""
        properties = f"type {contents} ;{flags and f' flags {flags} ;'}"
        self.lines.append(f"add {kind} {self.table} {name} {{ {properties}{self.comment(comment)} }}")
        self.lines.append(f"flush {kind} {self.table} {name}")

    def comment(self, text: str) -> str:
        """Return the comment of a table, a chain, a set or a map; empty in releases that write none."""
        return f' comment "{text}" ;' if self.comments else ""

    def element(self, container: str, key: str, value: str = "", comment: str = "") -> None:
        """Add an element; what has its key already stays."""
        refuse_comment(comment, self.options)
        known = self.elements.setdefault(container, {})
        if key not in known:  # ports share a cluster IP, services share endpoints
            said = f' comment "{comment}"' if comment else ""
            known[key] = f"{key}{said}{value and f' : {value}'}"
            self.lines.append(f"add element {self.table} {container} {{ {known[key]} }}")

    def write_base_chains(self, base_chains: Iterable[BaseChain], jumps: Sequence[Jump]) -> None:
        """Write the base chains and the chains that they jump to."""
        lines, table = self.lines, self.table
        base_chains = tuple(base_chains)
        for name, _, _, _ in base_chains:  # made anew, as a base chain's priority cannot be changed
            lines += [f"add chain {table} {name}", f"delete chain {table} {name}"]
        for name, kind, hook, priority in base_chains:
            lines.append(f"add chain {table} {name} {{ type {kind} hook {hook} priority {priority} ; }}")
            lines.append(f"flush chain {table} {name}")
        for name in dict.fromkeys(target for _, target, _ in jumps):
            self.chain(name)
        for source, target, condition in jumps:
            self.rule(source, f"{condition}jump {target}")
