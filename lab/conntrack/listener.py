# SPDX-License-Identifier: MIT
"""Conntrack's events of one namespace for as long as somebody looks on, also where there are very many.

Read by the few attributes that are wanted, without a library: some 15 us an event. Numbers of attributes are from
include/uapi/linux/netfilter/nfnetlink_conntrack.h, and of status bits from nf_conntrack_common.h there.
"""

from __future__ import annotations

import socket
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lab.errors import MissingError
from lab.evidence.entry import TCP_STATES, Entry, EntryEvent
from lab.evidence.packet import TCP, SocketAddress
from lab.netns import nfnetlink
from lab.netns.nfnetlink import CREATE, DUMP, Message, Subsystem, attributes

if TYPE_CHECKING:
    from lab.netns import Namespace

_CT_GET, _CT_DELETE = 1, 2
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT = 1, 2, 3, 4, 7
_IP, _PROTO = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_OF_TCP, _STATE = 1, 1
_ASSURED, _DESTINATION_TRANSLATED = 1 << 2, 1 << 5
_GROUPS: Final = (1, 2, 3)  # NFNLGRP_CONNTRACK_NEW, _UPDATE, _DESTROY
_ROOM: Final = 16 * 1024 * 1024  # bytes
_EVENTS: Final = "net/netfilter/nf_conntrack_events"


class Listener(nfnetlink.Listener):
    """What conntrack tells of one namespace's entries, from the moment on at which this is made.

    :param services_only: TCP connections whose destination is translated, and nothing else.
    :raises MissingError: the kernel tells of no entries there.
    :raises OSError: EPERM without CAP_NET_ADMIN in the namespace.
    """

    def __init__(self, namespace: Namespace, *, services_only: bool) -> None:
        self._namespace = namespace
        self._services_only = services_only
        _check(namespace)
        super().__init__(namespace, _ROOM, _GROUPS)

    def read(self) -> list[EntryEvent]:
        """Return the events that wait, in the kernel's order."""
        return [
            EntryEvent(_kind(message), entry)
            for message in self._waiting()
            if message.subsystem == Subsystem.CTNETLINK and (entry := self._entry(message)) is not None
        ]

    def table(self) -> list[Entry]:
        """Return the entries that there are now.

        :raises OSError: the kernel refused.
        """
        with closing(nfnetlink.open_socket(self._namespace)) as channel:
            channel.setblocking(True)
            request = nfnetlink.message(Subsystem.CTNETLINK, _CT_GET, DUMP)
            found = (self._entry(message) for message in nfnetlink.dump(channel, request, "conntrack"))
            return [entry for entry in found if entry is not None]

    def _entry(self, message: Message) -> Entry | None:
        return _entry(dict(attributes(message.body)), services_only=self._services_only)


def _check(namespace: Namespace) -> None:
    """Check that conntrack tells of its entries, without making it do so.

    :raises MissingError: it does not.
    """
    try:
        setting = namespace.sysctl(_EVENTS)
    except FileNotFoundError:
        cure = "is this a node? conntrack and its netlink begin with the first rule that needs them"
        raise MissingError("conntrack does not run here, or tells of no entries", cure) from None
    if setting == "0":
        key = _EVENTS.replace("/", ".")
        raise MissingError(f"conntrack tells of no entries, as {key} is 0", f"sysctl -w {key}=1, for as long")


def _kind(message: Message) -> str:
    if message.kind == _CT_DELETE:
        return "destroy"
    return "new" if message.flags & CREATE else "update"


def _entry(told: dict[int, bytes], *, services_only: bool) -> Entry | None:
    status = int.from_bytes(told.get(_STATUS, b""))
    if services_only and not status & _DESTINATION_TRANSLATED:
        return None
    protocol, original = _tuple(told[_ORIGINAL])
    if services_only and protocol != TCP:
        return None
    timeout = told.get(_TIMEOUT)
    return Entry(
        protocol,
        original,
        _tuple(told[_REPLY])[1],
        _state(told.get(_PROTOINFO, b"")) if protocol == TCP else None,
        bool(status & _ASSURED),
        None if timeout is None else int.from_bytes(timeout),
    )


@lru_cache(8192)  # an entry is told of several times
def _tuple(data: bytes) -> tuple[int, tuple[SocketAddress, SocketAddress]]:
    parts = dict(attributes(data))
    source, destination = (_address(value) for _kind, value in sorted(attributes(parts[_IP])))
    protocol = dict(attributes(parts[_PROTO]))
    ends = (
        SocketAddress(source, int.from_bytes(protocol.get(_SOURCE_PORT, b""))),
        SocketAddress(destination, int.from_bytes(protocol.get(_DESTINATION_PORT, b""))),
    )
    return protocol[_NUMBER][0], ends


def _address(value: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def _state(protoinfo: bytes) -> str | None:
    of_tcp = dict(attributes(protoinfo)).get(_OF_TCP)
    number = None if of_tcp is None else dict(attributes(of_tcp)).get(_STATE)
    if number is None:
        return None
    return TCP_STATES[number[0]] if number[0] < len(TCP_STATES) else "unknown"
