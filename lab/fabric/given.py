# SPDX-License-Identifier: MIT
"""A node with a real node's rules: they are loaded as they were saved, each program's in one piece.

What this kernel or these programs cannot load is found beforehand (:func:`loadable`): one rule of each form is tried
in a namespace of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from lab.conntrack.witness import load_conntrack
from lab.errors import InputError, LabError, MissingError
from lab.fabric.own_fix import run_change, set_sysctls, words_of
from lab.netns import Namespace, Nft, NftError, ProgramError, Xtables, nfacct
from lab.topology.given import OF_INTERFACE, GivenRules, GivenText
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.topology.node_change import NodeChange
    from lab.topology.values import IPNetwork

_COUNTERS: Final = re.compile(r"^\[\d+:\d+\] (?=-)|(?<= )\[\d+:\d+\]$", re.MULTILINE)
_ACCOUNT: Final = re.compile(r"-m nfacct --nfacct-name +(\S+) ")  # iptables-save prints two blanks there
_OPTION: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?<= )(-m \S+|-[jg] \S+|--match-set \S+|--?[a-z][\w-]*)')
_REFUSED: Final = re.compile(r"line (\d+): RULE_\w+ failed \(([^)]+)\)|line:? (\d+)")
_NO_CHAIN: Final = re.compile(r"Chain '([^']+)' does not exist")
_MOST: Final = 64  # forms of rules that may be left out; a dump of which more is refused is no dump


@dataclass(frozen=True)
class LeftOut:
    """A rule that was not loaded.

    :param line: in its source, from 1.
    :param count: how many rules of this form there are, this one among them.
    """

    source: str
    line: int
    rule: str
    reason: str
    count: int = 1

    def __str__(self) -> str:
        more = f", and {self.count - 1} more like it" if self.count > 1 else ""
        return f"{self.source}, line {self.line}{more}: left out, for {self.reason}: {self.rule}"


class GivenNode:
    """A running node with a real node's rules; made with the first on their way, as :class:`KubeProxy` is.

    :ivar node: the running host.
    :param additions: what a fix adds to them, by family.
    :raises InputError: they are not loaded here; says which.
    :raises MissingError: a program or a kernel feature is not there.
    """

    def __init__(
        self,
        node: RunningHost,
        given: GivenRules,
        families: Sequence[Family],
        additions: Sequence[str],
        change: NodeChange,
    ) -> None:
        self.node, self._given = node, given
        self._families, self._additions, self._change = families, additions, change
        load_conntrack(node.nft)
        others = {key: value for key, value in given.sysctls.items() if not OF_INTERFACE.fullmatch(key)}
        node.namespace.set_sysctls(dict(others))
        set_sysctls(node.namespace, change)
        make_accounts(node.namespace, (one.text for one in given.texts if one.mode is ProxyMode.IPTABLES))
        self._under_way = [
            (text, node.xtables.start_restore(_version(text), without_counters(text.text), unused=True))
            for text in given.texts
            if text.mode is ProxyMode.IPTABLES and text.family in families
        ]

    def finish(self) -> None:
        """Wait until the rules are loaded, and add what a fix adds.

        :raises InputError: some were refused.
        """
        of_interfaces = {key: value for key, value in self._given.sysctls.items() if OF_INTERFACE.fullmatch(key)}
        self.node.namespace.set_sysctls(dict(of_interfaces))
        for text, restore in self._under_way:
            try:
                restore.finish()
            except ProgramError as error:
                raise _refused(text, error) from error
            self.node.rules.append(text.text)
        for text in self._given.texts:
            if text.mode is ProxyMode.NFTABLES:
                _load_nft(self.node.nft, text)
                self.node.rules.append(text.text)
        self._change_node(self._additions, self._change)

    def amend(self, additions: Sequence[str], change: NodeChange) -> None:
        """Change what another fix changes, besides what the node has.

        :raises InputError: its rules or sysctls were refused.
        """
        set_sysctls(self.node.namespace, change)
        self._change_node(additions, change)

    def _change_node(self, additions: Sequence[str], change: NodeChange) -> None:
        for family, added in zip(self._families, additions, strict=True):
            if added:
                self._add(family, added)
        run_change(self.node, change, self._families)

    def _add(self, family: Family, added: str) -> None:
        if self.node.host.proxy_mode is ProxyMode.NFTABLES:
            self.node.nft.run(added)
        else:
            self.node.xtables.start_restore(family.version, added).finish()
        self.node.rules.append(added)

    def sync(
        self, _services: Sequence[Service], _slices: Sequence[EndpointSlice], *, clean_conntrack: bool = True
    ) -> None:
        """Refuse: the rules are what they are.

        :raises InputError: always.
        """
        del clean_conntrack
        raise _fixed()

    def full_sync(
        self, _services: Sequence[Service], _slices: Sequence[EndpointSlice], _service_cidrs: Sequence[IPNetwork]
    ) -> None:
        """Refuse, as :meth:`sync` does."""
        raise _fixed()

    def restart(self) -> None:
        """Refuse, as :meth:`sync` does."""
        raise _fixed()

    def stop(self) -> None:
        """Refuse, as :meth:`sync` does."""
        raise _fixed()

    def resume(self, _services: Sequence[Service], _slices: Sequence[EndpointSlice]) -> None:
        """Refuse, as :meth:`sync` does."""
        raise _fixed()


def _fixed() -> InputError:
    return InputError("a node with given rules has no kube-proxy that could change them")


def without_counters(text: str) -> str:
    """Return a dump with its counters at zero."""
    return _COUNTERS.sub(lambda found: "" if found[0].endswith(" ") else "[0:0]", text)


def _version(text: GivenText) -> int:
    assert text.family is not None
    return text.family.version


def _load_nft(nft: Nft, text: GivenText) -> None:
    try:
        if text.is_json:
            import json

            nft.add(_in_order(json.loads(text.text)["nftables"]))
        else:
            nft.run(text.text)
    except NftError as error:
        raise _refused(text, error) from error


def _in_order(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what ``nft -j`` lists so that it can be loaded: it has maps before the chains to which they lead."""
    places = {"metainfo": 0, "table": 1, "chain": 2, "rule": 4}
    return sorted(objects, key=lambda one: places.get(next(iter(one), ""), 3))


