# SPDX-License-Identifier: MIT
"""What the chains, sets and maps of a dump lead to: which are used at all, which do nothing, whose they are."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Set
from functools import cached_property
from typing import Final

from lab.rules.dump import MARK_DROP, Container, Dump, Line, target_of
from lab.rules.normal import Item, Part, is_even, items
from lab.vocabulary import ProxyMode

Place = tuple[str, str]

_STRINGS: Final = re.compile(r'"[^"]*"')
_VERDICT: Final = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
_NAMED: Final = re.compile(r"@([^\s,}]+)")
_LOOKUP: Final = re.compile(r"[^@]* vmap @([^\s,}]+)")
_ONLY_JUMP: Final = re.compile(r"(?:ct state new )?jump (\S+)")
_PROPERTIES: Final = ("type ", "comment ", "flags ", "size ", "policy ", "timeout ")

_IN_COMMENT: Final = re.compile(r'--comment (?:"((?:[^"\\]|\\.)*)"|(\S+))| comment "([^"]*)"')
_SERVICE: Final = re.compile(r"(?:^| )([a-z0-9.-]+/[a-z0-9.-]+)(?=[: ]|$)")
_CHAIN_OF: Final = re.compile(r"(?:service|local|external|firewall|endpoint)-[A-Z2-7]{8}-([a-z0-9.-]+/[a-z0-9.-]+)/")

_OF_ONE: Final = re.compile(r"KUBE-(SVC|SVL|SEP|EXT|FW|XLB)-|(service|local|external|firewall|endpoint|affinity)-")
_JUMP: Final[Part] = ("jump",)
_GOTO: Final[Part] = ("goto",)
_FURTHEST: Final = 3  # jumps from a rule that names its Service: KUBE-FW, KUBE-XLB, KUBE-SVC, KUBE-SEP


def service_of(text: str) -> str | None:
    """Return the Service, as ``namespace/name``, that a rule or an element says it is for."""
    if "/" not in text:
        return None
    said = _IN_COMMENT.search(text) if "comment" in text else None
    named = _SERVICE.search(next(filter(None, said.groups()), "")) if said else None
    if named is None and text.count("/") > 1:  # as of namespace/name/protocol
        named = _CHAIN_OF.search(text)
    return named[1] if named else None


def named_service(place: Place) -> str | None:
    """Return the Service, as ``namespace/name``, that a chain's, a set's or a map's name says it is for."""
    return service_of(place[1]) if _OF_ONE.match(place[1]) else None


