# SPDX-License-Identifier: MIT
"""What ``iptables-save`` prints of inputs of ``iptables-restore`` as kube-proxy writes them, without loading them.

Known are the matches and targets that kube-proxy and the kubelet use. Whatever else stands in an input is refused, so
that nothing is guessed: then a kernel has to load it. Both backends print the same but for the order of tables.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache, partial
from typing import Final, NoReturn

from lab.errors import LabError
from lab.rules.dump import Container, Dump, Line
from lab.vocabulary import Family, ProxyMode

#: Tables in the order of iptables-nft-save, with their built-in chains.
_TABLES: Final = {
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
_STATES: Final = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")  # libxt_conntrack.c
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")  # xtables_save_string quotes whatever has other characters
_LONGEST_COMMENT: Final = 255  # XT_MAX_COMMENT_LEN, with the zero at its end
_WITHOUT_VALUE: Final = {"--set", "--rcheck", "--reap", "--physdev-is-in"}
_KINDS: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_VERDICTS: Final = {"ACCEPT", "DROP", "RETURN"}

#: How many rules are remembered as printed, for most are the same in every release and with every setting that is
#: tried: explaining real nodes takes 16 % less time so, 1,000 Services of 10 endpoints (31,000 rules) 6 % less. Of more
#: than these none would be there when it is met again: 10,000 Services took 12 % more time.
_REMEMBERED: Final = 1 << 15

#: Rules without "-A CHAIN", by table and chain.
Tables = dict[str, dict[str, list[str]]]


class UnknownFormError(LabError):
    """What a rule looks like when it is saved is not known here."""


def restored(texts: Iterable[str], family: Family) -> Tables:
    """Return the rules that inputs leave behind in an empty namespace, each as ``iptables-save`` prints it.

    :param texts: inputs of ``iptables-restore --noflush``, in the order in which they would be loaded.
    :raises UnknownFormError: something in them is not known here.
    """
    tables: Tables = {}
    printer = _printer(family)
    for text in texts:
        printed = printer.printed if text.count("\n") < _REMEMBERED else printer.print
        table: dict[str, list[str]] = {}
        jumps: set[str] = set()
        for line in each_line(text):
            try:
                if line.startswith("-A "):
                    _, name, rule = line.split(" ", 2)
                    words, jump = printed(rule)
                    table[name].append(words)
                    jumps.add(jump)
                elif line.startswith(":"):
                    table[line[1:].partition(" ")[0]] = []
                elif line.startswith("-I "):
                    _, name, rule = line.split(" ", 2)
                    words, jump = printed(rule)
                    table[name].insert(0, words)
                    jumps.add(jump)
                elif line == "COMMIT":
                    if missing := jumps - table.keys() - {""}:
                        _refuse(f"a jump to {min(missing)}, which is not there")
                    jumps = set()
                else:
                    table = tables.setdefault(line[1:], {name: [] for name in _TABLES[line[1:]]})
            except (LookupError, ValueError, OSError, StopIteration):
                _refuse(line)
    return tables


def each_line(text: str) -> Iterator[str]:
    """Return the lines of a text one after the other: all at once, those of many Services take much memory."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    if start < len(text):
        yield text[start:]


