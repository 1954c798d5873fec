# SPDX-License-Identifier: MIT
"""Services that come and go while a lab runs, in plain words: add, apply, remove.

Each word makes new Services and EndpointSlices of those there are, as `kubectl` would have the API server do, and has
every node's kube-proxy take them in.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import InputError, misspelt, nearest
from lab.kubernetes.errors import TopologyError, spell
from lab.kubernetes.objects import EndpointSlice, Service
from lab.topology.reader import objects_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lab.fabric.endpoints import Serving


@dataclass(frozen=True)
class KnownService:
    """A Service as it is now.

    :param service: ``namespace/name``.
    :param addresses: its cluster IPs.
    :param ports: as ``80/TCP``, with a node port as ``80:30080/TCP``.
    """

    service: str
    type: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]


class Services:
    """The Services of a running lab; iterating lists them, in their order.

    A change returns when every node whose kube-proxy runs has it in its rules; see
    :class:`lab.fabric.endpoints.Endpoints` for how to call it, and for ``clean_conntrack``.
    """

    def __init__(self, lab: Serving) -> None:
        self._lab = lab

    def __iter__(self) -> Iterator[KnownService]:
        return iter([_known(service) for service in self._lab.services])

    def add(self, objects: str | Iterable[Service | EndpointSlice], *, clean_conntrack: bool = True) -> None:
        """Add Services and EndpointSlices that are not there yet.

        :param objects: or a text of them, in YAML.
        :raises InputError: one is there already, or the topology cannot have it; nothing is changed then.
        :raises LabError: the kernel refused the change.
        """
        services, slices = _sorted(objects)
        known = {service.key for service in self._lab.services}
        known_slices = {_key(piece) for piece in self._lab.endpoint_slices}
        for what, key, there in (
            *(("a Service", service.key, known) for service in services),
            *(("an EndpointSlice", _key(piece), known_slices) for piece in slices),
        ):
            if key in there:
                raise InputError(f"there is {what} {key} already", cure="apply replaces it")
        self.apply((*services, *slices), clean_conntrack=clean_conntrack)

    def apply(self, objects: str | Iterable[Service | EndpointSlice], *, clean_conntrack: bool = True) -> None:
        """Have Services and EndpointSlices, each in the place of one of its name where there is one.

        :param objects: or a text of them, in YAML.
        :raises InputError: the topology cannot have them; nothing is changed then.
        :raises LabError: the kernel refused the change.
        """
        new, new_slices = _sorted(objects)
        services = {service.key: service for service in self._lab.services} | {one.key: one for one in new}
        slices = {_key(piece): piece for piece in self._lab.endpoint_slices} | {_key(one): one for one in new_slices}
        self._sync(tuple(services.values()), tuple(slices.values()), clean_conntrack)

    def remove(self, *names: str, clean_conntrack: bool = True) -> None:
        """Remove Services, and their EndpointSlices with them, as Kubernetes does.

        :param names: each ``web``, or ``default/web`` where several namespaces have one.
        :raises InputError: there is no such Service; nothing is changed then.
        :raises LabError: the kernel refused the change.
        """
        gone = {named(self._lab.services, name).key for name in names}
        services = tuple(service for service in self._lab.services if service.key not in gone)
        slices = tuple(piece for piece in self._lab.endpoint_slices if piece.service_key not in gone)
        self._sync(services, slices, clean_conntrack)

    def _sync(self, services: tuple[Service, ...], slices: tuple[EndpointSlice, ...], clean_conntrack: bool) -> None:
        # Making the topology that would have them checks them: addresses that a host has, of a family that there is.
        try:
            dataclasses.replace(self._lab.topology, services=services, endpoint_slices=slices)
        except TopologyError as error:
            match error.path:
                case ("services", int(index), *rest):
                    raise _of_object(f"Service {services[index].key}", rest, error) from None
                case ("endpoint_slices", int(index), *rest):
                    raise _of_object(f"EndpointSlice {_key(slices[index])}", rest, error) from None
            raise
        self._lab.sync(services, slices, clean_conntrack=clean_conntrack)


def _of_object(name: str, rest: Sequence[str | int], error: TopologyError) -> InputError:
    """Return what is wrong with an object by its name, not by its place among those that there are."""
    return InputError(f"{name}: {spell(tuple(rest))}: {error.problem}", cure=error.cure)


def named(services: Sequence[Service], name: str) -> Service:
    """Find a Service by its name, or by ``namespace/name``.

    :raises InputError: there is none, or several namespaces have one.
    """
    found = [service for service in services if name in {service.key, service.metadata.name}]
    if len(found) == 1:
        return found[0]
    if found:
        cure = f"one of: {', '.join(service.key for service in found)}"
        raise InputError(f"several Services are named {name!r}", cure=cure)
    known = {key for service in services for key in (service.key, service.metadata.name)}
    keys = (service.key for service in services)
    cure = misspelt(name, known) or nearest(name, keys) or "the topology has none"
    raise InputError(f"there is no Service {name!r}", cure=cure)


def _known(service: Service) -> KnownService:
    ports = (
        f"{port.port}{f':{port.node_port}' if port.node_port else ''}/{port.protocol}" for port in service.spec.ports
    )
    spec = service.spec
    return KnownService(service.key, spec.type, spec.all_cluster_ips, tuple(ports))


def _key(piece: EndpointSlice) -> str:
    return f"{piece.metadata.namespace}/{piece.metadata.name}"


def _sorted(objects: str | Iterable[Service | EndpointSlice]) -> tuple[tuple[Service, ...], tuple[EndpointSlice, ...]]:
    if isinstance(objects, str):
        read = objects_of(objects, "<inline>")
        return read.services, read.endpoint_slices
    every = tuple(objects)
    services = tuple(one for one in every if isinstance(one, Service))
    return services, tuple(one for one in every if isinstance(one, EndpointSlice))
