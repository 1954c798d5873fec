# SPDX-License-Identifier: MIT
"""Building links at the kernel's own speed: rtnetlink messages, a batch a namespace.

A library's call a message forks or waits for each acknowledgement; here one buffer holds all messages
of a namespace, and only the last asks for an acknowledgement (errors are always sent back).
Message formats: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h, veth.h.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import Final

from lab.netns.namespace import Namespace
from lab.netns.nfnetlink import attributes

LOOPBACK_INDEX: Final = 1  # every namespace is born with it

_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_CREATE_EXCL: Final = 0x600
_NLM_F_CREATE_REPLACE: Final = 0x500
_NLMSG_ERROR: Final = 2
_NLM_F_ACK_TLVS: Final = 0x200

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_GETROUTE = 16, 18, 20, 21, 24, 26
_RTM_NEWNEIGH, _RTM_NEWRULE = 28, 32
_TABLE_MAIN: Final = 254
_RTN_LOCAL: Final = 2  # include/uapi/linux/rtnetlink.h
_CLOSED: Final = {"blackhole": 6, "unreachable": 7, "prohibit": 8}  # RTN_BLACKHOLE and the next two

_IFF_UP, _IFF_RUNNING, _IFF_PROMISC, _IFF_LOWER_UP = 0x1, 0x40, 0x100, 0x10000
_READY: Final = _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP
VXLAN_PORT: Final = 8472  # flannel's and Cilium's, and Linux' own default before RFC 7348 had 4789
_IFA_F_NODAD: Final = 0x02
_NUD_PERMANENT: Final = 0x80
_MAXIMUM_BATCH: Final = 64 * 1024  # bytes; well below the default send buffer of 208 KiB

type_of_address = IPv4Address | IPv6Address


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _family(address: type_of_address | IPv4Network | IPv6Network) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


@dataclass(frozen=True, slots=True)
class Message:
    """One request, with the words that an error about it is told in."""

    kind: int
    flags: int
    body: bytes
    purpose: str


def link_up(index: int, purpose: str) -> Message:
    """Set interface ``index`` up."""
    return Message(_RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, _IFF_UP, _IFF_UP), f"set {purpose} up")


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a veth pair: its name, interface index and hardware address in its namespace."""

    name: str
    index: int
    mac: bytes
    mtu: int | None = None


def bridge(device: VethEnd, *, promiscuous: bool) -> Message:
    """Make a bridge that forwards at once, and floods what is for groups.

    :param promiscuous: whether it hands its host every frame, also those for others.
    """
    at_once, no_snooping = _number(1, 0), _attribute(23, b"\0")  # IFLA_BR_FORWARD_DELAY, IFLA_BR_MCAST_SNOOPING
    flags = _IFF_PROMISC if promiscuous else 0
    body = struct.pack("=BxHiII", 0, 0, device.index, flags, flags)
    body += _attribute(3, device.name.encode() + b"\0") + _attribute(1, device.mac)  # IFLA_IFNAME, IFLA_ADDRESS
    body += _attribute(18, _attribute(1, b"bridge\0") + _attribute(2, at_once + no_snooping))  # IFLA_LINKINFO
    return Message(_RTM_NEWLINK, _NLM_F_CREATE_EXCL, body, f"make the bridge {device.name}")


def port(index: int, of: int, purpose: str) -> Message:
    """Make interface ``index`` a port of a bridge."""
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + _number(10, of)  # IFLA_MASTER
    return Message(_RTM_NEWLINK, 0, body, f"make {purpose} a port of a bridge")


def behind_port(index: int, mac: bytes, purpose: str) -> Message:
    """Return the message that tells a bridge who is behind its port ``index``: it floods nothing that is for them."""
    noarp, master = 0x40, 0x04  # NUD_NOARP: static; NTF_MASTER: the bridge's own table
    body = struct.pack("=BxHiHBB", socket.AF_BRIDGE, 0, index, noarp, master, 0)
    body += _attribute(2, mac)  # NDA_LLADDR
    return Message(_RTM_NEWNEIGH, _NLM_F_CREATE_REPLACE, body, f"tell {purpose} who is behind a port")