class NotLoadedError(InputError):
    """Rules that were given are not loaded here."""


def _refused(text: GivenText, error: LabError) -> NotLoadedError:
    return NotLoadedError(f"not loaded here: {error}", source=text.source)


# --- what can be loaded --------------------------------------------------------------------------------------


def loadable(given: GivenRules, *, most: int | None = None) -> tuple[GivenRules, tuple[LeftOut | str, ...]]:
    """Return a node's rules and sysctls without those that cannot be had here, and what these are, or in sentences why.

    A rule that counts by a name (nfacct) does what it does without counting, and is loaded so where the kernel has no
    such counters.

    :param most: characters of an nft script that is tried; what is longer is believed.
    :raises InputError: so many are refused that it can be no dump.
    :raises MissingError: a program is not installed.
    """
    texts: list[GivenText] = []
    sysctls, unset = _settable(given.sysctls)
    gone: list[LeftOut | str] = [*unset]
    for text in given.texts:
        if text.mode is ProxyMode.IPTABLES:
            counted, note = _countable(text)
            kept, left = _loadable_iptables(counted)
            gone += note
        elif text.is_json or (most is not None and len(text.text) > most):
            kept, left = text, []
        else:
            kept, left = _loadable_nft(text)
        texts.append(kept)
        gone += left
    return replace(given, texts=tuple(texts), sysctls=sysctls), tuple(gone)


