# SPDX-License-Identifier: MIT
"""What `conntrack -S` counts (enum ctattr_stats_cpu of nfnetlink_conntrack.h): which counter means what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_LINE: Final = re.compile(r"^\s*cpu=(\d+)\s+((?:[a-z_]+=\d+\s*)+)$")
_PAIR: Final = re.compile(r"([a-z_]+)=(\d+)")


@dataclass(frozen=True)
class Counter:
    """One counter.

    :param meaning: what it counts, in a sentence.
    :param is_loss: whether each one is a packet that did not go its way.
    :param cases: of the catalogue, that make it count.
    """

    meaning: str
    is_loss: bool = False
    cases: tuple[str, ...] = ()


#: By the names that `conntrack -S` has for them, today's and those of older kernels.
COUNTERS: Final[Mapping[str, Counter]] = MappingProxyType(
    {
        "invalid": Counter(
            "packets that are INVALID; a reset by an untranslated packet counts two, the packet and the RST against it",
            True,
            ("beyond-window", "ack-above", "reset-behind"),
        ),
        "insert_failed": Counter(
            "entries that could not be inserted, for another one of the same addresses and ports was faster: two"
            " packets at once, such as both questions of a DNS lookup, or two connections that took one port",
            True,
            ("snat-port-race", "dns-race-two-endpoints"),
        ),
        "drop": Counter(
            "packets that conntrack dropped itself: no room for a new entry, or insert_failed",
            True,
            ("table-full-new-connection",),
        ),
        "early_drop": Counter(
            "entries that were thrown out for new ones, as the table was full: connections that were not answered, or"
            " were closing",
            True,
            ("early-drop", "table-full-gc"),
        ),
        "error": Counter(
            "packets that a protocol's own check refused: above all ICMP errors about connections that this node does"
            " not know; they are INVALID, and not counted as invalid",
            True,
            ("icmp-error-without-entry",),
        ),
        "chaintoolong": Counter(
            "entries that could not be inserted, for the chain of the hash table was too long: nf_conntrack_buckets is"
            " too small for what all namespaces of the machine have",
            True,
        ),
        "clash_resolve": Counter(
            "clashes that were resolved: two packets of one flow of UDP at once, and both went on",
            cases=("dns-race-one-endpoint",),
        ),
        "found": Counter("translations for which the first choice of a port was taken, and another was looked for"),
        "insert": Counter("entries that programs made, such as conntrackd; those that packets make are not counted"),
        "search_restart": Counter("lookups that were begun again, as the table changed meanwhile: harmless"),
        "searched": Counter("lookups, on older kernels"),
        "new": Counter("entries that packets made, on older kernels"),
        "ignore": Counter("packets that are not tracked, or had their entry already, on older kernels"),
        "delete": Counter("entries that were deleted, on older kernels"),
        "delete_list": Counter("entries that were put aside to be deleted, on older kernels"),
        "icmp_error": Counter("the same as error, as /proc/net/stat/nf_conntrack names it", True),
    }
)


class Statistics:
    """The samples of a text: each begins where a processor comes a second time.

    :ivar samples: by counter, summed over the processors; in the order of the text.
    :ivar line: of the first.
    """

    def __init__(self) -> None:
        self.samples: list[dict[str, int]] = []
        self.line = 0
        self._seen: set[int] = set()

    def take(self, text: str, number: int) -> bool:
        """Take a line into account; return whether it is of `conntrack -S`."""
        found = _LINE.match(text)
        if found is None:
            return False
        processor = int(found[1])
        if not self.samples or processor in self._seen:
            self.samples.append({})
            self._seen.clear()
        self._seen.add(processor)
        self.line = self.line or number
        for name, value in _PAIR.findall(found[2]):
            self.samples[-1][name] = self.samples[-1].get(name, 0) + int(value)
        return True
