# SPDX-License-Identifier: MIT
"""The topology that a node's rules speak of: the node, a client pod, and the endpoints of one Service.

The node has the addresses and the interfaces that were collected, or that its rules name. Endpoints are behind the
interface that its routes name for them, else behind its uplink, as pods of other nodes are. Each link that has no
subnet of the node's own gets one for transit, and the pods' addresses are routed there, as CNIs with a veth pair a pod
do.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from lab.errors import InputError, ServiceError, nearest
from lab.kubernetes.objects import EndpointSlice, Service
from lab.node.facts import Facts
from lab.node.places import CLIENT, NETWORK, NODE, Places
from lab.node.services import Endpoint, Frontend, Others, endpoints, frontends, node_ports, others
from lab.topology.given import OF_INTERFACE, GivenRules
from lab.topology.model import Host, Topology
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.node.bundle import Bundle
    from lab.rules.dump import Dump
    from lab.topology.values import IPAddress

#: What of a node's sysctls is its namespace's own and changes what becomes of forwarded packets: how conntrack follows
#: each protocol (net/netfilter/nf_conntrack_standalone.c), and whose packets are taken (net/ipv4/devinet.c).
_SYSCTLS: Final = re.compile(
    r"net/netfilter/nf_conntrack_(?:checksum|(?:tcp|udp|icmp|icmpv6|sctp|dccp|gre|generic)_\w+)"
    r"|net/ipv4/conf/[^/]+/(?:rp_filter|accept_local|route_localnet|src_valid_mark)"
)
_FORWARDING: Final = "net/ipv4/ip_forward"
_FEW: Final = 8  # endpoints of the Service that is taken unless one is named
_LOOKED_AT: Final = 1000  # Services with endpoints, of which that one is


class NoServiceError(InputError):
    """A node's rules name no Service that could be asked."""


@dataclass(frozen=True)
class Derived:
    """A node as a topology.

    :param service: the port of the Service that its endpoints are of, as ``namespace/name:port``.
    :param notes: in sentences, what was chosen and what stands for what.
    :param others: the Service's addresses of each family that no object names.
    """

    topology: Topology
    service: str
    families: tuple[Family, ...]
    notes: tuple[str, ...]
    others: tuple[Others, ...] = ()


@dataclass(frozen=True)
class _Port:
    """A port of the chosen Service in one family."""

    family: Family
    frontend: Frontend
    endpoints: tuple[Endpoint, ...]
    node_port: int = 0


def derive(
    bundle: Bundle,
    dumps: Mapping[Family, Dump],
    *,
    service: str | None = None,
    family: Family | None = None,
    backend: Backend | None = None,
) -> Derived:
    """Make the topology of a node.

    :param dumps: what of its rules is kube-proxy's, for each family that there is.
    :param service: which Service, as ``[NAMESPACE/]NAME[:PORT]``; None for the first by TCP that has few endpoints.
    :param family: by which it has to be asked; None for whichever there is.
    :param backend: which iptables programs load the rules; None for those by which they were saved, else nft.
    :raises InputError: the rules are for no Service that can be asked.
    """
    if family is not None and family not in dumps:
        raise InputError(
            f"these rules are not of {family}", cure=f"give --family {next(iter(dumps))}, or the others as well"
        )
    ports = _chosen(dumps, service, family)
    addresses = _addresses(ports)
    facts = Facts(bundle, (one for some in addresses.values() for one in some))
    places = Places(facts, addresses)
    asked = ports[0].frontend
    mode = next(iter(dumps.values())).mode
    built = {end.interface for link in places.links for end in link.ends if end.host == NODE}
    given = _given(bundle, backend, built)
    node = Host(
        name=NODE,
        routes=tuple(places.routes[NODE]),
        forwarding=True,
        proxy_mode=mode,
        backend=next((one.backend for one in given.texts if one.mode is ProxyMode.IPTABLES), None) or Backend.NFT,
        cluster_cidrs=tuple(facts.cluster_cidrs.values()),
        given=given,
    )
    hosts = (
        Host(name=CLIENT, routes=tuple(places.routes[CLIENT])),
        node,
        Host(name=NETWORK, routes=tuple(places.routes[NETWORK]), forwarding=True),
        *(Host(name=name, routes=tuple(places.routes[name])) for name in places.endpoints),
    )
    topology = Topology(
        name="node",
        hosts=hosts,
        links=tuple(places.links),
        services=(_service(bundle, ports),),
        endpoint_slices=tuple(_slices(ports)),
        description=f"The node of {given.name}: a client pod, and the endpoints of {asked.name}.",
    )
    notes = (*_said(bundle, given, ports, service), *places.notes)
    is_known = any(one.key == asked.service for one in bundle.services or ())
    unnamed = () if is_known else tuple(others(dump, asked.service) for dump in dumps.values())
    return Derived(topology, asked.name, tuple(addresses), notes, unnamed)


