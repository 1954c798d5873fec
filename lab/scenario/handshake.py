# SPDX-License-Identifier: MIT
"""A real handshake through a running lab, and how it is known where there was none."""

from __future__ import annotations

import errno
import select
from functools import partial
from typing import Any

from lab.errors import InputError, raise_if_of_machine
from lab.evidence.packet import RST, SYN, SocketAddress
from lab.scenario.base import Scenario
from lab.scenario.errors import HalfOpenError, RefusedError
from lab.scenario.seen import why_lost
from lab.topology.ways import way_out
from lab.traffic.tcp import A_MOMENT, Attempt, TcpEnd, listen, listen_beside


async def connect(scenario: Scenario[Any], own: SocketAddress, target: SocketAddress) -> tuple[TcpEnd, TcpEnd]:
    """Connect the client to whichever server the node's rules choose; return both ends.

    :param own: the client's address and port.
    :raises RefusedError: there is no connection; says how it is known.
    :raises HalfOpenError: only the client takes it for one.
    """
    hosts, client = scenario.lab.hosts, scenario.roles.client
    servers = scenario.roles.servers
    open_one = partial(listen_beside, port=own.port) if scenario.lab.has_others else listen
    listeners = [(host, open_one(hosts[host].namespace, address)) for host, address in servers]
    try:
        async with Attempt(client, hosts[client].namespace, own, listeners, target) as attempt:
            if not await attempt.over_within(A_MOMENT):
                # Whatever is left of the handshake is behind these.
                for host, _listener in listeners:
                    await scenario.barrier(host)
                if not attempt.is_connected:
                    raise _unanswered(scenario)
                _check_half_open(scenario, attempt, target)
                # Where it is for the trial, one of these has it, or has just given it away.
                waits = select.select([listener for _host, listener in listeners], [], [], 0)[0]
                if scenario.lab.has_others and not waits and not await attempt.over_within(A_MOMENT):
                    raise _taken(target)
            return await attempt.ends()
    except OSError as error:
        raise_if_of_machine(error)
        refusal = errno.errorcode.get(error.errno or 0, str(error))
        has_route = way_out(scenario.lab.topology, client, target.address) is not None
        if not has_route:
            refusal += f": {client} has no route to {target.address}"
        raise scenario.refuse(refusal, has_route=has_route) from None
    finally:
        for _host, listener in listeners:
            listener.close()


def _taken(target: SocketAddress) -> InputError:
    """Return the error for a connection that another server has, which stands there for everybody."""
    message = f"the connection to {target} came to the server that stands there: nothing tells it from others'"
    return InputError(message, cure="masquerading gives it another port; `lab run` tries the case in a lab of its own")


def _unanswered(scenario: Scenario[Any]) -> RefusedError:
    """Return what became of a handshake that nobody refused."""
    client = scenario.roles.client
    servers = scenario.roles.servers
    reached = [host for host, address in servers if scenario.seen(host, destination=address, flags="S")]
    if not reached:
        return scenario.refuse(scenario.unanswered("the SYN came to no server"), _seen_last(scenario, client, "S"))
    answers = scenario.seen(client, flags="SA", outgoing=False)
    if not answers:
        known = scenario.unanswered("the SYN,ACK never came back")
        return scenario.refuse(known, _seen_last(scenario, reached[0], "SA") or _why_silent(scenario, reached[0]))
    return scenario.refuse(f"the SYN,ACK came from {answers[0].packet.source.address}")


def _seen_last(scenario: Scenario[Any], host: str, flags: str) -> str:
    """Return where the last segment of a handshake that a host sent was seen last; empty where it sent none."""
    sent = scenario.seen(host, flags=flags, outgoing=True)
    return f"it {scenario.lost_where(sent[-1].packet)}" if sent else ""


def _why_silent(scenario: Scenario[Any], server: str) -> str:
    """Return why a server to which a SYN came has sent no SYN,ACK, where its kernel tells that; else nothing."""
    came = scenario.seen(server, flags="S", outgoing=False)
    why = why_lost(came[-1].packet, scenario.lab, scenario.recorder) if came else ""
    return why and f"it never left {server}: {why}"


def _check_half_open(scenario: Scenario[Any], attempt: Attempt, target: SocketAddress) -> None:
    """Refuse a handshake that its client takes for done, and whose last acknowledgement came to no server.

    The barriers went behind it, so it does not come any more; and what the server asks it again for is lost alike.

    :raises HalfOpenError: it is one.
    """
    client, servers = scenario.roles.client, scenario.roles.servers
    acknowledgements = [
        sighting.packet
        for sighting in scenario.seen(client, source=attempt.own_address, flags="A", outgoing=True)
        if sighting.packet.tcp is not None and not sighting.packet.tcp.flags & (SYN | RST)
    ]
    sent = {acknowledgement.likeness for acknowledgement in acknowledgements}
    for host, _address in servers:
        if any(one.packet.likeness in sent for one in scenario.seen(host, outgoing=False)):
            return
    answering = [host for host, _address in servers if scenario.seen(host, flags="SA", outgoing=True)]
    if not acknowledgements or not answering:
        return
    server, first = answering[0], acknowledgements[0]
    known = f"half open: {client} is connected, {server} is not"
    where = f"the ACK of the handshake {scenario.lost_where(first)}"
    scenario.stand_still(known, where)
    raise HalfOpenError(f"no connection to {target}: {known}, {where}", attempt.client_end(), server, first)
