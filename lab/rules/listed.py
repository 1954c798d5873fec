# SPDX-License-Identifier: MIT
"""What ``nft list table`` prints of a transaction as kube-proxy writes it, without loading it.

Known are the statements that kube-proxy uses; whatever else stands in a script is refused, so that nothing is guessed:
then a kernel has to load it. The words are those of nft 1.0.6; :mod:`lab.rules.normal` knows what others say instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from ipaddress import IPv4Address, IPv6Address, ip_network, summarize_address_range
from typing import Final, NoReturn

from lab.rules.dump import Container, Dump, Line
from lab.rules.restored import UnknownFormError, each_line, masked
from lab.vocabulary import Family, ProxyMode

# include/uapi/linux/netfilter_ipv4.h, and the hooks for which nft has the name (std_prios in its src/rule.c).
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
_PRIORITIES: Final = {
    "raw": (-300, _HOOKS),
    "mangle": (-150, _HOOKS),
    "dstnat": (-100, ("prerouting",)),
    "filter": (0, _HOOKS),
    "security": (50, _HOOKS),
    "srcnat": (100, ("postrouting",)),
}
_NEAR: Final = 10  # so far from a name's priority nft still prints it by that name

_NAME: Final = r'[^\s{}"@]+'
_ADDRESS: Final = r"[0-9a-f:][0-9a-f:.]*(?:/\d+)?"
_FIELD: Final = r"(?:ip6? [sd]addr|meta l4proto|th dport)"
_BASE: Final = re.compile(r"\{ type (\w+) hook (\w+) priority (-?\d+) ; \}")
_OPTION: Final = re.compile(r'type [^;{}"]+|flags [a-z,]+|timeout \d+s|comment "[^"]*"')
_ELEMENT: Final = re.compile(
    rf'(?P<key>{_NAME}(?: \. {_NAME})*)(?: comment "[^"]*")?(?: : (?:drop|(?:goto|jump) {_NAME}))?'
)
_TARGET: Final = re.compile(r'(?:\b(?:goto|jump) |@)([^\s{}",@]+)')
#: So many elements nft prints on a line of a set of one type; of others one.
_ON_A_LINE: Final = {"type ipv4_addr": 2}
_DYNAMIC_SIZE: Final = "size 65535"  # of a set that rules fill, where no other is given


@dataclass
class _Part:
    """A chain, a set or a map while the script is read."""

    kind: str
    properties: list[str]
    rules: list[str] = field(default_factory=list)
    elements: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    """A table as nft lists it."""

    table: str
    properties: tuple[str, ...]
    parts: dict[str, _Part]

    def text(self) -> str:
        """Return what ``nft list table`` prints; elements may stand in another order."""
        blocks = ["\n".join(self._block(name, part)) for name, part in self._in_order()]
        head = [f"table {self.table} {{", *(f"\t{line}" for line in self.properties)]
        return "\n".join(head) + "\n" + "\n\n".join(blocks) + "\n}\n"

    def as_dump(self) -> Dump:
        """Return what :func:`lab.rules.read_dump.read` reads in :meth:`text`, but for the numbers of lines."""
        containers: dict[tuple[str, str], Container] = {}
        if self.properties:
            containers[self.table, ""] = Container("table", self.table, "", lines=_lines(self.properties))
        for name, part in self._in_order():
            lines, elements = _lines([*part.properties, *part.rules]), _lines(part.elements)
            containers[self.table, name] = Container(part.kind, self.table, name, lines=lines, elements=elements)
        return Dump(ProxyMode.NFTABLES, frozenset({self.table}), containers, Counter())

    def _in_order(self) -> list[tuple[str, _Part]]:
        return sorted(self.parts.items(), key=lambda item: item[1].kind == "chain")

    @staticmethod
    def _block(name: str, part: _Part) -> Iterable[str]:
        yield f"\t{part.kind} {name} {{"
        yield from (f"\t\t{line}" for line in (*part.properties, *part.rules))
        if part.elements:
            several = _ON_A_LINE.get(part.properties[0], 1)
            rows = [
                ", ".join(part.elements[start : start + several]) for start in range(0, len(part.elements), several)
            ]
            yield "\t\telements = { " + ",\n\t\t\t     ".join(rows) + " }"
        yield "\t}"


def _lines(texts: Iterable[str]) -> list[Line]:
    return [Line(text, 0) for text in texts]


def listed(script: str, family: Family) -> Listing:
    """Return the table that a script makes where there was none.

    :raises UnknownFormError: something in it is not known here.
    """
    reader = _Reader(family)
    for line in each_line(script):
        try:
            reader.read(line)
        except (LookupError, ValueError, OSError, StopIteration):
            reader.refuse(line)
    return reader.listing()


class _Reader:
    """Reads the commands of a script."""

    def __init__(self, family: Family) -> None:
        self._ip = family.nft
        self._statements = _statements(family)
        self._masked = cache(partial(masked, family))
        self._table = ""
        self._properties: tuple[str, ...] = ()
        self._parts: dict[str, _Part] = {}
        self._targets: set[str] = set()

    def refuse(self, line: str) -> NoReturn:
        """Refuse a line that is not known.

        :raises UnknownFormError: always.
        """
        raise UnknownFormError(f"what nft lists of this is not known: {line}")

    def read(self, line: str) -> None:
        """Do one command.

        :raises LookupError, ValueError: it is not known here.
        """
        verb, kind, family, table, *rest = line.split(" ", 5)
        if family != self._ip or verb not in _VERBS:
            raise ValueError(line)
        body = rest[1] if len(rest) > 1 else ""
        if kind == "table":
            self._table = f"{family} {table}"
            self._properties = tuple(_options(" ".join(rest)))
        elif f"{family} {table}" != self._table:
            raise ValueError(line)
        elif verb == "add":
            self._add(kind, rest[0], body)
        elif kind != self._parts[rest[0]].kind or body:
            raise ValueError(line)
        elif verb == "delete":
            del self._parts[rest[0]]
        else:
            self._parts[rest[0]].rules.clear()
            self._parts[rest[0]].elements.clear()

    def _add(self, kind: str, name: str, body: str) -> None:
        if kind == "rule":
            self._parts[name].rules.append(self._rule(body))
        elif kind == "element":
            self._parts[name].elements.append(self._element(body, self._parts[name]))
        elif kind in ("set", "map"):
            self._parts.setdefault(name, _Part(kind, _of_set(_options(body))))
        elif kind == "chain":
            self._parts.setdefault(name, _Part(kind, _of_chain(body) if body else []))
        else:
            raise ValueError(kind)

    def _rule(self, rule: str) -> str:
        said, place = [], 0
        while place < len(rule):
            space = rule.find(" ", place)
            word = rule[place : space if space > 0 else len(rule)]
            matches = ((pattern.match(rule, place), write) for pattern, write in self._statements[word])
            found, write = next((found, write) for found, write in matches if found)
            said.append(write(found) if write else found[0])
            place = found.end() + 1
            if place <= len(rule) and rule[place - 1] != " ":
                raise ValueError(rule)
        text = " ".join(said)
        self._targets.update(_TARGET.findall(text.partition(' comment "')[0]))
        return text

    def _element(self, body: str, part: _Part) -> str:
        text = body.removeprefix("{ ").removesuffix(" }")
        found = _ELEMENT.fullmatch(text)
        if found is None or len(text) != len(body) - 4:
            raise ValueError(body)
        self._targets.update(_TARGET.findall(text.rpartition(" : ")[2]))
        if "/" in found["key"]:
            if "flags interval" not in part.properties:
                raise ValueError(body)
            keys = [self._masked(one) if "/" in one else one for one in found["key"].split(" . ")]
            text = " . ".join(keys) + text[found.end("key") :]
        return text

    def listing(self) -> Listing:
        """Return the table.

        :raises UnknownFormError: a rule or an element leads to what is not there.
        """
        missing = self._targets - self._parts.keys()
        if missing or not self._table:
            self.refuse(f"no {min(missing)}" if missing else "no table")
        return Listing(self._table, self._properties, self._parts)


_VERBS: Final = ("add", "flush", "delete")


def _options(body: str) -> list[str]:
    """Cut what a table, a set, a map or a chain says of itself."""
    if body in ("", "{ }"):
        return []
    if not (body.startswith("{ ") and body.endswith(" ; }")):
        raise ValueError(body)
    options = body[2:-4].split(" ; ")
    if not all(_OPTION.fullmatch(option) for option in options):
        raise ValueError(body)
    return [option.rstrip() for option in options]


def _of_set(options: list[str]) -> list[str]:
    """Write a set's options in the order in which nft does."""
    by_word = {option.split(" ", 1)[0]: option for option in options}
    if "timeout" in by_word:
        by_word["timeout"] = f"timeout {_duration(int(by_word['timeout'].split()[1].removesuffix('s')))}"
    if "dynamic" in by_word.get("flags", ""):
        by_word["size"] = _DYNAMIC_SIZE
    return [by_word[word] for word in ("type", "size", "flags", "timeout", "comment") if word in by_word]


