# SPDX-License-Identifier: MIT
"""A reason that conntrack gives for not liking a packet: in which words, and what became of the packet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Final, TypeAlias

from lab.vocabulary import Behaviour


class Became(StrEnum):
    """What became of a packet for which conntrack gave a reason."""

    #: No entry is attached to it, so it is not translated. Rules see ``ctstate INVALID``.
    INVALID = "INVALID"
    #: Let through with its entry, and translated, as if nothing had been said (NF_ACCEPT).
    IGNORED = "ignored"
    #: By conntrack itself (NF_DROP), whatever the rules say.
    DROPPED = "dropped"

    @property
    def words(self) -> str:
        """What that means for the packet, in a sentence."""
        return _WORDS[self]


_WORDS: Final = {
    Became.INVALID: "INVALID: it went on untranslated, unless a rule dropped it",
    Became.IGNORED: "ignored: it was let through and translated, and is not INVALID",
    Became.DROPPED: "dropped by conntrack itself; it is not INVALID, and no rule saw it",
}

#: What stands for something else in the kernel's formats (Documentation/core-api/printk-formats.rst), as a pattern.
_CONVERSIONS: Final = {
    "%u": r"\d+",
    "%d": r"-?\d+",
    "%x": r"[0-9a-f]+",
    "%s": r"\S+",
    "%pI4": r"[\d.]+",
    "%pI6": r"[0-9a-f:]+",
    "%pV": r".*?",
}
_CONVERSION: Final = re.compile("|".join(sorted(_CONVERSIONS, key=len, reverse=True)))


#: Of Linux: its first two numbers.
Release: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Wording:
    """How kernels write a reason.

    :param text: the format, as the kernel's source has it.
    :param kernels: which ones write it so.
    :param behaviour: how these judge what is out of the window, where the wording tells that; None where both kinds
        write it.
    :param not_until: the newest release before these that is known not to write it so; None where there is none.
    :param not_from: the oldest release behind these that is known not to.
    """

    text: str
    kernels: str = ""
    behaviour: Behaviour | None = None
    not_until: Release | None = None
    not_from: Release | None = None

    def is_of(self, release: Release) -> bool:
        """Check whether a release may write it so: nothing that is known says that it does not."""
        is_before = self.not_until is not None and release <= self.not_until
        return not is_before and (self.not_from is None or release < self.not_from)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What the whole of a reason in these words matches."""
        literal = [re.escape(part) for part in _CONVERSION.split(self.text.strip())]
        filled = [_CONVERSIONS[found] for found in _CONVERSION.findall(self.text.strip())]
        return re.compile("".join(part for pair in zip(literal, [*filled, ""], strict=True) for part in pair))


def always(became: Became) -> Mapping[Behaviour, Became]:
    """Return that the same became of the packet on every kernel."""
    return MappingProxyType(dict.fromkeys(Behaviour, became))


#: Out of the window, but not by much: what 6e250dcbff1d ("ignore overly delayed tcp packets", 6.1) changed.
MILDLY: Final[Mapping[Behaviour, Became]] = MappingProxyType(
    {Behaviour.STRICT: Became.INVALID, Behaviour.IGNORES_LATE: Became.IGNORED}
)


@dataclass(frozen=True)
class Reason:
    """One reason.

    :param name: in a few words, for programs.
    :param protocol: whose packets it is about; ``any``, or as IANA names it.
    :param wordings: the kernel's words for it, the newest first; empty where it says nothing.
    :param meaning: what was wrong with the packet, in a sentence or two.
    :param became: what became of it, by the kernel's behaviour.
    :param source: the kernel's file and function.
    :param cases: those of the catalogue that make it on a kernel that ignores what is late.
    :param why_no_case: where there is none.
    :param fixes: those that keep a connection from being reset by such a packet.
    :param in_log: whether it comes by ``nf_conntrack_log_invalid``; False where it is in the kernel's log anyway.
    """

    name: str
    protocol: str
    wordings: tuple[Wording, ...]
    meaning: str
    became: Mapping[Behaviour, Became]
    source: str
    cases: tuple[str, ...] = ()
    why_no_case: str = ""
    fixes: tuple[str, ...] = ()
    in_log: bool = True

    @property
    def title(self) -> str:
        """The kernel's newest words, or the name where it says nothing."""
        return self.wordings[0].text if self.wordings else f"(nothing: {self.name})"

    def wording(self, text: str) -> Wording | None:
        """Return the wording that a reason in a log is, None where it is none of these."""
        return next((one for one in self.wordings if one.pattern.fullmatch(text)), None)
