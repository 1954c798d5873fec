# SPDX-License-Identifier: MIT
"""What passes the interfaces of a lab that stands, live, as a capture that Wireshark reads from a pipe."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from lab.errors import ReaderGoneError
from lab.report.pcapng_blocks import ETHERNET, RAW, interface, packet, section
from lab.standing import names
from lab.wire.frames import Frame, Frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.standing.record import StandingHost, StandingLab

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Nanoseconds after which a packet is in the socket that it was marked for, also on another processor.
_SETTLED: Final = 5_000_000


class Output(Protocol):
    """Where a capture goes: a binary file or pipe."""

    def fileno(self) -> int:
        """Return its descriptor."""
        ...

    def write(self, data: bytes, /) -> int:
        """Write all of it."""
        ...

    def flush(self) -> None:
        """Give it on."""
        ...


class LiveCapture:
    """A capture of a lab that stands, from the moment on at which it is made.

    :ivar packets: how many were written.
    :param hosts: of the lab.
    :param version: of the lab's program, for the head of the capture.
    :raises LabError: the owner of the lab is dead.
    """

    def __init__(self, lab: StandingLab, hosts: Sequence[StandingHost], version: str) -> None:
        lab.check()
        assert lab.owner is not None
        self.packets = 0
        self._kernel = os.uname().release
        self._numbers: dict[tuple[str, str, bool], int] = {}
        self._waiting: list[Frame] = []
        self._open = ExitStack()
        self._owner = os.pidfd_open(lab.owner)
        self._open.callback(os.close, self._owner)
        self._sources = [self._source(host) for host in hosts]
        begun = section(version, self._kernel, f"the lab {lab.name}, live: topology {lab.topology or 'unknown'}")
        ends = ((source.host, name, True) for source in self._sources for name in source.interfaces)
        self._head = begun + b"".join(self._numbered(*end)[1] for end in ends)

    def _source(self, host: StandingHost) -> Frames:
        namespace = names.opened(host.namespace)
        try:
            source = Frames(host.name, namespace)
        finally:
            namespace.close()  # the socket stays in it, and keeps it from nobody
        self._open.callback(source.close)
        return source

    @property
    def interfaces(self) -> int:
        """How many interfaces have been seen."""
        return len(self._numbers)

    def lost(self) -> int:
        """Return how many packets the kernel could not hand over since the last call."""
        return sum(source.lost() for source in self._sources)

    def write_to(self, output: Output) -> None:
        """Write what passes, until Ctrl-C or the end of the lab; whole packets, in the order of their times.

        :raises ReaderGoneError: whoever read a pipe has gone, also where nothing passed since.
        """
        with wakened() as wakeup:
            poll = select.poll()
            for descriptor in (wakeup, self._owner, *(source.fileno() for source in self._sources)):
                poll.register(descriptor, select.POLLIN)
            poll.register(output.fileno(), 0)  # of a pipe without a reader the kernel says POLLERR unasked
            output.write(self._head)
            output.flush()
            while True:
                ready = dict(poll.poll(_SETTLED // 1_000_000 if self._waiting else None))
                if ready.get(output.fileno(), 0) & (select.POLLERR | select.POLLHUP):
                    raise ReaderGoneError
                is_over = wakeup in ready or self._owner in ready
                self._take(output, everything=is_over)
                if is_over:
                    return

    def _take(self, output: Output, *, everything: bool) -> None:
        """Write what has settled, for what passed before it may be in a socket that was read before."""
        settled = time.time_ns() - _SETTLED
        for source in self._sources:
            self._waiting += source.read()
        self._waiting.sort(key=lambda frame: frame.time)
        due = [frame for frame in self._waiting if everything or frame.time <= settled]
        self._waiting = self._waiting[len(due) :]
        if due:
            output.write(b"".join(map(self._blocks, due)))
            output.flush()
            self.packets += len(due)

    def _blocks(self, frame: Frame) -> bytes:
        number, block = self._numbered(frame.host, frame.interface, frame.ethernet)
        return block + packet(number, frame.time, frame.data, outgoing=frame.outgoing, length=frame.length)

    def _numbered(self, host: str, name: str, ethernet: bool) -> tuple[int, bytes]:
        """Return the number of an interface, and the block that makes it known where it is new."""
        known = self._numbers.get((host, name, ethernet))
        if known is not None:
            return known, b""
        number = self._numbers[host, name, ethernet] = len(self._numbers)
        return number, interface(host, name, "", self._kernel, ETHERNET if ethernet else RAW)

    def close(self) -> None:
        """Close all sockets."""
        self._open.close()


@contextmanager
def wakened() -> Iterator[int]:
    """Have signals that end a program make a descriptor readable instead, for the length of the block."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.getsignal(number) for number in _ENDING}
    wakened = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # nohup's
                signal.signal(number, lambda _number, _frame: None)
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakened)
        os.close(reading)
        os.close(writing)
