# SPDX-License-Identifier: MIT
"""Feature gates of kube-proxy that shape rules, and whether a release can be given them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from lab.errors import nearest, warn
from lab.kubeproxy.values import BadValueError, spell
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.releases import Release


class Gate(NamedTuple):
    """A feature gate that shapes rules.

    :param first: the first minor that has it, and ``last`` the last; None where that is yet to come.
    :param by: the change, by its name, that has it on by default; empty where it is so in every release.
    :param locked: the first minor in which it is on for good: with it off kube-proxy does not start (LockToDefault in
        pkg/features/kube_features.go); None where there is none.
    :param known: whether rules are written by it here; of others the default alone is.
    """

    first: int
    last: int | None
    by: str
    locked: int | None = None
    known: bool = False


#: By name; of others it is said that they change nothing here. By the notes of releases.
_GATES: Final = {
    "AllowServiceExternalIPs": Gate(36, None, "", known=True),
    "IPv6DualStack": Gate(16, 24, "dual-stack", locked=23, known=True),
    "LoadBalancerIPMode": Gate(29, None, "ip-mode", locked=32, known=True),
    "NFTablesProxyMode": Gate(29, None, "nft-beta", locked=33, known=True),
    "EndpointSliceProxying": Gate(18, 24, "slices"),
    "ExternalPolicyForExternalIP": Gate(18, 21, "external-ip-local"),
    "PreferSameTrafficDistribution": Gate(33, None, "hints-nodes", locked=35),
    "ProxyTerminatingEndpoints": Gate(22, 29, "terminating", locked=28),
    "ServiceInternalTrafficPolicy": Gate(21, 27, "internal-policy", locked=26),
    "TopologyAwareHints": Gate(21, None, "hints-annotated"),
}

#: Feature gates by which rules are written here.
GATES: Final = tuple(name for name, gate in _GATES.items() if gate.known)


def unfit_gate(name: str, on: bool, mode: ProxyMode, release: Release) -> BadValueError | None:
    """Return why a feature gate cannot be heeded; None where it can, or says what the release does anyway."""
    from lab.kubeproxy.changes import CHANGES

    gate = _GATES.get(name)
    if gate is None:
        return None  # it is warned of
    if name == "NFTablesProxyMode" and mode is ProxyMode.NFTABLES and not on:
        return BadValueError("NFTablesProxyMode is off, and without it there is no nftables mode", "leave it away")
    if on is (not gate.by or CHANGES[gate.by] in release):
        return None
    lacks = f"kube-proxy {release.name} does not know the feature gate {name}"
    if release.minor < gate.first:
        return BadValueError(lacks, f"v1.{gate.first} is the first that does")
    if gate.last is not None and release.minor > gate.last:
        return BadValueError(lacks, f"v1.{gate.last} is the last that does")
    if gate.locked is not None and release.minor >= gate.locked:
        locked = f"kube-proxy {release.name} does not start with {name}={spell(on)}: the feature gate is locked"
        return BadValueError(locked, f"v1.{gate.locked - 1} is the last in which it can be off")
    if gate.known:
        return None
    what = f"{name}={spell(on)} shapes rules of kube-proxy {release.name}, and how is not known here"
    return BadValueError(what, "leave it away: then the rules are those of its default")


def warn_of_gates(gates: Iterable[tuple[str, bool]], place: str) -> None:
    """Warn of feature gates that shape no rules."""
    for name, _on in gates:
        if name not in _GATES:
            hint = nearest(name, _GATES)
            warn(f"{place}: the feature gate {name} shapes no rule that is known here; it is left out ({hint})")
