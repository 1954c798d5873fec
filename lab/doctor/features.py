# SPDX-License-Identifier: MIT
"""What a lab needs of the kernel, tried in scratch namespaces as a lab would use it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.doctor.checks import Check, State, check
from lab.errors import LabError, MachineError, raise_if_exhausted
from lab.netns import Namespace, Nft, RouteSocket, Xtables, nfacct
from lab.netns.rtnetlink import VethEnd, veth
from lab.vocabulary import BE_LIBERAL, Backend, Family

if TYPE_CHECKING:
    from collections.abc import Iterator


def features() -> Iterator[Check]:
    """Try what every lab needs of the kernel, in two scratch namespaces.

    :raises ExhaustedError: something ran out on the way.
    """
    try:
        first, second = Namespace.create(), Namespace.create()
    except (MachineError, OSError) as error:
        raise_if_exhausted(error)
        cure = "raise the sysctl user.max_net_namespaces, or build the kernel with CONFIG_NET_NS"
        yield Check("network namespaces", State.MISSING, str(error), cure, necessary=True)
        return
    yield Check("network namespaces", State.OK, "made", necessary=True)
    try:
        yield check("veth", lambda: _veth(first, second), "modprobe veth (CONFIG_VETH)")
        yield check("AF_PACKET", lambda: _packet_socket(first), "modprobe af_packet (CONFIG_PACKET)")
        yield check("libnftables, nf_tables", lambda: _nf_tables(first), "modprobe nf_tables (CONFIG_NF_TABLES)")
        yield check("conntrack", lambda: _conntrack(first), "modprobe nft_ct nf_conntrack (CONFIG_NFT_CT)")
        yield check("ctnetlink", lambda: _ctnetlink(first), "modprobe nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)")
        yield check("nfnetlink_log", lambda: _log(first), "modprobe nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)")
        yield check("IPv6", _ipv6, "boot without ipv6.disable=1, or use --family ipv4", necessary=False)
        yield check("nfacct", lambda: _nfacct(first), necessary=False)
    finally:
        first.close()
        second.close()


def _veth(first: Namespace, second: Namespace) -> str:
    routes = RouteSocket(first)
    try:
        near, far = (VethEnd("doctor", 2, bytes((2, 0, 0, 0, 0, side))) for side in (1, 2))
        routes.apply([veth(near, far, second)])
    finally:
        routes.close()
    return "a pair was made"


def _packet_socket(namespace: Namespace) -> str:
    namespace.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    return "a socket was opened"


def _nf_tables(namespace: Namespace) -> str:
    return _load(namespace, "table inet doctor { }", "a table was made")


def _conntrack(namespace: Namespace) -> str:
    chain = "chain forward { type filter hook forward priority 0; ct state invalid drop; }"
    _load(namespace, f"table inet doctor_ct {{ {chain}; }}", "")
    liberal = namespace.sysctl(BE_LIBERAL)
    return f"ct state is known, and be_liberal of a fresh namespace is {liberal}"


def _load(namespace: Namespace, rules: str, found: str) -> str:
    nft = Nft(namespace)
    try:
        nft.run(rules)
    finally:
        nft.close()
    return found


def _ctnetlink(namespace: Namespace) -> str:
    from lab.conntrack.netlink import ConntrackTable

    table = ConntrackTable(namespace)
    try:
        table.statistics()
    finally:
        table.close()
    return "statistics were read"


def _log(namespace: Namespace) -> str:
    from lab.conntrack.nflog import PacketLog

    PacketLog(namespace).close()
    return "the reasons for INVALID can be listened to"


def _ipv6() -> str:
    if not Path("/proc/sys/net/ipv6").exists():
        raise LabError("the kernel has none, or was told to do without")
    return "there"


def _nfacct(namespace: Namespace) -> str:
    nfacct.create(namespace, "doctor")
    return "a counter was made"


# One rule for each match and target of kube-proxy's usual rules. They stay in the scratch namespace.
_RULES: Final = """*nat
:DOCTOR - [0:0]
-A PREROUTING -m comment --comment doctor -m addrtype --dst-type LOCAL -j DOCTOR
-A DOCTOR -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination {target}
-A DOCTOR -j MARK --set-xmark 0x4000/0x4000
-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE
COMMIT
*filter
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A INPUT -p tcp -j REJECT
COMMIT
"""
_RULE_MODULES: Final = (
    "xt_comment xt_addrtype xt_statistic xt_nat xt_mark xt_MASQUERADE xt_conntrack ipt_REJECT ip6t_REJECT"
)


def backends() -> Iterator[Check]:
    """Load rules like kube-proxy's by each backend of iptables, in a scratch namespace."""
    for backend in Backend:
        tables = "nft_compat nft_chain_nat" if backend is Backend.NFT else "iptable_nat ip6table_nat"
        for family in Family:
            yield check(
                f"iptables-{backend}, {family}",
                lambda backend=backend, family=family: _restore(backend, family),  # type: ignore[misc]
                f"modprobe -a {tables} {_RULE_MODULES}",
                necessary=backend is Backend.NFT and family is Family.IPV4,
            )


def _restore(backend: Backend, family: Family) -> str:
    target = "192.0.2.1:80" if family is Family.IPV4 else "[2001:db8::1]:80"
    namespace = Namespace.create()
    xtables = Xtables(namespace, backend)
    try:
        xtables.start_restore(family.version, _RULES.format(target=target)).finish()
    finally:
        xtables.close()
        namespace.close()
    return "rules like kube-proxy's were loaded"
