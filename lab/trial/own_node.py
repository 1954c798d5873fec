# SPDX-License-Identifier: MIT
"""A user's own node, made ready for trials: its topology, with the rules that can be loaded here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.fabric.given import loadable
from lab.kubernetes.objects import ServiceStatus
from lab.node.derive import NoServiceError, derive
from lab.node.places import NODE
from lab.rules import read_dump
from lab.rules.scratch import read_json
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.node.bundle import Bundle, Saved
    from lab.node.services import Others
    from lab.rules.dump import Dump
    from lab.topology.model import Topology

_CURE: Final = "give what iptables-save prints on the node, or 'nft list ruleset' where it is in nftables mode"

_BIG: Final = 1_000_000  # characters: some 300 Services of 10 endpoints in iptables mode; loading that takes a second


@dataclass(frozen=True)
class OwnNode:
    """A node as trials want it.

    :param service: the port of the Service that is asked.
    :param families: those that its rules are of.
    :param notes: in sentences, what is missing, what was left out, and what stands for what.
    :param others: the Service's addresses besides its cluster IPs, where its rules alone name them.
    """

    topology: Topology
    service: str
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    others: tuple[Others, ...] = ()


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
    missing = [f"{one.source}: {one.partial}" for one in bundle.rules if one.partial]
    try:
        derived = derive(bundle, dumps, service=service, family=family, backend=backend)
    except NoServiceError as error:
        said = " ".join((error.message, *missing)) if missing else error.message
        raise InputError(said, source=bundle.rules[0].source, cure=error.cure) from None
    notes = (*_kernel(bundle.kernel), *bundle.notes, *missing, *derived.notes)
    made = OwnNode(derived.topology, derived.service, derived.families, notes, derived.others)
    return _loadable(made, most=_BIG)


def with_others(own: OwnNode) -> OwnNode:
    """Return a node whose Service has the other addresses too that its rules alone name.

    Those of nftables mode, which does not tell, are taken for a load balancer's, and a note says so.
    """
    [service] = own.topology.services
    external = [ip for one in own.others for ip in one.external_ips]
    unknown = [ip for one in own.others for ip in one.unknown]
    balanced = [*(ip for one in own.others for ip in one.load_balancers), *unknown]
    spec = service.spec.model_copy(update={"external_ips": tuple(external)})
    status = ServiceStatus.model_validate({"loadBalancer": {"ingress": [{"ip": ip} for ip in balanced]}})
    made = service.model_copy(update={"spec": spec, "status": status}) if external or balanced else service
    note = f"asked as a load balancer's: {', '.join(unknown)}, which may be an external IP; these rules do not tell"
    notes = (*own.notes, note) if unknown else own.notes
    return replace(own, topology=replace(own.topology, services=(made,)), notes=notes)


def _kernel(release: str) -> Iterator[str]:
    """Report that a node's kernel is another one than this machine's, which judges."""
    here = os.uname().release
    if release and release != here:
        series = ".".join(release.split(".")[:2])
        yield (
            f"the node runs Linux {release}, and judged is Linux {here}: kernels differ in what is INVALID, which"
            f" `lab matrix --kernels {series},running` shows"
        )


def tried(own: OwnNode) -> OwnNode:
    """Return a node without what cannot be loaded here of rules so long that they were believed at first.

    :raises InputError: they cannot be loaded at all.
    """
    return _loadable(own)


def _loadable(own: OwnNode, most: int | None = None) -> OwnNode:
    node = own.topology.host(NODE)
    assert node.given is not None
    given, gone = loadable(node.given, most=most)
    hosts = tuple(replace(host, given=given) if host is node else host for host in own.topology.hosts)
    return replace(own, topology=replace(own.topology, hosts=hosts), notes=(*own.notes, *map(str, gone)))


def _of_kube_proxy(bundle: Bundle) -> dict[Family, Dump]:
    """Return what of a node's rules is kube-proxy's, by family: nftables mode's where it is there.

    :raises InputError: nothing is.
    """
    for mode in (ProxyMode.NFTABLES, ProxyMode.IPTABLES):
        reasons: list[InputError] = []
        dumps: dict[Family, Dump] = {}
        for saved in bundle.rules:
            if saved.mode is not mode:
                continue
            read = _reader(saved)
            for family in (saved.family,) if saved.family else Family:
                try:
                    dumps[family] = read(family)
                except InputError as error:
                    reasons.append(error)
        if dumps:
            return {family: dumps[family] for family in Family if family in dumps}
        if mode is ProxyMode.IPTABLES and reasons:
            raise reasons[0]
    source = bundle.rules[0].source if bundle.rules else None
    raise InputError("there are no rules of kube-proxy in it", source=source, cure=_CURE)


def _reader(saved: Saved) -> Callable[[Family], Dump]:
    """Return what reads the rules of a family, cut apart once for both."""
    if saved.is_json:
        return partial(read_json, saved.text, saved.source)
    return read_dump.given(saved.text, saved.source).read


def big(own: OwnNode) -> bool:
    """Report whether a node's rules take so long to load that not everything is tried unless that is asked for."""
    given = own.topology.host(NODE).given
    return given is not None and sum(len(one.text) for one in given.texts) > _BIG
