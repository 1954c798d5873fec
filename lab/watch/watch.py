# SPDX-License-Identifier: MIT
"""All that is watched, on one or more hosts, in the order of its times; with what is counted, saved and published."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from lab.errors import OutputError
from lab.observed.found import Leak, Reset
from lab.observed.lines import when
from lab.observed.prometheus import exposition
from lab.observed.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.observed.lines import Seen
    from lab.watch.host import WatchedHost
    from lab.watch.save import Saved

#: Nanoseconds after which a packet is in the socket that it was marked for, also on another processor.
_SETTLED: Final = 5_000_000
_PUBLISHED: Final = 15.0  # seconds between two writings of counts that have not changed

#: Seconds after which hosts are read though nothing comes: they look how busy they are.
TURN: Final = 0.5


class Watch:
    """What several hosts see, from the moment on at which this is made.

    :param owner: of the lab that is watched: a process whose end is the end of the watch; None for this machine.
    :param save: where packets of connections that leaked go.
    :param publish: is given the counts as Prometheus' text, whenever they have changed and now and then.
    :raises OutputError: it cannot be written from the beginning. Later the watch goes on; see :attr:`unwritten`.
    """

    def __init__(
        self,
        hosts: Sequence[WatchedHost],
        *,
        owner: int | None = None,
        save: Saved | None = None,
        publish: Callable[[str], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self.hosts = hosts
        self.since = time.time()
        self._begun = self._published = time.monotonic()
        self._save, self._publish = save, publish
        self._unsaved: OutputError | None = None
        self._unpublished: OutputError | None = None
        self._waiting: list[Seen] = []
        self._open = ExitStack()
        for host in hosts:
            self._open.callback(host.close)
        self.owner = None if owner is None else os.pidfd_open(owner)
        if self.owner is not None:
            self._open.callback(os.close, self.owner)
        self._write_counts()

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._begun

    @property
    def lean(self) -> bool:
        """Whether there are too many packets to look at each, on some host."""
        return any(host.lean for host in self.hosts)

    @property
    def unwritten(self) -> list[OutputError]:
        """What could not be saved, after which no more is; and counts whose last writing failed."""
        return [error for error in (self._unsaved, self._unpublished) if error is not None]

    @property
    def patience(self) -> float:
        """Seconds after which to read though nothing has come."""
        if any(host.has_more for host in self.hosts):
            return 0.0
        return _SETTLED / 1e9 if self._waiting else TURN

    def filenos(self) -> list[int]:
        """Return the descriptors that are readable when something waits."""
        return [number for host in self.hosts for number in host.filenos()]

    def read(self, *, everything: bool = False) -> list[Seen]:
        """Return what was seen since the last call, in the order of its times.

        :param everything: also what may be followed by something older of another host.
        """
        settled = time.time_ns() - _SETTLED
        found = []
        for host in self.hosts:
            seen = host.read()
            self._waiting += seen
            found += [one for one in seen if isinstance(one, Leak | Reset)]
        for one in found:
            self.tally.count(one)
        self._keep(found)
        self._count()
        now = time.monotonic()
        if found or now - self._published >= _PUBLISHED:
            self._published = now
            self._tell()
        self._waiting.sort(key=when)
        count = len(self._waiting)
        if len(self.hosts) > 1 and not everything:
            count = next((at for at, one in enumerate(self._waiting) if when(one) > settled), count)
        due, self._waiting = self._waiting[:count], self._waiting[count:]
        return due

    def _keep(self, found: Sequence[Leak | Reset]) -> None:
        if self._save is None:
            return
        for host in self.hosts:
            if self._unsaved is None:
                try:
                    self._save.write(host.finder.to_save, found)
                except OutputError as error:
                    self._unsaved = error
            host.finder.to_save.clear()

    def _count(self) -> None:
        tally, missed = self.tally, self.tally.missed
        tally.connections = sum(host.finder.connections for host in self.hosts)
        missed.connections = sum(host.finder.forgotten for host in self.hosts)
        missed.packets = sum(host.lost() for host in self.hosts)
        missed.data = sum(host.skipped() for host in self.hosts)
        missed.events = sum(host.lost_events for host in self.hosts)

    def _tell(self) -> None:
        try:
            self._write_counts()
            self._unpublished = None
        except OutputError as error:
            self._unpublished = error

    def _write_counts(self) -> None:
        if self._publish is not None:
            now = time.time()
            self._publish(exposition(self.tally, since=self.since, now=now, missed_some=self.lean))

    def close(self) -> None:
        """Close all sockets, after the counts were published for the last time."""
        try:
            self._tell()
        finally:
            self._open.close()
