# SPDX-License-Identifier: MIT
"""The node port of another node: it sends the pod back to its neighbour, who answers past the node that translated."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import NO_WAY, Case, always, on_every_kernel
from lab.cases.demands import living_proxy
from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.scenario import ConnectionScenario
from lab.scenario.roles import Roles, roles_in, usable_ports
from lab.topology.model import Topology
from lab.topology.routes import node_address
from lab.topology.ways import way
from lab.verdict import Outcome
from lab.vocabulary import Family


def _by_other_node(topology: Topology, family: Family, service: str | None = None) -> Roles:
    """Have a pod ask another node for a Service of policy Local, from which the answers do not pass that node.

    :raises InputError: someone is missing.
    """
    local = {one.key for one in topology.services if one.spec.external_traffic_policy == "Local"}
    ports = [port for port in usable_ports(topology, family, "tcp") if port.node_port and port.service in local]
    for name in [port.name for port in ports] if service is None else [service]:
        roles = roles_in(topology, family, name)
        port = next((port for port in ports if port.name == roles.service), None)
        for node in topology.nodes if port else ():
            address = node_address(topology, node.name, family)
            if port and address and _goes_past(topology, roles, node.name, str(address)):
                return replace(roles, node=node.name, service_address=SocketAddress(str(address), port.node_port))
    what = "a node port with externalTrafficPolicy Local whose endpoints answer the client past the node that it asks"
    raise InputError(f"it needs {what}")


def _goes_past(topology: Topology, roles: Roles, node: str, address: str) -> bool:
    """Check whether the client comes to a node by an address of its, and no endpoint's answer to it comes there."""
    there = way(topology, roles.client, address)
    backs = [way(topology, host, roles.client_address.address) for host, _address in roles.servers]
    return there[-1] == node and all(node not in back and back[-1] == roles.client for back in backs)


async def _steps(scenario: ConnectionScenario, *, policy: str) -> None:
    key, lab = scenario.roles.service.partition(":")[0], scenario.lab
    said = {"external_traffic_policy": policy}
    services = (
        one.model_copy(update={"spec": one.spec.model_copy(update=said)}) if one.key == key else one
        for one in lab.services
    )
    lab.sync(tuple(services), lab.endpoint_slices)
    await scenario.establish()
    await scenario.server_speaks()
    await scenario.go_on()


CASE: Final = Case(
    name="answer-past-node",
    title="externalTrafficPolicy Local: a pod asks by another node's port, and is answered past that node",
    story=(
        "Policy Local keeps the client's address, and what pods send goes to endpoints anywhere, unmasqueraded. So the"
        " other node translates the SYN and sends it on, here back to where it came from. The endpoint answers the pod"
        " straight: the node that could translate the answer never sees it, and the pod gets a SYN,ACK from an address"
        " that it did not ask, which it answers with a RST. The pod's own node has seen the translated SYN come back,"
        " and finds nothing wrong with the answer; where the endpoint is on a third node it has not, and a drop of what"
        " is INVALID makes silence of it. No fix helps, and every release does so."
    ),
    threads=("kubernetes/kubernetes#74383", "kubernetes/kubernetes#77523"),
    scenario=ConnectionScenario,
    steps=partial(_steps, policy="Local"),
    expectations=on_every_kernel(lambda _protection: NO_WAY),
    choose_roles=_by_other_node,
    topology="segment",
    demands=(living_proxy,),
    both_ways=False,
    about_answers=False,
)

_CLUSTER: Final = replace(
    CASE,
    name="answer-by-node",
    title="control: the same with externalTrafficPolicy Cluster",
    story=(
        "Now the other node masquerades: the endpoint sees that node for its client and answers it, and the answer is"
        " translated there. It costs the client's address, and a way back and forth between the nodes."
    ),
    steps=partial(_steps, policy="Cluster"),
    expectations=on_every_kernel(always(Judgement.ACCEPTED, Outcome.DELIVERED, untracked=None)),
    about_answers=True,
)

CASES: Final = (CASE, _CLUSTER)
