# SPDX-License-Identifier: MIT
"""The rules that a kube-proxy program writes for objects, in a namespace without links."""

from __future__ import annotations

import re
from contextlib import closing
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Final

from lab.conntrack.witness import load_conntrack
from lab.fabric.program import Place, RunningKubeProxy
from lab.kubeapi.objects import changing, node, ranges
from lab.kubeproxy.jumps import kubelets
from lab.kubeproxy.nftables import table_of
from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.settings import KEYS
from lab.netns import Namespace, Nft, RouteSocket, Xtables
from lab.netns.rtnetlink import LOOPBACK_INDEX, address, link_up
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubeapi.resources import Object
    from lab.kubeproxy.program import ProxyProgram
    from lab.rules.source import Proxy

_COUNTERS: Final = re.compile(r"^\[\d+:\d+\] ", re.MULTILINE)
_TIMES: Final = re.compile(r"^# (Generated|Completed) .*\n", re.MULTILINE)
_NAME: Final = "node"  # of a node that nobody named


def written(program: ProxyProgram, proxy: Proxy) -> str:
    """Return the rules as ``iptables-save`` or ``nft list table`` gives them back, without counters and times.

    :param proxy: what the program serves, and what it is told.
    :raises MissingError: a program or a kernel feature is not there.
    :raises LabError: it cannot write them; its last words.
    """
    options, version = proxy.options, proxy.options.family.version
    with closing(Namespace.create()) as namespace, closing(Nft(namespace)) as nft:
        load_conntrack(nft)
        _give_addresses(namespace, options)
        place = Place(
            namespace,
            nft,
            options.node_name or _NAME,
            proxy.mode,
            proxy.backend,
            (options.family,),
            next(iter(_own(options)), ""),
            {field: value for field in KEYS if (value := getattr(options, field)) != getattr(ProxyOptions, field)},
        )
        with closing(Xtables(namespace, proxy.backend)) as xtables:
            if proxy.mode is ProxyMode.IPTABLES and (chains := kubelets(options)):
                xtables.start_restore(version, chains).finish()
            with closing(RunningKubeProxy(program, place, _objects(proxy, place.node))) as running:
                running.start()
                running.settle()
                if proxy.mode is ProxyMode.NFTABLES:
                    return nft.run(f"list table {table_of(options.family)}")
                return _COUNTERS.sub("", _TIMES.sub("", xtables.save(version)))


def _own(options: ProxyOptions) -> list[str]:
    return [one for one in options.node_addresses if Family.of(ip_address(one)) is options.family]


def _give_addresses(namespace: Namespace, options: ProxyOptions) -> None:
    """Give the node's addresses to its loopback: kube-proxy asks all interfaces for them."""
    own = [address(LOOPBACK_INDEX, ip_interface(one), "lo") for one in _own(options)]
    with closing(RouteSocket(namespace)) as routes:
        routes.apply([link_up(LOOPBACK_INDEX, "lo"), *own])


def _objects(proxy: Proxy, name: str) -> dict[str, list[Object]]:
    options = proxy.options
    own = node(name, _own(options), options.node_zone, options.node_pod_cidrs)
    others = {"nodes": [own], "servicecidrs": ranges(options.service_cidrs)}
    return changing(proxy.services, proxy.endpoint_slices) | others
