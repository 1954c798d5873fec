# SPDX-License-Identifier: MIT
"""kube-proxy's rules as text: Services and EndpointSlices in, the input of iptables-restore or nft out.

Pure: nothing here knows a kernel or loads a rule. One module a mode: :func:`lab.kubeproxy.iptables.render`,
:func:`lab.kubeproxy.nftables.render`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.kubeproxy import iptables, nftables
    from lab.kubeproxy.options import ProxyOptions
    from lab.kubeproxy.releases import MINORS, Release, find_release
    from lab.kubeproxy.tables import IptablesRules

__all__ = ["MINORS", "IptablesRules", "ProxyOptions", "Release", "find_release", "iptables", "nftables"]

_PLACES: Final = {
    "ProxyOptions": "options",
    "MINORS": "releases",
    "Release": "releases",
    "find_release": "releases",
    "IptablesRules": "tables",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Import what is asked for: the command's help wants the names of settings alone."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
