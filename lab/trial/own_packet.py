# SPDX-License-Identifier: MIT
"""One packet of somebody's own, in a lab of its own."""

from __future__ import annotations

from lab.errors import InputError
from lab.fabric.lab import Lab
from lab.fixes import Fix
from lab.scenario.own_packet import OwnPacketScenario, TracedPacket, Wanted, checked
from lab.scenario.roles import Roles, roles_in
from lab.topology.model import Topology
from lab.vocabulary import Family


async def send(topology: Topology, fix: Fix, wanted: Wanted, service: str | None = None) -> TracedPacket:
    """Build a lab, have a packet sent in it from the client's usual port, and return what became of it.

    :param service: whose endpoints have servers; None for the first.
    :raises InputError: the topology has no client and node, or no Service with endpoints; or see :func:`checked`.
    :raises LabError: the lab could not be built.
    """
    family = Family.IPV6 if ":" in wanted.destination.address else Family.IPV4
    checked(topology, wanted)
    roles = roles_for(topology, family, service)
    with Lab(topology, family=family, change=fix.change, traced=True) as lab:
        return OwnPacketScenario(lab, roles, family).send(wanted)


def roles_for(topology: Topology, family: Family, service: str | None) -> Roles:
    """Return the roles of a Service that is asked by TCP, or else by UDP.

    :raises InputError: the topology has no client and node, or no Service with endpoints.
    """
    try:
        return roles_in(topology, family, service)
    except InputError as error:
        try:
            return roles_in(topology, family, service, protocol="udp")
        except InputError:
            raise error from None
