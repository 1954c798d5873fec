"""iptables' rules in a namespace, loaded and saved by the programs that kube-proxy calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from lab.netns.namespace import Namespace
from lab.netns.program import Program

# kube-proxy's own flags: wait 5 s for the lock, asking every 100 ms (pkg/util/iptables/iptables.go).
_WAIT: Final = ("-w", "5", "-W", "100000")


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

    def start_restore(self, version: int, text: str) -> Program:
        """Start loading ``text`` as kube-proxy does; other rules stay (``--noflush --counters``).

        :param version: 4 or 6, the IP version.
        """
        return self._start(version, "restore", (*_WAIT, "--noflush", "--counters"), text)

    def save(self, version: int, table: str | None = None) -> str:
        """Return what iptables-save prints, with counters."""
        arguments = ("-c", *(("-t", table) if table else ()))
        return self._start(version, "save", arguments, "").finish()

    def _start(self, version: int, verb: str, arguments: Sequence[str], text: str) -> Program:
        name = f"{'iptables' if version == 4 else 'ip6tables'}-{self._backend}-{verb}"
        lock = {"XTABLES_LOCKFILE": f"/proc/self/fd/{self._lock}"}
        return Program(self._namespace, (name, *arguments), text=text, environment=lock, keep=(self._lock,))

    def close(self) -> None:
        """Give up the lock file."""
        os.close(self._lock)
