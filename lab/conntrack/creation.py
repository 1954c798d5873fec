# SPDX-License-Identifier: MIT
"""An entry that is to be made in conntrack's table, as ``conntrack -I`` (conntrack-tools) makes one.

Numbers of attributes are from include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from lab.conntrack.netlink import creation
from lab.errors import InputError
from lab.evidence.entry import TCP_STATES
from lab.evidence.packet import TCP, UDP, SocketAddress
from lab.netns.nfnetlink import attribute, nested

#: The protocols whose entries can be made: those that have ports, and no numbers that only their own packets tell.
PROTOCOLS: Final = {"tcp": TCP, "udp": UDP}

_USUAL: Final = "ESTABLISHED"  # the state of TCP
_LONGEST: Final = 0x7FFFFFFF  # seconds: what the kernel's own sysctls take
_PROTOINFO, _NAT_SRC, _NAT_DST = 4, 6, 13
_PROTOINFO_TCP, _TCP_STATE = 1, 1
_NAT_IP: Final = {4: (1, 2), 6: (4, 5)}  # the first and the last address
_NAT_PROTO, _PORT_MIN, _PORT_MAX = 3, 1, 2
_CURE: Final = "write 10.0.0.1:80 or [fd00::1]:80"


@dataclass(frozen=True)
class NewFlow:
    """What is to be made; see :meth:`lab.conntrack.flows.Flows.create`."""

    protocol: str
    source: str
    destination: str
    reply_source: str = ""
    reply_destination: str = ""
    state: str | None = None
    assured: bool = False
    timeout: int | None = None

    def request(self, sysctl: Callable[[str], str]) -> bytes:
        """Return the request that makes it.

        :param sysctl: reads one of the kernel that is asked, which says how long an entry stays where nobody does.
        :raises InputError: one of its words cannot be.
        """
        if self.protocol not in PROTOCOLS:
            raise InputError(
                f"no entry of {self.protocol!r} can be made", cure=f"one of: {', '.join(PROTOCOLS)}; or send packets"
            )
        if self.timeout is not None and not 0 < self.timeout <= _LONGEST:
            raise InputError(f"an entry cannot live for {self.timeout} seconds", cure="write 1 or more")
        source, destination = _end("source", self.source), _end("destination", self.destination)
        ends = {"reply source": self.reply_source, "reply destination": self.reply_destination}
        replying = {name: _end(name, text) if text else None for name, text in ends.items()}
        if len({":" in end.address for end in (source, destination, *replying.values()) if end}) > 1:
            raise InputError("the addresses of an entry are of one family")
        answering, answered = replying["reply source"], replying["reply destination"]
        more = [self._state()] if self.protocol == "tcp" else []
        if self.state is not None and not more:
            raise InputError(f"{self.protocol} has no states", cure="leave the state away")
        more += [_translation(_NAT_DST, answering)] if answering not in (None, destination) else []
        more += [_translation(_NAT_SRC, answered)] if answered not in (None, source) else []
        number, timeout = PROTOCOLS[self.protocol], self.timeout or int(sysctl(self._sysctl()))
        return creation(number, source, destination, assured=self.assured, timeout=timeout, more=more)

    def _sysctl(self) -> str:
        """Return the sysctl of how long such an entry stays without a packet.

        What a kernel gives SYN_SENT2 is what it gives SYN_SENT at first (tcp_timeouts, nf_conntrack_proto_tcp.c).
        """
        if self.protocol == "udp":
            return f"net/netfilter/nf_conntrack_udp_timeout{'_stream' if self.assured else ''}"
        state = self.state or _USUAL
        if state == "NONE":
            raise InputError("no kernel says how long an entry stays in NONE", cure="give the timeout")
        return f"net/netfilter/nf_conntrack_tcp_timeout_{state.lower().removesuffix('2')}"

    def _state(self) -> bytes:
        state = self.state or _USUAL
        if state not in TCP_STATES:
            raise InputError(f"TCP has no state {state!r}", cure=f"one of: {', '.join(TCP_STATES)}")
        number = bytes((TCP_STATES.index(state),))
        return nested(_PROTOINFO, nested(_PROTOINFO_TCP, attribute(_TCP_STATE, number)))


def _end(what: str, text: str) -> SocketAddress:
    """Read an address with its port.

    :raises InputError: it is none.
    """
    address, _, port = text.rpartition(":")
    try:
        found = SocketAddress(str(ip_address(address.removeprefix("[").removesuffix("]"))), int(port))
    except ValueError:
        found = None
    if found is None or not 0 < found.port < 1 << 16 or (":" in found.address) != address.startswith("["):
        raise InputError(f"{text!r} is no address with a port, as the {what} of an entry has", cure=_CURE)
    return found


def _translation(kind: int, to: SocketAddress | None) -> bytes:
    assert to is not None
    address, port = ip_address(to.address), struct.pack("!H", to.port)
    first, last = _NAT_IP[address.version]
    ports = nested(_NAT_PROTO, attribute(_PORT_MIN, port), attribute(_PORT_MAX, port))
    return nested(kind, attribute(first, address.packed), attribute(last, address.packed), ports)
