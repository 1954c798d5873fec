# SPDX-License-Identifier: MIT
"""How long nothing of a connection was seen, against the time that its entry lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.capture.judging import Conntrack
from lab.capture.states import State
from lab.capture.sysctls import Sysctls
from lab.kubeproxy.durations import seconds_of
from lab.kubeproxy.options import ProxyOptions

_SECOND: Final = 1_000_000_000  # ns
_LEAST: Final = 30  # s; no entry of an open connection lives less by default (tcp_timeouts)
_UNACKNOWLEDGED: Final = "UNACKNOWLEDGED"
_STATES: Final = ("ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT")
#: By state, in seconds: what kube-proxy makes of the kernel's timeouts.
_KUBE_PROXY: Final = {
    "ESTABLISHED": int(seconds_of(ProxyOptions.conntrack_tcp_timeout_established) or 0),
    "CLOSE_WAIT": int(seconds_of(ProxyOptions.conntrack_tcp_timeout_close_wait) or 0),
}


@dataclass(frozen=True)
class Idle:
    """A connection of which nothing was seen for so long.

    :param seconds: how long; ``state``: of its entry meanwhile, as conntrack names it.
    :param kernel: how many seconds such an entry lives by the kernel's own timeouts; ``kube_proxy``: by kube-proxy's.
        The same, where the node's are known.
    :param is_set: they are known.
    :param is_unacknowledged: something of it was not acknowledged, which makes the timeout no more than 300 s.
    """

    seconds: float
    state: str
    kernel: int
    kube_proxy: int
    is_unacknowledged: bool = False
    is_set: bool = False

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
        lives = f"{least:,} s{' by the sysctls given' if self.is_set else ''}" if least == most else both
        data = ", with something not acknowledged" if self.is_unacknowledged else ""
        words = f"idle for {int(self.seconds):,} s in {self.state}{data}, whose entry lives {lives}"
        if self.seconds >= most:
            return f"{words}: it expired"
        if self.is_expired:
            return f"{words}: it expired, or was deleted where it lives {most:,} s"
        return f"{words}: it was deleted{'' if self.is_set else ', unless a shorter timeout is set there'}"


class Idleness:
    """Looks at the times of a connection's packets.

    :param sysctls: of the node.
    :ivar last: when the last packet was seen, in nanoseconds.
    """

    def __init__(self, sysctls: Sysctls) -> None:
        self._sysctls = sysctls
        self._least = min(_LEAST, *(sysctls.timeouts.get(state, _LEAST) for state in (*_STATES, _UNACKNOWLEDGED)))
        self.last: int | None = None
        self._found: Idle | None = None
        self._by_client = False

    def see(self, time: int) -> None:
        """Take it that a packet was seen, in nanoseconds."""
        self.last = time if self.last is None else max(self.last, time)

    def before(self, time: int, conntrack: Conntrack, *, from_client: bool) -> Idle | None:
        """Return how long nothing was seen before a packet, or before the first one of those that its side sends on.

        None where that is less than any entry lives, or the handshake is not done or the connection over.

        :param conntrack: as it was before the packet.
        """
        idle = 0 if self.last is None else time - self.last
        self.see(time)
        if idle >= self._least * _SECOND:
            self._found, self._by_client = self._idle(idle / _SECOND, conntrack), from_client
        elif from_client != self._by_client:
            self._found = None
        return self._found

    def outlives(self, conntrack: Conntrack, idle: int) -> bool:
        """Check whether an entry is there after a time without a packet, in nanoseconds, whatever its state."""
        return conntrack.entry is not State.NONE and idle < self._sysctls.lives(conntrack.entry) * _SECOND

    def _idle(self, seconds: float, conntrack: Conntrack) -> Idle | None:
        state = conntrack.state
        if not state:
            return None
        lives, is_set = self._sysctls.lives(state), state in self._sysctls.timeouts
        others = lives if is_set else _KUBE_PROXY.get(state, lives)
        if conntrack.is_unacknowledged:
            most = self._sysctls.lives(_UNACKNOWLEDGED)
            lives, others = min(lives, most), min(others, most)
        return Idle(seconds, state, lives, others, conntrack.is_unacknowledged, is_set)
