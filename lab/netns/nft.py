# SPDX-License-Identifier: MIT
"""nftables' rules in a namespace, by libnftables with a context that is kept.

Opening and closing a context waits for the kernel (12 ms); a kept one loads a ruleset in 0.3 ms. A context
belongs to the namespace in which it was made. The Python module of the nftables project comes with the
distribution's own Python only, hence these few lines of ctypes (libnftables(3)).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Final

from lab.errors import ExhaustedError, LabError, MachineError, MissingError
from lab.netns import packages, parts
from lab.netns.namespace import Namespace

_FD_SETSIZE: Final = 1024  # select(2); above it the C library ends the process
_OUTPUT_JSON: Final = 1 << 4  # NFT_CTX_OUTPUT_JSON
_OUTPUT_HANDLES: Final = 1 << 3  # NFT_CTX_OUTPUT_HANDLE
_FAULT: Final = re.compile(r"/fd/\d+:(\d+):\d+(?:-\d+)?: Error: ([^\n]+)")
_FITS: Final = 16 * 1024  # bytes of a script that no socket's send buffer is too small for


class NftError(LabError):
    """libnftables refused a command: its own words, with the place marked."""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:  # the dynamic linker's words, without a number
        if "No such file" in str(error):
            raise MissingError("libnftables is not installed", packages.cure("libnftables.so.1")) from None
        raise ExhaustedError.within(str(error)) or MachineError(str(error)) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    for name in ("nft_run_cmd_from_buffer", "nft_run_cmd_from_filename"):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


class Nft:
    """nftables of one namespace.

    :raises MissingError: libnftables is not installed.
    :raises LabError: too many descriptors are open for it.
    """

    slow_to_close = True

    def __init__(self, namespace: Namespace) -> None:
        library = _library()
        with namespace.entered():
            # Where none is left for its socket it ends the process (netlink_init_error in its src/netlink.c).
            lowest = os.dup(namespace.fileno())  # the kernel gives out the lowest free number
            os.close(lowest)
            if lowest >= _FD_SETSIZE:
                raise LabError(
                    f"{lowest} descriptors are open, and libnftables waits by select(2): {_FD_SETSIZE} at most"
                )
            self._context = ctypes.c_void_p(library.nft_ctx_new(0))
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._descriptor = lowest  # its socket: the first that it opens and keeps

    def run(self, script: str, *, json: bool = False) -> str:
        """Run a script as one transaction and return what it prints.

        Where that is larger than an ordinary user may send, it is several (see :mod:`lab.netns.parts`). Then an error
        says how many of them are loaded.

        :raises NftError: it was refused as a whole.
        """
        if json or len(script) <= _FITS:
            return self._run(script, flags=_OUTPUT_JSON if json else 0)
        room = self._room()
        # Where the text alone is too long, so is what is made of it.
        printed = self._attempt(script) if len(script) <= room else None
        if printed is None:
            printed = self._load(parts.script_blocks(script), room, "\n".join)
        return printed

    def listed(self, what: str) -> str:
        """Return what ``nft -a list`` prints of something: each rule with its handle.

        :raises NftError: there is no such thing.
        """
        return self._run(f"list {what}", flags=_OUTPUT_HANDLES)

    def faults(self, script: str) -> dict[int, str]:
        """Run a script as one transaction, and return what is wrong with it by line; nothing where it is loaded.

        :raises NftError: it was refused, and libnftables names no line.
        """
        library = _library()
        library.nft_ctx_output_set_flags(self._context, 0)
        descriptor = os.memfd_create("script")  # of a buffer libnftables says no line
        try:
            with open(descriptor, "w", closefd=False) as file:
                file.write(script)
            failed = library.nft_run_cmd_from_filename(self._context, f"/proc/self/fd/{descriptor}".encode())
        finally:
            os.close(descriptor)
        library.nft_ctx_get_output_buffer(self._context)
        words = library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        found = {int(place[1]): place[2] for place in _FAULT.finditer(words)}
        if failed and not found:
            raise NftError(f"nftables refused the rules: {words.strip()}")
        return found if failed else {}

    def add(self, objects: Sequence[object]) -> None:
        """Add objects as libnftables-json(5) describes them, in their order.

        :raises NftError: one was refused.
        """
        room = self._room()
        blocks = [[json.dumps(one)] for one in objects]
        self._load(blocks, room, lambda lines: f'{{"nftables": [{", ".join(lines)}]}}', json=True)

    def _run(self, script: str, *, flags: int = 0) -> str:
        library = _library()
        library.nft_ctx_output_set_flags(self._context, flags)
        failed = library.nft_run_cmd_from_buffer(self._context, script.encode())
        output: bytes = library.nft_ctx_get_output_buffer(self._context)
        words: bytes = library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(f"nftables refused the rules: {words.decode(errors='replace').strip()}")
        return output.decode(errors="replace")

    def _attempt(self, script: str, *, json: bool = False) -> str | None:
        """Run a script; return None where it is too large to be sent."""
        try:
            return self._run(script, flags=_OUTPUT_JSON if json else 0)
        except NftError as error:
            if parts.TOO_LONG not in str(error):
                raise
            return None

    def _load(
        self, blocks: Iterable[parts.Block], room: int, write: Callable[[list[str]], str], *, json: bool = False
    ) -> str:
        printed: list[str] = []

        def send(lines: list[str]) -> bool:
            try:
                output = self._attempt(write(lines), json=json)
            except NftError as error:
                before = f" (after {len(printed)} parts that are loaded)" if printed else ""
                raise NftError(f"{error}{before}") from None
            if output is not None:
                printed.append(output)
            return output is not None

        parts.load(blocks, room, parts.script_weight, send)
        return "".join(printed)

    def _room(self) -> int:
        """Return how much its socket sends at once."""
        try:
            with socket.socket(fileno=os.dup(self._descriptor)) as channel:
                if channel.family == socket.AF_NETLINK:
                    return parts.room(channel, raised=True)
        except OSError:
            pass  # libnftables has opened another one since
        return parts.room_of_programs()

    def close(self) -> None:
        """Free the context; this waits for the kernel's next grace period after rules were deleted."""
        _library().nft_ctx_free(self._context)