def _settable(sysctls: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the sysctls that this kernel lets a namespace have, and why not the others."""
    kept = dict(sysctls)
    notes: list[str] = []
    if not sysctls:
        return kept, notes
    with closing(Namespace.create()) as namespace, closing(Nft(namespace)) as nft:
        load_conntrack(nft)
        for key, value in sysctls.items():
            if OF_INTERFACE.fullmatch(key):
                continue  # its interface is not there yet
            try:
                namespace.set_sysctls({key: value})
            except OSError as error:
                del kept[key]
                notes.append(f"{key.replace('/', '.')} = {value} is not set: {error.strerror}")
    return kept, notes


def _countable(text: GivenText) -> tuple[GivenText, list[str]]:
    """Return rules that count by what this kernel has."""
    names = list(dict.fromkeys(_ACCOUNT.findall(text.text)))
    if not names:
        return text, []
    try:
        with closing(Namespace.create()) as namespace:
            nfacct.create(namespace, names[0])
    except MissingError as error:
        note = f"{text.source}: rules that count by nfacct are loaded without it: {error}"
        return replace(text, text=_ACCOUNT.sub("", text.text)), [note]
    return text, []


def _loadable_iptables(text: GivenText) -> tuple[GivenText, list[LeftOut]]:
    lines = text.text.split("\n")
    forms = _forms(lines)
    bad: dict[tuple[str, ...], str] = {}
    while refused := _refusals(text, lines, forms, bad):
        bad |= refused
        if len(bad) > _MOST:
            raise InputError(f"more than {_MOST} forms of its rules are refused here", source=text.source)
    left: list[LeftOut] = []
    for form, reason in bad.items():
        numbers = forms[form]
        left.append(LeftOut(text.source, text.line(numbers[0] + 1), lines[numbers[0]].strip(), reason, len(numbers)))
        for number in numbers:
            lines[number] = ""
    return (replace(text, text="\n".join(lines)) if left else text), left


def _forms(lines: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Return the lines of rules by their form: the table, and the options without what differs from rule to rule."""
    forms: dict[tuple[str, ...], list[int]] = {}
    chains: set[str] = set()
    table = ""
    for number, line in enumerate(lines):
        if line.startswith("*"):
            table, chains = line[1:].strip(), set()
        elif line.startswith(":"):
            chains.add(line[1:].partition(" ")[0])
        elif "-A " in line:
            rule = line[line.index("-A ") :]
            words = (word for word in _OPTION.findall(rule) if word)
            form = tuple("-j CHAIN" if word[:2] in ("-j", "-g") and word[3:] in chains else word for word in words)
            forms.setdefault((table, *form), []).append(number)
    return forms


def _refusals(
    text: GivenText, lines: Sequence[str], forms: dict[tuple[str, ...], list[int]], bad: dict[tuple[str, ...], str]
) -> dict[tuple[str, ...], str]:
    """Return the forms that are refused, and why; empty where one rule of each of the others is loaded."""
    samples = {numbers[0]: form for form, numbers in forms.items() if form not in bad}
    if not samples:
        return {}
    error = _try(text, _only(lines, samples))
    if not error:
        return {}
    places = {int(found[1] or found[3]) - 1: found[2] for found in _REFUSED.finditer(error)}
    named = {samples[place]: reason or words_of(error) for place, reason in places.items() if place in samples}
    if chain := _NO_CHAIN.search(error):
        named |= {form: f"there is no {chain[1]}" for form in samples.values() if f"-j {chain[1]}" in form}
    if named:
        return named
    alone = {
        form: words_of(said) for number, form in samples.items() if (said := _try(text, _only(lines, {number: form})))
    }
    if not alone:
        raise InputError(f"not loaded here: {words_of(error)}", source=text.source)
    return alone


def _only(lines: Sequence[str], samples: Iterable[int]) -> str:
    """Return a dump with some rules alone, each on its line, and the chains that these name."""
    kept = set(samples)
    named = {word for number in kept for word in re.findall(r"(?:-A|-j|-g) (\S+)", lines[number])}

    def is_kept(number: int, line: str) -> bool:
        if line.startswith(":"):
            return line[1:].partition(" ")[0] in named
        return number in kept or line.startswith(("*", "COMMIT"))

    return "\n".join(line if is_kept(number, line) else "" for number, line in enumerate(lines))


def _try(text: GivenText, part: str) -> str:
    """Load something where nobody uses it, and return what the program says; empty where it takes it."""
    with closing(Namespace.create()) as namespace, closing(Xtables(namespace, text.backend or Backend.NFT)) as xtables:
        make_accounts(namespace, (part,))
        try:
            xtables.start_restore(_version(text), without_counters(part)).finish()
        except ProgramError as error:
            return str(error)
    return ""


def make_accounts(namespace: Namespace, texts: Iterable[str]) -> None:
    """Make the counters that rules name, which both families share."""
    for name in dict.fromkeys(name for text in texts for name in _ACCOUNT.findall(text)):
        nfacct.create(namespace, name)


def _loadable_nft(text: GivenText) -> tuple[GivenText, list[LeftOut]]:
    lines = text.text.split("\n")
    left: list[LeftOut] = []
    for _ in range(_MOST):
        with closing(Namespace.create()) as namespace, closing(Nft(namespace)) as nft:
            script = "\n".join(lines)
            with suppress(NftError):
                nft.run(script)  # in parts, where an ordinary user may not send it at once
                return (replace(text, text=script) if left else text), left
            try:
                faults = nft.faults(script)
            except NftError as error:
                raise _refused(text, error) from error
        for number, reason in faults.items():
            left.append(LeftOut(text.source, text.line(number), lines[number - 1].strip(), reason))
            lines[number - 1] = ""
    raise InputError(f"more than {_MOST} of its rules are refused here", source=text.source)
