# SPDX-License-Identifier: MIT
"""Knows what another release of kube-proxy, or the kubelet of one, left behind on a node.

Source: rules that real programs wrote over those of another release, upgrades and back, and over those of the other
mode; and real ones after Services and endpoints had gone.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from lab.kubeproxy import changes
from lab.kubeproxy.jumps import kubelets_chains
from lab.kubeproxy.services import MANY_ENDPOINTS
from lab.rules.dump import MARK_DROP, Dump
from lab.rules.effects import Effect, Kind
from lab.rules.side import Place, Side
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.kubeproxy.changes import Change
    from lab.kubeproxy.releases import Release
    from lab.rules.diff import Difference
    from lab.rules.source import Proxy


@dataclass(frozen=True)
class _Leftover:
    """Something by which another release is known.

    :param name: of the chain, set or map.
    :param words: what it is.
    :param until: releases with this change do not write it any more.
    :param since: releases without this change do not write it yet.
    :param rule: the end of the rule, where it is one rule of a chain.
    :param active: packets come there all the same.
    """

    name: re.Pattern[str]
    words: str
    until: Change | None = None
    since: Change | None = None
    rule: str = ""
    active: bool = False

    def of_another(self, release: Release) -> bool:
        """Report whether a release does not write it."""
        if self.until is not None:
            return self.until in release
        return self.since is None or self.since not in release


_IPTABLES: Final = (
    _Leftover(
        re.compile("INPUT"),
        "INPUT's jump to KUBE-SERVICES, of v1.19 or earlier",
        until=changes.FORWARD_EXTERNAL,
        rule="-j KUBE-SERVICES",
        active=True,
    ),
    _Leftover(re.compile("KUBE-XLB-.*"), "KUBE-XLB chains of v1.23 or earlier", until=changes.EXTERNAL_CHAINS),
    _Leftover(re.compile(MARK_DROP), "KUBE-MARK-DROP of v1.24 or earlier", until=changes.PROXY_FIREWALL),
    _Leftover(re.compile("KUBE-(EXT|SVL)-.*"), "chains of v1.24 or later", since=changes.EXTERNAL_CHAINS),
    _Leftover(re.compile("KUBE-PROXY-FIREWALL"), "KUBE-PROXY-FIREWALL of v1.25 or later", since=changes.PROXY_FIREWALL),
    _Leftover(re.compile("KUBE-PROXY-CANARY"), "canaries of v1.17 or later", since=changes.CANARIES),
    _Leftover(re.compile("KUBE-(LOAD-BALANCER|NODE-PORT|IPVS-.*)"), "chains of ipvs mode"),
    _Leftover(re.compile("KUBE-(SVC|SVL|SEP|EXT|FW)-[A-Z2-7]{16}"), "chains of Services or endpoints that are gone"),
)
_NFTABLES: Final = (
    _Leftover(
        re.compile("filter-(prerouting|output-post-dnat)"),
        "base chains of v1.33.5 or earlier",
        until=changes.FILTERS_AFTER_DNAT,
        active=True,
    ),
    _Leftover(
        re.compile("filter-(prerouting|output)-pre-dnat"),
        "base chains of v1.33.6 or later",
        since=changes.FILTERS_AFTER_DNAT,
        active=True,
    ),
    _Leftover(
        re.compile("mark-for-masquerade"), "mark-for-masquerade of v1.35 or earlier", until=changes.ENDPOINT_MAPS
    ),
    _Leftover(re.compile("hairpin-connections"), "hairpin-connections of v1.36 or later", since=changes.ENDPOINT_MAPS),
)
_ENDPOINT_CHAIN: Final = re.compile("KUBE-(SVC|SVL|SEP|EXT|FW)-[A-Z2-7]{16}")
_KUBELETS_DROP: Final = '--comment "kubernetes firewall for dropping marked packets"'


def leftover(difference: Difference, proxy: Proxy, found: Dump) -> str | None:
    """Return what a difference is, where it was left behind; None where it was not."""
    if difference.kind is Kind.MISSING:
        lost = "jump mark-for-masquerade" in (difference.expected or "") and difference.name.startswith("endpoint-")
        # Where the node has v1.36's rules, nothing is lost.
        if (
            lost
            and changes.ENDPOINT_MAPS not in proxy.options.release
            and (difference.table, "hairpin-connections") in found.containers
        ):
            return "lost by going back from v1.36, which has no rule of this kind"
        return None
    if difference.kind is not Kind.EXTRA:
        return None
    unused = difference.effect is Effect.UNUSED
    for one in _known(proxy.mode, proxy.options.release):
        if (
            (unused or one.active)
            and one.name.fullmatch(difference.name)
            and (difference.found or "").endswith(one.rule)
        ):
            state = "unused" if unused else "active" if difference.effect is Effect.TRAFFIC else "without effect here"
            return f"{one.words}, {state}"
    return None


def without_leftovers(found: Dump, proxy: Proxy) -> Dump:
    """Return a node's rules without what was left behind."""
    known = _known(proxy.mode, proxy.options.release)
    likely = {place: [one for one in known if one.name.fullmatch(place[1])] for place in found.containers}
    if not any(likely.values()):
        return found
    used = Side(found).used
    containers = {}
    for place, container in found.containers.items():
        left = [one for one in likely[place] if one.active or place not in used]
        if any(not one.rule for one in left):
            continue
        rules = tuple(one.rule for one in left)
        kept = [line for line in container.lines if not (rules and line.text.endswith(rules))]
        if kept or container.kind != "jumps":
            containers[place] = dataclasses.replace(container, lines=kept)
    return dataclasses.replace(found, containers=containers)


