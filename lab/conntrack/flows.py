# SPDX-License-Identifier: MIT
"""Conntrack's entries as ``conntrack -L`` (conntrack-tools) prints them, of any protocol; and their deletion.

Numbers of attributes are from include/uapi/linux/netfilter/nfnetlink_conntrack.h, and of status bits from
nf_conntrack_common.h there.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from lab.conntrack.creation import NewFlow
from lab.errors import InputError, LabError
from lab.evidence.entry import TCP_STATES
from lab.evidence.packet import Ends, SocketAddress
from lab.netns import nfnetlink
from lab.netns.nfnetlink import ACK, DUMP, Message, Subsystem, attribute, attributes, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from lab.netns import Namespace

_CT_GET, _CT_DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_COUNTERS_ORIG, _COUNTERS_REPLY, _USE, _ID, _ZONE = 9, 10, 11, 12, 18
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_NUMBER, _SRC_PORT, _DST_PORT = 1, 2, 3
#: How the attributes of a protocol without ports are named when they are printed, in that order: ICMP and ICMPv6.
_OF_ICMP: Final = (("type", (5, 8)), ("code", (6, 9)), ("id", (4, 7)))
_SEEN_REPLY, _ASSURED, _OFFLOAD, _HW_OFFLOAD = 1 << 1, 1 << 2, 1 << 14, 1 << 15

_PROTOCOLS: Final[Mapping[int, str]] = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}
#: By the attribute of CTA_PROTOINFO that has them; each nests its state as its first.
_STATES: Final[Mapping[int, tuple[str, ...]]] = {
    1: TCP_STATES,
    3: (
        # enum sctp_conntrack, include/uapi/linux/netfilter/nf_conntrack_sctp.h
        *("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED"),
        *("SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"),
    ),
}


@dataclass(frozen=True)
class Direction:
    """What packets of one direction of a flow have.

    :param ports: by the names that ``conntrack -L`` has for them: ``sport`` and ``dport``, of ICMP ``type``, ``code``
        and ``id``.
    :param packets: and ``bytes``: None where the kernel does not count (``nf_conntrack_acct``).
    """

    source: str
    destination: str
    ports: dict[str, int]
    packets: int | None = None
    bytes: int | None = None

    @property
    def ends(self) -> Ends:
        """Source and destination; with port 0 of a protocol that has none."""
        source = SocketAddress(self.source, self.ports.get("sport", 0))
        return source, SocketAddress(self.destination, self.ports.get("dport", 0))

    def __str__(self) -> str:
        counted = {"packets": self.packets, "bytes": self.bytes} if self.packets is not None else {}
        named = {"src": self.source, "dst": self.destination, **self.ports, **counted}
        return " ".join(f"{name}={value}" for name, value in named.items())


@dataclass(frozen=True)
class Flow:
    """An entry of conntrack's table; as text it is the line of ``conntrack -L``.

    :param protocol: its name, such as ``tcp``; ``number``: as in the IP header.
    :param timeout: seconds that are left; None for a flow that was offloaded.
    :param state: of TCP or SCTP; None for others.
    :param flags: ``UNREPLIED``, ``ASSURED``, ``OFFLOAD``, ``HW_OFFLOAD``.
    :param mark: ``zone`` and ``use``: None where the kernel does not say.
    """

    protocol: str
    number: int
    timeout: int | None
    state: str | None
    original: Direction
    reply: Direction
    flags: tuple[str, ...]
    mark: int | None
    zone: int | None
    use: int | None

    def __str__(self) -> str:
        marks = [f"[{flag}]" for flag in self.flags if flag != "UNREPLIED"]
        rest = {"mark": self.mark, "zone": self.zone, "use": self.use}
        words = [
            f"{self.protocol:8} {self.number}",
            *([] if self.timeout is None else [str(self.timeout)]),
            *([] if self.state is None else [self.state]),
            str(self.original),
            *(["[UNREPLIED]"] if "UNREPLIED" in self.flags else []),
            str(self.reply),
            *marks[:1],
            *(f"{name}={value}" for name, value in rest.items() if value is not None),
        ]
        return " ".join(words)


class Flows:
    """The entries of one host's conntrack table; iterating lists what is there now, in the kernel's order.

    :raises LabError: when asked: the kernel refused; says why.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def __iter__(self) -> Iterator[Flow]:
        return iter([_flow(message) for message in self._dump()])

    def delete(self, *, protocol: str | None = None, source: str = "", destination: str = "") -> list[Flow]:
        """Delete the entries that :func:`chosen` would choose, and return those that this has deleted.

        :raises InputError: nothing says which, or an address is none.
        """
        if not (protocol or source or destination):
            raise InputError("nothing says which entries are to go", cure="flush deletes all of them")
        return self.delete_those(lambda flows: chosen(flows, protocol, source, destination))

    def delete_those(self, choose: Callable[[Iterable[Flow]], list[Flow]]) -> list[Flow]:
        """Delete the entries that ``choose`` returns of those that there are, and return what this has deleted."""
        by_flow = [(_flow(message), message) for message in self._dump()]
        kept = {id(flow) for flow in choose([flow for flow, _ in by_flow])}
        with closing(self._socket()) as channel:
            return [flow for flow, message in by_flow if id(flow) in kept and _delete(channel, message)]

    def create(
        self,
        protocol: str,
        source: str,
        destination: str,
        *,
        reply_source: str = "",
        reply_destination: str = "",
        state: str | None = None,
        assured: bool = False,
        timeout: int | None = None,
    ) -> Flow:
        """Make an entry as `conntrack -I` does, and return it.

        :param protocol: tcp or udp.
        :param source: and ``destination``: of the flow's first packet, each as ``ADDRESS:PORT``.
        :param reply_source: who answers, where the destination is translated: the endpoint behind a VIP.
        :param reply_destination: who is answered, where the source is translated.
        :param state: of TCP, as a listing has it; ESTABLISHED where none is given.
        :param assured: as one that was answered and goes on; otherwise UNREPLIED.
        :param timeout: in seconds; of None what the host's kernel gives such an entry: for UDP
            ``nf_conntrack_udp_timeout``, or ``_stream`` of one that is assured, for TCP that of its state.
        :raises InputError: the kernel has such an entry already, or one of the words cannot be.
        :raises LabError: the kernel refused; says why.
        """
        asked = NewFlow(protocol, source, destination, reply_source, reply_destination, state, assured, timeout)
        request = asked.request(self._namespace.sysctl)  # refuses what cannot be
        with closing(self._socket()) as channel:
            code = nfnetlink.ask(channel, request)
        if code == errno.EEXIST:
            raise InputError(
                f"there is an entry of {protocol} {source} > {destination} already", cure="delete it first"
            )
        _refused(code)
        return chosen(self, protocol, source, destination)[0]

    def flush(self) -> None:
        """Delete all entries of the host."""
        with closing(self._socket()) as channel:
            _refused(nfnetlink.ask(channel, nfnetlink.message(Subsystem.CTNETLINK, _CT_DELETE, ACK)))

    def _dump(self) -> list[Message]:
        with closing(self._socket()) as channel:
            request = nfnetlink.message(Subsystem.CTNETLINK, _CT_GET, DUMP)
            try:
                return list(nfnetlink.dump(channel, request, "conntrack"))
            except OSError as error:
                _refused(error.errno or 0)
                raise

    def _socket(self) -> socket.socket:
        channel = nfnetlink.open_socket(self._namespace)
        channel.setblocking(True)
        return channel


