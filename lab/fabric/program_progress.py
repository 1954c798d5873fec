# SPDX-License-Identifier: MIT
"""How far a kube-proxy program is, by its own metrics.

Its health endpoint does not tell: from v1.19 on that is well while it starts, and while changes wait, for as long as
they are not late (pkg/proxy/healthcheck/proxier_health.go).
"""

from __future__ import annotations

import http.client
import re
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.netns import Namespace

_PORT: Final = 10249
_PLACES: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))  # the second where it is bound to IPv6
_SECONDS: Final = 10.0
_LINE: Final = re.compile(r"^kubeproxy_(sync_proxy_rules_\w+?)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_FAILURES: Final = (
    "sync_proxy_rules_iptables_restore_failures_total",
    "sync_proxy_rules_nftables_sync_failures_total",
)
_PENDING: Final = ("sync_proxy_rules_service_changes_pending", "sync_proxy_rules_endpoint_changes_pending")


class Progress(NamedTuple):
    """What pkg/proxy/metrics/metrics.go counts, of both families together.

    :param synced: when the rules were last written in full, in seconds since the epoch; 0.0 for not yet.
    :param queued: when it was last found that they have to be.
    :param syncs: how often it was tried.
    :param pending: changes that it has heard of and not begun to write.
    :param failures: how often it failed.
    """

    synced: float
    queued: float
    syncs: float
    pending: float
    failures: float

    @property
    def done(self) -> bool:
        """Whether all that it has heard of is written, but for a sync that has just begun."""
        return 0 < self.synced >= self.queued and not self.pending


def progress(namespace: Namespace) -> Progress | None:
    """Ask a namespace's kube-proxy how far it is; None where nobody answers yet.

    :raises LabError: what answers is no kube-proxy's metrics.
    """
    for family, address in _PLACES:
        text = _metrics(namespace, family, address)
        if text is not None:
            return _read(text)
    return None


def _metrics(namespace: Namespace, family: int, address: str) -> str | None:
    connection = http.client.HTTPConnection(address, _PORT)
    try:
        connection.sock = namespace.socket(family, socket.SOCK_STREAM)
        connection.sock.settimeout(_SECONDS)
        connection.sock.connect((address, _PORT))
        connection.request("GET", "/metrics", headers={"Connection": "close"})
        response = connection.getresponse()
        return response.read().decode() if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _read(text: str) -> Progress:
    found: dict[str, list[float]] = {}
    for name, value in _LINE.findall(text):
        found.setdefault(name, []).append(float(value))
    if not found:
        raise LabError("kube-proxy's metrics say nothing of its rules")
    synced = found.get("sync_proxy_rules_last_timestamp_seconds", [0.0])
    queued = found.get("sync_proxy_rules_last_queued_timestamp_seconds", [0.0])
    return Progress(
        # A family without a sync has no line from v1.34 on, and before all share one.
        min(synced),
        max(queued),
        sum(found.get("sync_proxy_rules_duration_seconds_count", ())),
        sum(value for name in _PENDING for value in found.get(name, ())),
        sum(value for name in _FAILURES for value in found.get(name, ())),
    )
