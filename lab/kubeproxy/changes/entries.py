# SPDX-License-Identifier: MIT
"""Changes of which conntrack entries of UDP flows are deleted."""

from __future__ import annotations

from typing import Final

from lab.kubeproxy.changes.change import BOTH, Area, Change

ENTRIES_OF_CLUSTER_IP: Final = Change(
    "entries-of-cluster-ip",
    20,
    "where an endpoint of a UDP Service with a node port is gone, entries by its cluster IP are deleted as well",
    Area.ENTRIES,
    modes=BOTH,
    pulls=(71573,),
)
ENTRIES_OF_NODE_PORT: Final = Change(
    "entries-of-node-port",
    21,
    "a UDP Service's first endpoint has entries to its node port's number deleted; before, they are when kube-proxy"
    " opens the port, and before the rules are there",
    Area.ENTRIES,
    modes=BOTH,
    patches=((20, 5),),
    pulls=(98305,),
)
ENTRIES_OF_GONE: Final = Change(
    "entries-of-gone",
    21,
    "entries of an endpoint are deleted once it is in no slice; before (and later, see entries-of-unready) once it is"
    " not ready",
    Area.ENTRIES,
    modes=BOTH,
)
ENTRIES_OF_BALANCER: Final = Change(
    "entries-of-balancer",
    23,
    "a UDP Service's first endpoint has entries to its load balancer's addresses deleted",
    Area.ENTRIES,
    modes=BOTH,
    patches=((20, 11), (21, 5), (22, 1)),
    pulls=(104009, 104149, 104151, 104152),
)
ENTRIES_OF_UNREADY: Final = Change(
    "entries-of-unready",
    23,
    "entries of an endpoint are deleted once it is not ready, as up to v1.20, though it may still serve",
    Area.ENTRIES,
    modes=BOTH,
    patches=((22, 4),),
    pulls=(106163, 106239),
)
ENTRIES_BY_SERVING: Final = Change(
    "entries-by-serving",
    29,
    "entries of an endpoint that terminates stay as long as it serves; those of one that stops serving before it is"
    " gone stay for good (see entries-of-stopped)",
    Area.ENTRIES,
    modes=BOTH,
    pulls=(119394,),
)
ENTRIES_OF_STOPPED: Final = Change(
    "entries-of-stopped",
    32,
    "entries of an endpoint that stops serving are deleted",
    Area.ENTRIES,
    modes=BOTH,
    patches=((29, 10), (30, 6), (31, 2)),
    pulls=(127780, 127806, 127807, 127808),
)
ENTRIES_RECONCILED: Final = Change(
    "entries-reconciled",
    32,
    "where slices of a UDP Service change, entries of all UDP Services with serving endpoints are deleted that lead to"
    " none of these; those of a Service without any stay, and a restart cuts no flow",
    Area.ENTRIES,
    modes=BOTH,
    pulls=(126847, 127318),
)
ENTRIES_BY_PORT: Final = Change(
    "entries-by-port",
    33,
    "only flows to a Service's own port are looked at, before all to its addresses",
    Area.ENTRIES,
    modes=BOTH,
    patches=((32, 3),),
    pulls=(130484, 130505),
)
ENTRIES_BY_TARGET: Final = Change(
    "entries-by-target",
    34,
    "entries that lead to another port of an endpoint are deleted",
    Area.ENTRIES,
    modes=BOTH,
    pulls=(130542,),
)