def chosen(flows: Iterable[Flow], protocol: str | None = None, source: str = "", destination: str = "") -> list[Flow]:
    """Return the flows of a protocol, from and to an address, as the flow's first packet had them.

    :param source: ``ADDRESS`` or ``ADDRESS:PORT``, of IPv6 with a port ``[ADDRESS]:PORT``; empty for any.
    :param destination: likewise.
    :raises InputError: it is no such address, or there is no such protocol.
    """
    if protocol is not None and protocol not in _PROTOCOLS.values():
        raise InputError(f"there is no protocol {protocol!r}", cure=f"one of: {', '.join(_PROTOCOLS.values())}")
    first, second = _end(source), _end(destination)
    return [
        flow
        for flow in flows
        if protocol in (None, flow.protocol)
        and _matches(first, flow.original.source, flow.original.ports.get("sport"))
        and _matches(second, flow.original.destination, flow.original.ports.get("dport"))
    ]


def _end(text: str) -> tuple[str, int | None]:
    """Read an address with or without a port."""
    if not text:
        return "", None
    address, port = text, ""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        found = str(ip_address(address))
        number = int(port) if port else None
    except ValueError:
        raise InputError(f"{text!r} is no address", cure="write 10.0.0.1, 10.0.0.1:80 or [fd00::1]:80") from None
    return found, number


