# SPDX-License-Identifier: MIT
"""Rules of a test's own on a host of its lab."""

from __future__ import annotations

from collections.abc import Sequence

from lab.fabric.host import RunningHost
from lab.fabric.own_fix import run_change
from lab.trial.fix_file import rules_of
from lab.vocabulary import Family


class HostRules:
    """The rules of one host of a running lab, beside those that its kube-proxy writes; they end with the lab."""

    def __init__(self, host: RunningHost, families: Sequence[Family]) -> None:
        self._host, self._families = host, families

    def load(self, text: str) -> None:
        """Load rules as they are: what iptables-restore reads, or an nft script. Those that there are stay.

        iptables' are loaded by the host's backend, for the family of the addresses in them, or for each that the lab
        has; a chain that they declare is emptied first, as `iptables-restore --noflush` has it.

        :raises InputError: the text is neither, or it is refused; says what is wrong.
        """
        change = rules_of(text, f"rules for {self._host.name}")
        self._host.begin_change()
        run_change(self._host, change, self._families)
