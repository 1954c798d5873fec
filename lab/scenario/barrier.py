# SPDX-License-Identifier: MIT
"""What proves that nothing more comes: a datagram sent behind it on the same path, and seen at the end."""

from __future__ import annotations

import asyncio
from collections import Counter

from lab.errors import raise_if_of_machine
from lab.evidence.packet import BARRIER_PORT, SocketAddress
from lab.fabric.lab import Lab
from lab.netns import bound
from lab.scenario.nodes import Nodes
from lab.scenario.recorder import Recorder, UnseenError
from lab.scenario.roles import Roles
from lab.traffic.tcp import datagram_socket


class Barrier:
    """Sends barriers between the client and its servers.

    Packets of one processor keep their order over veth links (its backlog is a queue), so when the last one is there,
    whatever came before it has had its effect, and what was not seen by then does not come. What a timer has sent from
    another processor is waited for where it was seen to leave, and another barrier goes behind it.

    :param faults: where it is noted that a barrier was lost, or that an instrument did not see one.
    """

    def __init__(self, lab: Lab, roles: Roles, nodes: Nodes, recorder: Recorder, faults: list[str]) -> None:
        self.lab = lab
        self._roles, self._nodes, self._recorder, self._faults = roles, nodes, recorder, faults
        self._sent: Counter[str] = Counter()
        self._legs: Counter[str] = Counter()  # how often each node should have seen a barrier's datagram

    async def send(self, server: str, address: SocketAddress) -> None:
        """Send a datagram from the client to a server, back and there again, behind everything on the same path."""
        try:
            await self._echo(server, address)
            if self._recorder.sees_each:
                await self._stragglers(server, address)
        except UnseenError as failure:
            self._faults.append(str(failure))
        except (TimeoutError, OSError) as failure:
            raise_if_of_machine(failure)
            self._faults.append(f"the barrier datagram did not come back: {failure or 'no answer'}")
        self._sent[server] += 1
        self._recorder.read()
        if self._recorder.sees_each:
            self._check_instruments(server)

    def _check_instruments(self, server: str) -> None:
        """Note which instrument missed a barrier."""
        for host, passed in ((self._roles.client, self._sent.total()), (server, 2 * self._sent[server])):
            if self._seen_at(host) < passed:
                self._faults.append(f"the capture on {host} missed the barrier datagram")
        for node, legs in self._legs.items():
            if sum(judged.packet.is_barrier for judged in self._recorder.judged if judged.host == node) < legs:
                self._faults.append(f"the counting rules on {node} missed the barrier datagram")

    async def _stragglers(self, server: str, address: SocketAddress) -> None:
        """Wait for what is in the queue of another processor, and for its effect; a barrier has just come through.

        :raises UnseenError: it left one end of a link and never came to the other.
        :raises TimeoutError: and ``OSError``: another barrier was lost.
        """
        recorder = self._recorder
        recorder.read()
        while recorder.is_under_way and not recorder.blind_ends:
            await recorder.until(lambda: not recorder.is_under_way, "what left a link's end to come to the other")
            await self._echo(server, address)
            self._sent[server] += 1
            recorder.read()

    async def _echo(self, server: str, address: SocketAddress) -> None:
        """Send a barrier's datagram there, back and there again, and wait for the last.

        :raises TimeoutError: it was lost.
        :raises OSError: there is no way.
        """
        client, hosts = self._roles.client, self.lab.hosts
        to_client = SocketAddress(self._roles.client_address.address, BARRIER_PORT)
        to_server = SocketAddress(address.address, BARRIER_PORT)
        there = datagram_socket(hosts[client].namespace, to_client, to_server)
        here = datagram_socket(hosts[server].namespace, to_server)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(bound.SECONDS):
                there.send(b"there")
                _words, sender = await loop.sock_recvfrom(here, 16)  # a masquerading node is the sender itself
                here.sendto(b"and back", sender)
                await loop.sock_recv(there, 16)
                there.send(b"and there")
                await loop.sock_recv(here, 16)
            passed = self._nodes.passed(client, address.address)
            back = self._nodes.passed(server, sender[0])
            self._legs.update([*passed, *back, *passed])
        finally:
            there.close()
            here.close()

    def _seen_at(self, host: str) -> int:
        """Count the barriers' datagrams that came to a host."""
        return sum(
            sighting.host == host and not sighting.outgoing and sighting.packet.is_barrier
            for sighting in self._recorder.sightings
        )