def _matches(wanted: tuple[str, int | None], address: str, port: int | None) -> bool:
    return wanted[0] in ("", address) and wanted[1] in (None, port)


def _delete(channel: socket.socket, message: Message) -> bool:
    """Delete exactly the entry that a listing told of; False where it is gone."""
    told = dict(attributes(message.body))
    parts = [nested(_TUPLE_ORIG, told[_TUPLE_ORIG])]
    parts += [attribute(kind, told[kind]) for kind in (_ZONE, _ID) if kind in told]
    code = nfnetlink.ask(
        channel, nfnetlink.message(Subsystem.CTNETLINK, _CT_DELETE, ACK, *parts, family=message.family)
    )
    if code == errno.ENOENT:
        return False
    _refused(code)
    return True


def _refused(code: int) -> None:
    if code:
        raise LabError(f"conntrack refused: {os.strerror(code)}")


def _flow(message: Message) -> Flow:
    told = dict(attributes(message.body))
    number, original = _direction(told[_TUPLE_ORIG], told.get(_COUNTERS_ORIG))
    status = _number(told.get(_STATUS)) or 0
    flags = (
        ("UNREPLIED", not status & _SEEN_REPLY),
        ("HW_OFFLOAD", status & _HW_OFFLOAD),
        ("OFFLOAD", status & _OFFLOAD),
        ("ASSURED", status & _ASSURED),
    )
    return Flow(
        _PROTOCOLS.get(number, "unknown"),
        number,
        _number(told.get(_TIMEOUT)),
        _state(told.get(_PROTOINFO, b"")),
        original,
        _direction(told[_TUPLE_REPLY], told.get(_COUNTERS_REPLY))[1],
        tuple(flag for flag, is_set in flags if is_set),
        *(_number(told.get(kind)) for kind in (_MARK, _ZONE, _USE)),
    )


def _direction(data: bytes, counters: bytes | None) -> tuple[int, Direction]:
    """Return the protocol's number, and what packets of a tuple have."""
    parts = dict(attributes(data))
    addresses = [_address(value) for _kind, value in sorted(attributes(parts[_TUPLE_IP]))]
    protocol = dict(attributes(parts[_TUPLE_PROTO]))
    ports = {name: int.from_bytes(protocol[kind]) for name, kind in _named(protocol)}
    counted = [int.from_bytes(value) for _kind, value in sorted(attributes(counters or b""))][:2]
    return protocol[_NUMBER][0], Direction(addresses[0], addresses[1], ports, *counted)


def _named(protocol: Mapping[int, bytes]) -> Iterator[tuple[str, int]]:
    yield from ((name, kind) for name, kind in (("sport", _SRC_PORT), ("dport", _DST_PORT)) if kind in protocol)
    yield from ((name, kind) for name, kinds in _OF_ICMP for kind in kinds if kind in protocol)


def _address(value: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def _state(protoinfo: bytes) -> str | None:
    for kind, value in attributes(protoinfo):
        number = dict(attributes(value)).get(1)
        if number is not None and kind in _STATES:
            return _STATES[kind][number[0]] if number[0] < len(_STATES[kind]) else "unknown"
    return None


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value)
