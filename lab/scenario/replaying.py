# SPDX-License-Identifier: MIT
"""A captured connection, sent once more through a lab's node: what its conntrack makes of each segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lab.capture.resending import Segment
from lab.errors import LabError
from lab.evidence.judgement import Judged
from lab.evidence.packet import decode
from lab.scenario.scripted import ScriptedScenario
from lab.wire.again import again

_AT_ONCE: Final = 50  # segments that are sent before their judgements are waited for


class ReplayScenario(ScriptedScenario):
    """One lab in which both ends of a connection send what was captured of another one."""

    async def replay(self, segments: Sequence[Segment]) -> list[Judged]:
        """Send the segments in their order; return what the node made of each.

        The client's go to the VIP, or past it where they went to the endpoint itself; the server's to whom the first
        one came from.

        :raises LabError: the node judged others, or none of them came to the server.
        """
        judged: list[Judged] = []
        waiting = 0
        for number, segment in enumerate(segments):
            self._send(segment)
            waiting += 1
            if number == 0 or waiting == _AT_ONCE:
                judged += await self.judged()
                waiting = 0
            if number == 0 and not self._find_server(judged[0].packet):
                raise LabError("the first segment came to no server of the lab")
        if waiting:
            judged += await self.judged()
        if self._faults or len(judged) != len(segments):
            raise LabError("; ".join(self._faults) or f"{len(segments)} sent, and {len(judged)} judged")
        return judged

    def _send(self, segment: Segment) -> None:
        peer = self.client if segment.from_client else self.server
        destination = self._server_address if segment.direct else peer.to
        data = again(peer.own, destination, segment.header, segment.length, is_corrupt=segment.is_corrupt)
        packet = decode(data)
        if packet is None:
            raise LabError(f"packet {segment.place.number:,} of {segment.place.file} cannot be sent again")
        self._sent.append(packet)
        self._injector(self._host_of(peer), destination.address).send(data)