@cache
def _known(mode: ProxyMode, release: Release) -> tuple[_Leftover, ...]:
    known = _IPTABLES if mode is ProxyMode.IPTABLES else _NFTABLES
    return tuple(one for one in known if one.of_another(release))


def without_kubelets(found: Dump, release: Release) -> tuple[Dump, tuple[str, ...]]:
    """Return a node's rules of iptables mode without what is the kubelet's, and what is to be said of that."""
    chains = kubelets_chains(release)
    dropping = found.containers.get(("nat", MARK_DROP))
    if changes.OWN_FIREWALL in release and (left := _without_an_older_kubelets(found)):
        return left, ("The drop of packets that KUBE-MARK-DROP marks is that of a kubelet of v1.26 or earlier.",)
    if dropping is not None and not dropping.lines and changes.PROXY_FIREWALL in release:
        chains = tuple(one for one in chains if one != MARK_DROP)  # the kubelet's has a rule
    return found.without_kubelets(chains), ()


def without_waste(
    proxy: Proxy, wanted: Dump, found: Dump, used: Callable[[Dump], frozenset[Place]]
) -> tuple[Dump, tuple[str, ...]]:
    """Return a node's rules without the chains that kube-proxy itself will delete soon, and what is to be said.

    :param used: returns what of a node's rules packets can come to.
    """
    soon = _soon_deleted(proxy, wanted, found, used)
    if not soon:
        return found, ()
    containers = {place: one for place, one in found.containers.items() if place not in soon}
    count = f"{len(soon)} unused chain{'s' * (len(soon) != 1)} of what is gone"
    when = "in its next sync"
    if proxy.mode is ProxyMode.IPTABLES:
        when = "in a sync half a minute later, as there are over 1,000 endpoints"
    note = f"{count}, which kube-proxy deletes {when}: {min(name for _, name in soon)}."
    return dataclasses.replace(found, containers=containers), (note,)


def _without_an_older_kubelets(found: Dump) -> Dump | None:
    containers = dict(found.containers)
    changed = False
    if (place := ("nat", MARK_DROP)) in containers and containers[place].lines:
        del containers[place]
        changed = True
    if (place := ("filter", "KUBE-FIREWALL")) in containers:
        lines = [line for line in containers[place].lines if _KUBELETS_DROP not in line.text]
        changed = changed or len(lines) < len(containers[place].lines)
        containers[place] = dataclasses.replace(containers[place], lines=lines)
    return dataclasses.replace(found, containers=containers) if changed else None


def _soon_deleted(
    proxy: Proxy, wanted: Dump, found: Dump, used: Callable[[Dump], frozenset[Place]]
) -> frozenset[Place]:
    """Return the chains that nobody uses, and that kube-proxy deletes later than what led to them."""
    if proxy.mode is ProxyMode.NFTABLES:
        chains = (place for place, one in found.containers.items() if one.kind == "chain" and not one.lines)
        extra = [place for place in chains if "/" in place[1]]  # those of Services alone (isServiceChainName)
    elif changes.DELETES_LATER in proxy.options.release and _has_many(proxy):
        extra = [place for place in found.containers if _ENDPOINT_CHAIN.fullmatch(place[1])]
    else:
        return frozenset()
    extra = [place for place in extra if place not in wanted.containers]
    if not extra:
        return frozenset()
    return frozenset(extra) - used(found)


def _has_many(proxy: Proxy) -> bool:
    address_type = proxy.options.family.kubernetes
    slices = (one for one in proxy.endpoint_slices if one.address_type == address_type)
    return sum(len(one.endpoints) * len(one.ports) for one in slices) > MANY_ENDPOINTS
