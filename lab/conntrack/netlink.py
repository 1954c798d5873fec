# SPDX-License-Identifier: MIT
"""Conntrack's table of one namespace: its entries, the events about them, and its statistics.

What the kernel says is read by pyroute2, which is imported by the first message.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from ipaddress import ip_address
from types import ModuleType
from typing import Any, Final, TypeAlias

from lab.evidence.entry import TCP_STATES, Entry, EntryEvent
from lab.evidence.packet import SocketAddress
from lab.netns import Namespace, nfnetlink
from lab.netns.nfnetlink import ACK, CREATE, DUMP, EXCLUSIVE, Message, Subsystem, attribute, nested

_CT_NEW, _CT_GET, _CT_DELETE, _CT_GET_STATS_CPU = 0, 1, 2, 4
# enum ctattr_type and below it, include/uapi/linux/netfilter/nfnetlink_conntrack.h
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _TIMEOUT = 1, 2, 3, 7
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP: Final = {4: (1, 2), 6: (3, 4)}  # source and destination
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_GROUPS: Final = (1, 2, 3)  # NFNLGRP_CONNTRACK_NEW, _UPDATE, _DESTROY
_BUFFER: Final = 4 * 1024 * 1024

# enum ctattr_stats_cpu, include/uapi/linux/netfilter/nfnetlink_conntrack.h: from 1 on
_STATISTICS: Final = dict(
    enumerate(
        (
            *("searched", "found", "new", "invalid", "ignore", "delete", "delete_list", "insert", "insert_failed"),
            *("drop", "early_drop", "error", "search_restart", "clash_resolve", "chain_toolong"),
        ),
        1,
    )
)

# enum ip_conntrack_status, include/uapi/linux/netfilter/nf_conntrack_common.h
_SEEN_REPLY, _ASSURED, _CONFIRMED = 1 << 1, 1 << 2, 1 << 3

#: What the kernel said of each processor's counters, as it is.
Reading: TypeAlias = tuple[Message, ...]


class ConntrackEvents(nfnetlink.Listener):
    """The events of one namespace's table, from the moment on at which this is made."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, _BUFFER, _GROUPS)

    def read(self) -> list[EntryEvent]:
        """Return the events that wait, in the kernel's order."""
        return [EntryEvent(_event_kind(message), _entry(message)) for message in self._waiting()]


