# SPDX-License-Identifier: MIT
"""Messages of nfnetlink, by which netfilter's subsystems talk: include/uapi/linux/netfilter/nfnetlink.h.

Lengths, kinds and flags are in the machine's byte order; what a subsystem's attributes hold is in the network's.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from lab.netns.namespace import Namespace
from lab.netns.room import make_room

REQUEST, ACK, DUMP, CREATE, EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200  # include/uapi/linux/netlink.h

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_ERROR, _DONE = 2, 3
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_FAMILY: Final = struct.Struct("!BBH")  # struct nfgenmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr
_NESTED: Final = 0x8000
_KIND: Final = 0x3FFF


class Subsystem(IntEnum):
    """Who is talked to: NFNL_SUBSYS_*."""

    CTNETLINK = 1
    QUEUE = 3
    ULOG = 4
    ACCT = 7
    NFTABLES = 10


class Message(NamedTuple):
    """One message of the kernel's.

    :param kind: the subsystem's own, without the subsystem.
    :param data: the whole message, with its headers.
    """

    subsystem: int
    kind: int
    flags: int
    data: bytes

    @property
    def body(self) -> bytes:
        """Its attributes."""
        return self.data[_HEADER.size + _FAMILY.size :]

    @property
    def family(self) -> int:
        """The family that it is about: of nftables, the table's."""
        return self.data[_HEADER.size]

    @property
    def resource(self) -> int:
        """What it is about, such as a group or a queue."""
        return int(_FAMILY.unpack_from(self.data, _HEADER.size)[2])

    @property
    def is_done(self) -> bool:
        """Whether it ends a dump."""
        return (self.subsystem, self.kind) == (0, _DONE)

    @property
    def error(self) -> int | None:
        """The errno of an answer, 0 for an acknowledgement; None for what is no such answer."""
        if (self.subsystem, self.kind) != (0, _ERROR):
            return None
        return -int(struct.unpack_from("=i", self.data, _HEADER.size)[0])


def open_socket(namespace: Namespace) -> socket.socket:
    """Open a non-blocking socket to the netfilter of a namespace."""
    return namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)


class Listener:
    """A socket by which the netfilter of a namespace tells things of its own accord, from when this is made on.

    :param room: for what nobody has read yet, in bytes.
    :param groups: of listeners to be in (NFNLGRP_*).
    :ivar lost: how often the kernel had to throw messages away, as nobody read them in time.
    :raises OSError: EPERM: the groups are not for everybody.
    """

    def __init__(self, namespace: Namespace, room: int, groups: Sequence[int] = ()) -> None:
        self.lost = 0
        self._socket = open_socket(namespace)
        make_room(self._socket, room)
        try:
            if groups:
                # Unbound it would have the kernel's own port number, and broadcasts skip their sender's.
                self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, readable when messages wait."""
        return self._socket.fileno()

    def _waiting(self) -> Iterator[Message]:
        """Read the messages that wait, in the kernel's order."""
        while (data := self._received(65536)) is not None:
            yield from messages(data)

    def skip(self) -> None:
        """Forget the messages that wait, and losses until now."""
        while self._received(1) is not None:  # of a datagram the rest is gone
            pass
        self.lost = 0

    def _received(self, most: int) -> bytes | None:
        """Return what one recv(2) gives, nothing where messages were lost; None where none waits."""
        try:
            return self._socket.recv(most)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.lost += 1
            return b""

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def attribute(kind: int, value: bytes) -> bytes:
    """Write one attribute."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Write an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def message(
    subsystem: int, kind: int, flags: int, *attributes: bytes, family: int = socket.AF_UNSPEC, resource: int = 0
) -> bytes:
    """Write one request.

    :param flags: what to add to REQUEST.
    """
    body = _FAMILY.pack(family, 0, resource) + b"".join(attributes)
    return _HEADER.pack(_HEADER.size + len(body), subsystem << 8 | kind, REQUEST | flags, 0, 0) + body


def messages(data: bytes) -> Iterator[Message]:
    """Read what one recv(2) gave."""
    offset = 0
    while offset < len(data):
        length, kind, flags, _sequence, _port = _HEADER.unpack_from(data, offset)
        yield Message(kind >> 8, kind & 0xFF, flags, data[offset : offset + length])
        offset += (length + 3) & ~3


def attributes(body: bytes) -> list[tuple[int, bytes]]:
    """Read attributes: the kind and the value of each."""
    found: list[tuple[int, bytes]] = []
    append, unpack = found.append, _ATTRIBUTE.unpack_from  # of a trace there are very many
    size, last = _ATTRIBUTE.size, len(body) - _ATTRIBUTE.size
    offset = 0
    while offset <= last:
        length, kind = unpack(body, offset)
        if length < size:
            break
        append((kind & _KIND, body[offset + size : offset + length]))
        offset += (length + 3) & ~3
    return found


def dump(channel: socket.socket, request: bytes, whom: str) -> Iterator[Message]:
    """Send a request for a listing by a blocking socket, and yield what is in it.

    :param whom: is asked, for the error.
    :raises OSError: it was refused.
    """
    channel.send(request)
    while True:
        for answer in messages(channel.recv(65536)):
            if answer.is_done:
                return
            if answer.error is not None:
                raise OSError(answer.error, f"{whom} refused the question")
            yield answer


def ask(channel: socket.socket, request: bytes) -> int:
    """Send a request that wants an acknowledgement by a blocking socket; return the answer's errno, 0 for success."""
    channel.send(request)
    while True:
        for answer in messages(channel.recv(65536)):
            if answer.error is not None:
                return answer.error
