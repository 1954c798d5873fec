# SPDX-License-Identifier: MIT
"""Room for what comes to a socket that listens, and that nobody has read yet."""

from __future__ import annotations

import socket
from typing import Final

_SO_RCVBUFFORCE: Final = 33  # include/uapi/asm-generic/socket.h; Python has no name for it


def make_room(listener: socket.socket, size: int) -> None:
    """Give a socket room for so many bytes that nobody has read yet; as much as net.core.rmem_max where that is less.

    Only the machine's own root may pass that.
    """
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
