"""Reads dumps of rules, of ``iptables-save`` (also with ``-c``) and ``nft list``: what in them is kube-proxy's.

What ``iptables -S`` prints is made like them by :mod:`lab.rules.listing`; what ``nft -j list`` prints is recognised
here, and read by :mod:`lab.rules.json_dump`.

A dump of a real node holds other people's rules too: of the CNI plug-in, of Docker, the user's own. kube-proxy's are
the chains named KUBE-, and the jumps to these from the built-in chains; with nft, the table ``kube-proxy`` of the
family. What else there is, is counted and left out; in the other family it is kube-proxy's as well, and not compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from lab.errors import InputError
from lab.kubeproxy.nftables import table_of
from lab.rules import listing
from lab.vocabulary import Family, ProxyMode

CURE: Final = "give what iptables-save or 'nft list ruleset' prints on the node"
#: The chain by which kube-proxy marks what the kubelet's KUBE-FIREWALL drops, up to v1.24.
MARK_DROP: Final = "KUBE-MARK-DROP"

CUT_OFF: Final = "was it cut off? " + CURE

# Chains with kube-proxy's prefix that others make: the kubelet (pkg/kubelet/kubelet_network_linux.go) and kube-router
# (its network policies and service proxy).
_OTHERS: Final = re.compile(r"KUBE-(KUBELET-CANARY|IPTABLES-HINT|ROUTER-|NWPLCY-|POD-FW-)")
# Chains of ipvs mode (pkg/proxy/ipvs/proxier.go); the first is gone with v1.28, KUBE-NODE-PORT stays.
_OF_IPVS: Final = frozenset({"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER"})
_OF_A_SET: Final = " --match-set KUBE-"
_BUILT_IN: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

_IPTABLES_LINE: Final = re.compile(
    r"\*(?P<table>[a-z]+)|:(?P<chain>\S+) (?P<policy>\S+)(?: \[\d+:\d+\])?|(?P<commit>COMMIT)"
    r"|(?:\[\d+:\d+\] )?-A (?P<source>\S+)(?P<rule>(?: .*)?)"
)
_TARGET: Final = re.compile(r" -[jg] (\S+)")
_COMMENT: Final = re.compile(r' --comment ("(?:[^"\\]|\\.)*"|\S+)')
_TABLE_LINE: Final = re.compile(r"^[ \t]*\*([a-z]+)[ \t\r]*$", re.MULTILINE)
_RULES_ADDRESS: Final = re.compile(r"^.*-A KUBE-.* -[sd] ([0-9a-fA-F:.]+)", re.MULTILINE)
_ADDRESS: Final = re.compile(r"(?:^| )-[sd] ([0-9a-fA-F:.]+)")
_PROPERTY: Final = re.compile(r"type \S+ hook |policy |comment \"|devices? ")  # what a chain says of itself
_HANDLE: Final = re.compile(r" # handle \d+$")
_WITHOUT_VALUE: Final = re.compile(r"(?:^| )(-[sdpiomjg])(?= -| !|$)")
_STRINGS: Final = re.compile(r'"[^"]*"')
_BETWEEN: Final = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')  # commas outside of strings


class Line(NamedTuple):
    """A rule, an element or a property. ``number`` is its line in the dump, from 1."""

    text: str
    number: int


@dataclass(frozen=True)
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
    :param counts_by_name: whether any rule counts by nfacct.
    :param entered: chains of kube-proxy that rules of others jump to, by table and name.
    :param notes: what has to be known of how it was read, in sentences.
    """

    mode: ProxyMode
    tables: frozenset[str]
    containers: dict[tuple[str, str], Container]
    others: Counter[str]
    counts_by_name: bool = False
    entered: frozenset[tuple[str, str]] = frozenset()
    notes: tuple[str, ...] = ()

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


def mode_of(text: str, source: str) -> ProxyMode:
    """Tell what printed a dump, by its first line that says something.

    :raises InputError: it is no dump.
    """
    for number, line in _lines(text):
        if line.startswith("*"):
            return ProxyMode.IPTABLES
        if listing.is_one(line):
            if "\n-N " in f"\n{text}" or "\n-P " in f"\n{text}":
                return ProxyMode.IPTABLES
            raise InputError(
                "rules without their chains: was this picked out by grep?", source=source, line=number, cure=CURE
            )
        if line.startswith("Chain "):
            message = "what iptables -L prints, which leaves out the half of a rule"
            raise InputError(message, source=source, line=number, cure=CURE)
        if re.match(r"table \S+ \S+ \{", line) or line.startswith("{"):
            return ProxyMode.NFTABLES
        raise InputError("this is no dump of rules", source=source, line=number, cure=CURE)
    raise InputError("empty: there are no rules in it", source=source, cure=CURE)


def is_json(text: str) -> bool:
    """Tell whether a dump is JSON."""
    return next((line for _, line in _lines(text)), "").startswith("{")