def _duration(seconds: int) -> str:
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)


def _of_chain(body: str) -> list[str]:
    found = _BASE.fullmatch(body)
    if found is None:
        return _options(body)
    kind, hook, priority = found.groups()
    return [f"type {kind} hook {hook} priority {_priority(hook, int(priority))}; policy accept;"]


def _priority(hook: str, number: int) -> str:
    for name, (value, hooks) in _PRIORITIES.items():
        if hook in hooks and abs(number - value) <= _NEAR:
            sign = "+" if number > value else "-"
            return name if number == value else f"{name} {sign} {abs(number - value)}"
    return str(number)


Address = IPv4Address | IPv6Address
_Statement = tuple[re.Pattern[str], Callable[[re.Match[str]], str] | None]


def _statements(family: Family) -> dict[str, list[_Statement]]:
    """Return patterns of statements by their first word, with what writes them; None where they stay as they are."""
    ip = family.nft
    as_masked = cache(partial(masked, family))

    def addressed(found: re.Match[str]) -> str:
        return f"{found[1]} {as_masked(found[2]) if '/' in found[2] else found[2]}"

    def among(found: re.Match[str]) -> str:
        return f"{found[1]} {_merged(found[2], as_masked)}"

    known: dict[str, list[tuple[str, Callable[[re.Match[str]], str] | None]]] = {
        ip: [
            (rf"({ip} [sd]addr(?: !=)?) ({_ADDRESS})", addressed),
            (rf"{ip} [sd]addr @{_NAME}", None),
            (rf"({ip} [sd]addr(?: !=)?) \{{ ([^{{}}]+) \}}", among),
            (rf"{ip} [sd]addr(?: \. {_FIELD})+ (?:vmap )?@{_NAME}", None),
        ],
        "meta": [
            (r"meta l4proto \w+ dnat to [^\s{}]+", None),
            (rf"meta l4proto \. th dport vmap @{_NAME}", None),
            (rf"(meta l4proto \w+ dnat {ip}) addr \. port (to numgen random mod \d+ map) \{{ ([^{{}}]+) \}}", _chosen),
        ],
        "numgen": [(r"(numgen random mod) (\d+ vmap) \{ ([^{}]+) \}", _chosen)],
        "fib": [(r"fib [sd]addr type local", None)],
        "ct": [(r"ct (?:state (?:new|invalid)|status dnat)", None)],
        "mark": [
            (r"mark set mark (or|xor) (0x[0-9a-f]{8})", _marked),
            (r"mark and (0x[0-9a-f]{8}) (==|!=) 0", lambda found: f"meta mark & {found[1]} {found[2]} 0x00000000"),
        ],
        "update": [(rf"update @{_NAME} \{{ {ip} saddr \}}", None)],
        "masquerade": [(r"masquerade fully-random", None)],
        "comment": [(r'comment "[^"]*"$', None)],
        **{word: [(rf"{word} dport \d+", None)] for word in ("tcp", "udp", "sctp")},
        **{word: [(rf"{word} {_NAME}", None)] for word in ("jump", "goto")},
        **{word: [(word, None)] for word in ("return", "drop", "reject")},
        "iif": [(r'iif (?:!= )?"[^"*]+"', None)],  # by its number, so that there is one interface of that name
        "iifname": [(r'iifname (?:!= )?"[^"]+"', None)],
    }
    return {word: [(re.compile(pattern), write) for pattern, write in patterns] for word, patterns in known.items()}


