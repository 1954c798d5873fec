# SPDX-License-Identifier: MIT
"""Reads dumps of rules, of ``iptables-save`` (also with ``-c``) and ``nft list``: what in them is kube-proxy's.

What ``iptables -S`` prints is made like them by :mod:`lab.rules.listing`; what ``nft -j list`` prints is recognised
here, and read by :mod:`lab.rules.json_dump`.
"""

from __future__ import annotations

import re

from lab.errors import InputError
from lab.rules import iptables_dump, listing, nft_dump
from lab.rules.dump import CURE, Dump, numbered
from lab.vocabulary import Family, ProxyMode


def mode_of(text: str, source: str) -> ProxyMode:
    """Return what printed a dump, by its first line that says something.

    :raises InputError: it is no dump.
    """
    for number, line in numbered(text):
        if line.startswith("*"):
            return ProxyMode.IPTABLES
        if listing.is_one(line):
            if "\n-N " in f"\n{text}" or "\n-P " in f"\n{text}":
                return ProxyMode.IPTABLES
            raise InputError(
                "rules without their chains: was this picked out by grep?", source=source, line=number, cure=CURE
            )
        if line.startswith("Chain "):
            message = "what iptables -L prints, which leaves out the half of a rule"
            raise InputError(message, source=source, line=number, cure=CURE)
        if re.match(r"table \S+ \S+ \{", line) or line.startswith("{"):
            return ProxyMode.NFTABLES
        raise InputError("this is no dump of rules", source=source, line=number, cure=CURE)
    raise InputError("empty: there are no rules in it", source=source, cure=CURE)


def is_json(text: str) -> bool:
    """Report whether a dump is JSON."""
    return next((line for _, line in numbered(text)), "").startswith("{")


def read(text: str, source: str, family: Family) -> Dump:
    """Read a dump that is text.

    :param source: what to call it in errors.
    :raises InputError: with the line, where it is no dump, is cut off, or has nothing of kube-proxy in this family.
    """
    if mode_of(text, source) is ProxyMode.IPTABLES:
        return iptables_dump.read(text, source, family)
    return nft_dump.read(text, source, family)
