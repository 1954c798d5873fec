# SPDX-License-Identifier: MIT
"""Classic BPF programs on sockets: socket(7), include/uapi/linux/filter.h."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Final

#: BPF_LD | BPF_B | BPF_ABS and BPF_LD | BPF_H | BPF_ABS: load a byte, or two.
LOAD_BYTE, LOAD_HALF = 0x30, 0x28
#: BPF_LD | BPF_W | BPF_LEN: load the packet's length; BPF_JMP | BPF_JGT | BPF_K.
LOAD_LENGTH, JUMP_GREATER = 0x80, 0x25
#: BPF_JMP with BPF_JEQ or BPF_JSET and BPF_K; BPF_ALU | BPF_RSH | BPF_K; BPF_RET | BPF_K.
JUMP_EQUAL, JUMP_SET, SHIFT_RIGHT, RETURN = 0x15, 0x45, 0x74, 0x06
#: BPF_LD | BPF_IND with BPF_B, BPF_H and BPF_W: load what is so many bytes behind X.
LOAD_BYTE_BEHIND, LOAD_HALF_BEHIND, LOAD_WORD_BEHIND = 0x50, 0x48, 0x40
#: BPF_LDX | BPF_IMM; BPF_JMP | BPF_JA.
SET_X, JUMP = 0x01, 0x05
SO_ATTACH_FILTER: Final = 26  # include/uapi/asm-generic/socket.h; Python has no name for it
#: SKF_NET_OFF: places are counted from the IP header.
NETWORK: Final = 0xFFF00000


def attach(sock: socket.socket, option: int, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Attach a program to a socket.

    :param option: of SOL_SOCKET: what the program decides.
    :param program: instructions: code, how many to skip where it holds and where not, and a number.
    """
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", len(program), ctypes.addressof(code)))
