# SPDX-License-Identifier: MIT
"""One form for rules that mean the same, however which program printed them.

What is made equal, because it says nothing of what the rules do, or because kube-proxy itself leaves it to chance:

* counters, handles, quoting, the case and the zeros of hexadecimal numbers, prefix lengths of single addresses;
* the order of the matches in a rule and of the options in a match, of ``--ctstate``'s states, of anonymous sets;
* matches that only count (nfacct) or that ``-p`` implies (``-m tcp`` without an option);
* probabilities as iptables-save prints them: the kernel keeps 31 bits (xt_statistic.h), v1.14 writes five digits;
* the order of endpoints where each gets the same share: any order gives it. The share follows from their number;
* the order of rules for different destinations, as kube-proxy goes through a map of services (random in Go);
* where the jump to KUBE-FIREWALL stands: the kubelet makes it as well, so who came first has its jump further below.

In every other respect the order of a chain's rules counts.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from typing import Final, NamedTuple

from lab.rules.dump import Container, Line
from lab.vocabulary import ProxyMode

Part = tuple[str, ...]

_WORD: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_UNITS: Final = {"-s", "-d", "-p", "-i", "-o", "-f", "-m", "-j", "-g"}
_IMPLIED: Final = {("-m", "tcp"), ("-m", "udp"), ("-m", "sctp")}
_EVEN: Final[Part] = ("one of several with equal shares",)
_CLOSE: Final = 1e-5  # v1.14 writes five decimals
_BY_CHANCE: Final = re.compile(r"(?:^| )-m statistic --mode random --probability (\d+(?:\.\d+)?) -j [A-Z0-9-]+$")
_ALL: Final = "all"
_EVERY: Final = "every so many"
_SOME: Final = "some"

# include/uapi/linux/netfilter_ipv4.h, by nft's names; nft prints a name or a number as its version and the hook say.
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_PRIORITY: Final = re.compile(r"priority ([a-z]+)(?: ([+-]) (\d+))?;")
_DURATION: Final = re.compile(r"\b(?:\d+(?:ms|[wdhms]))+\b")
_SECONDS: Final = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0}
_BALANCE: Final = re.compile(r"(.*numgen random) mod (\d+) (v?map) \{ (.*) \}(.*)")
_ANONYMOUS: Final = re.compile(r"\{ ([^{}]*) \}")
_COUNTING: Final = re.compile(r" ?counter packets \d+ bytes \d+| expires \S+")


class Item(NamedTuple):
    """A rule, an element or a property in its normal form.

    :param parts: equal where two mean the same.
    :param text: as it was printed, without counters.
    :param keyed: it is an element of a map: its first part is the key.
    """

    parts: tuple[Part, ...]
    text: str
    line: int
    keyed: bool = False

    def likenesses(self) -> Iterator[Hashable]:
        """Return what it has in common with an item that is its like but for one part."""
        if self.keyed:
            yield self.parts[0]
        else:
            yield self.parts
            for index in range(len(self.parts) if len(self.parts) > 1 else 0):
                yield (*self.parts[:index], *self.parts[index + 1 :])


def items(container: Container, mode: ProxyMode, *, even: bool = True) -> list[Item]:
    """Bring a container's lines into their normal form, its existence first.

    Where a chain's rules may stand in any order, they are given in one that depends on nothing but them.

    :param even: forget the shares of endpoints, because they are equal (see :func:`is_even`).
    """
    own = [] if container.kind == "jumps" else [Item(((container.kind,),), f"({container.kind})", container.number)]
    if mode is ProxyMode.NFTABLES:
        return own + _nft_items(container, even=even)
    own_rules = rules(container)
    if container.kind == "jumps":
        return sorted(own_rules, key=lambda item: ("-j", "KUBE-FIREWALL") in item.parts)
    return own + _by_destination(_without_chances(own_rules) if even else own_rules)


def is_even(container: Container, mode: ProxyMode) -> bool:
    """Report whether each of the endpoints that a chain chooses from gets the same share."""
    if mode is ProxyMode.NFTABLES:
        balances = (_BALANCE.fullmatch(line.text) for line in container.lines if "numgen" in line.text)
        return all(_shares(balance) is not None for balance in balances if balance)
    if not any("statistic" in line.text for line in container.lines):
        return True
    return _are_even(tuple(_share(line.text) for line in container.lines))


@lru_cache(maxsize=1 << 12)  # as many endpoints get the same shares in every chain
def _are_even(shares: tuple[float | str, ...]) -> bool:
    """Report whether these shares, in the order of their rules, are equal in the end."""
    if isinstance(shares[-1], float):
        return False  # nobody takes what is left
    if _EVERY in shares:
        return False  # it takes every so many, not by chance
    if _ALL in shares[:-1]:
        return False  # nothing is left for those below
    return all(
        abs(share - 1 / (len(run) - place)) < _CLOSE
        for run in _runs(shares)
        for place, share in enumerate(run[:-1])
        if isinstance(share, float)
    )


def _share(text: str) -> float | str:
    """Return the probability by which a rule is taken, else in a word how it is."""
    if "statistic" not in text and "-j KUBE-SEP-" not in text:
        return _SOME
    # Behind this stands no quote: it is no comment. Nearly all rules are written so, and this is quicker.
    if text.count("statistic") == 1 and (plain := _BY_CHANCE.search(text)):
        return round(float(plain[1]) * 2**31) / 2**31
    parts = _parts(text)
    chance = _chance(parts)
    if chance is not None:
        return chance
    if without_share(parts) != parts:
        return _EVERY
    return _ALL if _takes_all(parts) else _SOME


def are_even(containers: Iterable[Container | None], mode: ProxyMode) -> bool:
    """Report whether shares may be forgotten: on neither side of a comparison does one of the endpoints get another."""
    return all(is_even(one, mode) for one in containers if one)


def rules(container: Container) -> list[Item]:
    """Bring a chain's rules of iptables into their normal form, in their own order."""
    return [Item(_parts(line.text), line.text, line.number) for line in container.lines]