def hairpin(index: int, purpose: str) -> Message:
    """Have a bridge send what came by its port ``index`` back by it, where that is its way."""
    mode = _attribute(5, _attribute(4, b"\1"))  # IFLA_INFO_SLAVE_DATA{IFLA_BRPORT_MODE}
    linkinfo = _attribute(18, _attribute(4, b"bridge\0") + mode)  # IFLA_LINKINFO{IFLA_INFO_SLAVE_KIND}
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + linkinfo
    return Message(_RTM_NEWLINK, 0, body, f"have {purpose} in hairpin mode")


def vxlan(device: VethEnd, number: int, by: int, local: type_of_address, remote: type_of_address) -> Message:
    """Make one end of a VXLAN tunnel (RFC 7348) to one other host.

    :param number: of the network (VNI).
    :param by: the index of the interface that its packets leave by; from that it has its MTU where none is given.
    """
    data = _number(1, number) + _number(3, by)  # IFLA_VXLAN_ID, IFLA_VXLAN_LINK
    kinds = (4, 2) if local.version == 4 else (17, 16)  # IFLA_VXLAN_LOCAL and _GROUP, _LOCAL6 and _GROUP6
    data += _attribute(kinds[0], local.packed) + _attribute(kinds[1], remote.packed)
    data += _attribute(7, b"\0") + _attribute(15, struct.pack("!H", VXLAN_PORT))  # IFLA_VXLAN_LEARNING, _PORT
    body = struct.pack("=BxHiII", 0, 0, device.index, 0, 0)
    body += _attribute(3, device.name.encode() + b"\0") + _attribute(1, device.mac)  # IFLA_IFNAME, IFLA_ADDRESS
    body += _number(4, device.mtu) if device.mtu else b""  # IFLA_MTU
    body += _attribute(18, _attribute(1, b"vxlan\0") + _attribute(2, data))  # IFLA_LINKINFO
    return Message(_RTM_NEWLINK, _NLM_F_CREATE_EXCL, body, f"make the tunnel {device.name}")


def veth(near: VethEnd, far: VethEnd, far_namespace: Namespace) -> Message:
    """Make a veth pair whose far end is born in ``far_namespace``: moving a link later costs 20 ms."""

    def end(side: VethEnd, extra: bytes) -> bytes:
        return (
            struct.pack("=BxHiII", 0, 0, side.index, 0, 0)
            + _attribute(3, side.name.encode() + b"\0")  # IFLA_IFNAME
            + _attribute(1, side.mac)  # IFLA_ADDRESS
            + (_number(4, side.mtu) if side.mtu else b"")  # IFLA_MTU
            + extra
        )

    peer = end(far, _number(28, far_namespace.fileno()))  # IFLA_NET_NS_FD
    information = _attribute(1, b"veth\0") + _attribute(2, _attribute(1, peer))  # KIND, DATA{VETH_INFO_PEER}
    body = end(near, _attribute(18, information))  # IFLA_LINKINFO
    return Message(_RTM_NEWLINK, _NLM_F_CREATE_EXCL, body, f"make the veth pair {near.name} - {far.name}")


def address(index: int, interface: IPv4Interface | IPv6Interface, purpose: str) -> Message:
    """Return the message that gives interface ``index`` an address, at once usable (no duplicate address detection)."""
    body = _address_body(index, interface)
    return Message(_RTM_NEWADDR, _NLM_F_CREATE_EXCL, body, f"give {purpose} the address {interface}")


def no_address(index: int, interface: IPv4Interface | IPv6Interface, purpose: str) -> Message:
    """Return the message that removes an address from interface ``index``."""
    return Message(_RTM_DELADDR, 0, _address_body(index, interface), f"take the address {interface} from {purpose}")


def _address_body(index: int, interface: IPv4Interface | IPv6Interface) -> bytes:
    packed = interface.ip.packed
    head = struct.pack("=BBBBi", _family(interface.ip), interface.network.prefixlen, _IFA_F_NODAD, 0, index)
    return head + _attribute(2, packed) + _attribute(1, packed)  # IFA_LOCAL, IFA_ADDRESS


def neighbour(index: int, target: type_of_address, mac: bytes, purpose: str) -> Message:
    """Return the message that makes ``target`` a permanent neighbour: no ARP, no first datagram lost to it."""
    body = (
        struct.pack("=BxHiHBB", _family(target), 0, index, _NUD_PERMANENT, 0, 0)
        + _attribute(1, target.packed)  # NDA_DST
        + _attribute(2, mac)  # NDA_LLADDR
    )
    # The other side may have asked by then, so that it is known already.
    return Message(_RTM_NEWNEIGH, _NLM_F_CREATE_REPLACE, body, f"tell {purpose} of its neighbour {target}")


