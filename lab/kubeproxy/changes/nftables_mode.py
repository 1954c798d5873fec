# SPDX-License-Identifier: MIT
"""Changes of nftables mode's rules."""

from __future__ import annotations

from typing import Final

from lab.kubeproxy.changes.change import NFTABLES, Area, Change

NFT_ALPHA: Final = Change(
    "nft-alpha", 29, "nftables mode, by the feature gate NFTablesProxyMode", modes=NFTABLES, pulls=(121046,)
)
NFT_FORGETS_INVALID: Final = Change(
    "nft-forgets-invalid",
    30,
    "what is INVALID is no more dropped, as the first alpha did where be_liberal was not set",
    modes=NFTABLES,
    pulls=(122663,),
)
NFT_MAPS: Final = Change(
    "nft-maps",
    30,
    "the table's layout of today: maps of services, of firewalls and of what has no endpoints; other ports of a cluster"
    " IP are refused",
    modes=NFTABLES,
    pulls=(122296, 122614, 122692, 123162),
)
NFT_BETA: Final = Change(
    "nft-beta",
    31,
    "nftables mode without a gate; elements of firewall-ips without a comment",
    modes=NFTABLES,
    pulls=(124383,),
)
DROPS_UNALLOCATED: Final = Change(
    "drops-unallocated",
    33,
    "what goes to a cluster IP that no Service has is dropped, by the ServiceCIDRs of the API server",
    modes=NFTABLES,
)
FILTERS_AFTER_DNAT: Final = Change(
    "filters-after-dnat",
    34,
    "refusals come after DNAT, at priority 0; before they come at -110",
    modes=NFTABLES,
    patches=((33, 6),),
    pulls=(132456, 133969),
)
MARKS_ANY_PORT: Final = Change(
    "marks-any-port",
    34,
    "the rule that marks for masquerading in service- and local- chains matches the cluster IP whatever the port",
    Area.FORM,
    modes=NFTABLES,
    pulls=(131492,),
)
INTERFACE_BY_NAME: Final = Change(
    "interface-by-name",
    35,
    "pods are told by their interface's name (iifname); before by its index, and a prefix of names never loads",
    modes=NFTABLES,
    patches=((33, 6), (34, 2)),
    read=True,
    pulls=(
        134024,
        134099,
        134117,
        134118,
    ),
)
ENDPOINT_MAPS: Final = Change(
    "endpoint-maps",
    36,
    "endpoints are chosen by a map of addresses, and hairpins by a set; no mark-for-masquerade",
    modes=NFTABLES,
    pulls=(135800, 136499),
)
