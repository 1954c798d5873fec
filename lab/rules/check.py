# SPDX-License-Identifier: MIT
"""Holds a node's rules against those of a kube-proxy."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.errors import InputError, InputWarning, LabError
from lab.kubeproxy.faults import FaultError
from lab.kubeproxy.jumps import kubelets_chains
from lab.rules import dump, read_dump
from lab.rules.causes import Explanation, Search
from lab.rules.diff import Comparing, Comparison, alike, compare, sharing, unlike
from lab.rules.expected import expected
from lab.rules.leftovers import leftover, without_kubelets, without_leftovers, without_waste
from lab.rules.other_releases import releases
from lab.rules.partial import completed
from lab.rules.pieces import text_of
from lab.rules.restored import UnknownFormError
from lab.rules.scratch import read_json, saved_uncounted
from lab.rules.services import only_of, services_in
from lab.rules.side import Side
from lab.vocabulary import ProxyMode

_UNCOMMENTED: Final = "The comments of tables, chains, sets and maps are not compared: JSON lacks some."
_KEPT: Final = 2  # kube-proxies' rules: those of many Services are large
_FAILING: Final = 20  # Services, each found by writing the rules once more

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lab.kubeproxy.releases import Release
    from lab.rules.diff import Difference, Explain, Key
    from lab.rules.read_dump import Given
    from lab.rules.side import Place
    from lab.rules.source import Proxy


def read_text(path: str) -> str:
    """Read a dump's file; ``-`` is standard input.

    :raises InputError: it cannot be read, or is no text.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source=path or repr(path)) from None
    if data[257:262] == b"ustar":  # where a tar says that it is one (POSIX.1-1988)
        raise InputError("an archive", source=path, cure="unpack it, and give iptables-nft-save.txt or nft.txt of it")
    return text_of(data, path)


@dataclass(frozen=True)
class Node:
    """What was found on a node.

    :param source: what to call it in errors.
    :param commented: whether it says what tables, chains, sets and maps say of themselves.
    """

    source: str
    dump: dump.Dump
    commented: bool = True


def read_node(given: Given, proxy: Proxy) -> Node:
    """Read a dump.

    :param proxy: whose rules it is to be compared with.
    :raises InputError: it is no dump of this mode and family, with the line.
    """
    source, family = given.source, proxy.options.family
    if all(one.mode is not proxy.mode for one in given.pieces):
        message = f"a dump of a node in {given.mode} mode, but kube-proxy's rules are for {proxy.mode} mode"
        raise InputError(message, source=source, cure=f"give --proxy-mode {given.mode}")
    piece = given.of_json() if proxy.mode is ProxyMode.NFTABLES else None
    if piece is None:
        return Node(source, given.read(family, proxy.mode))
    return Node(source, read_json(piece.text, source, family).without_comments(), commented=False)


def check(proxy: Proxy, text: str, source: str) -> Comparison:
    """Compare a dump with what this kernel gives back of a kube-proxy's rules.

    :param source: what to call the dump in errors.
    :raises InputError: it is no dump of this mode and family, with the line.
    :raises LabError: this kernel refused kube-proxy's rules.
    """
    return compared(proxy, read_node(read_dump.given(text, source), proxy))


def fitted(proxy: Proxy, node: Node) -> tuple[Proxy, Comparison]:
    """Return the kube-proxy of the release that fits a node's rules best, compared with them.

    Of several releases that fit it is the newest.

    :raises LabError: no release writes rules for these objects, with the last one's reason.
    """
    with _quietly():
        chosen, fitting = _fitting(proxy, node)
    comparison = compared(chosen, node)
    if not comparison.same:
        return chosen, comparison
    if not fitting:
        with _quietly():
            fitting = Search(chosen, node.dump, _Sides(node).without_leftovers).explain().fitting
    return chosen, dataclasses.replace(comparison, fitting=fitting, chosen=True)


def _fitting(proxy: Proxy, node: Node) -> tuple[Proxy, tuple[str, ...]]:
    """Return the kube-proxy of the nearest release, and what of :func:`releases` fits, where that is known by then."""
    sides = _Sides(node)
    every = [_of_release(proxy, names[-1]) for names in releases(proxy.mode)]
    for newest in every[::-1]:
        try:
            sides(newest, node.dump)
        except LabError as error:
            reason = error
            continue
        explanation = Search(newest, node.dump, sides.without_leftovers).explain()
        name = explanation.fitting[-1] if explanation.fitting else None
        if explanation.nearest:
            name = explanation.nearest[0].options.release.name
        return _of_release(proxy, name or newest.options.release.name), explanation.fitting
    raise reason


def _of_release(proxy: Proxy, name: str) -> Proxy:
    return dataclasses.replace(proxy, options=dataclasses.replace(proxy.options, version=name))


