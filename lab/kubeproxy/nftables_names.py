# SPDX-License-Identifier: MIT
"""nftables mode: what kube-proxy calls its table, its chains and its sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.kubeproxy.services import ServicePort, Target, hashed

if TYPE_CHECKING:
    from lab.vocabulary import Family

TABLE: Final = "kube-proxy"


def table_of(family: Family) -> str:
    """Return what nft calls kube-proxy's table of a family."""
    return f"{family.nft} {TABLE}"


MARK: Final = "0x00004000"
"""The packet mark that asks for masquerading: ``--iptables-masquerade-bit`` has no effect in this mode."""

_NAME_LENGTH: Final = 240
"""Longest name without its prefix (``chainNameBaseLengthMax``): nft takes 256, the prefix may have 16."""


class Names:
    """A port's chain names, and what they are used for."""

    def __init__(self, port: ServicePort) -> None:
        self._base = f"{port.service}/{port.protocol}/{port.port_name}"
        name = named(self._base)
        endpoints = port.endpoints
        self.cluster = f"service-{name}"
        self.local = f"local-{name}"
        self.external = f"external-{name}"
        self.firewall = f"firewall-{name}"
        self.internal = self.local if port.internal_local else self.cluster
        self.internal_reachable = port.internal_reachable
        self.external_reachable = port.external_reachable
        self.refusal = "drop" if endpoints.exist else "goto reject-chain"
        self._endpoints: dict[str, str] = {}

    def endpoint(self, target: Target) -> str:
        """Return the name, without its prefix, of an endpoint's chain and of its affinity set."""
        name = self._endpoints.get(target.text)
        if name is None:
            name = named(f"{self._base}__{target.address.replace(':', '.')}/{target.port}")
            self._endpoints[target.text] = name
        return name


def named(text: str) -> str:
    """Put its hash before a text, and cut it where it is too long for nft."""
    name = f"{hashed(text, 8)}-{text}"
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 3] + "..."
