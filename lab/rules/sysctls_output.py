# SPDX-License-Identifier: MIT
"""What kube-proxies set below /proc/sys: for ``sysctl -p``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.kubeproxy.sysctls import text
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.rules.source import Proxy


def sysctls_as_text(proxies: Sequence[Proxy]) -> str:
    """Write what each kube-proxy sets, for ``sysctl -p``."""
    lines = []
    for proxy in proxies:
        lines += [f"# {proxy.node or 'kube-proxy'}: {proxy.options.version}, {proxy.mode} mode\n", text(proxy.sysctls)]
        if note := proxy.options.release.note(proxy.mode):
            lines.append(f"# {note}\n")
        if proxy.mode is ProxyMode.NFTABLES:
            lines.append("# net.ipv4.conf.all.route_localnet is left as it is, where iptables mode set it as well\n")
    return "".join(lines)