# --- which Service -----------------------------------------------------------------------------------------


def _chosen(dumps: Mapping[Family, Dump], service: str | None, asked: Family | None) -> list[_Port]:
    """Return the ports of the Service that is asked, the one asked first."""
    by_family = {family: list(frontends(dump)) for family, dump in dumps.items()}
    every = [one for family, found in by_family.items() for one in found if asked in (None, family)]
    key, port = _named(every, service) if service else _usual(dumps, every)
    found = []
    for family, dump in dumps.items():
        numbers = node_ports(dump)
        for one in by_family[family]:
            if one.service == key:
                number = numbers.get((one.service, one.port_name, one.protocol), 0)
                found.append(_Port(family, one, endpoints(dump, one), number))
    found.sort(key=lambda one: (one.frontend.port_name != port, one.frontend.protocol != "tcp"))
    if not any(one.endpoints for one in found):
        raise InputError(f"{key} has no endpoint in these rules", cure="take another by --service")
    return found


def _named(every: Iterable[Frontend], service: str) -> tuple[str, str | None]:
    key, _, port = service.partition(":")
    known = {one.service for one in every}
    keys = sorted(one for one in known if key in (one, one.partition("/")[2]))
    if not keys:
        raise ServiceError(f"no rule is for a Service {key}", cure=nearest(key, known))
    if len(keys) > 1:
        raise ServiceError(f"several Services are named {key}", cure=f"one of: {', '.join(keys)}")
    ports = {one.port_name: one for one in every if one.service == keys[0]}
    name = next((name for name, one in ports.items() if port in (name, str(one.port))), None)
    if port and name is None:
        cure = f"its ports: {', '.join(name or str(one.port) for name, one in ports.items())}"
        raise ServiceError(f"{keys[0]} has no port {port}", cure=cure)
    return keys[0], name if port else None


def _usual(dumps: Mapping[Family, Dump], every: Sequence[Frontend]) -> tuple[str, str | None]:
    """Return a Service by TCP in as many families as can be, of several the first by name.

    One with one endpoint, as most cases can do with, else with few.
    """
    by_tcp = [one for one in every if one.protocol == "tcp"]
    families = Counter(one.name for one in by_tcp)
    by_tcp.sort(key=lambda one: (-families[one.name], one.service == "default/kubernetes", one.name))
    counted = ((one, len(endpoints(dumps[Family.of(ip_address(one.address))], one))) for one in by_tcp)
    having = list(itertools.islice((pair for pair in counted if pair[1]), _LOOKED_AT))
    for most in (1, _FEW, max((count for _one, count in having), default=0)):
        for one, count in having:
            if count <= most:
                return one.service, one.port_name
    raise NoServiceError(
        "these rules are for no Service by TCP with an endpoint: there is none to ask",
        cure="give all that iptables-save or 'nft list ruleset' prints on the node",
    )


def _addresses(ports: Sequence[_Port]) -> dict[Family, list[IPAddress]]:
    found: dict[Family, dict[IPAddress, None]] = {}
    for port in ports:
        found.setdefault(port.family, {}).update(dict.fromkeys(ip_address(one.address) for one in port.endpoints))
    return {family: list(its) for family, its in found.items() if its}


