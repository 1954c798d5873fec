# SPDX-License-Identifier: MIT
"""What the kernel in front of us makes of packets out of the window, found by asking it.

Vendors carry changes back, so the version's number proves nothing. The questions are other packets than any trial's:
no expectation is made by the trial that it judges.
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from typing import Final

from lab.errors import LabError
from lab.evidence.judgement import Judgement
from lab.evidence.packet import SocketAddress
from lab.fabric.lab import Lab
from lab.scenario import ConnectionScenario
from lab.scenario.roles import CLIENT_PORT, Roles
from lab.topology.model import End, Host, Link, Topology
from lab.topology.route_keys import Route
from lab.vocabulary import Behaviour, Family


class UnknownBehaviourError(LabError):
    """The kernel fits no known behaviour: a discovery to explain, not an expectation to make."""


# What each behaviour answers to: three windows late, far beyond, beyond by half a window.
_ANSWERS: Final[dict[tuple[Judgement, ...], Behaviour]] = {
    (Judgement.INVALID, Judgement.INVALID, Judgement.INVALID): Behaviour.STRICT,
    (Judgement.IGNORED, Judgement.INVALID, Judgement.IGNORED): Behaviour.IGNORES_LATE,
}


def topology(family: Family) -> Topology:
    """Return the plainest lab with a node: no kube-proxy and no address translation."""
    network = "10.9.{}.{}/24" if family is Family.IPV4 else "fd09:{}::{}/64"
    interfaces = {(link, host): ip_interface(network.format(link, host)) for link in (1, 2) for host in (1, 2)}
    everywhere = ip_network(family.everything)
    return Topology(
        name="behaviour",
        hosts=(
            Host("client", routes=(Route(everywhere, interfaces[1, 1].ip),)),
            Host("node", forwarding=True),
            Host("server", routes=(Route(everywhere, interfaces[2, 1].ip),)),
        ),
        links=tuple(
            Link((End(host, "eth0", (interfaces[link, 2],)), End("node", host, (interfaces[link, 1],))))
            for link, host in ((1, "client"), (2, "server"))
        ),
    )


def roles(family: Family) -> Roles:
    """Return the roles in it."""
    client, server = (str(topology(family).addresses(host)[0]) for host in ("client", "server"))
    return Roles("client", "node", SocketAddress(client, CLIENT_PORT), (("server", SocketAddress(server, 80)),), None)


async def ask(family: Family) -> Behaviour:
    """Probe the running kernel with three packets, in a lab without any address translation.

    :raises UnknownBehaviourError: the answers fit no known behaviour; names them.
    """
    answers = []
    with Lab(topology(family), family=family) as lab:
        scenario = ConnectionScenario(lab, roles(family), family)
        await scenario.establish(by_service=False)
        window = scenario.client.window
        # In this order: a small overshoot moves conntrack's idea of the sender's end (6.1 on), the others do not.
        for offset in (-3 * window, 2**30, window + window // 2):
            await scenario.inject(scenario.from_server(offset))
            answers.append(scenario.judgement())
        scenario.finish()
    try:
        return _ANSWERS[tuple(answers)]
    except KeyError:
        told = ", ".join(answers)
        raise UnknownBehaviourError(
            f"this kernel fits no known behaviour: late, far beyond and just beyond the window gave {told}"
        ) from None
