"""Conntrack's table of one namespace: its entries, the events about them, and its statistics.

The messages are pyroute2's; it is imported by the first one that is read or written, for it takes a fifth of a second.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lab.netns import Namespace
from lab.wire.packet import SocketAddress

_NETLINK_NETFILTER: Final = 12
_SUBSYSTEM: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_CT_NEW, _CT_GET, _CT_DELETE, _CT_GET_STATS_CPU = 0, 1, 2, 4
_REQUEST, _ACK, _DUMP, _DONE, _ERROR, _CREATE = 0x1, 0x4, 0x300, 3, 2, 0x400
_GROUPS: Final = (1, 2, 3)  # NFNLGRP_CONNTRACK_NEW, _UPDATE, _DESTROY
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_BUFFER: Final = 4 * 1024 * 1024

# enum tcp_conntrack, include/uapi/linux/netfilter/nf_conntrack_tcp.h
TCP_STATES: Final = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)
_ASSURED: Final = 1 << 2  # IPS_ASSURED


@dataclass(frozen=True, slots=True)
class Entry:
    """A conntrack entry: both tuples, its TCP state and what is left of its timeout in seconds."""

    protocol: int
    original: tuple[SocketAddress, SocketAddress]
    reply: tuple[SocketAddress, SocketAddress]
    tcp_state: str | None
    assured: bool
    timeout: int | None


@dataclass(frozen=True, slots=True)
class EntryEvent:
    """A change of an entry: ``kind`` is new, update or destroy."""

    kind: str
    entry: Entry


class ConntrackEvents:
    """The events of one namespace's table, from the moment on at which this is made."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        # Unbound it would have the kernel's own port number, and broadcasts skip their sender's.
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """Return the descriptor, readable when events wait."""
        return self._socket.fileno()

    def read(self) -> list[EntryEvent]:
        """Return the events that wait, in the kernel's order.

        :raises OSError: ENOBUFS: the kernel had to throw some away.
        """
        events: list[EntryEvent] = []
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return events
            for kind, flags, message in _messages(data):
                events.append(EntryEvent(_event_kind(kind, flags), _entry(message)))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class ConntrackTable:
    """Questions to one namespace's table."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setblocking(True)

    def entries(self) -> list[Entry]:
        """Return all entries. The kernel walks its whole hash table for it, which all namespaces share (5 ms)."""
        return [_entry(message) for message in self._dump(_CT_GET)]

    def entry(self, protocol: int, source: SocketAddress, destination: SocketAddress) -> Entry | None:
        """Return the entry of an original tuple, None where there is none."""
        self._socket.send(_question(_CT_GET, _REQUEST, protocol, source, destination))
        for kind, _flags, message in _messages(self._socket.recv(65536)):
            if kind != _ERROR:
                return _entry(message)
            code = -struct.unpack_from("=i", message, 16)[0]
            if code != errno.ENOENT:
                raise OSError(code, "conntrack refused the question")
        return None

    def delete(self, entry: Entry) -> bool:
        """Delete an entry; False where it was gone already."""
        self._socket.send(_question(_CT_DELETE, _REQUEST | _ACK, entry.protocol, *entry.original))
        code: int = -struct.unpack_from("=i", self._socket.recv(65536), 16)[0]
        if code not in {0, errno.ENOENT}:
            raise OSError(code, "conntrack refused to delete an entry")
        return code == 0

    def flush(self) -> None:
        """Delete all entries of the namespace."""
        header = struct.pack("=IHHII", 20, _SUBSYSTEM | _CT_DELETE, _REQUEST | _ACK, 0, 0)
        self._socket.send(header + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
        code: int = -struct.unpack_from("=i", self._socket.recv(65536), 16)[0]
        if code:
            raise OSError(code, "conntrack refused to delete its entries")

    def statistics(self) -> dict[str, int]:
        """Return the counters that ``conntrack -S`` shows, summed over all processors."""
        from pyroute2.netlink.nfnetlink.nfctsocket import nfct_stats_cpu

        totals: dict[str, int] = {}
        for data in self._dump(_CT_GET_STATS_CPU):
            message = nfct_stats_cpu(data)
            message.decode()
            for name, value in message["attrs"]:
                if isinstance(value, int):
                    key = name.removeprefix("CTA_STATS_").lower()
                    totals[key] = totals.get(key, 0) + value
        return totals

    def _dump(self, question: int) -> Iterator[bytes]:
        header = struct.pack("=IHHII", 20, _SUBSYSTEM | question, _REQUEST | _DUMP, 0, 0)
        self._socket.send(header + struct.pack("=BBH", socket.AF_UNSPEC, 0, 0))
        while True:
            for kind, _flags, message in _messages(self._socket.recv(65536)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", message, 16)[0]
                    raise OSError(code, "conntrack refused the question")
                yield message

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _question(kind: int, flags: int, protocol: int, source: SocketAddress, destination: SocketAddress) -> bytes:
    """Write a message about the entry of an original tuple."""
    from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

    version = "V6" if ":" in source.address else "V4"
    addresses = [
        (f"CTA_IP_{version}_SRC", source.address),
        (f"CTA_IP_{version}_DST", destination.address),
    ]
    ports = [("CTA_PROTO_SRC_PORT", source.port), ("CTA_PROTO_DST_PORT", destination.port)]
    parts = [
        ("CTA_TUPLE_IP", {"attrs": addresses}),
        ("CTA_TUPLE_PROTO", {"attrs": [("CTA_PROTO_NUM", protocol), *ports]}),
    ]
    question = nfct_msg()
    question["attrs"] = [("CTA_TUPLE_ORIG", {"attrs": parts})]
    question["header"]["type"] = _SUBSYSTEM | kind
    question["header"]["flags"] = flags
    question["nfgen_family"] = socket.AF_INET6 if ":" in source.address else socket.AF_INET
    question.encode()
    return bytes(question.data)


def _event_kind(kind: int, flags: int) -> str:
    if kind == _SUBSYSTEM | _CT_DELETE:
        return "destroy"
    return "new" if flags & _CREATE else "update"


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, flags = struct.unpack_from("=IHH", data, offset)
        yield kind, flags, data[offset : offset + length]
        offset += (length + 3) & ~3


def _entry(data: bytes) -> Entry:
    from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

    message = nfct_msg(data)
    message.decode()
    original, protocol = _tuple(message.get_attr("CTA_TUPLE_ORIG"))
    reply, _protocol = _tuple(message.get_attr("CTA_TUPLE_REPLY"))
    state = message.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_TCP", "CTA_PROTOINFO_TCP_STATE")
    return Entry(
        protocol,
        original,
        reply,
        None if state is None else TCP_STATES[state],
        bool((message.get_attr("CTA_STATUS") or 0) & _ASSURED),
        message.get_attr("CTA_TIMEOUT"),
    )


def _tuple(attribute: Any) -> tuple[tuple[SocketAddress, SocketAddress], int]:  # noqa: ANN401  pyroute2 is untyped
    addresses = dict(attribute.get_attr("CTA_TUPLE_IP")["attrs"])
    protocol = dict(attribute.get_attr("CTA_TUPLE_PROTO")["attrs"])
    ends = tuple(
        SocketAddress(
            addresses.get(f"CTA_IP_V4_{side}") or addresses[f"CTA_IP_V6_{side}"],
            protocol.get(f"CTA_PROTO_{side}_PORT", 0),
        )
        for side in ("SRC", "DST")
    )
    return (ends[0], ends[1]), protocol["CTA_PROTO_NUM"]
