# SPDX-License-Identifier: MIT
"""What proves that nothing more comes: a datagram sent behind it on the same path, and seen at the end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial

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
        self._came: Counter[str] = Counter()  # how many of the datagrams came to each host
        self._legs: Counter[str] = Counter()  # how often each node should have seen a barrier's datagram

    async def send(self, server: str, address: SocketAddress) -> None:
        """Send a datagram from the client to a server, back and there again, behind everything on the same path."""
        try:
            await self._echo(server, address)
            if self._recorder.sees_each:
                await self._stragglers(server, address)
        except UnseenError as failure:
            self._faults.append(str(failure))
        except TimeoutError:
            self._faults.append("the barrier datagram did not come back: no answer")
        except OSError as failure:
            raise_if_of_machine(failure)
            words = os.strerror(failure.errno or 0)
            self._faults.append(f"no datagram gets to and fro between {self._roles.client} and {server}: {words}")
        self._recorder.read()
        if self._recorder.sees_each:
            self._check_instruments(server)

    def _check_instruments(self, server: str) -> None:
        """Note which instrument missed a barrier."""
        for host in (self._roles.client, server):
            if self._seen_at(host) < self._came[host]:
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
            await recorder.all_arrived()
            await self._echo(server, address)
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
        passed = self._nodes.passed(client, address.address)
        try:
            async with asyncio.timeout(bound.SECONDS):
                sender = await self._leg(partial(there.send, b"there"), here, (client, server), passed)
                peer = sender or (to_client.address, to_client.port)  # a masquerading node is the sender itself
                await self._leg(
                    partial(here.sendto, b"and back", peer), there, (server, client), self._back(server, peer)
                )
                await self._leg(partial(there.send, b"and there"), here, (client, server), passed)
        finally:
            there.close()
            here.close()

    def _back(self, server: str, peer: tuple[str, int]) -> tuple[str, ...]:
        return self._nodes.passed(server, peer[0])

    async def _leg(
        self, send: Callable[[], int], receiver: socket.socket, ends: tuple[str, str], passed: tuple[str, ...]
    ) -> tuple[str, int] | None:
        """Send a datagram from one end to the other; return who sent it, and None where a node between drops it."""
        # So may the rules of a lab that others use.
        may_drop = [node for node in passed if self.lab.has_others or self.lab.hosts[node].host.given]
        real = [node for node in may_drop if node not in ends]
        if real and self._recorder.sees_each:
            coming = await self._past_rules(send, real[0])
        else:
            coming = send() and 1
        sender = None
        for _ in range(coming):
            sender = await _received(receiver)
            self._came[ends[1]] += 1
            self._legs.update(passed)
        return sender

    async def _past_rules(self, send: Callable[[], int], node: str) -> int:
        """Send a datagram through a real node, and return how many come: none where its rules let only TCP through.

        That is known by another one behind it: when it comes in, the node has done with the first, and with all that
        came before; and what it passed on is waited for until it is at the next end of a link.

        :raises UnseenError: it did not come to the node, or what was passed on went no further.
        """
        recorder = self._recorder
        entered, left = self._passing(node)
        for number in (1, 2):
            _sent(send)
            await recorder.until(
                lambda number=number: self._passing(node)[0] >= entered + number,  # type: ignore[misc]
                f"a barrier's datagram to come to {node}",
            )
            if self._passing(node)[1] > left:
                return number
        await recorder.all_arrived()
        return 0

    def _passing(self, node: str) -> tuple[int, int]:
        """Count the barriers' datagrams that came into a node, and those that left it."""
        seen = Counter(one.outgoing for one in self._recorder.sightings if one.host == node and one.packet.is_barrier)
        return seen[False], seen[True]

    def _seen_at(self, host: str) -> int:
        """Count the barriers' datagrams that came to a host."""
        return sum(
            sighting.host == host and not sighting.outgoing and sighting.packet.is_barrier
            for sighting in self._recorder.sightings
        )


def _sent(send: Callable[[], int]) -> None:
    """Send a datagram, again where the socket tells first how a rule has rejected the one before (ICMP).

    :raises OSError: there is no way.
    """
    try:
        send()
    except OSError as error:
        raise_if_of_machine(error)
        send()


async def _received(receiver: socket.socket) -> tuple[str, int]:
    """Return who sent the next datagram; what the socket tells first of one that was rejected is no answer."""
    loop = asyncio.get_running_loop()
    try:
        _words, sender = await loop.sock_recvfrom(receiver, 16)
    except ConnectionRefusedError:
        _words, sender = await loop.sock_recvfrom(receiver, 16)
    return str(sender[0]), int(sender[1])
