# SPDX-License-Identifier: MIT
"""Endpoints that come and go while a lab runs, in plain words: add, remove, drain.

Each word makes new EndpointSlices of those there are, as the API server would have them, and has every node's
kube-proxy take them in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from lab.errors import InputError
from lab.fabric.services import named
from lab.kubernetes.objects import MAX_ENDPOINTS, Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Metadata
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.kubernetes.objects import Service
    from lab.topology.model import Topology
    from lab.topology.values import IPAddress

_READY: Final = EndpointConditions(ready=True, serving=True, terminating=False)


@dataclass(frozen=True)
class KnownEndpoint:
    """An endpoint of a Service as it is now.

    :param service: ``namespace/name``.
    :param ports: as ``80/TCP``.
    :param state: ``ready``, ``draining`` (it is on its way out, and still serves) or ``unready``.
    :param host: that has the address.
    """

    service: str
    address: str
    ports: tuple[str, ...]
    state: str
    host: str


class Serving(Protocol):
    """What is asked of a running lab: where it is, what its nodes serve, and to serve something else."""

    topology: Topology
    families: tuple[Family, ...]
    services: tuple[Service, ...]
    endpoint_slices: tuple[EndpointSlice, ...]

    def sync(
        self, services: tuple[Service, ...], slices: tuple[EndpointSlice, ...], *, clean_conntrack: bool = True
    ) -> None:
        """Have every node serve these."""
        ...


class Endpoints:
    """The endpoints of a running lab's Services; iterating lists them, in the order of their slices.

    A service is named as ``web``, or as ``default/web`` where several namespaces have one. A change returns when every
    node has it in its rules. It waits for programs: to let traffic of the same event loop go on meanwhile, call it by
    :func:`asyncio.to_thread`, one at a time.

    The argument ``clean_conntrack`` says whether entries of UDP flows are deleted as the node's release of kube-proxy
    deletes them (docs/releases.md); without, they stand in the way of their clients (kubernetes #105657, #91236).
    """

    def __init__(self, lab: Serving) -> None:
        self._lab = lab

    def __iter__(self) -> Iterator[KnownEndpoint]:
        """List every endpoint of the lab's families, each once."""
        found: dict[tuple[str, str], KnownEndpoint] = {}
        for piece in self._lab.endpoint_slices:
            service = piece.service_key
            if service is not None:
                for known in self._known(piece, service):
                    before = found.get((service, known.address))
                    ports = (*before.ports, *known.ports) if before else known.ports
                    found[service, known.address] = replace(known, ports=tuple(dict.fromkeys(ports)))
        return iter(found.values())

    def _known(self, piece: EndpointSlice, service: str) -> Iterator[KnownEndpoint]:
        ports = tuple(f"{port.port}/{port.protocol}" for port in piece.ports if port.port is not None)
        for endpoint in piece.endpoints:
            address = endpoint.addresses[0]
            host = self._lab.topology.host_of(address)
            if host is not None and Family.of(ip_address(address)) in self._lab.families:
                yield KnownEndpoint(service, address, ports, _state(endpoint), host.name)

    def add(self, service: str, address: str, *, clean_conntrack: bool = True) -> None:
        """Add a ready endpoint to a Service, or make one ready again that drains.

        :param address: of a host of the lab.
        :raises InputError: there is no such service, no host has the address, or it is a ready endpoint already.
        :raises LabError: the kernel refused the change.
        """
        chosen, wanted = self._service(service), self._address(address)
        state = self._states(chosen).get(str(wanted))
        if state == "ready":
            raise InputError(f"{wanted} is a ready endpoint of {chosen.key} already")
        slices = self._edited(chosen, str(wanted), _READY) if state else self._with(chosen, wanted)
        self._lab.sync(self._lab.services, slices, clean_conntrack=clean_conntrack)

    def remove(self, service: str, address: str, *, clean_conntrack: bool = True) -> None:
        """Remove an endpoint from a Service: nothing new goes there, and what is connected goes on.

        :raises InputError: there is no such service, or the address is no endpoint of it.
        :raises LabError: the kernel refused the change.
        """
        self._change(service, address, None, clean_conntrack)

    def drain(self, service: str, address: str, *, clean_conntrack: bool = True) -> None:
        """Mark an endpoint as Kubernetes marks that of a pod on its way out: terminating, not ready, but serving.

        New connections go to it only where no endpoint of the Service is ready; up to kube-proxy v1.25 never.

        :raises InputError: there is no such service, or the address is no ready endpoint of it.
        :raises LabError: the kernel refused the change.
        """
        # Pods of such a service count as ready whatever they are (EndpointConditions in discovery/v1/types.go).
        ready = self._service(service).spec.publish_not_ready_addresses
        draining = EndpointConditions(ready=ready, serving=True, terminating=True)
        self._change(service, address, draining, clean_conntrack)

    def _change(self, service: str, address: str, conditions: EndpointConditions | None, clean_conntrack: bool) -> None:
        chosen, wanted = self._service(service), str(self._address(address))
        states = self._states(chosen)
        if wanted not in states:
            raise InputError(
                f"{wanted} is no endpoint of {chosen.key}", cure=f"its endpoints: {', '.join(states) or 'none'}"
            )
        if conditions is not None and states[wanted] != "ready":
            raise InputError(f"{wanted} of {chosen.key} is {states[wanted]}, and only a ready endpoint can be drained")
        slices = self._edited(chosen, wanted, conditions)
        self._lab.sync(self._lab.services, slices, clean_conntrack=clean_conntrack)

    def _states(self, service: Service) -> dict[str, str]:
        """Return the state of each endpoint of a Service, by its address."""
        pieces = [piece for piece in self._lab.endpoint_slices if piece.service_key == service.key]
        return {known.address: known.state for piece in pieces for known in self._known(piece, service.key)}

    def _service(self, name: str) -> Service:
        return named(self._lab.services, name)

    def _address(self, text: str) -> IPAddress:
        try:
            address = ip_address(text)
        except ValueError:
            raise InputError(f"{text!r} is no IP address", cure="write it as 10.0.0.1 or fd00::1") from None
        if Family.of(address) not in self._lab.families:
            raise InputError(f"{address}: this lab was built without {Family.of(address)}")
        if self._lab.topology.host_of(address) is None:
            raise InputError(f"no host has the address {address}", cure="take one of a host of the lab")
        return address

    def _edited(
        self, service: Service, address: str, conditions: EndpointConditions | None
    ) -> tuple[EndpointSlice, ...]:
        """Return the slices with other conditions of an endpoint, or without it."""

        def edited(piece: EndpointSlice) -> EndpointSlice:
            if piece.service_key != service.key or all(address not in one.addresses for one in piece.endpoints):
                return piece
            new = {} if conditions is None else {"conditions": conditions}
            endpoints = [
                endpoint.model_copy(update=new) if address in endpoint.addresses else endpoint
                for endpoint in piece.endpoints
                if new or address not in endpoint.addresses
            ]
            return piece.model_copy(update={"endpoints": tuple(endpoints)})

        return tuple(edited(piece) for piece in self._lab.endpoint_slices)

    def _with(self, service: Service, address: IPAddress) -> tuple[EndpointSlice, ...]:
        """Return the slices with one more endpoint, in the first slice of its service and family that has room."""
        slices = self._lab.endpoint_slices
        kind = Family.of(address).kubernetes
        endpoint = Endpoint(addresses=(str(address),), conditions=_READY, nodeName=self._node_name(str(address)))
        for index, piece in enumerate(slices):
            if (piece.service_key, piece.address_type) == (service.key, kind) and len(piece.endpoints) < MAX_ENDPOINTS:
                fuller = piece.model_copy(update={"endpoints": (*piece.endpoints, endpoint)})
                return (*slices[:index], fuller, *slices[index + 1 :])
        metadata = Metadata(
            name=f"{service.metadata.name}-{len(slices)}",
            namespace=service.metadata.namespace,
            labels={"kubernetes.io/service-name": service.metadata.name},
        )
        new = EndpointSlice(
            apiVersion="discovery.k8s.io/v1",
            kind="EndpointSlice",
            metadata=metadata,
            addressType=kind,
            endpoints=(endpoint,),
            ports=endpoint_ports(service, slices),
        )
        return (*slices, new)

    def _node_name(self, address: str) -> str | None:
        """Return the node that a pod is on: as the topology says, else the only one that it is linked to.

        A topology that leaves the nodes of all endpoints open has all of them elsewhere.
        """
        topology = self._lab.topology
        endpoints = [endpoint for piece in topology.endpoint_slices for endpoint in piece.endpoints]
        for endpoint in endpoints:
            if address in endpoint.addresses:
                return endpoint.node_name
        host = topology.host_of(address)
        assert host is not None
        neighbours = {other.host for end in topology.ends(host.name) for other in topology.neighbours(end)}
        nodes = neighbours & {node.name for node in topology.nodes}
        return nodes.pop() if len(nodes) == 1 and any(endpoint.node_name for endpoint in endpoints) else None


def endpoint_ports(service: Service, slices: Sequence[EndpointSlice]) -> tuple[EndpointPort, ...]:
    """Return the ports that endpoints of a Service have: those of its first slice, else as its ``targetPort`` says.

    :raises InputError: it is a name, and nothing tells its number.
    """
    for piece in slices:
        if piece.service_key == service.key:
            return piece.ports
    ports = []
    for port in service.spec.ports:
        number = port.target_port or port.port
        if isinstance(number, str):
            message = f"{service.key}: nothing tells which port of a pod is named {number!r}"
            raise InputError(message, cure="write the number as targetPort, or an EndpointSlice with it")
        ports.append(EndpointPort(name=port.name, protocol=port.protocol, port=number))
    return tuple(ports)


def _state(endpoint: Endpoint) -> str:
    if endpoint.terminating and endpoint.serving:
        return "draining"
    return "ready" if endpoint.ready else "unready"
