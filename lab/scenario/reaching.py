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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface
from typing import Final

from lab.conntrack.netlink import ConntrackTable
from lab.errors import LabError
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import PROTOCOLS, Fate, Passage, Question, Reached, Target
from lab.evidence.sighting import Sighting
from lab.fabric.lab import Lab
from lab.netns import bound, mib
from lab.netns.rtnetlink import LOOPBACK_INDEX
from lab.netns.rtnetlink import address as netlink_address
from lab.scenario.deciding import Deciding
from lab.scenario.processor import one_processor
from lab.scenario.unrouted import why_unrouted
from lab.topology.model import Topology
from lab.topology.ways import way_out
from lab.vocabulary import Family
from lab.wire.backlog import Backlog
from lab.wire.capture import Capture

# SOL_IP and IP_RECVERR, SOL_IPV6 and IPV6_RECVERR (include/uapi/linux/in.h, in6.h)
_RECEIVE_ERRORS: Final = {Family.IPV4: (0, 11), Family.IPV6: (41, 25)}
_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_MOST_ROUNDS: Final = 10_000  # a packet passes 255 hosts at most, and so does its answer
# A host answers six ICMP errors a second to another, and a machine a thousand (net/ipv4/icmp.c): here many cells ask
# the same host in a moment. A mask without the types that are sent lets all of them through.
_ICMP_UNLIMITED: Final = {"net/ipv4/icmp_ratemask": 0, "net/ipv6/icmp/ratemask": 255}
_NO_ROUTE: Final = "IpExtInNoRoutes"
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

    :ivar lacking: the protocols of which this kernel has no sockets.
    :ivar deciding: tells which rules decide, where the lab is traced.
    :raises OSError: a socket cannot be opened.
    """

    def __init__(self, lab: Lab, family: Family) -> None:
        self.lab, self.family = lab, family
        self._servers: dict[socket.socket, _Server] = {}
        self._tables: dict[str, ConntrackTable] = {}
        self._asked = 0
        self._without_route: set[str] = set()
        self.lacking: set[str] = set()
        for running in lab.hosts.values():
            running.namespace.set_sysctls({key: _ICMP_UNLIMITED[key] for key in self._limits(running.name)})
        self._backlog = lab.keep(Backlog())
        bridging = {end.host for link in lab.topology.links for end in link.ends if end.bridge}
        self._captures = [
            lab.keep(Capture(name, running.namespace, loopback=True, others=name in bridging))
            for name, running in lab.hosts.items()
        ]
        try:
            self._backlog.await_timestamps()
        except TimeoutError:
            raise LabError(f"the kernel took down no packet's time for {bound.SECONDS:.0f} s") from None
        self.deciding = Deciding(lab, family) if lab.traced else None
        for server in endpoints_in(lab.topology, family):
            self.listen(server.host, server.address.port, address=server.address.address, protocol=server.protocol)

    def _limits(self, host: str) -> list[str]:
        """Return the sysctls that limit errors of this family on this kernel; IPv6 has a mask from Linux 5.2 on."""
        keys = ["net/ipv4/icmp_ratemask", *(["net/ipv6/icmp/ratemask"] if self.family is Family.IPV6 else [])]
        with self.lab.hosts[host].namespace.entered():
            return [key for key in keys if os.path.exists(f"/proc/sys/{key}")]

    # --- who answers --------------------------------------------------------------------------------

    def listen(self, host: str, port: int, *, address: str | None = None, protocol: str = "tcp") -> None:
        """Have a host answer on a port of an address, its first one if None.

        :raises OSError: the address is none of its own, or somebody has the port. What the kernel has no sockets for
            is noted in ``lacking``.
        """
        own = SocketAddress(address or self.address(host), port)
        if protocol in self.lacking or _Server(host, own, protocol) in self._servers.values():
            return
        try:
            listener = self.lab.keep(self._open(host, own, protocol))
        except OSError as error:
            if error.errno not in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                raise
            self.lacking.add(protocol)
            return
        if protocol != "udp":
            listener.listen(64)
        self._servers[listener] = _Server(host, own, protocol)

    def claim(self, host: str, address: str, port: int = 80) -> None:
        """Have a host answer for an address that none has: what gets there has slipped past the node's rules."""
        running, own = self.lab.hosts[host], ip_address(address)
        running.routes.apply([netlink_address(LOOPBACK_INDEX, ip_interface(own), f"the address {own}")])
        while not running.routes.is_local(own):
            pass
        self.listen(host, port, address=address)

    def address(self, host: str) -> str:
        """Return the first address of a host."""
        return str(self.lab.topology.addresses(host, self.family)[0])

    def _open(self, host: str, own: SocketAddress | None, protocol: str) -> socket.socket:
        """Open a socket that does not block, and that ends a connection at once by a reset."""
        version = socket.AF_INET6 if self.family is Family.IPV6 else socket.AF_INET
        kind, number = _KINDS[protocol], PROTOCOLS[protocol]
        opened = self.lab.hosts[host].namespace.socket(version, kind, number)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        if own is not None:
            opened.bind((own.address, own.port))
        return opened

    # --- questions ----------------------------------------------------------------------------------

    def ask(self, question: Question, *, with_entry: bool = True) -> Reached:
        """Ask once, and return what became of it.

        :param with_entry: look up what the first node's conntrack has of it, which takes as long as the question.
        :raises LabError: the machine was kept from it, or an instrument failed.
        """
        if question.protocol in self.lacking:
            return Reached(question, Fate.NOT_HERE, how=f"this kernel has no {question.protocol.upper()} sockets")
        self._asked += 1
        source = question.source or source_of(self.lab.topology, question, self.family)
        own = None if source is None else SocketAddress(source, 0)
        with one_processor(), self._open(question.client, own, question.protocol) as asking:
            self._settled()  # what earlier questions have left
            if self.deciding:
                self.deciding.forget()
            # An ICMP error that is here before connect() has let go of the socket is kept for the next SYN, a second
            # later (tcp_v6_err in net/ipv6/tcp_ipv6.c), but with this it is reported at once.
            asking.setsockopt(*_RECEIVE_ERRORS[self.family], 1)
            return self._ask(question, asking, self._with_entry if with_entry else _as_it_is)

    def _ask(self, question: Question, asking: socket.socket, look: Callable[[Reached], Reached]) -> Reached:
        unrouted = self._unrouted()
        code = asking.connect_ex((question.address.address, question.address.port))
        own = SocketAddress(*asking.getsockname()[:2])
        if code in _NO_WAY:
            why = f"{errno.errorcode[code]}: its own host has no way"
            return Reached(question, Fate.NO_WAY, at=question.client, how=why)
        # Of a length that the next question does not have: IPv6 tells datagrams apart by nothing else.
        text = b"?" * (16 + self._asked % 1000)
        if question.protocol == "udp":
            code = _errno_of(asking, text)
        passage = Passage(question, own, self._settled())
        reached = Reached(question, Fate.TIMES_OUT, own, node=self._first_node(passage), rule=self._rule(passage))
        ready, _, _ = select.select(self._servers, [], [], 0)
        if ready:
            return self._answered(reached, asking, ready[0], passage, text, look)
        if question.protocol == "tcp" and _is_open(asking):
            at, how, sent_on = passage.last()
            return look(replace(reached, at=at, how=f"half open: {how}", sent_on=sent_on))
        code = code or asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return look(self._or_no_route(_unanswered(self.lab, reached, passage, code), unrouted))

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

    def _answered(
        self,
        reached: Reached,
        asking: socket.socket,
        listener: socket.socket,
        passage: Passage,
        text: bytes,
        look: Callable[[Reached], Reached],
    ) -> Reached:
        """Have a server answer by its name, and see what becomes of that while both ends are open."""
        server = self._servers[listener]
        name = server.host.encode()
        with contextlib.ExitStack() as stack:
            if server.protocol == "udp":
                received, peer = listener.recvfrom(2000)
                if received != text:
                    raise LabError(f"{server.host} got {len(received)} bytes, and {len(text)} were sent")
                code = _errno_of(listener, name, peer)
            else:
                accepted, peer = listener.accept()
                stack.enter_context(accepted)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                code = _errno_of(accepted, name)
            passage = replace(passage, sightings=[*passage.sightings, *self._settled()])
            client = SocketAddress(*peer[:2])
            reached = replace(reached, server=server.host, server_address=server.address, seen_as=client)
            return look(_concluded(self.lab, reached, asking, name, code, passage))

    def _settled(self) -> list[Sighting]:
        """Return what the captures have seen by the time at which nothing is under way any more, in order."""
        found: list[Sighting] = []
        try:
            for _ in range(_MOST_ROUNDS):
                self._backlog.push()
                new = [sighting for capture in self._captures for sighting in capture.read()]
                if not new:
                    return sorted(found, key=lambda one: one.time)
                found += new
        except TimeoutError:
            raise LabError(f"the machine moved no packet for {bound.SECONDS:.0f} s") from None
        raise LabError("packets go on and on: the hosts' routes go in a circle")

    def _rule(self, passage: Passage) -> str:
        return self.deciding.rule(passage.first) if self.deciding else ""

    def _first_node(self, passage: Passage) -> str:
        nodes = {node.name for node in self.lab.topology.nodes}
        return next((host for host in passage.passed() if host in nodes), "")

    def _with_entry(self, reached: Reached) -> Reached:
        if not reached.node or reached.own is None:
            return reached
        if reached.node not in self._tables:
            self._tables[reached.node] = self.lab.keep(ConntrackTable(self.lab.hosts[reached.node].namespace))
        number = PROTOCOLS[reached.question.protocol]
        entry = self._tables[reached.node].entry(number, reached.own, reached.question.address)
        return replace(reached, entry=entry)


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


