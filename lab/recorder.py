"""All instruments of a running lab in one event loop: captures on every host, conntrack's word on every node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from lab.conntrack.netlink import ConntrackEvents, EntryEvent
from lab.conntrack.nflog import LOCAL_GROUP, PacketLog
from lab.conntrack.witness import Judged, Pairing, local_script, script
from lab.errors import LabError
from lab.fabric import Lab
from lab.wire.capture import LOCAL, Capture, Sighting

_BOUND = 10.0  # seconds; a generous end to waits that an event ends within a millisecond


class UnseenError(LabError):
    """What was waited for did not happen within the bound."""


class _Instrument(Protocol):
    def fileno(self) -> int: ...


class Recorder:
    """Records from the moment on at which it is made; must be made inside the running event loop.

    :param nodes: the hosts whose conntrack judges. The entries of the first are followed, and what it gives to its own
        sockets is a sighting at :data:`LOCAL`.
    :param each: record each packet; else none is sighted, and judged are those that are INVALID or ignored. They are
        counted all the same.
    """

    def __init__(self, lab: Lab, nodes: Sequence[str], *, each: bool = True) -> None:
        self._each = each
        self.sightings: list[Sighting] = []
        self.judged: list[Judged] = []
        self.entry_events: list[EntryEvent] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Callable[[Sighting], None]] = []
        self._instruments: list[_Instrument] = []
        lab.keep(self)  # first, so that it leaves the loop before what it listens to is closed
        # The rules come before the logs: on a kernel that was just booted they bring conntrack and its sysctls.
        for node in nodes:
            witness = script() if each else script(logged=("invalid",))
            lab.hosts[node].nft.run(witness + (local_script() if each and node == nodes[0] else ""))
        self._logs = [(Pairing(node), lab.keep(PacketLog(lab.hosts[node].namespace))) for node in nodes]
        self._events = lab.keep(ConntrackEvents(lab.hosts[nodes[0]].namespace))
        captured = lab.hosts.items() if each else ()
        self._captures = [lab.keep(Capture(name, running.namespace)) for name, running in captured]
        self._instruments += [*(log for _pairing, log in self._logs), self._events, *self._captures]
        for instrument in self._instruments:
            self._loop.add_reader(instrument.fileno(), self.read)

    def on_sighting(self, listener: Callable[[Sighting], None]) -> None:
        """Call ``listener`` with every packet that is seen from now on."""
        self._listeners.append(listener)

    def read(self) -> None:
        """Take in whatever the instruments hold."""
        for capture in self._captures:
            for sighting in capture.read():
                self._saw(sighting)
        for pairing, log in self._logs:
            records = log.read()
            self.judged += pairing.take(records)
            for record in records:
                if record.group == LOCAL_GROUP and record.packet is not None:
                    # The log cuts the time of arrival to microseconds, and the interface was before the socket.
                    moment = record.time + 1000 if record.time else time.time_ns()
                    self._saw(Sighting(moment, pairing.host, LOCAL, False, record.packet))
        self.entry_events += self._events.read()
        for waiter in list(self._waiting):
            condition, future = waiter
            if condition():
                self._waiting.remove(waiter)
                if not future.done():
                    future.set_result(None)

    def _saw(self, sighting: Sighting) -> None:
        self.sightings.append(sighting)
        for listener in self._listeners:
            listener(sighting)

    async def until(self, condition: Callable[[], bool], what: str, *, within: float = _BOUND) -> None:
        """Wait until ``condition`` holds, asked again whenever something was seen.

        :param within: as many seconds.
        :raises UnseenError: it did not; says ``what`` was waited for.
        """
        self.read()
        if condition():
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((condition, future))
        try:
            await asyncio.wait_for(future, within)
        except TimeoutError:
            raise UnseenError(f"waited {within:.0f} s for {what}") from None

    def lost(self) -> int:
        """Return how many packets the captures could not take in."""
        return sum(capture.lost() for capture in self._captures)

    def stop(self) -> None:
        """Take in the last of it and leave the event loop."""
        self.read()
        if not self._each:
            for pairing, _log in self._logs:
                self.judged += pairing.let_through()
        self.close()

    def close(self) -> None:
        """Leave the event loop, with or without the last of it: a trial that was cancelled or failed ends here."""
        for instrument in self._instruments:
            self._loop.remove_reader(instrument.fileno())
        self._instruments.clear()
