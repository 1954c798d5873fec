# SPDX-License-Identifier: MIT
"""A sighting: one packet at one interface of one host, at one moment."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from lab.evidence.packet import Packet

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

#: In place of an interface: where a host's own sockets take packets from.
LOCAL: Final = "(socket)"


class _Base64:
    """Tells pydantic, which only those load who read or write a file, how bytes are written (RFC 4648, 4)."""

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        text = core_schema.str_schema(metadata={"pydantic_js_extra": {"contentEncoding": "base64"}})
        return core_schema.no_info_after_validator_function(
            _decoded,
            core_schema.union_schema([text, core_schema.bytes_schema()]),
            serialization=core_schema.plain_serializer_function_ser_schema(_encoded, return_schema=text),
        )


def _decoded(data: str | bytes) -> bytes:
    return data if isinstance(data, bytes) else base64.b64decode(data, validate=True)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


#: Bytes as a field of what is saved.
SavedBytes: TypeAlias = Annotated[bytes, _Base64()]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One packet at one interface.

    ``time`` is the kernel's clock (CLOCK_REALTIME) in nanoseconds when the packet passed.

    :param data: the packet's own bytes, from its IP header on, all of them; empty where they were not kept.
    """

    time: int
    host: str
    interface: str
    outgoing: bool
    packet: Packet
    data: SavedBytes = field(default=b"", repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.packet} {'from' if self.outgoing else 'at'} {self.host} {self.interface}"