def route(to: IPv4Network | IPv6Network, via: type_of_address | str, purpose: str, table: int | None = None) -> Message:
    """Route ``to`` by the gateway ``via``. A default route is ``0.0.0.0/0`` or ``::/0``.

    :param via: or what becomes of it where it goes nowhere: blackhole, unreachable or prohibit.
    :param table: up to 255; the main one where it is None.
    """
    protocol_static, scope_universe = 4, 0
    kind = _CLOSED[via] if isinstance(via, str) else 1  # RTN_UNICAST
    head = (_family(to), to.prefixlen, 0, 0, table or _TABLE_MAIN, protocol_static, scope_universe, kind)
    body = struct.pack("=BBBBBBBBI", *head, 0)
    if to.prefixlen:
        body += _attribute(1, to.network_address.packed)  # RTA_DST
    if not isinstance(via, str):
        body += _attribute(5, via.packed)  # RTA_GATEWAY
    return Message(_RTM_NEWROUTE, _NLM_F_CREATE_EXCL, body, f"route {to} by {via} on {purpose}")


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """Which packets a rule of policy routing is for: those that fit all that is not empty."""

    source: IPv4Network | IPv6Network | None
    to: IPv4Network | IPv6Network | None
    iif: str
    mark: int
    mask: int


def rule(version: int, match: RuleMatch, table: int, priority: int, purpose: str) -> Message:
    """Return the message that has packets routed by a table (include/uapi/linux/fib_rules.h)."""
    to_table = 1  # FR_ACT_TO_TBL
    lengths = [0 if net is None else net.prefixlen for net in (match.to, match.source)]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, *lengths, 0, table, 0, 0, to_table, 0)
    for kind, net in ((1, match.to), (2, match.source)):  # FRA_DST, FRA_SRC
        body += _attribute(kind, net.network_address.packed) if net is not None and net.prefixlen else b""
    body += _attribute(3, match.iif.encode() + b"\0") if match.iif else b""  # FRA_IIFNAME
    body += _number(6, priority)  # FRA_PRIORITY
    if match.mask:
        body += _number(10, match.mark) + _number(16, match.mask)  # FRA_FWMARK, FRA_FWMASK
    return Message(_RTM_NEWRULE, _NLM_F_CREATE_EXCL, body, f"have table {table} asked on {purpose}")


@dataclass(frozen=True, slots=True)
class Routed:
    """How the kernel would route a packet.

    :param refusal: the errno with which it would not; 0 where it would.
    :param gateway: the neighbour that it would go to, the destination itself where it is one.
    :param index: of the interface that it would leave by.
    :param hop_limit: what the route gives to packets of the host's own; 0 where it gives none.
    """

    refusal: int
    gateway: type_of_address | None = None
    index: int = 0
    hop_limit: int = 0