@lru_cache(maxsize=1 << 15)  # for a rule is compared many times where something differs
def _parts(rule: str) -> tuple[Part, ...]:
    """Cut a rule of iptables-save into its matches and its target."""
    units: list[list[str]] = []
    negation = ""
    for word in _WORD.findall(rule):
        if word == "!":
            negation = "! "
            continue
        if word in _UNITS or not units:
            units.append([])
        units[-1].append(negation + word)
        negation = ""
    parts = (_part(tuple(unit)) for unit in units)
    return tuple(sorted(part for part in parts if part not in _IMPLIED and part[:2] != ("-m", "nfacct")))


@lru_cache(maxsize=1 << 15)  # most stand in many rules: one of each takes less time and memory
def _part(unit: tuple[str, ...]) -> Part:
    """Bring one match into its normal form: each option with its values, the options sorted."""
    kind, *words = (_unquoted(word) for word in unit)
    if kind.endswith(("-s", "-d")) and words:
        return (kind, words[0] if "/" in words[0] else f"{words[0]}/{128 if ':' in words[0] else 32}")
    options: list[str] = []
    for word in words[1:]:
        if word.startswith(("--", "! --")) or not options:
            options.append(word)
        else:
            options[-1] += f" {_value(options[-1].split()[-1], word)}"
    return (kind, *words[:1], *sorted(options))


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def _value(option: str, value: str) -> str:
    if option == "--ctstate":
        return ",".join(sorted(value.split(",")))
    if option == "--probability":
        try:
            return str(round(float(value) * 2**31))
        except ValueError:
            return value
    return _HEXADECIMAL.sub(lambda number: hex(int(number[0], 16)), value)


def _chance(parts: tuple[Part, ...]) -> float | None:
    """Return the probability of a balancing rule."""
    for part in parts:
        if part[:2] == ("-m", "statistic") and "--mode random" in part:
            for option in part:
                if option.startswith("--probability ") and option.split()[1].isdecimal():
                    return int(option.split()[1]) / 2**31
    return None


def _takes_all(parts: tuple[Part, ...]) -> bool:
    """Report whether a rule sends every packet to an endpoint."""
    kept = [part for part in parts if part[:2] != ("-m", "comment")]
    return len(kept) == 1 and kept[0][:1] == ("-j",) and kept[0][1].startswith("KUBE-SEP-")


def _runs(shares: Sequence[float | str]) -> Iterator[Sequence[float | str]]:
    """Cut a chain into choices: rules with a probability, and the one that takes what is left. Others stand alone."""
    start = 0
    for place, share in enumerate(shares, 1):
        if not isinstance(share, float):
            yield shares[start:place]
            start = place
    if start < len(shares):
        yield shares[start:]


def _without_chances(rules: Sequence[Item]) -> list[Item]:
    """Sort the rules that choose among endpoints with equal shares, and forget the shares."""
    result: list[Item] = []
    rest = iter(rules)
    for shares in _runs([_share(rule.text) for rule in rules]):
        run = list(islice(rest, len(shares)))
        # A lone endpoint gets all, by the last rule of its chain.
        choice = len(run) > 1 or (run[-1] is rules[-1] and " -j KUBE-SEP-" in f" {run[-1].text}")
        result += sorted((_without_chance(rule) for rule in run), key=lambda rule: rule.parts) if choice else run
    return result


def _without_chance(rule: Item) -> Item:
    return Item((*without_share(rule.parts), _EVEN), rule.text, rule.line)


