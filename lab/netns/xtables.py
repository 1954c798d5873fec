# SPDX-License-Identifier: MIT
"""iptables' rules in a namespace, loaded and saved by the programs that kube-proxy calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from lab.netns import parts
from lab.netns.namespace import Namespace
from lab.netns.program import Program, ProgramError

# kube-proxy's own flags: wait 5 s for the lock, asking every 100 ms (pkg/util/iptables/iptables.go).
_WAIT: Final = ("-w", "5", "-W", "100000")

# The largest part of rules that nobody uses yet, in bytes of a message. iptables-nft-restore 1.8.9 takes the longer for
# a rule, the more there are in one input: for 42,000 rules 16 s at once, and 1.2 s in parts.
_ANY: Final = 1 << 62
_QUICK: Final = 4 * 1024 * 1024


class PartlyLoadedError(ProgramError):
    """Rules were refused after others of the same input, in parts before, were loaded."""


class Restore:
    """Rules on their way into a namespace; :meth:`finish` waits for them.

    :param start: starts a program that loads an input.
    :param room: how many bytes the kernel takes at once.
    :param hurry: they may come in parts though they would fit, because nobody uses them yet.
    """

    def __init__(self, start: Callable[[str], Program], text: str, room: int, *, hurry: bool) -> None:
        self._start, self._text = start, text
        self._hurry = hurry and room > _QUICK
        self._room = min(room, _QUICK) if hurry else room
        # A weight is an estimate, seldom a third too low.
        fits = sum(map(parts.restore_weight, text.splitlines())) <= self._room // 2
        self._whole = start(text) if fits else None
        self._loaded = 0

    def finish(self) -> None:
        """Wait until the rules are loaded.

        :raises ProgramError: they were refused, as ever by iptables-restore table by table.
        :raises PartlyLoadedError: the same, and a part of the table is loaded.
        """
        if self._whole is not None:
            self._whole.finish()
            return
        for table, lines in parts.restore_tables(self._text):
            self._loaded = 0
            send = partial(self._send, table)
            # It is a transaction a table: one that was too large to be sent has changed nothing.
            if not self._fits(lines) or not send(lines):
                parts.load(parts.restore_blocks(lines), self._room, parts.restore_weight, send)

    def _fits(self, lines: parts.Block) -> bool:
        weight = sum(map(parts.restore_weight, lines))
        return weight <= (self._room if self._hurry else 2 * self._room)

    def _send(self, table: str, lines: parts.Block) -> bool:
        try:
            self._start("\n".join((f"*{table}", *lines, "COMMIT", ""))).finish()
        except ProgramError as error:
            if parts.TOO_LONG in str(error):
                return False
            if self._loaded:
                raise PartlyLoadedError(f"{error} (after {self._loaded} parts of {table} that are loaded)") from None
            raise
        self._loaded += 1
        return True


def legacy_tables(namespace: Namespace, version: int) -> frozenset[str]:
    """Return the names of the tables of iptables-legacy that a namespace has.

    :param version: 4 or 6, the IP version.
    """
    names = Path("/proc/thread-self/net", f"{'ip' if version == 4 else 'ip6'}_tables_names")
    with namespace.entered():
        return frozenset(names.read_text().split() if names.exists() else ())


class Xtables:
    """iptables of one namespace and backend.

    :param backend: ``nft`` or ``legacy``.
    """

    def __init__(self, namespace: Namespace, backend: str) -> None:
        self._namespace = namespace
        self._backend = backend
        # The programs lock a file of the machine, /run/xtables.lock, unless they are told of another one.
        # This one has no name, so nothing is left behind by whatever end.
        self._lock = os.memfd_create("xtables.lock")

    def start_restore(self, version: int, text: str, *, unused: bool = False) -> Restore:
        """Start loading ``text`` as kube-proxy does; other rules stay (``--noflush --counters``).

        Where a table is larger than an ordinary user may send, it is loaded in parts (see :mod:`lab.netns.parts`).

        :param version: 4 or 6, the IP version.
        :param unused: nothing goes by these rules until they are loaded, so that parts do no harm; it may be quicker.
        """
        legacy = self._backend == "legacy"  # it has no messages, and the kernel takes any size
        room = _ANY if legacy else parts.room_of_programs()

        def start(given: str) -> Program:
            return self._start(version, "restore", (*_WAIT, "--noflush", "--counters"), given)

        return Restore(start, text, room, hurry=unused and not legacy)

    def save(self, version: int, table: str | None = None) -> str:
        """Return what iptables-save prints, with counters."""
        arguments = ("-c", *(("-t", table) if table else ()))
        return self._start(version, "save", arguments, "").finish()

    def _start(self, version: int, verb: str, arguments: Sequence[str], text: str) -> Program:
        name = f"{'iptables' if version == 4 else 'ip6tables'}-{self._backend}-{verb}"
        environment, keep = self.lock
        return Program(self._namespace, (name, *arguments), text=text, environment=environment, keep=keep)

    @property
    def lock(self) -> tuple[dict[str, str], tuple[int, ...]]:
        """What has a program lock the lab's own file: its environment, and the descriptor that it must keep."""
        return {"XTABLES_LOCKFILE": f"/proc/self/fd/{self._lock}"}, (self._lock,)

    def close(self) -> None:
        """Close the lock file."""
        os.close(self._lock)
