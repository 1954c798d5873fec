# SPDX-License-Identifier: MIT
"""Why a case ends before it began: what came of its connection is its outcome."""

from __future__ import annotations

from lab.errors import LabError
from lab.evidence.packet import Packet
from lab.traffic.tcp import TcpEnd


class RefusedError(LabError):
    """The client's connection was refused or had no way: the case ends before it began."""


class HalfOpenError(LabError):
    """The client's end is connected and no server's is: the case ends before it began, and that is its outcome.

    :ivar client: its socket.
    :ivar server: the host that answered its SYN.
    :ivar acknowledgement: the last segment of the handshake, which came to no server.
    """

    def __init__(self, message: str, client: TcpEnd, server: str, acknowledgement: Packet) -> None:
        super().__init__(message)
        self.client, self.server, self.acknowledgement = client, server, acknowledgement