class ConntrackTable:
    """Questions to one namespace's table."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = nfnetlink.open_socket(namespace)
        self._socket.setblocking(True)

    def entries(self) -> list[Entry]:
        """Return all entries. The kernel walks its whole hash table for it, which all namespaces share (5 ms)."""
        return [_entry(message) for message in self._dump(_CT_GET)]

    def entry(self, protocol: int, source: SocketAddress, destination: SocketAddress) -> Entry | None:
        """Return the entry of an original tuple, None where there is none."""
        self._socket.send(_about_entry(_CT_GET, 0, protocol, source, destination))
        for message in nfnetlink.messages(self._socket.recv(65536)):
            if message.error is None:
                return _entry(message)
            if message.error != errno.ENOENT:
                raise OSError(message.error, "conntrack refused the question")
        return None

    def delete(self, entry: Entry) -> bool:
        """Delete an entry; False where it was gone already."""
        request = _about_entry(_CT_DELETE, ACK, entry.protocol, *entry.original)
        return self._ask(request, "delete an entry", errno.ENOENT)

    def flush(self) -> None:
        """Delete all entries of the namespace."""
        self._ask(_about(_CT_DELETE, ACK), "delete its entries")

    def create(self, request: bytes) -> bool:
        """Send one of :func:`creation`; False where the table is full (ENOMEM)."""
        return self._ask(request, "make an entry", errno.ENOMEM)

    def _ask(self, request: bytes, what: str, forgiven: int = 0) -> bool:
        code = nfnetlink.ask(self._socket, request)
        if code not in (0, forgiven):
            raise OSError(code, f"conntrack refused to {what}: {os.strerror(code)}")
        return code == 0

    def statistics(self) -> dict[str, int]:
        """Return the counters that ``conntrack -S`` shows, summed over all processors."""
        return counted(self.reading())

    def reading(self) -> Reading:
        """Return what the counters are now, for :func:`counted`: most of what is read is compared with nothing."""
        return tuple(self._dump(_CT_GET_STATS_CPU))

    def _dump(self, question: int) -> Iterator[Message]:
        return nfnetlink.dump(self._socket, _about(question, DUMP), "conntrack")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def counted(reading: Reading) -> dict[str, int]:
    """Return the counters of a reading, by the names of ``conntrack -S``, summed over all processors."""
    totals = dict.fromkeys(_STATISTICS, 0)
    for told in reading:
        for kind, value in nfnetlink.attributes(told.body):
            if kind in totals:
                totals[kind] += int.from_bytes(value, "big")
    return {_STATISTICS[kind]: total for kind, total in totals.items()}


def creation(
    protocol: int,
    source: SocketAddress,
    destination: SocketAddress,
    *,
    assured: bool,
    timeout: int,
    flags: int = ACK,
    more: Iterable[bytes] = (),
) -> bytes:
    """Return the request that makes an entry, without translation where nothing more says so.

    :param assured: as one that has been answered for a while: nothing pushes it out of a full table.
    :param timeout: in seconds.
    :param more: attributes besides.
    """
    status = _CONFIRMED | (_SEEN_REPLY | _ASSURED if assured else 0)
    return _about_entry(
        _CT_NEW,
        CREATE | EXCLUSIVE | flags,
        protocol,
        source,
        destination,
        _tuple_of(_TUPLE_REPLY, protocol, destination, source),
        attribute(_STATUS, struct.pack("!I", status)),
        attribute(_TIMEOUT, struct.pack("!I", timeout)),
        *more,
    )


def _about_entry(
    kind: int, flags: int, protocol: int, source: SocketAddress, destination: SocketAddress, *more: bytes
) -> bytes:
    family = socket.AF_INET6 if ":" in source.address else socket.AF_INET
    return _about(kind, flags, _tuple_of(_TUPLE_ORIG, protocol, source, destination), *more, family=family)


def _about(kind: int, flags: int, *attributes: bytes, family: int = socket.AF_UNSPEC) -> bytes:
    return nfnetlink.message(Subsystem.CTNETLINK, kind, flags, *attributes, family=family)


def _tuple_of(kind: int, protocol: int, source: SocketAddress, destination: SocketAddress) -> bytes:
    first, second = ip_address(source.address), ip_address(destination.address)
    from_, to = _IP[first.version]
    return nested(
        kind,
        nested(_TUPLE_IP, attribute(from_, first.packed), attribute(to, second.packed)),
        nested(
            _TUPLE_PROTO,
            attribute(_PROTO_NUM, bytes((protocol,))),
            attribute(_PROTO_SRC_PORT, struct.pack("!H", source.port)),
            attribute(_PROTO_DST_PORT, struct.pack("!H", destination.port)),
        ),
    )


def _event_kind(message: Message) -> str:
    if message.kind == _CT_DELETE:
        return "destroy"
    return "new" if message.flags & CREATE else "update"


def _entry(told: Message) -> Entry:
    message = of_pyroute2().nfct_msg(told.data)
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


@cache
def of_pyroute2() -> ModuleType:
    """Import what reads conntrack's messages, without all that ``import pyroute2`` brings along (150 modules, 60 ms).

    The package itself is stood in for meanwhile, and all of it forgotten: whoever imports it later gets the whole.
    """
    name = "pyroute2.netlink.nfnetlink.nfctsocket"
    found = None if "pyroute2" in sys.modules else importlib.util.find_spec("pyroute2")
    if found is None or found.submodule_search_locations is None:
        return importlib.import_module(name)
    sys.modules["pyroute2"] = bare = ModuleType("pyroute2")
    bare.__path__ = list(found.submodule_search_locations)
    try:
        return importlib.import_module(name)
    finally:
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == "pyroute2"]:
            del sys.modules[loaded]


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
