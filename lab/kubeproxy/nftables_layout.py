# SPDX-License-Identifier: MIT
"""nftables mode: the base chains by which packets come to kube-proxy's rules, and the chains that these jump to."""

from __future__ import annotations

from typing import Final, TypeAlias

BaseChain: TypeAlias = tuple[str, str, str, int]
"""Name, type, hook, priority."""

Jump: TypeAlias = tuple[str, str, str]
"""From, to, condition."""

_NEW: Final = "ct state new "

_NAT: Final = (
    ("nat-prerouting", "nat", "prerouting", -100),
    ("nat-output", "nat", "output", -100),
    ("nat-postrouting", "nat", "postrouting", 100),
)
_DISPATCH: Final = (
    ("nat-output", "services", ""),
    ("nat-prerouting", "services", ""),
    ("nat-postrouting", "masquerading", ""),
)
_ENDPOINTS: Final = (
    ("filter-input", "nodeport-endpoints-check", _NEW),
    ("filter-input", "service-endpoints-check", _NEW),
    ("filter-forward", "service-endpoints-check", _NEW),
    ("filter-output", "service-endpoints-check", _NEW),
)

#: Base chains and jumps where refusals come after DNAT (:data:`lab.kubeproxy.changes.FILTERS_AFTER_DNAT`).
AFTER_DNAT: Final[tuple[tuple[BaseChain, ...], tuple[Jump, ...]]] = (
    (
        ("filter-prerouting-pre-dnat", "filter", "prerouting", -110),
        ("filter-output-pre-dnat", "filter", "output", -110),
        ("filter-input", "filter", "input", 0),
        ("filter-forward", "filter", "forward", 0),
        ("filter-output", "filter", "output", 0),
        *_NAT,
    ),
    (
        *_ENDPOINTS,
        ("filter-prerouting-pre-dnat", "firewall-check", _NEW),
        ("filter-output-pre-dnat", "firewall-check", _NEW),
        *_DISPATCH,
        ("filter-forward", "cluster-ips-check", _NEW),
        ("filter-output", "cluster-ips-check", _NEW),
    ),
)

#: The same where they come before.
BEFORE_DNAT: Final[tuple[tuple[BaseChain, ...], tuple[Jump, ...]]] = (
    (
        ("filter-prerouting", "filter", "prerouting", -110),
        ("filter-input", "filter", "input", -110),
        ("filter-forward", "filter", "forward", -110),
        ("filter-output", "filter", "output", -110),
        ("filter-output-post-dnat", "filter", "output", -90),
        *_NAT,
    ),
    (
        *_ENDPOINTS,
        ("filter-prerouting", "firewall-check", _NEW),
        ("filter-output", "firewall-check", _NEW),
        *_DISPATCH,
        ("filter-forward", "cluster-ips-check", _NEW),
        ("filter-output-post-dnat", "cluster-ips-check", _NEW),
    ),
)
