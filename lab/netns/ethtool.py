# SPDX-License-Identifier: MIT
"""What an interface leaves to whoever gets its packets, as ``ethtool -K`` sets it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from contextlib import closing
from typing import Final

from lab.netns.namespace import Namespace

# include/uapi/linux/sockios.h, ethtool.h
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_STXCSUM: Final = 0x17
_NAME: Final = 16  # IFNAMSIZ
_IFREQ: Final = 40  # sizeof(struct ifreq)


def compute_checksums(namespace: Namespace, interface: str) -> None:
    """Have the kernel compute the checksums of what an interface sends, as it does where a card cannot.

    :raises OSError: the kernel refuses it.
    """
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack(f"={_NAME}sQ", interface.encode(), ctypes.addressof(value)).ljust(_IFREQ, b"\0")
    with closing(namespace.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)) as asking:
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, request)
        except OSError as error:
            words = f"cannot set tx-checksum of {interface}: {os.strerror(error.errno or 0)}"
            raise OSError(error.errno, words) from error