def uncommented(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return what is left of a rule or an element without its comment."""
    kept = [part for part in parts if part[:2] != ("-m", "comment")]
    if len(kept) > 2 and kept[-2] == ("comment",):  # nft's rules are words
        kept = kept[:-2]
    return tuple(kept)


def bare(item: Item) -> tuple[Part, ...]:
    """Return what an item is without its comment."""
    return item.parts[:2] if item.keyed else uncommented(item.parts)


class Side:
    """One of two dumps that are compared."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self._is_nft = dump.mode is ProxyMode.NFTABLES
        self._forms: dict[Place, int] = {}

    def targets(self, container: Container, line: Line) -> list[Place]:
        """Return where a rule or an element leads, by what is there of this name."""
        if self._is_nft:
            bare = _STRINGS.sub("", line.text) if '"' in line.text else line.text
            names = _VERDICT.findall(bare)
            if "@" in bare:
                names += _NAMED.findall(bare)
        else:
            names = [target_of(line.text)]
        return [place for name in names if (place := (container.table, name)) in self.dump.containers]

    @cached_property
    def _edges(self) -> dict[Place, list[Place]]:
        edges: dict[Place, list[Place]] = {}
        for place, target, _ in self._leads(self.dump.containers):
            edges.setdefault(place, []).append(target)
        return edges

    def _leads(self, places: Iterable[Place]) -> Iterator[tuple[Place, Place, str]]:
        """Return what leads from some places to where, and in which words."""
        for place in places:
            one = self.dump.containers[place]
            for some in (one.lines, one.elements):
                for line in some:
                    for target in self.targets(one, line):
                        yield place, target, line.text

    def _leads_to(self, targets: Set[Place]) -> Iterator[tuple[Place, Place, str]]:
        places = [place for place, led in self._edges.items() if not targets.isdisjoint(led)]
        return (lead for lead in self._leads(places) if lead[1] in targets)

    @cached_property
    def used(self) -> frozenset[Place]:
        """What packets can come to, from the built-in chains or from rules of others."""
        return frozenset(self.reached(self.starts | (self.dump.entered & self.dump.containers.keys())))

    @cached_property
    def starts(self) -> frozenset[Place]:
        """Where packets come by themselves."""
        return frozenset(place for place, one in self.dump.containers.items() if self._begins(one))

    def _begins(self, container: Container) -> bool:
        return container.kind in ("jumps", "table") or any(
            line.text.startswith("type ") and " hook " in line.text for line in container.lines
        )

    def reached(self, starts: Iterable[Place], among: frozenset[Place] | None = None) -> set[Place]:
        """Return the places that are reached from some, these among them.

        :param among: go through these alone.
        """
        found = {start for start in starts if among is None or start in among}
        new = found
        while new:
            steps = {target for place in new for target in self._edges.get(place, ())}
            new = (steps if among is None else steps & among) - found
            found = found | new
        return found

    @cached_property
    def idle(self) -> frozenset[Place]:
        """The chains in which nothing happens to a packet, and the sets and maps without elements."""
        idle: set[Place] = set()
        left = {place for place, one in self.dump.containers.items() if one.kind != "jumps" and place[1] != MARK_DROP}
        while new := {place for place in left if self._is_idle(self.dump.containers[place], idle)}:
            idle |= new
            left -= new
        return frozenset(idle)

    def _is_idle(self, container: Container, idle: set[Place]) -> bool:
        if container.kind in ("set", "map"):
            return not container.elements
        return all(self._does_nothing(container, line, idle) for line in container.lines)

    def does_nothing(self, place: Place, text: str) -> bool:
        """Report whether a rule has no effect: it is a comment alone, or leads to where nothing happens."""
        return self._does_nothing(self.dump.containers[place], Line(text, 0), self.idle)

    def _does_nothing(self, container: Container, line: Line, idle: Iterable[Place]) -> bool:
        if not self._is_nft:
            target = target_of(line.text)
            return not target or (container.table, target) in idle
        if container.kind in ("set", "map"):
            return line.text.startswith(("comment ", "size "))
        if not line.text.startswith(_PROPERTIES) and "jump " not in line.text and " vmap @" not in line.text:
            return False  # asked first, for that is quicker than patterns
        text = re.sub(r' comment "[^"]*"$', "", line.text)
        leads = _ONLY_JUMP.fullmatch(text) or _LOOKUP.fullmatch(text)
        return text.startswith(_PROPERTIES) or (leads is not None and (container.table, leads[1]) in idle)

    def form(self, place: Place, item: Item) -> Hashable:
        """Return what an item does, whatever its comment and the names of the chains that it leads to."""
        return tuple(self._unnamed(place[0], part, before) for part, before in _with_before(uncommented(item.parts)))

    def outline(self, place: Place, item: Item) -> Hashable:
        """Return what an item does but for what happens where it leads: equal where :meth:`form` is."""
        parts = uncommented(item.parts)
        if self._is_nft and not item.keyed and _JUMP not in parts and _GOTO not in parts:
            return parts  # nearly all are so, and this is quicker
        return tuple(self._unnamed(place[0], part, before, deep=False) for part, before in _with_before(parts))

    def _unnamed(self, table: str, part: Part, before: Part, *, deep: bool = True) -> Hashable:
        if self._is_nft:
            if before in (_JUMP, _GOTO):
                words = [before[0], part[0]]
            elif " " in part[0]:  # an element's
                words = part[0].split(" ")
            else:
                return part
            if words[0] in ("jump", "goto") and (table, words[-1]) in self.dump.containers:
                return self._form_of((table, words[-1])) if deep else 0
            return part
        if part[0] in ("-j", "-g") and (table, part[1]) in self.dump.containers:
            return (part[0], self._form_of((table, part[1])) if deep else 0, *part[2:])
        if part[:2] == ("-m", "recent"):
            return tuple(option for option in part if not option.startswith("--name "))
        return part

    def _form_of(self, place: Place) -> int:
        if place not in self._forms:
            self._forms[place] = hash(place)  # of a chain that leads to itself
            one = self.dump.containers[place]
            found = items(one, self.dump.mode, even=is_even(one, self.dump.mode))
            acting = [item for item in found if not self.does_nothing(place, item.text)]
            self._forms[place] = hash(tuple(self.form(place, item) for item in acting))
        return self._forms[place]

    def services_of(self, place: Place) -> frozenset[str]:
        """Return what :attr:`services` says of one place, without looking at all where its own words say so."""
        if not _OF_ONE.match(place[1]):
            return frozenset()
        return _said(self.dump.containers[place]) or self.services[place]

    @cached_property
    def services(self) -> dict[Place, frozenset[str]]:
        """The Services that a chain, set or map of its own is for, by its own words or by those who lead to it."""
        known: dict[frozenset[str], frozenset[str]] = {}  # one of each: most have several chains
        found: dict[Place, frozenset[str]] = dict.fromkeys(self.dump.containers, frozenset())
        for place, one in self.dump.containers.items():
            if _OF_ONE.match(place[1]):
                own = _said(one)
                found[place] = known.setdefault(own, own)
        silent = {place for place, said in found.items() if not said and _OF_ONE.match(place[1])}
        leads = [(place, target, service_of(text)) for place, target, text in self._leads_to(silent)] if silent else ()
        for _ in range(_FURTHEST if silent else 0):
            led: dict[Place, frozenset[str]] = {}
            for place, target, service in leads:
                more = led.get(target, frozenset()) | ({service} if service else found[place])
                led[target] = known.setdefault(more, more)
            found.update(led)
        return found


def _said(container: Container) -> frozenset[str]:
    said = {service_of(line.text) for line in container.lines} | {service_of(container.name)}
    return frozenset(service for service in said if service)


def _with_before(parts: tuple[Part, ...]) -> Iterator[tuple[Part, Part]]:
    return zip(parts, ((), *parts), strict=False)