def written(tables: Tables) -> str:
    """Return what ``iptables-save`` prints, without counters and times."""
    lines: list[str] = []
    for table, chains in _in_order(tables):
        lines.append(f"*{table}")
        lines += [f":{name} {'ACCEPT' if name in _TABLES[table] else '-'} [0:0]" for name in chains]
        lines += [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


def as_dump(tables: Tables) -> Dump:
    """Return what :func:`lab.rules.read_dump.read` reads in :func:`written`'s text, but for the numbers of lines."""
    containers: dict[tuple[str, str], Container] = {}
    for table, chains in _in_order(tables):
        for name, rules in chains.items():
            kind = "jumps" if name in _TABLES[table] else "chain"
            if rules or kind == "chain":
                containers[table, name] = Container(kind, table, name, lines=[Line(rule, 0) for rule in rules])
    return Dump(ProxyMode.IPTABLES, frozenset(tables), containers, Counter())


def _in_order(tables: Tables) -> Iterable[tuple[str, dict[str, list[str]]]]:
    """Return tables and chains in their order: the built-in chains, then the others by name."""
    for table, built_in in _TABLES.items():
        if table in tables:
            chains = tables[table]
            names = [*built_in, *sorted(chains.keys() - set(built_in))]
            yield table, {name: chains[name] for name in names}


def _refuse(words: str) -> NoReturn:
    raise UnknownFormError(f"what iptables-save makes of this is not known: {words}")


class _Printer:
    """Prints rules of one family."""

    def __init__(self, family: Family) -> None:
        self._ipv4 = family is Family.IPV4
        self._normal = partial(_normal, _KINDS[family])
        self._network = cache(partial(masked, family))
        self._single = "/32" if self._ipv4 else "/128"
        any_host = "255.255.255.255" if family is Family.IPV4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        self._recent_end = f" --mask {any_host} --rsource"
        unreachable = "icmp-port-unreachable" if family is Family.IPV4 else "icmp6-port-unreachable"
        self._reject = f"REJECT --reject-with {unreachable}"
        self._matches: dict[str, Callable[[Mapping[str, str]], str | None]] = {
            "comment": _comment,
            "tcp": _port,
            "udp": _port,
            "sctp": _port,
            "conntrack": _conntrack,
            "mark": _mark,
            "statistic": _statistic,
            "addrtype": _one("--src-type", "--dst-type", "! --src-type"),
            "physdev": _one("! --physdev-is-in"),
            "nfacct": _account,
            "recent": self._recent,
        }
        self.printed = lru_cache(maxsize=_REMEMBERED)(self.print)

    def print(self, rule: str) -> tuple[str, str]:
        """Print a rule: addresses, interfaces and protocol first, then the matches in the order of their ``-m``.

        :return: beside it the chain of kube-proxy's that it jumps to, empty where it jumps to none.
        """
        words = iter(_words(rule))
        address = {"-s": "", "-d": ""}
        place = {"-i": "", "-p": ""}
        matches: list[tuple[str, dict[str, str]]] = []
        negation = target = jump = ""
        for word in words:
            if word == "!":
                negation = "! "
                continue
            if word == "-m":
                matches.append((next(words), {}))
            elif word.startswith("--") and matches:
                matches[-1][1][negation + word] = "" if word in _WITHOUT_VALUE else next(words)
            elif word in address:
                address[word] = self._address(negation, word, next(words))
            elif word in place:
                place[word] = f"{negation}{word} {next(words)} "
            elif word == "-j" and not negation:
                name = next(words)
                target, jump = self._target(name, list(words)), name if name.startswith("KUBE-") else ""
            else:
                _refuse(rule)
            negation = ""
        said = []
        for kind, options in matches:
            write = self._matches.get(kind)
            match = write(options) if write else None
            if match is None:
                _refuse(rule)
            said.append(f"-m {kind}{match} ")
        return f"{address['-s']}{address['-d']}{place['-i']}{place['-p']}{''.join(said)}{target}".rstrip(), jump

    def _address(self, negation: str, option: str, text: str) -> str:
        network = self._network(text) if "/" in text else self._normal(text)
        if network.endswith("/0"):
            if negation:
                _refuse(f"! {option} {text}")  # matches nothing
            return ""
        return f"{negation}{option} {network if '/' in network else network + self._single} "

    def _target(self, name: str, options: list[str]) -> str:
        if name.startswith("KUBE-") or name in _VERDICTS:
            known = not options
        elif name == "DNAT" and len(options) == 2 and options[0] == "--to-destination":
            return f"-j DNAT --to-destination {self._destination(options[1])}"
        elif name == "MARK" and len(options) == 2:
            return _marking(*options)
        elif name == "REJECT":
            name, known = self._reject, not options
        elif name == "MASQUERADE":
            known = options in ([], ["--random-fully"])
        else:
            known = False
        if not known:
            _refuse(" ".join(["-j", name, *options]))
        return " ".join(["-j", name, *options])

    def _destination(self, text: str) -> str:
        if self._ipv4:
            return text
        address, bracket, port = text[1:].partition("]")
        if not bracket:
            _refuse(text)
        return f"[{self._normal(address)}]{port}"

    def _recent(self, options: Mapping[str, str]) -> str | None:
        if options.keys() == {"--set", "--name"}:
            return f" --set --name {options['--name']}{self._recent_end}"
        if options.keys() == {"--rcheck", "--seconds", "--reap", "--name"}:
            seconds, name = options["--seconds"], options["--name"]
            return f" --rcheck --seconds {seconds} --reap --name {name}{self._recent_end}"
        return None


_printer = cache(_Printer)


def masked(family: Family, network: str) -> str:
    """Write a range as iptables and nft do: without the bits of hosts, a single address without its length.

    :raises ValueError, OSError: it is none of the family.
    """
    address, _, length = network.partition("/")
    kind = _KINDS[family]
    data = socket.inet_pton(kind, address)
    hosts = 8 * len(data) - int(length)
    number = int.from_bytes(data, "big") >> hosts << hosts
    text = socket.inet_ntop(kind, number.to_bytes(len(data), "big"))
    return f"{text}/{int(length)}" if hosts else text


def _normal(kind: socket.AddressFamily, address: str) -> str:
    return socket.inet_ntop(kind, socket.inet_pton(kind, address))


def _words(rule: str) -> list[str]:
    """Cut a rule into words; a comment in quotes is one."""
    before, quote, rest = rule.partition('"')
    if not quote:
        return rule.split()
    quoted, quote, after = rest.partition('"')
    if not quote or '"' in after:
        _refuse(rule)
    return [*before.split(), quoted, *after.split()]


def _comment(options: Mapping[str, str]) -> str | None:
    text = options.get("--comment", "")
    if len(options) != 1 or not 0 < len(text.encode()) <= _LONGEST_COMMENT or not text.isascii():
        return None
    if _BARE.fullmatch(text):
        return f" --comment {text}"
    return None if "\\" in text or "'" in text else f' --comment "{text}"'


def _port(options: Mapping[str, str]) -> str | None:
    if not options:
        return ""
    return f" --dport {options['--dport']}" if options.keys() == {"--dport"} else None


def _conntrack(options: Mapping[str, str]) -> str | None:
    [(option, value)] = options.items() if len(options) == 1 else [("", "")]
    states = value.split(",")
    if option not in ("--ctstate", "! --ctstate") or not set(states) <= set(_STATES):
        return None
    return f" {option} {','.join(sorted(states, key=_STATES.index))}"


def _mark(options: Mapping[str, str]) -> str | None:
    [(option, value)] = options.items() if len(options) == 1 else [("", "")]
    mark, slash, mask = value.partition("/")
    if option not in ("--mark", "! --mark") or not slash:
        return None
    return f" {option} {int(mark, 16):#x}/{int(mask, 16):#x}"


def _marking(option: str, value: str) -> str:
    mark, slash, mask = value.partition("/")
    number = int(mark, 16)
    masks = {
        "--set-xmark": int(mask, 16) if slash else -1,
        "--or-mark": number if not slash else -1,
        "--xor-mark": 0 if not slash else -1,
    }
    if masks.get(option, -1) < 0:
        _refuse(f"-j MARK {option} {value}")
    return f"-j MARK --set-xmark {number:#x}/{masks[option]:#x}"


def _statistic(options: Mapping[str, str]) -> str | None:
    if options.keys() != {"--mode", "--probability"} or options["--mode"] != "random":
        return None
    return f" --mode random --probability {_kept(options['--probability'])}"


@cache
def _kept(probability: str) -> str:
    """Return a probability as the kernel keeps it, in 31 bits (libxt_statistic.c)."""
    return f"{round(float(probability) * 2**31) / 2**31:.11f}"


def _account(options: Mapping[str, str]) -> str | None:
    return f" --nfacct-name  {options['--nfacct-name']}" if options.keys() == {"--nfacct-name"} else None


def _one(*known: str) -> Callable[[Mapping[str, str]], str | None]:
    """Return the writer of a match with one of some options."""

    def write(options: Mapping[str, str]) -> str | None:
        [(option, value)] = options.items() if len(options) == 1 else [("", "")]
        return f" {option} {value}".rstrip() if option in known else None

    return write
