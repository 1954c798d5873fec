# SPDX-License-Identifier: MIT
"""Starting a lab that stays."""

from __future__ import annotations

import re
import shlex
import warnings

from lab.errors import InputError, InputWarning, LabError
from lab.evidence.packet import SocketAddress
from lab.kubeproxy import ProxyOptions
from lab.kubeproxy.services import service_ports
from lab.netns import userns
from lab.standing.handover import hand_over
from lab.standing.owner import Order
from lab.standing.record import StandingLab, labs, needs_root
from lab.topology.model import Topology
from lab.topology.names import NAME
from lab.vocabulary import Family, ProxyMode


def up(topology: Topology, *, name: str | None = None, family: Family | None = None, fix: str = "none") -> StandingLab:
    """Build a lab that stays, and return when its endpoints answer and its namespaces have their names.

    :param name: of the lab; the topology's when None.
    :param family: build this family alone; both when None.
    :param fix: a fix by its name, on every node.
    :raises InputError: a lab of this name stands already, or the name is none.
    :raises MissingError: the caller is not root, or what the lab needs is not there.
    :raises LabError: the lab could not be built.
    """
    name = topology.name if name is None else name
    if not re.fullmatch(NAME, name):
        raise InputError(f"{name!r} is no name for a lab", cure="at most 63 of a-z, 0-9 and '-', no '-' at its ends")
    if not userns.privileged():
        raise needs_root()
    hand_over("lab.standing.owner", Order(name, topology, family, fix))
    for lab in labs():
        if lab.name == name:
            return lab
    raise LabError(f"the lab {name} was ready, and taken down at once by somebody else")


def suggestions(topology: Topology, lab: StandingLab, family: Family | None = None) -> tuple[str, ...]:
    """List commands to try in a lab, the most telling first.

    :param family: as it was built with.
    """
    chosen = "" if len(labs()) == 1 else f"--lab {lab.name} "
    found = []
    if topology.clients:
        options = ProxyOptions(family or Family.IPV4, own_cluster=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)  # the owner has told them
            ports = service_ports(topology.services, topology.endpoint_slices, options)
        for port in [port for port in ports if port.protocol == "tcp"][:1]:
            url = f"http://{SocketAddress(port.cluster_ip, port.port)}".removesuffix(":80")
            # In quotes where shells would take the brackets for a pattern.
            found.append(f"lab exec {chosen}{topology.clients[0].name} -- curl {shlex.quote(url)}")
    for node in topology.nodes[:1]:
        program = "nft list ruleset" if node.proxy_mode is ProxyMode.NFTABLES else f"iptables-{node.backend}-save"
        found.append(f"lab exec {chosen}{node.name} -- {program}")
    first = lab.hosts[0]
    return (
        *found,
        f"lab shell {chosen}{first.name}",
        f"ip netns exec {first.namespace} ip address",
        f"lab down {lab.name}",
    )