def _chosen(found: re.Match[str]) -> str:
    return f"{found[1]} {found[2]} {{ {found[3].replace(' , ', ', ')} }}"


def _marked(found: re.Match[str]) -> str:
    return f"meta mark set meta mark {'|' if found[1] == 'or' else '^'} {found[2]}"


def _merged(elements: str, as_masked: Callable[[str], str]) -> str:
    """Write a set of addresses or ranges: sorted, overlapping and neighbouring ones as one; braces around several."""
    given = re.split(r" ?, ?", elements)
    if len(given) == 1:
        return as_masked(given[0]) if "/" in given[0] else given[0]
    networks = sorted({ip_network(one, strict=False) for one in given}, key=lambda one: one.network_address)
    ranges: list[tuple[Address, Address]] = []
    for network in networks:
        first, last = network.network_address, network.broadcast_address
        # With no range among them they are no intervals, and neighbours stay as they are.
        if ranges and "/" in elements and int(first) <= int(ranges[-1][1]) + 1:
            first, before = ranges.pop()
            last = max(last, before, key=int)
        ranges.append((first, last))
    return f"{{ {', '.join(_range(first, last) for first, last in ranges)} }}"


def _range(first: Address, last: Address) -> str:
    if first == last:
        return str(first)
    [network, *others] = summarize_address_range(first, last)
    return f"{first}-{last}" if others else str(network)
