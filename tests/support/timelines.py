"""What made-up timelines have in common: a client that asks a VIP, and one server behind a node."""

from __future__ import annotations

from typing import Any

from lab.evidence.packet import SocketAddress


def between(client: SocketAddress, vip: SocketAddress, pod: SocketAddress, *, server: str = "server") -> dict[str, Any]:
    """Return the fields that say who talks to whom."""
    return {
        "client": "client",
        "node": "node",
        "server": server,
        "target": vip,
        "client_address": client,
        "server_address": pod,
        "peer_address": client,
        "entry_events": (),
    }
