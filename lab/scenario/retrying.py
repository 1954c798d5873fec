# SPDX-License-Identifier: MIT
"""A client as applications are: what failed is begun again, on a fresh connection."""

from __future__ import annotations

from dataclasses import replace

from lab.evidence.timeline import RetryingTimeline, Try
from lab.fabric.lab import Lab
from lab.scenario.connection import Disturbed
from lab.scenario.roles import Roles
from lab.scenario.stream import WHOLE
from lab.traffic.tcp import FAREWELL, REQUEST, TcpEnd, stream
from lab.verdict import retrying
from lab.vocabulary import Behaviour, Family


class RetryingScenario(Disturbed[RetryingTimeline]):
    """A connection whose client does not give up."""

    decide = staticmethod(retrying.decide)

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._second: tuple[TcpEnd, TcpEnd] | None = None

    async def try_again(self) -> None:
        """Ask for the whole stream again, on a fresh connection; nothing where the first one brought it.

        :raises RefusedError: there is no second connection; says how it is known.
        """
        if self._complete:
            return
        own = self.roles.client_address
        self._second = client, server = await self._handshake(replace(own, port=own.port + 1))
        await client.send(REQUEST)
        await server.receive(len(REQUEST))
        await server.send(stream(0, WHOLE))
        await client.receive(WHOLE)
        await client.send(FAREWELL)
        await server.receive(len(REQUEST + FAREWELL))
        await self.barrier()

    def finish(self) -> RetryingTimeline:
        """Stop the instruments, read the counters, close the connections, and return what was seen."""
        tries = tuple(_try(*ends) for ends in (self._ends, self._second) if ends is not None)
        common, first_numbers = self._stop(), self._following.first_numbers(self.roles.client)
        ends = self._close_sockets()
        for end in self._second or ():
            end.close()
        return RetryingTimeline(
            **common, injected=self._injected, first_numbers=first_numbers, ends=ends, tries=tries, wanted=WHOLE
        )


def _try(client: TcpEnd, server: TcpEnd) -> Try:
    received = bytes(client.received)
    return Try(client.error, server.sent, len(received), received == stream(0, len(received)))
