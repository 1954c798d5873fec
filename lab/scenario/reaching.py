# SPDX-License-Identifier: MIT
"""Questions that real sockets ask of a running lab's Services: who answers, as whom it saw the client, or what became.

Nothing is timed. Each question is over when a barrier behind it has come through and no capture has seen anything new
(:class:`lab.wire.backlog.Backlog`): what has not come by then does not come for this packet.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from lab.errors import LabError
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import PROTOCOLS, Fate, Passage, Question, Reached, Target
from lab.evidence.sighting import Sighting
from lab.fabric.lab import Lab
from lab.netns import Namespace, mib
from lab.scenario.associating import RawEnd, abort, associate
from lab.scenario.became import (
    Entries,
    Look,
    as_it_is,
    concluded,
    errno_of,
    half_open,
    is_open,
    unanswered,
    without_way,
)
from lab.scenario.deciding import Deciding
from lab.scenario.processor import one_processor
from lab.topology.model import Topology
from lab.topology.ways import way_out
from lab.vocabulary import Family
from lab.wire.backlog import Backlog
from lab.wire.capture import Capture

# SOL_IP and IP_RECVERR, SOL_IPV6 and IPV6_RECVERR (include/uapi/linux/in.h, in6.h)
_RECEIVE_ERRORS: Final = {Family.IPV4: (0, 11), Family.IPV6: (41, 25)}
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_FIRST_PORT, _PORTS = 49_152, 16_384  # RFC 6335, 6: those that clients take
_AT_ONCE: Final = struct.pack("ii", 1, 0)
# A host answers six ICMP errors a second to another, and a machine a thousand (net/ipv4/icmp.c): here many cells ask
# the same host in a moment. A mask without the types that are sent lets all of them through.
_ICMP_UNLIMITED: Final = {"net/ipv4/icmp_ratemask": 0, "net/ipv6/icmp/ratemask": 255}
_NO_ROUTE: Final = "IpExtInNoRoutes"
_HALF_ASSOCIATED: Final = "half open: of the handshake's last two packets one was lost"
_NO_WAY: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EADDRNOTAVAIL}


@dataclass(frozen=True)
class _Server:
    """Who answers on a socket."""

    host: str
    address: SocketAddress
    protocol: str


class Reaching:
    """Questions to the Services of a running lab, of one family. Every endpoint answers at each of its ports.

    Many questions are asked within one :func:`lab.scenario.processor.one_processor`: to move a thread takes long.

    :ivar crafted: the protocols of which this kernel has no sockets: of SCTP the lab makes the packets.
    :ivar deciding: tells which rules decide where the lab is traced, and of one that others use who dropped a question.
    :raises OSError: a socket cannot be opened.
    """

    def __init__(self, lab: Lab, family: Family) -> None:
        self.lab, self.family = lab, family
        self._servers: dict[socket.socket, _Server] = {}
        self._raw: dict[_Server, RawEnd] = {}
        self._entries = Entries(lab)
        self._asked = 0
        self._seen: list[Sighting] = []  # since the question was asked
        self._without_route: set[str] = set()
        self.crafted: set[str] = set()
        for running in lab.hosts.values():
            limits = icmp_limits(running.namespace, family)
            running.namespace.set_sysctls({key: _ICMP_UNLIMITED[key] for key in limits})
        self._backlog = lab.keep(Backlog())
        self._captures = [
            lab.keep(Capture(name, running.namespace, loopback=True, others=name in lab.topology.bridging))
            for name, running in lab.hosts.items()
        ]
        self._backlog.await_timestamps()
        self.deciding = Deciding(lab, family) if lab.traced or lab.has_others else None
        for server in endpoints_in(lab.current, family):
            if self._serves(server.protocol):
                self.listen(server.host, server.address.port, address=server.address.address, protocol=server.protocol)

    def _serves(self, _protocol: str) -> bool:
        """Check whether the endpoints' servers of a protocol are these questions' own."""
        return True

    # --- who answers --------------------------------------------------------------------------------

    def listen(self, host: str, port: int, *, address: str | None = None, protocol: str = "tcp") -> None:
        """Have a host answer on a port of an address, its first one if None.

        :raises OSError: the address is none of its own, or somebody has the port.
        """
        own = SocketAddress(address or self.address(host), port)
        server = _Server(host, own, protocol)
        if server in self._raw or server in self._servers.values():
            return
        listener = self.lab.keep(self._open(host, own, protocol))
        if protocol in self.crafted:
            self._raw[server] = RawEnd(listener, port)
            return
        if protocol != "udp":
            listener.listen(64)
        self._servers[listener] = server

    def claim(self, host: str, address: str, port: int = 80) -> None:
        """Have a host answer for an address that none has: what gets there has slipped past the node's rules."""
        self.lab.hosts[host].take(address)
        self.listen(host, port, address=address)

    def address(self, host: str) -> str:
        """Return the first address of a host."""
        return str(self.lab.topology.addresses(host, self.family)[0])

    def _open(self, host: str, own: SocketAddress | None, protocol: str) -> socket.socket:
        """Open a socket that does not block, and that ends a connection at once by a reset."""
        opened = self._opened(host, protocol)
        if opened.type == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        if own is not None:
            opened.bind((own.address, 0 if protocol in self.crafted else own.port))
        return opened

    def _opened(self, host: str, protocol: str) -> socket.socket:
        """Open a socket of a protocol, a raw one of SCTP where the kernel has no other."""
        version = socket.AF_INET6 if self.family is Family.IPV6 else socket.AF_INET
        namespace, number = self.lab.hosts[host].namespace, PROTOCOLS[protocol]
        if protocol not in self.crafted:
            try:
                return namespace.socket(version, _KINDS[protocol], number)
            except OSError as error:
                if protocol != "sctp" or error.errno not in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                    raise
            self.crafted.add(protocol)
        return namespace.socket(version, socket.SOCK_RAW, number)

    # --- questions ----------------------------------------------------------------------------------

    def ask(self, question: Question, *, with_entry: bool = True) -> Reached:
        """Ask once, and return what became of it.

        :param with_entry: look up what the first node's conntrack has of it, which takes as long as the question.
        :raises LabError: the machine was kept from it, or an instrument failed.
        """
        self._asked += 1
        source = question.source or source_of(self.lab.topology, question, self.family)
        own = None if source is None else SocketAddress(source, 0)
        with one_processor(), self._open(question.client, own, question.protocol) as asking:
            self._settled()  # what earlier questions have left
            self._seen = []
            if self.deciding:
                self.deciding.forget()
            look = self._entries.added_to if with_entry else as_it_is
            if question.protocol in self.crafted:
                found = self._associate(question, asking, look)
            else:
                # An ICMP error that is here before connect() has let go of the socket is kept for the next SYN, a
                # second later (tcp_v6_err in net/ipv6/tcp_ipv6.c), but with this it is reported at once.
                asking.setsockopt(*_RECEIVE_ERRORS[self.family], 1)
                found = self._ask(question, asking, look)
            return self.deciding.blaming(found, self._seen) if self.deciding else found

    def _ask(self, question: Question, asking: socket.socket, look: Look) -> Reached:
        unrouted = self._unrouted()
        code = asking.connect_ex((question.address.address, question.address.port))
        own = SocketAddress(*asking.getsockname()[:2])
        if code in _NO_WAY:
            return without_way(self.lab, question, code)
        self._begin(question, own)
        # Of a length that the next question does not have: IPv6 tells datagrams apart by nothing else.
        text = b"?" * (16 + self._asked % 1000)
        if question.protocol == "udp":
            code = errno_of(asking, text)
        passage = Passage(question, own, self._settled())
        reached = Reached(question, Fate.TIMES_OUT, own, node=self._first_node(passage), rule=self._rule(passage))
        if ready := select.select(self._servers, [], [], 0)[0]:
            return self._answered(reached, asking, ready[0], passage, text, look)
        if heard := self._heard(reached, asking, passage, text, look):
            return heard
        if question.protocol == "tcp" and is_open(asking):
            if self.deciding:
                self.deciding.follow_acknowledgement(asking, passage, self._settled)
            return look(half_open(self.lab, reached, passage))
        if question.protocol == "sctp" and passage.went_on():
            return look(replace(reached, how=_HALF_ASSOCIATED))
        if code in (0, errno.EINPROGRESS):  # it had gone out, or so it seemed; what came of it is known by now
            code = asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return look(self._or_no_route(unanswered(self.lab, reached, passage, code), unrouted))

    def _associate(self, question: Question, asking: socket.socket, look: Look) -> Reached:
        """Ask by an SCTP handshake of the lab's own packets."""
        unrouted, target = self._unrouted(), question.address
        code = asking.connect_ex((target.address, 0))
        if code in _NO_WAY:
            return without_way(self.lab, question, code)
        client = RawEnd(asking, _FIRST_PORT + self._asked % _PORTS, self._asked)
        own = SocketAddress(asking.getsockname()[0], client.port)
        self._begin(question, own)
        seen: list[Sighting] = []
        servers, ends = list(self._raw), list(self._raw.values())
        came = associate(client, target.address, target.port, ends, lambda: seen.extend(self._settled()))
        passage = Passage(question, own, seen)
        reached = Reached(question, Fate.TIMES_OUT, own, node=self._first_node(passage), rule=self._rule(passage))
        if came.server is not None:
            server, peer = servers[came.server], SocketAddress(*came.peer)
            reached = replace(reached, server=server.host, server_address=server.address, seen_as=peer)
        if came.whole:
            found = look(replace(reached, fate=Fate.CONNECTED))
            abort(client, target.address, target.port)
            return found
        if came.aborted_by is not None:
            hosts = [*(server.host for server in servers), question.client]
            return look(replace(reached, fate=Fate.REFUSED, at=hosts[came.aborted_by], how="ABORT"))
        if came.answered:
            return look(replace(reached, how=_HALF_ASSOCIATED))
        return look(self._or_no_route(unanswered(self.lab, reached, passage, came.refused), unrouted))

    def _unrouted(self) -> dict[str, int]:
        """Return how many packets the hosts that have sent an error had no route for, by their own count."""
        hosts = self.lab.hosts
        return {host: mib.counters(hosts[host].namespace).get(_NO_ROUTE, 0) for host in self._without_route}

    def _or_no_route(self, reached: Reached, before: Mapping[str, int]) -> Reached:
        """Return what became of a question, told by the host's count where its error was one too many.

        Linux sends one host five such errors in a row and then one a second (ip_error in net/ipv4/route.c), by
        settings that are the whole machine's (route/error_burst).
        """
        if reached.fate is Fate.NO_WAY:
            self._without_route.add(reached.at)
        if reached.fate is Fate.TIMES_OUT and self._unrouted().get(reached.at, 0) > before.get(reached.at, 0):
            return replace(reached, fate=Fate.NO_WAY, how="no route, by its count; its errors are one a second by now")
        return reached

    def _begin(self, question: Question, own: SocketAddress) -> None:
        """Take note of a question that begins now."""

    def _own(self, sightings: list[Sighting]) -> list[Sighting]:
        """Return those of the questions' own: in a lab of their own all."""
        return sightings

    def _heard(
        self, reached: Reached, asking: socket.socket, passage: Passage, text: bytes, look: Look
    ) -> Reached | None:
        """Return what came of a question to a server that is not these questions' own; None where it came to none."""

    def _answered(
        self,
        reached: Reached,
        asking: socket.socket,
        listener: socket.socket,
        passage: Passage,
        text: bytes,
        look: Look,
    ) -> Reached:
        """Have a server answer by its name, and see what becomes of that while both ends are open."""
        server = self._servers[listener]
        name = server.host.encode()
        with contextlib.ExitStack() as stack:
            if server.protocol == "udp":
                received, peer = listener.recvfrom(2000)
                if received != text:
                    raise LabError(f"{server.host} got {len(received)} bytes, and {len(text)} were sent")
                code = errno_of(listener, name, peer)
            else:
                accepted, peer = listener.accept()
                stack.enter_context(accepted)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                code = errno_of(accepted, name)
            passage = replace(passage, sightings=[*passage.sightings, *self._settled()])
            client = SocketAddress(*peer[:2])
            reached = replace(reached, server=server.host, server_address=server.address, seen_as=client)
            return look(concluded(self.lab, reached, asking, name, code, passage))

    def _settled(self) -> list[Sighting]:
        """Return what the captures have seen by the time at which nothing is under way any more, in order."""
        found: list[Sighting] = []

        def came() -> bool:
            new = self._own([sighting for capture in self._captures for sighting in capture.read()])
            found.extend(new)
            return bool(new)

        self._backlog.settle(came)
        self._seen += found
        return sorted(found, key=lambda one: one.time)

    def _rule(self, passage: Passage) -> str:
        return self.deciding.rule(passage) if self.deciding and self.lab.traced else ""

    def _first_node(self, passage: Passage) -> str:
        nodes = {node.name for node in self.lab.topology.nodes}
        return next((host for host in passage.passed() if host in nodes), "")


