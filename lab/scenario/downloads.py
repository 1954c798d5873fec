# SPDX-License-Identifier: MIT
"""Many real downloads at once through a network that holds packets back: nothing is forged."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import Counter
from typing import ClassVar, Final

from lab.errors import InputError, LabError, raise_if_of_machine
from lab.evidence.timeline import Download, DownloadsTimeline, Load
from lab.fabric import congestion
from lab.fabric.host import RunningHost
from lab.fabric.lab import Lab
from lab.netns import RunningProgram
from lab.netns.mib import tcp_counters
from lab.scenario.base import Scenario
from lab.scenario.processor import one_processor
from lab.scenario.roles import Roles
from lab.traffic import http
from lab.traffic.tcp import A_MOMENT, Attempt, listen, stream
from lab.verdict import downloads
from lab.vocabulary import Behaviour, Family

# Before conntrack (-200): what is still under way when the downloads are over would be counted after it was logged.
_NOTHING_MORE: Final = """
table inet lab_over {
    chain prerouting {
        type filter hook prerouting priority -300; policy accept;
        meta l4proto tcp drop
    }
}
"""

_LIMIT: Final = 60.0  # seconds; a generous end to downloads that take three
_WINDOW: Final = 16384  # bytes that the client offers at most, so that a packet held back is soon a window late


class DownloadsScenario(Scenario[DownloadsTimeline]):
    """A lab whose client downloads. Its packets are counted: to record each would slow down what is looked at."""

    sees_each: ClassVar = False
    decide = staticmethod(downloads.decide)

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._load: Load | None = None
        ends = [end for end in lab.topology.ends(self._server) if end.addresses]
        self._router = lab.topology.neighbours(ends[0])[0]

    @property
    def client(self) -> RunningHost:
        """The host that downloads."""
        return self.lab.hosts[self.roles.client]

    @property
    def server(self) -> RunningHost:
        """The host whose nginx is asked."""
        return self.lab.hosts[self._server]

    @property
    def router(self) -> RunningHost:
        """The host next to the server."""
        return self.lab.hosts[self._router.host]

    def hold_back(self, one_in: int) -> None:
        """Have the router next to the server hold back one in so many data packets on their way to the node.

        :raises InputError: the topology has no router there.
        :raises MissingError: tc is not installed, or the kernel has no HTB.
        """
        ways = [end for end in self.lab.topology.ends(self.router.name) if end.interface != self._router.interface]
        if self.router.host.proxy_mode is not None or len(ways) != 1:
            raise InputError(
                f"{self.lab.topology.name}: no router between the node and {self._server}",
                cure="take the topology congested",
            )
        # One packet is one segment, as on a wire; one that offloading has made of forty would be late as one.
        link = self.lab.topology.neighbours(self._router)[0].interface
        self.server.run("ip", "link", "set", "dev", link, "gso_max_segs", "1")
        # Whatever the machine prefers: this one is in every kernel, and every namespace may choose it.
        self.lab.is_altered = True
        self.server.namespace.set_sysctls({"net/ipv4/tcp_congestion_control": "reno"})
        self.client.namespace.set_sysctls({"net/ipv4/tcp_rmem": f"4096 {_WINDOW} {_WINDOW}"})
        congestion.hold_back(self.router, ways[0].interface, one_in)

    async def download(self, count: int, size: int, *, by_service: bool = True) -> None:
        """Have the client download so many times at once, and wait for the last.

        :param size: of each download, in bytes.
        :param by_service: by the VIP, or else straight from the pod.
        :raises RefusedError: there is no connection; says how it is known.
        :raises MissingError: nginx or curl is not installed.
        """
        if by_service:
            if self.roles.service_address is None:
                raise InputError(f"the topology has no TCP service with an {self.family} address")
            self._target = self.roles.service_address
        content = stream(0, size)
        await self._try_the_way()
        before = self._count_tcp()
        self.lab.keep(await http.serve(self.server.namespace, self._server_address, content))
        source, began = http.url(self._target), time.monotonic()
        programs = [self.lab.keep(http.download(self.client.namespace, source, _LIMIT)) for _ in range(count)]
        try:
            async with asyncio.timeout(2 * _LIMIT):
                codes = [await program.ended() for program in programs]
        except TimeoutError:
            raise LabError(f"curl did not end within {2 * _LIMIT:.0f} s, though it was told to") from None
        seconds = time.monotonic() - began
        self.node.nft.run(_NOTHING_MORE)
        await self.barrier()
        counted = {host: after - before[host] for host, after in self._count_tcp().items()}
        self._load = Load(
            size,
            tuple(_download(program, code, content) for program, code in zip(programs, codes, strict=True)),
            seconds,
            congestion.held(self.router),
            counted[self.client.name]["TCPDSACKOldSent"],
            {name: counts["EstabResets"] for name, counts in counted.items()},
        )
        self._complete = all(one.exit_code == 0 and one.intact for one in self._load.downloads)

    def _count_tcp(self) -> dict[str, Counter[str]]:
        return {host.name: Counter(tcp_counters(host.namespace)) for host in (self.client, self.server)}

    async def _try_the_way(self) -> None:
        """Connect once before, so that a connection that cannot be is known by a barrier and not by waiting.

        :raises RefusedError: there is no connection; says how it is known.
        """
        listener = listen(self.server.namespace, self._server_address)
        own, servers = self.roles.client_address, [(self._server, listener)]
        try:
            with one_processor():
                async with Attempt(self.roles.client, self.client.namespace, own, servers, self._target) as attempt:
                    if not await attempt.over_within(A_MOMENT):
                        await self.barrier()  # whatever is left of the handshake is behind it
                        if not attempt.is_connected:
                            raise OSError("the handshake went nowhere")
                    for end in await attempt.ends():
                        end.close()
                await self.barrier()
        except OSError as error:
            raise_if_of_machine(error)
            raise self.refuse(errno.errorcode.get(error.errno or 0, str(error))) from None
        finally:
            listener.close()

    def finish(self) -> DownloadsTimeline:
        """Stop the instruments, read the counters, and return what was counted."""
        return DownloadsTimeline(**self._stop(), load=self._load)


def _download(program: RunningProgram, code: int, content: bytes) -> Download:
    received = program.output
    return Download(code, program.words, len(received), content.startswith(received))
