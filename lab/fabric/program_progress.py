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
_LINE: Final = re.compile(r"^kubeproxy_(sync_proxy_rules_\w+?)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_SYNCED: Final = "sync_proxy_rules_last_timestamp_seconds"
_QUEUED: Final = "sync_proxy_rules_last_queued_timestamp_seconds"
_FAILURES: Final = (
    "sync_proxy_rules_iptables_restore_failures_total",
    "sync_proxy_rules_nftables_sync_failures_total",
)
_PENDING: Final = ("sync_proxy_rules_service_changes_pending", "sync_proxy_rules_endpoint_changes_pending")


class Progress(NamedTuple):
    """What pkg/proxy/metrics/metrics.go counts.

    :param synced: by family, as labels name it, when the rules were last written in full, in seconds since the epoch,
        and when it was last found that they have to be; before v1.33 both families share one.
    :param syncs: how often it was tried, in both families together.
    :param pending: changes that it has heard of and not begun to write.
    :param failures: how often it failed.
    """

    synced: tuple[tuple[float, float], ...]
    syncs: float
    pending: float
    failures: float

    @property
    def done(self) -> bool:
        """Whether all that it has heard of is written, but for a sync that has just begun."""
        return bool(self.synced) and all(0 < last >= queued for last, queued in self.synced) and not self.pending


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
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in _LINE.findall(text):
        found.setdefault(name, {})[labels] = float(value)
    if not found:
        raise LabError("kube-proxy's metrics say nothing of its rules")
    synced, queued = found.get(_SYNCED, {}), found.get(_QUEUED, {})

    def total(*names: str) -> float:
        return sum(value for name in names for value in found.get(name, {}).values())

    return Progress(
        tuple((synced.get(family, 0.0), queued.get(family, 0.0)) for family in synced | queued),
        total("sync_proxy_rules_duration_seconds_count"),
        total(*_PENDING),
        total(*_FAILURES),
    )
