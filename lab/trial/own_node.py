# SPDX-License-Identifier: MIT
"""A user's own node, made ready for trials: its topology, with the rules that can be loaded here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.fabric.given import loadable
from lab.node.derive import derive
from lab.node.places import NODE
from lab.rules import json_dump, read_dump
from lab.rules.scratch import listed
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from lab.node.bundle import Bundle, Saved
    from lab.rules.dump import Dump
    from lab.topology.model import Topology

_CURE: Final = "give what iptables-save prints on the node, or 'nft list ruleset' where it is in nftables mode"


@dataclass(frozen=True)
class OwnNode:
    """A node as trials want it.

    :param service: the port of the Service that is asked.
    :param families: those that its rules are of.
    :param notes: in sentences, what is missing, what was left out, and what stands for what.
    """

    topology: Topology
    service: str
    families: tuple[Family, ...]
    notes: tuple[str, ...]


def own_node(
    bundle: Bundle, *, service: str | None = None, family: Family | None = None, backend: Backend | None = None
) -> OwnNode:
    """Make a node that was collected ready for trials.

    :param service: which Service is asked, as ``[NAMESPACE/]NAME[:PORT]``; None for one that will do.
    :param family: by which it has to be asked; None for whichever there is.
    :param backend: which iptables programs load its rules; None for those by which they were saved.
    :raises InputError: its rules are none of kube-proxy's, or cannot be loaded at all.
    :raises MissingError: a program is not installed.
    """
    dumps = _of_kube_proxy(bundle)
    derived = derive(bundle, dumps, service=service, family=family, backend=backend)
    node = derived.topology.host(NODE)
    assert node.given is not None
    given, gone = loadable(node.given)
    left = map(str, gone)
    hosts = tuple(replace(host, given=given) if host is node else host for host in derived.topology.hosts)
    partial = (f"{one.source}: {one.partial}" for one in bundle.rules if one.partial)
    notes = (*bundle.notes, *partial, *derived.notes, *left)
    return OwnNode(replace(derived.topology, hosts=hosts), derived.service, derived.families, notes)


def _of_kube_proxy(bundle: Bundle) -> dict[Family, Dump]:
    """Return what of a node's rules is kube-proxy's, by family: nftables mode's where it is there.

    :raises InputError: nothing is.
    """
    for mode in (ProxyMode.NFTABLES, ProxyMode.IPTABLES):
        reasons: list[InputError] = []
        dumps: dict[Family, Dump] = {}
        for saved in bundle.rules:
            for family in _families(saved) if saved.mode is mode else ():
                try:
                    dumps[family] = _read(saved, family)
                except InputError as error:
                    reasons.append(error)
        if dumps:
            return dumps
        if mode is ProxyMode.IPTABLES and reasons:
            raise reasons[0]
    source = bundle.rules[0].source if bundle.rules else None
    raise InputError("there are no rules of kube-proxy in it", source=source, cure=_CURE)


def _families(saved: Saved) -> Iterator[Family]:
    yield from (saved.family,) if saved.family else Family


def _read(saved: Saved, family: Family) -> Dump:
    if saved.is_json:
        found = json_dump.read(saved.text, saved.source, family)
        listing = listed(found.objects, family)
        return replace(read_dump.read(listing, saved.source, family), others=found.others, notes=found.notes)
    return read_dump.read(saved.text, saved.source, family)