def no_table(wanted: str, source: str, chains: Collection[str]) -> InputError:
    """Return the error of a dump of nft's without kube-proxy's table.

    :param chains: the names of all chains in it.
    """
    if not _OF_IPVS.isdisjoint(chains):
        return _ipvs(source)
    of_iptables = "KUBE-SERVICES" in chains
    cure = "this node is in iptables mode: give what iptables-save prints" if of_iptables else CURE
    return InputError(f"there is no table {wanted} in it", source=source, cure=cure)


def _ipvs(source: str, line: int | None = None) -> InputError:
    message = "a dump of a node in ipvs mode: its Services are in IPVS and in ipsets, and its rules only mark"
    cure = "look there with 'ipvsadm -Ln' and 'ipset list'; nodes in iptables and nftables mode can be compared"
    return InputError(message, source=source, line=line, cure=cure)


def read(text: str, source: str, family: Family) -> Dump:
    """Read a dump that is text.

    :param source: what to call it in errors.
    :raises InputError: with the line, where it is no dump, is cut off, or has nothing of kube-proxy in this family.
    """
    if mode_of(text, source) is ProxyMode.IPTABLES:
        return _read_iptables(text, source, family)
    return _read_nft(text, source, family)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _ours(chain: str) -> bool:
    return chain.startswith("KUBE-") and not _OTHERS.match(chain)


def _read_iptables(text: str, source: str, family: Family) -> Dump:
    containers: dict[tuple[str, str], Container] = {}
    tables: set[str] = set()
    others: Counter[str] = Counter()
    entered: set[tuple[str, str]] = set()
    matches_sets = 0
    table, number = "", 0
    text, notes = _of_family(text, family, source)
    lines: Iterable[tuple[int, str]] = _lines(text)
    if listing.is_one(next(_lines(text))[1]):
        lines, notes = listing.as_saved(lines, source)
    for number, line in lines:
        parsed = _IPTABLES_LINE.fullmatch(line)
        if parsed is None:
            raise InputError("no line of iptables-save", source=source, line=number, cure=CURE)
        if parsed["table"]:
            if table:
                raise InputError(f"the table {table} has no end", source=source, line=number, cure=CUT_OFF)
            table = parsed["table"]
            tables.add(table)
        elif not table:
            raise InputError("outside of a table", source=source, line=number, cure=CUT_OFF)
        elif parsed["commit"]:
            table = ""
        elif chain := parsed["chain"]:
            if _ours(chain):
                containers[table, chain] = Container("chain", table, chain, number)
        else:
            name, rule = parsed["source"], parsed["rule"].strip()
            if not _ours(name):
                target = target_of(rule)
                if name not in _BUILT_IN or not _ours(target):
                    others[f"{table} {name}"] += 1
                    if _ours(target):
                        entered.add((table, target))
                    continue
                containers.setdefault((table, name), Container("jumps", table, name, number))
            elif (table, name) not in containers:
                message = f"a rule of the chain {name}, which is not declared"
                raise InputError(message, source=source, line=number, cure=CUT_OFF)
            if _OF_A_SET in rule:
                matches_sets = matches_sets or number
            _check_family(rule, family, source, number)
            if missing := _WITHOUT_VALUE.search(_STRINGS.sub('""', rule)):
                message = f"no rule that iptables-save prints: nothing behind {missing[1]}"
                raise InputError(message, source=source, line=number, cure=CURE)
            containers[table, name].lines.append(Line(rule, number))
    if table:
        raise InputError(f"ends within the table {table}", source=source, line=number, cure=CUT_OFF)
    if not any(container.kind == "chain" for container in containers.values()):
        cure = "save with the backend that kube-proxy uses: iptables-nft-save or iptables-legacy-save"
        raise InputError("there is no chain of kube-proxy in it", source=source, cure=cure)
    names = {name for _, name in containers}
    if (matches_sets or not _OF_IPVS.isdisjoint(names)) and not any(name.startswith("KUBE-SVC-") for name in names):
        raise _ipvs(source, matches_sets or None)
    return Dump(
        ProxyMode.IPTABLES,
        frozenset(tables),
        containers,
        others,
        counts_by_name="-m nfacct " in text,
        entered=frozenset(entered),
        notes=tuple(notes),
    )


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


def _of_family(text: str, family: Family, source: str) -> tuple[str, list[str]]:
    """Return what is of a family where several dumps stand in one file, each line where it was, and say so.

    :raises InputError: more than one is of this family, or none is.
    """
    starts, seen = [0], set[str]()
    for found in _TABLE_LINE.finditer(text):
        if found[1] in seen:
            starts.append(found.start())
            seen.clear()
        seen.add(found[1])
    if len(starts) == 1:
        return text, []
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    addresses = [_RULES_ADDRESS.search(piece) for piece in pieces]
    its = [number for number, one in enumerate(addresses) if one and (":" in one[1]) == (family is Family.IPV6)]
    its = its or [number for number, one in enumerate(addresses) if one is None]
    if len(its) != 1:
        line = text.count("\n", 0, starts[1]) + 1
        message = f"another dump begins here, and {len(its)} of the {len(pieces)} are of {family}"
        raise InputError(message, source=source, line=line, cure="give one of them")
    before = text.count("\n", 0, starts[its[0]])
    return "\n" * before + pieces[its[0]], [
        f"{len(pieces)} dumps stand in the file: compared is the one from line {before + 1} on."
    ]