def _said(bundle: Bundle, given: GivenRules, ports: Sequence[_Port], service: str | None) -> Iterable[str]:
    asked = ports[0]
    by = "the objects" if bundle.services is not None else "the rules themselves"
    chosen = "" if service else ", taken because no --service was given"
    count = len(asked.endpoints)
    yield (
        f"asked is {asked.frontend.name} at {asked.frontend.address}:{asked.frontend.port}{chosen}, with"
        f" {count} {'endpoint' if count == 1 else 'endpoints'}: by {by}"
    )
    yield from _apart(bundle, asked)
    if invalid := bundle.conntrack.get("invalid"):
        yield f"conntrack on the node has found {invalid:,} packets INVALID since it started"
    used, count = len(given.sysctls), len(bundle.sysctls)
    if used < count:
        are = "is" if used == 1 else "are"
        yield f"of {count} sysctls {used} {are} set: those of conntrack's protocols and of rp_filter's kind"
    if bundle.sysctls.get(_FORWARDING) == "0":
        yield "net.ipv4.ip_forward is 0 there, as on no node that works: here it forwards"


def _apart(bundle: Bundle, asked: _Port) -> Iterable[str]:
    """Report of which endpoints the objects and the rules do not say the same."""
    if bundle.endpoint_slices is None:
        return
    said = {
        ip_address(address)
        for one in bundle.endpoint_slices
        if one.address_type == asked.family.kubernetes and one.service_key == asked.frontend.service
        for endpoint in one.endpoints
        for address in endpoint.addresses
    }
    ruled = {ip_address(one.address) for one in asked.endpoints}
    for words, those in (
        ("the objects have endpoints that the rules lead nobody to", said - ruled),
        ("the rules lead to endpoints that the objects lack", ruled - said),
    ):
        if those:
            yield f"{words} ({asked.frontend.service}): {', '.join(map(str, sorted(those, key=int)))}"


# --- objects ------------------------------------------------------------------------------------------------


def _service(bundle: Bundle, ports: Sequence[_Port]) -> Service:
    key = ports[0].frontend.service
    for one in bundle.services or ():
        if one.key == key:
            return one
    namespace, _, name = key.partition("/")
    own = {(one.frontend.port_name, one.frontend.protocol): one for one in ports}
    addresses = list(dict.fromkeys(str(ip_address(one.frontend.address)) for one in ports))
    has_node_ports = all(one.node_port for one in own.values())
    spec = {
        "type": "NodePort" if has_node_ports else "ClusterIP",
        "clusterIP": addresses[0],
        "clusterIPs": addresses,
        "ports": [
            {
                "name": name,
                "protocol": protocol.upper(),
                "port": one.frontend.port,
                "nodePort": one.node_port if has_node_ports else 0,
            }
            for (name, protocol), one in own.items()
        ],
    }
    return Service.model_validate(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    )


def _slices(ports: Sequence[_Port]) -> Iterable[EndpointSlice]:
    for number, one in enumerate(ports):
        namespace, _, name = one.frontend.service.partition("/")
        for port in dict.fromkeys(endpoint.port for endpoint in one.endpoints):
            addresses = [str(ip_address(end.address)) for end in one.endpoints if end.port == port]
            yield EndpointSlice.model_validate(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": f"{name}-{number}-{port}",
                        "namespace": namespace,
                        "labels": {"kubernetes.io/service-name": name},
                    },
                    "addressType": one.family.kubernetes,
                    "endpoints": [{"addresses": [address]} for address in addresses],
                    "ports": [
                        {"name": one.frontend.port_name, "protocol": one.frontend.protocol.upper(), "port": port}
                    ],
                }
            )


def _given(bundle: Bundle, backend: Backend | None, interfaces: Collection[str]) -> GivenRules:
    """Return the rules and the sysctls, of those that are about an interface the ones of interfaces that are built."""
    name = bundle.name or ", ".join(dict.fromkeys(one.source for one in bundle.rules))
    texts = tuple(replace(one, backend=backend) if backend else one for one in bundle.rules)
    of_interface = {key: found[1] for key in bundle.sysctls if (found := OF_INTERFACE.fullmatch(key))}
    used = {key: value for key, value in _used(bundle.sysctls).items() if of_interface.get(key) in (None, *interfaces)}
    return GivenRules(name, texts, used)


def _used(sysctls: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in sysctls.items() if _SYSCTLS.fullmatch(key)}
