# SPDX-License-Identifier: MIT
"""Reads what ``ip -j`` prints: addresses, links, routes and rules of routing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final

from lab.node.bundle import Interface, NodeRoute
from lab.vocabulary import Family

#: Types of routes that lead nowhere, or that the kernel makes by itself.
_NOT_TAKEN: Final = ("local", "broadcast", "multicast", "anycast", "blackhole", "unreachable", "prohibit", "throw")
_STANDARD: Final = ("local", "main", "default")

Entry = Mapping[str, Any]


class Links:
    """What was found, by the interfaces' names."""

    def __init__(self) -> None:
        self.interfaces: dict[str, Interface] = {}
        self.routes: list[NodeRoute] = []
        self.notes: list[str] = []

    def read(self, entries: Sequence[Entry]) -> bool:
        """Read what a call printed, and report whether it was one of ``ip``.

        :raises LookupError, TypeError, ValueError: it is broken.
        """
        entries = [one for one in entries if one]  # ip prints {} for what it does not show
        if all("ifname" in one for one in entries):
            for one in entries:
                self._interface(one)
        elif all("dst" in one and ("dev" in one or "type" in one or "nexthops" in one) for one in entries):
            self.routes += [route for one in entries if (route := _route(one, _family(one, entries)))]
        elif all("priority" in one and "src" in one for one in entries):
            own = [one for one in entries if one.get("table") not in _STANDARD]
            if own:
                verb = "is" if len(own) == 1 else "are"
                self.notes.append(f"{len(own)} rule{'s' * (len(own) != 1)} of policy routing {verb} not looked at.")
        else:
            return False
        return True

    def _interface(self, one: Entry) -> None:
        name = str(one["ifname"])
        known = self.interfaces.get(name, Interface(name))
        addresses = [
            ip_interface(f"{said['local']}/{said['prefixlen']}") for said in one.get("addr_info", ()) if "local" in said
        ]
        self.interfaces[name] = replace(
            known,
            addresses=tuple(dict.fromkeys([*known.addresses, *addresses])),
            kind=str(one.get("linkinfo", {}).get("info_kind", known.kind)),
            master=str(one.get("master", known.master)),
            mtu=int(one["mtu"]) if "mtu" in one else known.mtu,
        )


def _family(one: Entry, entries: Sequence[Entry]) -> Family:
    """Return the family of a route: ``default`` does not say it, and the others of the same call do."""
    said = [str(one.get(key, "")) for key in ("dst", "gateway", "prefsrc")]
    for text in said:
        if ":" in text or text.count(".") == 3:
            return Family.IPV6 if ":" in text else Family.IPV4
    counted = Counter(":" in str(other["dst"]) for other in entries if other["dst"] != "default")
    return Family.IPV6 if counted[True] > counted[False] else Family.IPV4


def _route(one: Entry, family: Family) -> NodeRoute | None:
    hops = one.get("nexthops") or [one]
    interface = one.get("dev") or hops[0].get("dev")
    if one.get("type", "unicast") in _NOT_TAKEN or not interface or one.get("table", "main") != "main":
        return None
    to = ip_network(family.everything if one["dst"] == "default" else str(one["dst"]), strict=False)
    gateway = one.get("gateway") or hops[0].get("gateway") or (one.get("via") or {}).get("host")
    return NodeRoute(to, str(interface), ip_address(str(gateway)) if gateway else None)
