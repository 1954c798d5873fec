# SPDX-License-Identifier: MIT
"""The routes of a topology's host and the rules that choose between their tables, as its file has them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated

from pydantic import Field, PlainValidator, Strict

from lab.topology.keys import LAST_TABLE, MARK_SCHEMA, MARK_WORDS, STRICT_KEYS, read_mark
from lab.topology.names import INTERFACE
from lab.topology.values import FileAddress, FileDestination, FileNetwork, IPNetwork
from lab.vocabulary import Family

_Table = Annotated[
    int | None,
    Strict(),
    Field(ge=1, le=LAST_TABLE, description="The routing table that it is in; else the main one. See rules."),
]


@dataclass(frozen=True)
class Route:
    """A route of a host, by a gateway on one of its links."""

    __pydantic_config__ = STRICT_KEYS

    to: Annotated[FileDestination, Field(description="Where to: a CIDR, or default (of the gateway's family).")]
    via: Annotated[
        FileAddress, Field(description="The gateway: an address at the other end of one of the host's links.")
    ]
    table: _Table = None

    @property
    def network(self) -> IPNetwork:
        """The destination as a network; ``default`` is 0.0.0.0/0 or ::/0, as the gateway's family says."""
        if self.to != "default":
            return self.to
        return ip_network(Family.of(self.via).everything)


class Closed(StrEnum):
    """What a host does with what it sends nowhere (rtnetlink(7), RTN_BLACKHOLE and the next two)."""

    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"


@dataclass(frozen=True)
class ClosedRoute:
    """A route that leads nowhere: what it is for is dropped, silently or with an ICMP error."""

    __pydantic_config__ = STRICT_KEYS

    to: Annotated[FileNetwork, Field(description="Where to: a CIDR, such as 0.0.0.0/0 for everything.")]
    kind: Annotated[
        Closed,
        Field(description="blackhole: silently; unreachable, prohibit: with an ICMP error that says so."),
    ]
    table: _Table = None


@dataclass(frozen=True, kw_only=True)
class PolicyRule:
    """Which packets are routed by a table, as ``ip rule`` has it. What none of a host's says goes by its main table."""

    __pydantic_config__ = STRICT_KEYS

    table: Annotated[int, Strict(), Field(ge=1, le=LAST_TABLE, description="The number of the table.")]
    source: Annotated[FileNetwork | None, Field(alias="from", description="Only packets from this CIDR.")] = None
    to: Annotated[FileNetwork | None, Field(description="Only packets to this CIDR.")] = None
    iif: Annotated[
        str,
        Field(
            description="Only packets that come in by this interface; lo for what the host itself sends.",
            json_schema_extra={"pattern": INTERFACE},
        ),
    ] = ""
    fwmark: Annotated[str, PlainValidator(read_mark), MARK_SCHEMA, Field(description=MARK_WORDS)] = ""

    @property
    def families(self) -> tuple[Family, ...]:
        """Of which families it is."""
        said = [Family.of(cidr) for cidr in (self.source, self.to) if cidr is not None]
        return tuple(dict.fromkeys(said)) or tuple(Family)