def icmp_limits(namespace: Namespace, family: Family) -> list[str]:
    """Return the sysctls that limit errors of a family on this kernel; IPv6 has a mask from Linux 5.2 on."""
    keys = ["net/ipv4/icmp_ratemask", *(["net/ipv6/icmp/ratemask"] if family is Family.IPV6 else [])]
    with namespace.entered():
        return [key for key in keys if os.path.exists(f"/proc/sys/{key}")]


def endpoints_in(topology: Topology, family: Family) -> list[_Server]:
    """Return where hosts of a topology answer: at each port of each endpoint's address, once."""
    found = [
        _Server(host.name, SocketAddress(address, port.port), port.protocol.lower())
        for piece in topology.endpoint_slices
        if piece.address_type == family.kubernetes
        for endpoint in piece.endpoints
        for address in endpoint.addresses
        if (host := topology.host_of(address)) is not None
        for port in piece.ports
        if port.port is not None
    ]
    return list(dict.fromkeys(found))


def source_of(topology: Topology, question: Question, family: Family) -> str | None:
    """Return the address that a client asks from: its own in the subnet that it asks, else an endpoint's, or its first.

    None for a node, whose kernel chooses: what it sends itself has the address of the way out.
    """
    if topology.host(question.client).proxy_mode is not None or question.target is Target.LOCALHOST:
        return None
    end = way_out(topology, question.client, question.address.address)
    wanted = ip_address(question.address.address)
    for own in end.addresses if end else ():
        if own.version == wanted.version and wanted in own.network:
            return str(own.ip)
    its, served = [str(own) for own in topology.addresses(question.client, family)], set(topology.endpoint_addresses)
    return next((own for own in its if own in served), its[0] if its else None)