class RouteSocket:
    """An rtnetlink socket that stays in the namespace it was opened in."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setblocking(True)
        for option in (10, 11):  # NETLINK_CAP_ACK, NETLINK_EXT_ACK: the kernel's own sentence with an error
            self._socket.setsockopt(socket.SOL_NETLINK if hasattr(socket, "SOL_NETLINK") else 270, option, 1)
        self._sequence = 0

    def apply(self, messages: list[Message]) -> None:
        """Send the messages in order; return when the kernel has done them all.

        :raises OSError: the first one that it refused, named by its purpose and the kernel's words.
        """
        batch = bytearray()
        pending: list[Message] = []
        for message in messages:
            pending.append(message)
            last = message is messages[-1] or len(batch) > _MAXIMUM_BATCH
            self._sequence += 1
            flags = _NLM_F_REQUEST | message.flags | (_NLM_F_ACK if last else 0)
            header = struct.pack("=IHHII", 16 + len(message.body), message.kind, flags, self._sequence, 0)
            batch += header + message.body + bytes(-len(message.body) % 4)
            if last:
                self._socket.send(batch)
                self._await_acknowledgement(pending)
                batch.clear()
                pending = []

    def _await_acknowledgement(self, pending: list[Message]) -> None:
        first = self._sequence - len(pending) + 1
        failure: OSError | None = None
        while True:
            for kind, flags, sequence, body in _split(self._socket.recv(65536)):
                if kind != _NLMSG_ERROR:
                    continue
                code = -struct.unpack_from("=i", body)[0]
                if code and failure is None:
                    words = _extended(body) if flags & _NLM_F_ACK_TLVS else ""
                    what = pending[sequence - first].purpose
                    failure = OSError(code, f"cannot {what}: {os.strerror(code)}" + (f" ({words})" if words else ""))
                if sequence == self._sequence:
                    if failure:
                        raise failure
                    return

    def is_running(self, index: int) -> bool:
        """Report whether interface ``index`` can carry packets. Asking also makes the kernel activate it."""
        self._sequence += 1
        body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + _number(29, 0)  # IFLA_EXT_MASK: no statistics
        self._socket.send(struct.pack("=IHHII", 16 + len(body), _RTM_GETLINK, _NLM_F_REQUEST, self._sequence, 0) + body)
        for kind, _flags, _sequence, answer in _split(self._socket.recv(65536)):
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", answer)[0]
                raise OSError(code, f"cannot ask for interface {index}: {os.strerror(code)}")
            flags: int = struct.unpack_from("=BxHiII", answer)[3]
            return flags & _READY == _READY
        return False

    def is_local(self, target: type_of_address) -> bool:
        """Report whether what comes for ``target`` is taken in.

        An IPv6 address is not when it has been given: its local route is made by a worker of the kernel a moment later,
        also without duplicate address detection (``addrconf_dad_start`` and ``addrconf_dad_work`` in
        net/ipv6/addrconf.c). What comes before that is thrown away.
        """
        body = struct.pack("=BBBBBBBBI", _family(target), target.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        kind, answer = self.ask(_RTM_GETROUTE, body + _attribute(1, target.packed))  # RTA_DST
        return kind == _RTM_NEWROUTE and answer[7] == _RTN_LOCAL  # no route at all is an error, ENETUNREACH

    def routed(
        self,
        target: type_of_address,
        came: tuple[type_of_address, int] | None = None,
        *,
        source: type_of_address | None = None,
    ) -> Routed:
        """Return how the kernel would route a packet to an address.

        It is asked as ``ip route get TARGET from SOURCE iif INTERFACE`` asks it (inet_rtm_getroute, net/ipv4/route.c;
        inet6_rtm_getroute, net/ipv6/route.c).

        :param came: the packet's source and the index of the interface that it came in by; None for one of its own.
        :param source: of one of its own, where that is chosen already.
        """
        bits = target.max_prefixlen
        source = came[0] if came else source
        body = struct.pack("=BBBBBBBBI", _family(target), bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
        body += _attribute(1, target.packed)  # RTA_DST
        body += _attribute(2, source.packed) if source else b""  # RTA_SRC
        body += _number(3, came[1]) if came else b""  # RTA_IIF
        kind, answer = self.ask(_RTM_GETROUTE, body)
        if kind == _NLMSG_ERROR:
            return Routed(-int(struct.unpack_from("=i", answer)[0]))
        found = dict(attributes(answer[12:]))
        gateway = ip_address(found[5]) if 5 in found else target  # RTA_GATEWAY
        limit = dict(attributes(found.get(8, b""))).get(10, b"")  # RTA_METRICS{RTAX_HOPLIMIT}
        index = int.from_bytes(found.get(4, b""), sys.byteorder)  # RTA_OIF
        return Routed(0, gateway, index, int.from_bytes(limit, sys.byteorder))

    def ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        """Ask something, and return what kind of message answers it, and its body."""
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST, self._sequence, 0) + body)
        answered, _flags, _sequence, answer = _split(self._socket.recv(65536))[0]
        return answered, answer

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _split(data: bytes) -> list[tuple[int, int, int, bytes]]:
    messages = []
    offset = 0
    while offset < len(data):
        length, kind, flags, sequence, _port = struct.unpack_from("=IHHII", data, offset)
        messages.append((kind, flags, sequence, data[offset + 16 : offset + length]))
        offset += (length + 3) & ~3
    return messages


def _extended(body: bytes) -> str:
    """Return the sentence of an extended acknowledgement (NLMSGERR_ATTR_MSG); the request is capped to its header."""
    return dict(attributes(body[4 + 16 :])).get(1, b"").rstrip(b"\0").decode(errors="replace")
