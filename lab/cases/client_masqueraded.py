# SPDX-License-Identifier: MIT
"""The client is masqueraded: the server answers the node's own address, and INPUT is where INVALID packets end."""

from __future__ import annotations

from typing import Final

from lab.cases.beyond_window import FAR
from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.cases.client_on_node import KILLS_THE_NODES_UNLESS_LIBERAL, steps_at
from lab.cases.demands import alone, masqueraded, masqueraded_by_node_port, outsider, way_to_pods
from lab.scenario import ConnectionScenario
from lab.scenario.roles import Roles, by_node_port, roles_in
from lab.topology.model import Topology
from lab.vocabulary import Family


def _by_node_port(topology: Topology, family: Family, service: str | None = None) -> Roles:
    return by_node_port(topology, family, service, client=outsider(topology, family))


def _from_outside(topology: Topology, family: Family, service: str | None = None) -> Roles:
    return roles_in(topology, family, service, client=outsider(topology, family))


CASE: Final = Case(
    name="client-masqueraded",
    title="data far beyond the window, and the client asks from outside by a node port",
    story=(
        "The node makes itself the source of what comes by a node port, so the server answers the node's own address,"
        " and what is INVALID stays there: it goes to INPUT, past kube-proxy's drop in FORWARD. The node has no such"
        " socket, and its RST kills the server's connection. The client has seen nothing at all, and learns of it when"
        " it speaks next."
    ),
    threads=("kubernetes/kubernetes#117924", "moby/libnetwork#1090"),
    scenario=ConnectionScenario,
    steps=steps_at(FAR),
    expectations=on_every_kernel(KILLS_THE_NODES_UNLESS_LIBERAL),
    choose_roles=_by_node_port,
    topology="uplink",
    demands=(masqueraded_by_node_port, way_to_pods, alone),
)

IN_CLUSTER: Final = Case(
    name="client-outside-cluster",
    title="the same, and the client is no pod but asks the VIP itself",
    story=(
        "Where kube-proxy knows the pods' CIDR, it masquerades whoever asks a VIP and is none of them; with"
        " --masquerade-all it does so to everybody. Either way the server answers the node, and this connection dies as"
        " the one by the node port does. By which of the service's addresses somebody came makes no difference."
    ),
    threads=("kubernetes/kubernetes#117924",),
    scenario=ConnectionScenario,
    steps=steps_at(FAR),
    expectations=on_every_kernel(KILLS_THE_NODES_UNLESS_LIBERAL),
    choose_roles=_from_outside,
    topology="uplink",
    demands=(masqueraded, way_to_pods, alone),
)

IN_WINDOW: Final = Case(
    name="client-masqueraded-in-window",
    title="control: the client of the node port, and the bytes that the server sends next",
    story=(
        "The segment is the one that the client waits for, so conntrack accepts it, and the node translates both of its"
        " addresses back. It is forwarded and never comes to the node's own sockets. Were this connection to die, the"
        " masquerade would be the culprit and not the window."
    ),
    threads=("kubernetes/kubernetes#117924",),
    scenario=ConnectionScenario,
    steps=steps_at(0),
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
    choose_roles=_by_node_port,
    topology="uplink",
    demands=(masqueraded_by_node_port, way_to_pods, alone),
)

CASES: Final = (CASE, IN_CLUSTER, IN_WINDOW)
