"""kube-proxy's rules as text: Services and EndpointSlices in, the input of iptables-restore or nft out.

Pure: nothing here knows a kernel or loads a rule. One module a mode: :func:`lab.kubeproxy.iptables.render`,
:func:`lab.kubeproxy.nftables.render`.
"""

from __future__ import annotations

from lab.kubeproxy import iptables, nftables
from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.releases import MINORS, Release, find_release
from lab.kubeproxy.tables import IptablesRules

__all__ = ["MINORS", "IptablesRules", "ProxyOptions", "Release", "find_release", "iptables", "nftables"]