def _as_it_is(reached: Reached) -> Reached:
    return reached


def _concluded(lab: Lab, reached: Reached, asking: socket.socket, name: bytes, code: int, passage: Passage) -> Reached:
    """Return what came of a question that a server has got and answered by its name."""
    try:
        if asking.recv(100) == name:
            return replace(reached, fate=Fate.CONNECTED)
        return replace(reached, fate=Fate.RESET, at=reached.question.client, how="it was closed without a word")
    except BlockingIOError:
        return _unanswered(lab, reached, passage, code)
    except ConnectionResetError:
        return replace(reached, fate=Fate.RESET, at=reached.question.client, how="ECONNRESET")
    except OSError as error:
        return _unanswered(lab, reached, passage, error.errno or code)


def _unanswered(lab: Lab, reached: Reached, passage: Passage, code: int) -> Reached:
    """Return what became of a question to which no answer came.

    :param code: the client's errno, 0 or EINPROGRESS where it has none.
    """
    if refusal := passage.refusal():
        fate, at, how = refusal
        return replace(reached, fate=fate, at=at, how=how)
    if stranger := passage.stranger():
        return replace(reached, fate=Fate.STRANGER, how=str(stranger))
    at, how, sent_on = passage.last()
    if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
        how = f"{errno.errorcode.get(code, code)}: {how}"
    last, _is_answer = passage.last_sighting()
    if last is not None and not sent_on and (why := why_unrouted(lab, last)):
        how = f"{how}: {why}"
    return replace(reached, at=at, how=how, sent_on=sent_on)


def _errno_of(sender: socket.socket, text: bytes, to: tuple[str, int] | None = None) -> int:
    """Send, and return its error's number, 0 where there is none: EPERM where a rule of its own host dropped it."""
    try:
        if to is None:
            sender.send(text)
        else:
            sender.sendto(text, to)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _is_open(asking: socket.socket) -> bool:
    """Check whether a client takes its connection for established."""
    try:
        asking.getpeername()
    except OSError:
        return False
    return True
