# SPDX-License-Identifier: MIT
"""The TCP sockets of a namespace and how far each has come, as ss(8) lists them: sock_diag(7).

The kernel tells it of any program's sockets, and nothing of them is touched.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.netns.nfnetlink import DUMP, REQUEST, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns.namespace import Namespace

_NETLINK_SOCK_DIAG, _BY_FAMILY, _INFO = 4, 20, 2  # include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h
_DONE, _ERROR = 3, 2
_ESTABLISHED: Final = 1  # include/net/tcp_states.h
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST: Final = struct.Struct("=BBBBI48x")  # struct inet_diag_req_v2: family, protocol, extensions, padding, states
_ANSWER: Final = struct.Struct("=BBBB2s2s16s16s")  # of struct inet_diag_msg what comes first, and how long it is
_ANSWER_LENGTH: Final = 72
#: Of struct tcp_info, include/uapi/linux/tcp.h, which only grows at its end: where these stand, and since which Linux.
_SCALES, _UNACKED, _RECEIVED, _NOT_SENT = 6, 24, 128, 144  # 4.6
_SENT: Final = struct.Struct("=QQ")  # bytes sent, and those sent again
_SENT_AT, _WINDOW_AT = 200, 228  # 4.19, 5.4


@dataclass(frozen=True)
class TcpSocket:
    """A TCP socket that is connected, and that nobody has begun to close.

    :param own: and ``peer``: address and port.
    :param received: bytes that came in order.
    :param sent: bytes that were sent, each once.
    :param unanswered: segments that are not acknowledged, and bytes that wait to be sent.
    :param window: in bytes, that the peer has offered last; None on a kernel that does not say (before 5.4).
    :param scales: by how much the window that the peer offers is shifted, and its own.
    """

    own: tuple[str, int]
    peer: tuple[str, int]
    received: int
    sent: int
    unanswered: int
    window: int | None
    scales: tuple[int, int]


def connected(namespace: Namespace) -> list[TcpSocket]:
    """List the TCP sockets of a namespace that are connected.

    :raises OSError: the kernel has no sock_diag for TCP (CONFIG_INET_TCP_DIAG).
    """
    with namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as channel:
        channel.setblocking(True)
        return [one for family in (socket.AF_INET, socket.AF_INET6) for one in _listed(channel, family)]


def _listed(channel: socket.socket, family: int) -> Iterator[TcpSocket]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << _INFO - 1, 0, 1 << _ESTABLISHED)
    channel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, REQUEST | DUMP, 0, 0) + body)
    while True:
        data = channel.recv(1 << 16)
        while data:
            length, kind, *_rest = _HEADER.unpack_from(data)
            whole, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                raise OSError(-int(struct.unpack_from("=i", whole)[0]), "sock_diag refused the question")
            if found := _socket(whole):
                yield found


def _socket(data: bytes) -> TcpSocket | None:
    family, _state, _timer, _retransmits, *ends = _ANSWER.unpack_from(data)
    info = dict(attributes(data[_ANSWER_LENGTH:])).get(_INFO, b"")
    if len(info) < _SENT_AT + _SENT.size:
        return None  # one that has no process any more, and is not followed
    size = 4 if family == socket.AF_INET else 16
    ports = [int.from_bytes(port) for port in ends[:2]]
    # A socket that takes both families has an IPv4 peer's address mapped (RFC 4291, 2.5.5.2).
    own, peer = (socket.inet_ntop(family, address[:size]).removeprefix("::ffff:") for address in ends[2:])
    sent, again = _SENT.unpack_from(info, _SENT_AT)
    [unacknowledged], [waiting] = (struct.unpack_from("=I", info, place) for place in (_UNACKED, _NOT_SENT))
    has_window = len(info) >= _WINDOW_AT + 4
    # Bit fields: the first is in the lower half of the byte on little-endian machines (struct tcp_info).
    scales = (info[_SCALES] & 0x0F, info[_SCALES] >> 4)
    return TcpSocket(
        (own, ports[0]),
        (peer, ports[1]),
        struct.unpack_from("=Q", info, _RECEIVED)[0],
        sent - again,
        unacknowledged + waiting,
        struct.unpack_from("=I", info, _WINDOW_AT)[0] if has_window else None,
        scales,
    )
