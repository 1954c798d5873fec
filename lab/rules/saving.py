# SPDX-License-Identifier: MIT
"""What ``iptables-save`` or ``nft list table`` gives back of a kube-proxy's rules, by the road that answers soon."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.rules.expected import printed
from lab.rules.restored import UnknownFormError
from lab.rules.scratch import saved
from lab.vocabulary import Backend, ProxyMode

if TYPE_CHECKING:
    from lab.rules.source import Proxy

MANY: Final = 40_000
"""So many lines, of some 1,000 Services with 10 endpoints each, load within a few seconds. With ten times as many
nft takes two minutes and 1.7 GB, iptables-nft 25 s, and both are quadratic somewhere."""


@dataclass(frozen=True)
class Saved:
    """Rules as they are saved.

    :param note: how they were come by, where this kernel was not asked as it was meant to be.
    """

    text: str
    note: str | None = None


def save(proxy: Proxy, *, load: bool) -> Saved:
    """Load a kube-proxy's rules and return what this kernel gives back; write very many without loading them.

    :param load: load them however many they are.
    :raises MissingError: a program or a kernel feature is not there.
    :raises LabError: the kernel refused the rules.
    """
    texts = proxy.render()
    count = sum(text.count("\n") for text in texts)
    if load or count <= MANY:
        return Saved(saved(proxy))
    iptables = proxy.mode is ProxyMode.IPTABLES
    try:
        text = printed(proxy, texts)
    except UnknownFormError as error:
        if not iptables:
            return Saved(saved(proxy))
        said = f"{count:,} lines, loaded by iptables-legacy, which is the quicker: {error}"
        return Saved(saved(dataclasses.replace(proxy, backend=Backend.LEGACY)), said)
    program, cure = ("iptables-save", "; --backend has them loaded") if iptables else ("nft list table", "")
    return Saved(text, f"{count:,} lines, written as {program} prints them and not loaded here{cure}")