def without_share(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Leave out how often a rule is taken."""
    return tuple(part for part in parts if part[:2] != ("-m", "statistic"))


def _by_destination(rules: Iterable[Item]) -> list[Item]:
    """Sort neighbouring rules by protocol, address and port, or by address alone: these exclude each other.

    Then by whose they are.

    Rules of one Service port for one destination keep their order. Which of two Services that claim the same comes
    first, kube-proxy leaves to chance.
    """
    result: list[Item] = []
    aimed = ((_destination(rule.parts), rule) for rule in rules)
    for words, neighbours in groupby(aimed, key=lambda pair: len(pair[0][0])):
        pairs = list(neighbours)
        result += [rule for _, rule in (sorted(pairs, key=itemgetter(0)) if words else pairs)]
    return result


@lru_cache(maxsize=1 << 15)  # for a rule is compared many times where something differs
def _destination(parts: tuple[Part, ...]) -> tuple[tuple[str, ...], str]:
    """Return where a rule's packets go and whose it is, by its comment.

    The former is address, protocol and port, or the address of a node that takes node ports.
    """
    found = {"-d": "", "-p": "", "port": ""}
    comment = ""
    for part in parts:
        if part[0] == "-p" or (part[0] == "-d" and part[1].endswith(("/32", "/128"))):
            found[part[0]] = part[1]
        for option in part[2:]:
            if option.startswith("--dport "):
                found["port"] = option
            if option.startswith("--comment "):
                comment = comment or option
    whose = " ".join(comment.split()[1:2])
    if found["-p"] and found["port"]:
        return tuple(found.values()), whose
    return ((found["-d"],) if found["-d"] and ("-j", "KUBE-NODEPORTS") in parts else ()), whose


def _nft_items(container: Container, *, even: bool) -> list[Item]:
    lines = [item for line in container.lines for item in _nft_rule(line, even=even)]
    if container.kind in ("chain", "table"):
        return lines
    # nft prints the size of a set that rules fill, by some versions only where it was given.
    lines = [item for item in lines if not item.text.startswith("size ")]
    if not any(item.text.startswith("flags ") and "dynamic" in item.text for item in lines):
        lines += [_nft_element(line) for line in container.elements]  # else packets fill it
    return sorted(lines, key=lambda item: item.parts)


def _nft_rule(line: Line, *, even: bool) -> Iterator[Item]:
    text = _nft_text(line.text)
    balance = _BALANCE.fullmatch(text) if "numgen" in text else None
    if balance and even:
        start, count, kind, _, end = balance.groups()
        before, behind = _words(f"{start} {kind} {{"), _words(f"}}{end}")
        for value in sorted(_shares(balance) or ()):
            said = f"{start} mod {count} {kind} {{ ... : {value} }}{end}"
            yield Item((*before, *_words(value), *behind), said, line.number)
    else:
        one_order = _ANONYMOUS.sub(_sorted_set, text) if "{" in text else text
        yield Item(_words(one_order), _uncounted(line), line.number)


def _shares(balance: re.Match[str]) -> list[str] | None:
    """Return what a number is thrown for, one for each number; None where the numbers are not all there, once each."""
    pairs = [pair.partition(" : ") for pair in balance[4].split(", ")]
    if sorted(number for number, _, _ in pairs) != sorted(str(number) for number in range(int(balance[2]))):
        return None
    return [value for _, _, value in pairs]


def _nft_element(line: Line) -> Item:
    text = _nft_text(line.text)
    head, _, value = text.rpartition(" : ") if re.search(r" : \S+( \S+)?$", text) else (text, "", "")
    key, _, comment = head.partition(" comment ")
    return Item(((key,), (value,), (comment,)), _uncounted(line), line.number, keyed=True)


def _uncounted(line: Line) -> str:
    return _without_counts(line.text).strip()


def _without_counts(text: str) -> str:
    # Asked first here and below: that is quicker than a pattern, and nearly all lines have nothing of it.
    return _COUNTING.sub("", text) if "counter" in text or "expires" in text else text


def _nft_text(text: str) -> str:
    """Write a line as no version of nft in particular does."""
    text = _without_counts(text)
    text = (_PRIORITY.sub(_priority, text) if "priority" in text else text).strip()
    if text.startswith("timeout "):
        text = _DURATION.sub(_in_seconds, text)
    text = text.replace(" addr . port to ", " to ")  # some versions say what a map's values are
    return _HEXADECIMAL.sub(lambda number: hex(int(number[0], 16)), text) if "0x" in text else text


def _words(text: str) -> tuple[Part, ...]:
    return tuple(map(_word, _WORD.findall(text) if '"' in text else text.split()))


@lru_cache(maxsize=1 << 15)  # most words stand in most rules: one of each takes less memory
def _word(word: str) -> Part:
    return (word,)


def _priority(found: re.Match[str]) -> str:
    name, sign, offset = found.groups()
    if name not in _PRIORITIES:
        return found[0]
    return f"priority {_PRIORITIES[name] + int((sign or '+') + (offset or '0'))};"


def _in_seconds(found: re.Match[str]) -> str:
    return f"{sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r'([0-9]+)(ms|[wdhms])', found[0]))}s"


def _sorted_set(found: re.Match[str]) -> str:
    elements = sorted(found[1].split(", "))
    return f"{{ {', '.join(elements)} }}" if len(elements) > 1 else elements[0]
