# SPDX-License-Identifier: MIT
"""How long nothing of a connection was seen, against the time that its entry lives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.capture.judging import Conntrack
from lab.kubeproxy.durations import seconds_of
from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.sysctls import CLOSE_WAIT, ESTABLISHED, KERNELS

if TYPE_CHECKING:
    from lab.capture.lane import Kept

_SECOND: Final = 1_000_000_000  # ns
_LEAST: Final = 30 * _SECOND  # no entry of an open connection lives less by default (tcp_timeouts)
_UNACKNOWLEDGED: Final = 300  # s, nf_conntrack_tcp_timeout_unacknowledged (nf_conntrack_proto_tcp.c, tcp_timeouts)
#: By state, in seconds: the kernel's own, and what kube-proxy makes of it.
_LIVES: Final = {
    "ESTABLISHED": (KERNELS[ESTABLISHED], int(seconds_of(ProxyOptions.conntrack_tcp_timeout_established) or 0)),
    "CLOSE_WAIT": (KERNELS[CLOSE_WAIT], int(seconds_of(ProxyOptions.conntrack_tcp_timeout_close_wait) or 0)),
    "FIN_WAIT": (120, 120),
}


@dataclass(frozen=True)
class Idle:
    """A connection of which nothing was seen for so long.

    :param seconds: how long; ``state``: of its entry meanwhile, as conntrack names it.
    :param kernel: how many seconds such an entry lives by the kernel's own timeouts; ``kube_proxy``: by kube-proxy's.
    :param is_unacknowledged: something of it was not acknowledged, which makes the timeout no more than 300 s.
    """

    seconds: float
    state: str
    kernel: int
    kube_proxy: int
    is_unacknowledged: bool = False

    @property
    def is_expired(self) -> bool:
        """Whether the entry's time was over, by either of the usual timeouts."""
        return self.seconds >= min(self.kernel, self.kube_proxy)

    @property
    def case(self) -> str:
        """Which case of the catalogue it is that the entry was gone."""
        if not self.is_expired:
            return "entry-deleted"
        return "entry-expired" if self.state == "ESTABLISHED" else "entry-expired-half-closed"

    def __str__(self) -> str:
        least, most = sorted((self.kernel, self.kube_proxy))
        both = f"{self.kernel:,} s by the kernel's default and {self.kube_proxy:,} s by kube-proxy's"
        lives = f"{least:,} s" if least == most else both
        data = ", with something not acknowledged" if self.is_unacknowledged else ""
        words = f"idle for {int(self.seconds):,} s in {self.state}{data}, whose entry lives {lives}"
        if self.seconds >= most:
            return f"{words}: it expired"
        if self.is_expired:
            return f"{words}: it expired, or was deleted where it lives {most:,} s"
        return f"{words}: it was deleted, unless a shorter timeout is set there"


class Idleness:
    """Looks at the times of a connection's packets."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._found: Idle | None = None
        self._by_client = False

    def see(self, time: int) -> None:
        """Take it that a packet was seen, in nanoseconds."""
        self._last = time if self._last is None else max(self._last, time)

    def see_all(self, segments: Iterable[Kept]) -> None:
        """Take it that segments were seen."""
        for one in segments:
            self.see(one.time)

    def before(self, time: int, conntrack: Conntrack, *, from_client: bool) -> Idle | None:
        """Return how long nothing was seen before a packet, or before the first one of those that its side sends on.

        None where that is less than any entry lives, or the handshake is not done or the connection over.

        :param conntrack: as it was before the packet.
        """
        idle = 0 if self._last is None else time - self._last
        self.see(time)
        if idle >= _LEAST:
            self._found, self._by_client = _idle(idle / _SECOND, conntrack), from_client
        elif from_client != self._by_client:
            self._found = None
        return self._found


def _idle(seconds: float, conntrack: Conntrack) -> Idle | None:
    lives = _LIVES.get(conntrack.state)
    if lives is None:
        return None
    if conntrack.is_unacknowledged:
        lives = (min(lives[0], _UNACKNOWLEDGED), min(lives[1], _UNACKNOWLEDGED))
    return Idle(seconds, conntrack.state, *lives, conntrack.is_unacknowledged)
