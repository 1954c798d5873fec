# SPDX-License-Identifier: MIT
"""Conntrack's entries and their changes as text: `conntrack -L`, `conntrack -E` and /proc/net/nf_conntrack.

With any of the forms that `-o` adds, but for XML (conntrack-tools, snprintf_default.c of libnetfilter_conntrack).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from lab.errors import InputError
from lab.evidence.packet import SocketAddress

_LINE: Final = re.compile(
    r"^\s*(?:\[(?P<time>\d+\.\d+)\]\s*)?(?:\[(?P<event>NEW|UPDATE|DESTROY)\]\s*)?"
    r"(?:ipv[46] +\d+ +)?(?P<protocol>[a-z][a-z0-9-]*) +(?P<number>\d+)(?: +(?P<timeout>\d+))?"
    r"(?: +(?P<state>[A-Z][A-Z_0-9]*))? +(?=src=|\[)(?P<rest>.*)$"
)
_PAIR: Final = re.compile(r"([a-z-]+)=(\S*)")
_FLAG: Final = re.compile(r"\[([A-Z_]+)\]")
_TOOL: Final = re.compile(r"^conntrack v[\d.]+ \(conntrack-tools\): \d+ flow")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line about an entry.

    :param event: NEW, UPDATE or DESTROY; empty in a listing.
    :param time: of an event in seconds since the epoch, where it is told.
    :param timeout: seconds that are left; None where that is not told.
    :param state: of TCP or SCTP; empty for others.
    :param zone: as ``conntrack -L`` has it; empty for the usual one.
    :param program: the name of the program that caused an event; empty where the kernel did, or it is not told.
    """

    line: int
    event: str
    time: float | None
    protocol: str
    timeout: int | None
    state: str
    original: tuple[SocketAddress, SocketAddress]
    reply: tuple[SocketAddress, SocketAddress]
    flags: frozenset[str]
    zone: str = ""
    program: str = ""

    @property
    def is_translated(self) -> bool:
        """Whether the answers do not come from whom was asked, or go to somebody else than who asked."""
        return self.reply != self.original[::-1]

    @property
    def endpoint(self) -> SocketAddress:
        """Who answers."""
        return self.reply[0]

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other entries."""
        return (self.protocol, self.zone, *self.original)

    def __str__(self) -> str:
        (source, destination), (answering, answered) = self.original, self.reply
        where = f", which is {answering}" if answering != destination else ""
        masked = f", masqueraded as {answered}" if answered != source else ""
        return f"{self.protocol} {source}{masked} > {destination}{where}"


def is_of_tool(text: str) -> bool:
    """Check whether a line is what conntrack-tools add to a listing, on stderr."""
    return _TOOL.match(text) is not None


def listed(text: str, number: int, source: str) -> Listed | None:
    """Return what a line says of an entry; None where it is about something else.

    :raises InputError: it begins as an entry does, and is cut or otherwise not whole.
    """
    found = _LINE.match(text)
    if found is None:
        return None
    pairs = _PAIR.findall(found["rest"])
    try:
        original, reply = _direction(pairs, 0), _direction(pairs, 1)
    except (IndexError, ValueError):
        raise InputError(
            "an entry of conntrack's that is not whole: both directions have src= and dst=",
            source=source,
            line=number,
            cure="give the lines of `conntrack -L` or `conntrack -E` as they are",
        ) from None
    zones = [f"{name}={value}" for name, value in pairs if name.startswith("zone") and value != "0"]
    return Listed(
        number,
        found["event"] or "",
        float(found["time"]) if found["time"] else None,
        found["protocol"],
        int(found["timeout"]) if found["timeout"] else None,
        found["state"] or "",
        original,
        reply,
        _flags(tuple(_FLAG.findall(found["rest"]))),
        " ".join(zones),
        next((value for name, value in pairs if name == "progname"), ""),
    )


def _direction(pairs: list[tuple[str, str]], which: int) -> tuple[SocketAddress, SocketAddress]:
    """Return the ends of the first or second direction; where a protocol has no ports, they are 0.

    :raises IndexError: it is not there. :raises ValueError: an address or a port is none.
    """
    begins = [place for place, (name, _value) in enumerate(pairs) if name == "src"]
    own: dict[str, str] = {}
    for name, value in pairs[begins[which] :]:
        if name in own:
            break
        own[name] = value
    if "dst" not in own:
        raise IndexError("dst")
    # An ICMP query has an identifier, which answers share.
    ports = (own.get("sport", own.get("id", "0")), own.get("dport", own.get("id", "0")))
    ends = (_address(own["src"]), _address(own["dst"]))
    return SocketAddress(ends[0], int(ports[0])), SocketAddress(ends[1], int(ports[1]))


@lru_cache
def _flags(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


@lru_cache(maxsize=1 << 16)
def _address(text: str) -> str:
    """Return an address in its usual form: /proc writes all zeros of IPv6.

    :raises ValueError: it is none.
    """
    return str(ip_address(text))