def compared(proxy: Proxy, node: Node) -> Comparison:
    """Compare what was found on a node with a kube-proxy's rules, and say what explains the differences.

    :raises LabError: this kernel refused kube-proxy's rules.
    """
    sides = _Sides(node)
    if (comparison := sides.alike(proxy)) is not None:
        return dataclasses.replace(comparison, fitting=(proxy.options.release.name,))
    if sides.nothing_there:
        return sides.compared(proxy)
    with _quietly():
        explanation = Search(proxy, node.dump, sides.without_leftovers).explain()
        comparison = sides.compared(explanation.proxy, _Answers(node, sides, explanation))
        left = _left(explanation.nearest, node, sides) if explanation.nearest else 0
    explaining = sorted({one.cause for one in comparison.differences if one.cause is not None})
    return dataclasses.replace(
        comparison,
        differences=_numbered_anew(comparison.differences, explaining),
        notes=(*comparison.notes, *explanation.chance),
        causes=tuple(explanation.causes[cause] for cause in explaining),
        fitting=explanation.fitting,
        nearest=explanation.nearest[0].options.release.name if explanation.nearest else None,
        left=left,
    )


def _numbered_anew(differences: tuple[Difference, ...], causes: list[int]) -> tuple[Difference, ...]:
    """Return differences with their causes' places among those that explain any."""
    if causes == list(range(len(causes))):
        return differences
    return tuple(one if one.cause is None else one.explained(one.note, causes.index(one.cause)) for one in differences)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence warnings of what is only tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        yield


def _left(nearest: tuple[Proxy, dump.Dump], node: Node, sides: _Sides) -> int:
    """Count the differences from the release that comes nearest, but for what was left behind."""
    proxy, found = nearest
    return sum(leftover(one, proxy, node.dump) is None for one in Comparing(*sides(proxy, found)).differences())


class _Answers:
    """Says of each difference what it is and its cause: a leftover is none where the likely release has it."""

    def __init__(self, node: Node, sides: _Sides, explanation: Explanation) -> None:
        self._proxy = explanation.proxy
        self._node, self._sides, self._explanation = node, sides, explanation
        self._counts = Counter(explanation.explained.values())

    def __call__(self, one: Difference, keys: tuple[Key, ...]) -> tuple[str | None, int | None]:
        note = leftover(one, self._explanation.likely[0], self._node.dump)
        if note:
            return note, None
        cause = self._cause(keys)
        causes = self._explanation.causes
        if cause is None and causes and leftover(one, self._proxy, self._node.dump):
            cause = None if any(self._left[key] for key in keys) else len(causes) - 1
        return None, cause

    @cached_property
    def _left(self) -> Counter[Key]:
        """What differs from the likely release."""
        return unlike(*self._sides(*self._explanation.likely))

    def _cause(self, keys: tuple[Key, ...]) -> int | None:
        causes = [self._explanation.explained.get(key) for key in keys]
        known = [cause for cause in causes if cause is not None]
        if not known or len(known) < len(causes):
            return None
        return max(known, key=lambda cause: (-self._counts[cause], cause))  # who explains the most has others


