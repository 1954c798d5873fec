# SPDX-License-Identifier: MIT
"""How the TCP connections of a lab that stands began: the numbers that no kernel tells of a socket afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self, TypeAlias, TypeVar

from lab.evidence.packet import ACK, SocketAddress
from lab.evidence.sighting import Sighting
from lab.scenario.adopted import Handshake
from lab.wire.syns import Syns

if TYPE_CHECKING:
    from lab.fabric.lab import Lab

_Key: TypeAlias = tuple[str, SocketAddress, SocketAddress]
_Value = TypeVar("_Value")

_MOST: Final = 4096  # connections that are remembered; the oldest are forgotten


class Handshakes:
    """Those of a lab from now on, for the length of a block in a running event loop."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._syns: dict[_Key, Sighting] = {}
        self._known: dict[_Key, Handshake] = {}
        self._sources: list[Syns] = []

    async def __aenter__(self) -> Self:
        """Listen on every host."""
        for name, running in self._lab.hosts.items():
            source = Syns(name, running.namespace)
            self._sources.append(source)
            asyncio.get_running_loop().add_reader(source.fileno(), self._take, source)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more."""
        for source in self._sources:
            asyncio.get_running_loop().remove_reader(source.fileno())
            source.close()

    def _take(self, source: Syns) -> None:
        for sighting in source.read():
            packet = sighting.packet
            assert packet.tcp is not None
            if sighting.outgoing and not packet.tcp.flags & ACK:
                _remember(self._syns, (source.host, packet.source, packet.destination), sighting)
            elif not sighting.outgoing and packet.tcp.flags & ACK:
                key = (source.host, packet.destination, packet.source)
                if syn := self._syns.pop(key, None):
                    _remember(self._known, key, Handshake(*key, syn, sighting))

    def known(self) -> list[Handshake]:
        """Return the handshakes that are remembered, the last ones last."""
        for source in self._sources:
            self._take(source)
        return list(self._known.values())


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    known.pop(key, None)
    known[key] = value
    if len(known) > _MOST:
        del known[next(iter(known))]