def _check_family(rule: str, family: Family, source: str, number: int) -> None:
    address = _ADDRESS.search(rule)
    if address and (":" in address[1]) != (family is Family.IPV6):
        other = Family.IPV4 if family is Family.IPV6 else Family.IPV6
        message = f"a rule of {other}, but the rules are compared for {family}"
        raise InputError(message, source=source, line=number, cure=f"give --family {other}, or the other dump")


def _read_nft(text: str, source: str, family: Family) -> Dump:
    wanted = table_of(family)
    containers: dict[tuple[str, str], Container] = {}
    tables: set[str] = set()
    others: Counter[str] = Counter()
    foreign = ForeignChains(family)
    table, chain, container, depth, number = "", "", None, 0, 0
    for number, line in _lines(text):
        bare = _STRINGS.sub("", line)
        before, depth = depth, depth + bare.count("{") - bare.count("}")
        if depth < 0:
            raise InputError("a } too many", source=source, line=number, cure=CURE)
        said = _HANDLE.sub("", line)
        if before == 0:
            table = _table(said, source, number)
            tables.add(table)
        elif table != wanted:
            if before == 1:
                chain = said.split()[1] if said.startswith("chain ") else ""
                foreign.chain(table, chain)
            elif before == 2 and chain and said != "}":
                if said.startswith("type "):
                    foreign.hook(table, chain)
                elif not _PROPERTY.match(said):
                    others[table] += 1
                    foreign.jumps(table, chain, re.findall(r"\b(?:jump|goto) (\S+)", bare))
        elif opened := re.fullmatch(r"(chain|set|map) (\S+) \{", said) if before == 1 else None:
            container = containers[table, opened[2]] = Container(opened[1], table, opened[2], number)
        elif before == 1 and said != "}":
            container = containers.setdefault((table, ""), Container("table", table, "", number))
            container.lines.append(Line(said, number))
        elif container is not None and (before == 3 or said.startswith("elements = {")):
            elements = _BETWEEN.split(said.removeprefix("elements = {").removesuffix("}"))
            container.elements.extend(Line(element.strip(), number) for element in elements if element.strip())
        elif container is not None and said != "}":
            container.lines.append(Line(said, number))
    if depth:
        raise InputError(f"ends within the table {table}", source=source, line=number, cure=CUT_OFF)
    if wanted not in tables:
        raise no_table(wanted, source, foreign.names)
    return Dump(ProxyMode.NFTABLES, frozenset(tables), containers, others, notes=foreign.left_by_iptables_mode())


class ForeignChains:
    """The chains of other tables than kube-proxy's in a dump of nft's: some may be of kube-proxy's iptables mode."""

    def __init__(self, family: Family) -> None:
        self._tables = [f"{family.nft} {name}" for name in ("filter", "nat", "mangle")]
        self._chains: dict[tuple[str, str], list[str]] = {}
        self._hooked: set[tuple[str, str]] = set()

    def chain(self, table: str, name: str) -> None:
        """Say that there is a chain."""
        if name:
            self._chains.setdefault((table, name), [])

    def hook(self, table: str, name: str) -> None:
        """Say that packets come to a chain by themselves."""
        self._hooked.add((table, name))

    def jumps(self, table: str, name: str, targets: Iterable[str]) -> None:
        """Say where a chain's rules jump to."""
        self._chains.setdefault((table, name), []).extend(targets)

    @property
    def names(self) -> frozenset[str]:
        """The names of all chains."""
        return frozenset(name for _, name in self._chains)

    def left_by_iptables_mode(self) -> tuple[str, ...]:
        """Say in sentences which chains kube-proxy's iptables mode has left behind: a restart does not delete all."""
        left = [place for place in self._chains if place[0] in self._tables and _ours(place[1])]
        used, new = set(self._hooked), set(self._hooked)
        while new:
            new = {(table, target) for table, name in new for target in self._chains.get((table, name), ())} - used
            used |= new
        active = [place for place in left if place in used]
        unused = [place for place in left if place not in used]
        sentences = []
        if active:
            sentences.append(f"Left behind by iptables mode, and active: {_few(active)}: delete the jumps to it.")
        if unused:
            sentences.append(f"Left behind by iptables mode, unused: {_few(unused)}.")
        return tuple(sentences)


def _few(places: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(" ".join(place) for place in places[:8])
    return f"{shown} and {len(places) - 8} more" if len(places) > 8 else shown


def _table(line: str, source: str, number: int) -> str:
    opened = re.fullmatch(r"table (\S+ \S+) \{", line)
    if opened is None:
        raise InputError("no line of nft list", source=source, line=number, cure=CURE)
    return opened[1]
