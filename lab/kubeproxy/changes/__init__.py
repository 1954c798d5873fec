# SPDX-License-Identifier: MIT
"""What changed in kube-proxy's rules, release by release: each change has a name, a first release and a reason.

A release is the set of the changes that it has (:mod:`lab.kubeproxy.releases`), and what writes rules asks for a
change by its name here. ``docs/releases.md`` is made of this table.

Source: rules that real kube-proxies of 26 releases wrote for the same objects (``tests/kubeproxy/dumps.md``), laid
beside each other; where a change says so, upstream's source alone.
"""

from __future__ import annotations

from typing import Final

from lab.kubeproxy.changes import entries, iptables_mode, nftables_mode, node
from lab.kubeproxy.changes.change import Area as Area
from lab.kubeproxy.changes.change import Change as Change
from lab.kubeproxy.changes.entries import *  # noqa: F403 - each change has its name here as well
from lab.kubeproxy.changes.iptables_mode import *  # noqa: F403
from lab.kubeproxy.changes.nftables_mode import *  # noqa: F403
from lab.kubeproxy.changes.node import *  # noqa: F403

#: All changes by name, in the order of the pages.
CHANGES: Final = {
    change.name: change
    for page in (iptables_mode, nftables_mode, node, entries)
    for change in vars(page).values()
    if isinstance(change, Change)
}