class _Sides:
    """Brings a kube-proxy's rules and a node's into a form in which they can be compared.

    Whether rules count by nfacct depends on the node's kernel, not on kube-proxy's options, so the dump decides.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.note: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.nothing_there = False
        self._made: dict[object, tuple[dump.Dump, tuple[dump.Dump, tuple[str, ...]]]] = {}
        self._known: dict[object, tuple[Proxy, dump.Dump, tuple[FaultError, ...]]] = {}
        self._known_used: dict[int, tuple[dump.Dump, frozenset[Place]]] = {}

    def __call__(self, proxy: Proxy, found: dump.Dump) -> tuple[dump.Dump, dump.Dump]:
        options = dataclasses.replace(proxy.options, nfacct=found.counts_by_name)
        key = (proxy.mode, options, id(proxy.services), id(proxy.endpoint_slices))
        release = options.release
        if key not in self._known:
            while len(self._known) >= _KEPT:  # before the next is made, which takes the most memory
                del self._known[next(iter(self._known))]
            wanted, self.note, faults = _wanted_of_what_loads(dataclasses.replace(proxy, options=options))
            if not self._node.commented:
                wanted = wanted.without_comments()
            if proxy.mode is ProxyMode.IPTABLES:
                wanted = wanted.without_kubelets(kubelets_chains(release))
            self._known[key] = proxy, sharing(wanted, self._node.dump), faults
        _, wanted, faults = self._known[key]
        notes: tuple[str, ...] = ()
        if proxy.mode is ProxyMode.IPTABLES:
            found, notes = self._remembered(found, release, lambda: without_kubelets(found, release))
        self.nothing_there = not any(one.kind == "chain" for one in found.containers.values())
        if self.nothing_there:
            notes += ("kube-proxy has written nothing here: the chains whose names begin with KUBE are the kubelet's.",)
        if found.partial:
            found = completed(wanted, found)
        if faults:
            failing = {one.service for one in faults}
            found, more = self._remembered(found, release, lambda: (_without(found, failing), tuple(_said(faults))))
            notes += more
        found, waste = without_waste(proxy, wanted, found, self._used)
        self.notes = (*notes, *waste)
        return wanted, found

    def compared(self, proxy: Proxy, explain: Explain | None = None) -> Comparison:
        """Compare the node's rules, and say what has to be known of how that was done."""
        wanted, found = self(proxy, self._node.dump)
        note, notes = self.note, self.notes  # what explains differences looks at other sides
        return self._noted(compare(wanted, found, explain, numbered=self._node.commented), note, notes)

    def alike(self, proxy: Proxy) -> Comparison | None:
        """Return the same where nothing differs, else None as soon as something does."""
        comparison = alike(*self(proxy, self._node.dump))
        return self._noted(comparison, self.note, self.notes) if comparison else None

    def _noted(self, comparison: Comparison, note: tuple[str, ...], notes: tuple[str, ...]) -> Comparison:
        uncommented = () if self._node.commented else (_UNCOMMENTED,)
        partial = self._node.dump.partial
        # What a part was completed with has no line: it is not the node's.
        there = tuple(one for one in comparison.differences if not partial or one.line != 0)
        return dataclasses.replace(
            comparison,
            differences=there,
            left_out=(*note, *comparison.left_out, *uncommented),
            notes=(*notes, *comparison.notes),
            partial=partial,
        )

    def without_leftovers(self, proxy: Proxy, found: dump.Dump) -> tuple[dump.Dump, dump.Dump]:
        """Return both sides, the node's without what another release left behind: it tells nothing of this one."""
        wanted, whole = self(proxy, found)
        left, _ = self._remembered(whole, proxy.options.release, lambda: (without_leftovers(whole, proxy), ()))
        # What kube-proxy writes is not left behind: what leads there may be gone.
        own = {
            place: one
            for place, one in whole.containers.items()
            if one.kind != "jumps" and place not in left.containers and place in wanted.containers
        }
        return wanted, dataclasses.replace(left, containers={**left.containers, **own}) if own else left

    def _used(self, found: dump.Dump) -> frozenset[Place]:
        """Return what of a node's rules packets can come to: found once, for most of them are large."""
        if id(found) not in self._known_used:
            self._known_used[id(found)] = found, Side(found).used
        return self._known_used[id(found)][1]

    def _remembered(
        self, given: dump.Dump, release: Release, make: Callable[[], tuple[dump.Dump, tuple[str, ...]]]
    ) -> tuple[dump.Dump, tuple[str, ...]]:
        """Make a dump of another one for a release once."""
        key = id(given), release
        if key not in self._made:
            self._made[key] = given, make()
        return self._made[key][1]


def _wanted(proxy: Proxy) -> tuple[dump.Dump, tuple[str, ...]]:
    """Return kube-proxy's rules as a dump has them, and what has to be known of how that was found."""
    try:
        return expected(proxy), ()
    except UnknownFormError as error:
        by = "nft" if proxy.mode is ProxyMode.NFTABLES else f"iptables-{proxy.backend}"
        note = f"kube-proxy's rules were loaded here, by {by}, to be compared: {error}."
        return read_dump.read(saved_uncounted(proxy), "kube-proxy's rules", proxy.options.family), (note,)


def _wanted_of_what_loads(proxy: Proxy) -> tuple[dump.Dump, tuple[str, ...], tuple[FaultError, ...]]:
    """Return the same without the Services with which a release loads no rule at all, and why it does not.

    What such a node has was written before they were so.
    """
    faults: list[FaultError] = []
    while True:
        try:
            return *_wanted(proxy), tuple(faults)
        except FaultError as error:
            services = tuple(one for one in proxy.services if one.key != error.service)
            if len(faults) == _FAILING or len(services) == len(proxy.services):
                raise
            faults.append(error)
            proxy = dataclasses.replace(proxy, services=services)


def _said(faults: Sequence[FaultError]) -> Iterator[str]:
    """Return why Services are left out."""
    for one in faults:
        yield f"{one.message}. What is here was written before that: {one.service} is not compared."


def _without(found: dump.Dump, services: set[str]) -> dump.Dump:
    """Return a node's rules without those of some Services."""
    side = Side(found)
    return only_of(side, services_in(side) - services)
