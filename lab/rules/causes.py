# SPDX-License-Identifier: MIT
"""Finds what explains the differences between a node's rules and kube-proxy's, by trying it.

Whatever may be otherwise (:mod:`lab.rules.whatifs`) is rendered and compared: what leaves the fewest differences is
taken, and the next thing is tried on top, until nothing helps. A cause is only said where, without it, what it explains
would differ and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lab.rules.attempts import IMPOSSIBLE, Attempts, Chosen, Sides
from lab.rules.by_chance import chances
from lab.rules.diff import Cause, Key
from lab.rules.dump import Dump
from lab.rules.other_endpoints import other_endpoints
from lab.rules.other_releases import VERSION, of_release, place_of, releases, span
from lab.rules.other_services import other_services
from lab.rules.other_settings import settings
from lab.rules.side import Side
from lab.rules.whatifs import WhatIf

if TYPE_CHECKING:
    from lab.rules.source import Proxy

_STEPS: Final = 8
_NEAR: Final = 6  # releases that are tried again after something else was found
_MANY: Final = 3000  # endpoints: with more, a part of the Services is all that is tried
_OF_MANY: Final = 5  # as many of each, where a part is all that is tried
_EQUAL: Final = 8  # things that explain as much of a sample are tried on the whole


@dataclass(frozen=True)
class Explanation:
    """What was found by trying.

    :param proxy: kube-proxy with what chance decided, as it was decided on the node.
    :param chance: what that was, in sentences.
    :param likely: kube-proxy and the node's rules with all that was found.
    :param causes: in the order in which they were found.
    :param explained: which cause explains what, by the keys of :func:`~lab.rules.diff.unlike`.
    :param fitting: the releases that leave no difference once the causes are taken into account, oldest first.
    :param nearest: kube-proxy of the release that leaves the fewest differences then, and the node's rules, where none
        fits.
    """

    proxy: Proxy
    likely: tuple[Proxy, Dump]
    chance: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    explained: dict[Key, int] = field(default_factory=dict)
    fitting: tuple[str, ...] = ()
    nearest: tuple[Proxy, Dump] | None = None


class Search:
    """Tries what may be otherwise.

    :param sides: returns kube-proxy's rules and the node's as they are to be compared.
    """

    def __init__(self, proxy: Proxy, found: Dump, sides: Sides) -> None:
        self._proxy = proxy
        self._whole = Attempts(proxy, found, sides)
        self._tried = self._whole
        if sum(len(one.endpoints) for one in proxy.endpoint_slices) > _MANY:
            self._tried = self._whole.sample({}, _OF_MANY)
        self._mode = proxy.mode
        self._shapes = releases(proxy.mode)
        self._releases = [of_release(names, proxy.mode) for names in self._shapes]

    def explain(self) -> Explanation:
        """Find what explains the differences: chance, if it can, else whatever else as well."""
        proxy = self._proxy
        possible = list(chances(proxy))
        if possible:
            chosen = self._greedily(possible, (), ())
            if not self._tried.size(chosen) and not self._whole.size(chosen):
                return self._explanation(chosen)
        expected, found = self._tried.sides({})
        place = place_of(proxy.options.release, self._mode)
        near = sorted(range(len(self._shapes)), key=lambda number: abs(number - place))
        others = [self._releases[number] for number in near if number != place]
        wanted, given = Side(expected), Side(found)
        tried = [*settings(proxy, given), *other_services(proxy, wanted, given), *possible]
        endpoints = self._endpoints(wanted, given)
        del wanted, given  # what they know takes much memory
        chosen = self._needed(self._greedily(tried, others, endpoints))
        return self._explanation(self._plausible(chosen))

    def _endpoints(self, wanted: Side, given: Side) -> list[WhatIf]:
        """Return what may be otherwise in the endpoints; of many Services, where it makes no other difference."""
        proxy = self._tried.proxy
        found = list(other_endpoints(proxy, wanted, given))
        if len(found) != 1:
            return found
        chosen = {found[0].setting: found[0]}
        base, then = self._tried.differing({}), self._tried.differing(chosen)
        if base is None or then is None:
            return []
        places = self._tried.worse(chosen, base)
        if not places:
            return found
        sides = [Side(one).services for one in self._tried.sides(chosen)]
        worse = {service for place in places for one in sides for service in one.get(place, ())}
        return list(other_endpoints(proxy, wanted, given, leaving=worse))

    def _greedily(self, tried: Sequence[WhatIf], others: Sequence[WhatIf], last: Sequence[WhatIf]) -> Chosen:
        """Take what leaves the fewest differences, one after the other.

        Where nothing does any more, a release and something else may together.

        :param others: the other releases.
        :param last: what is only taken where nothing of the rest helps: other endpoints can stand for much.
        """
        chosen: Chosen = {}
        for _ in range(_STEPS):
            if not self._tried.size(chosen):
                break
            sample = self._tried.sample(chosen)
            # The releases that come nearest are worth another try, once something else is found.
            others = sorted(others, key=lambda one: sample.size({**chosen, VERSION: one}))[:_NEAR]
            better = self._better(chosen, sample, [{one.setting: one} for one in (*tried, *others)])
            if better is None:
                better = self._better(chosen, sample, [{one.setting: one} for one in last])
            if better is None:
                pairs = [{VERSION: other, one.setting: one} for other in others for one in tried]
                better = self._better(chosen, sample, pairs)
            if better is None:
                break
            chosen = better
        return chosen

    def _better(self, chosen: Chosen, sample: Attempts, changes: Sequence[Chosen]) -> Chosen | None:
        """Return what is chosen with the change that leaves the fewest differences; None where none leaves fewer."""
        sizes = [sample.size({**chosen, **change}) for change in changes]
        least = min(sizes, default=IMPOSSIBLE)
        equal = [{**chosen, **change} for change, size in zip(changes, sizes, strict=True) if size == least]
        best = min(equal[:_EQUAL], key=self._tried.size, default=chosen)
        return best if self._tried.size(best) < self._tried.size(chosen) else None

    def _needed(self, chosen: Chosen) -> Chosen:
        """Leave out what is not needed: without it no more differs."""
        for setting in list(chosen):
            less = {key: one for key, one in chosen.items() if key != setting}
            if self._tried.size(less) <= self._tried.size(chosen):
                chosen = less
        return chosen

    def _plausible(self, chosen: Chosen) -> Chosen:
        """Leave out a release that explains less than it leaves: some release is always nearest."""
        if VERSION not in chosen:
            return chosen
        less = {setting: one for setting, one in chosen.items() if setting != VERSION}
        left = self._tried.size(chosen)
        return chosen if self._tried.size(less) - left > left else self._needed(less)

    def _explanation(self, chosen: Chosen) -> Explanation:
        """Return what each explains, where it does so without making other differences."""
        chance = {setting: one for setting, one in chosen.items() if one.by_chance}
        proxy = self._whole.applied(chance)[0]
        base, left = self._whole.differing(chance), self._whole.differing(chosen)
        if base is None or left is None:
            return Explanation(proxy, self._whole.applied(chance))
        gone = base - left if left else base
        fitting = self._fitting(chosen) if not left else ()
        causes: list[Cause] = []
        needs: list[Counter[Key]] = []
        explained: dict[Key, int] = {}
        for setting, one in chosen.items():
            without = self._tried.differing({key: other for key, other in chosen.items() if key != setting})
            if one.by_chance or without is None or (self._tried.differing(chosen) or Counter()) - without:
                continue
            alone = self._whole.differing({**chance, setting: one}) or Counter()
            for key, count in base.items():
                if count > alone[key] and key in gone:
                    explained.setdefault(key, len(causes))
            sentence, cure = one.sentence, one.cure
            if setting == VERSION and fitting:
                sentence = f"The rules are those of kube-proxy {span(fitting, self._mode)}."
                cure = f"give {VERSION} {fitting[-1]}"
            causes.append(Cause(setting, sentence, cure))
            needs.append(without)
        if causes and len(causes) + len(chance) == len(chosen):
            # What only several together explain, each of them explains a part of.
            counts = Counter(explained.values())
            for key in [key for key in gone if key not in explained]:
                needed = [cause for cause, without in enumerate(needs) if key in without] or range(len(causes))
                explained[key] = min(needed, key=lambda cause: (counts[cause], -cause))
                counts[explained[key]] += 1
        words = tuple(one.sentence for one in chance.values())
        likely = self._whole.applied(chosen)
        if not left:
            return Explanation(proxy, likely, words, tuple(causes), explained, fitting)
        nearest = min(
            [{}, *({VERSION: one} for one in self._releases)],
            key=lambda release: self._tried.size({**chosen, **release}),
        )
        return Explanation(
            proxy, likely, words, tuple(causes), explained, (), self._whole.applied({**chosen, **nearest})
        )

    def _fitting(self, chosen: Chosen) -> tuple[str, ...]:
        """Return the releases with which nothing differs: the one that fits, and those next to it that do.

        Where a part of the Services was tried, those next to it are not known to.
        """
        place = place_of(self._whole.applied(chosen)[0].options.release, self._mode)
        if self._tried is not self._whole:
            return self._shapes[place]
        fits = [place]
        for direction in (range(place - 1, -1, -1), range(place + 1, len(self._shapes))):
            for number in direction:
                if self._tried.size({**chosen, VERSION: self._releases[number]}):
                    break
                fits.append(number)
        return tuple(name for number in sorted(fits) for name in self._shapes[number])
