# SPDX-License-Identifier: MIT
"""What the kernel logs about packets of one namespace: nfnetlink_log.

The groups are read by one socket, so their records stay in the order in which the kernel wrote them: group 0 has
conntrack's own words about packets that it does not like, the others are those of the lab's counting rules.
Message formats: include/uapi/linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lab.errors import MissingError
from lab.evidence.packet import Packet, decoded
from lab.netns import Namespace, nfnetlink
from lab.netns.nfnetlink import Subsystem

REASON_GROUP: Final = 0  # where the kernel itself logs to
WITNESS_GROUP: Final = 1
LOCAL_GROUP: Final = 2  # what a node gives to its own sockets

#: How the words of what is traced begin (net/ipv4/netfilter/ip_tables.c): iptables-legacy logs it to group 0.
TRACED: Final = "TRACE: "

_MSG_PACKET, _MSG_CONFIG = 0, 1
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_CMD_BIND, _COPY_PACKET = 1, 2
_ULA_MARK, _ULA_TIMESTAMP, _ULA_PAYLOAD, _ULA_PREFIX = 2, 3, 9, 10
_COPIED: Final = 512  # bytes of a packet; headers are all that is looked at
_BUFFER: Final = 4 * 1024 * 1024
_SYSCTLS: Final[dict[str, str | int]] = {
    **{f"net/netfilter/nf_log/{family.value}": "nfnetlink_log" for family in (socket.AF_INET, socket.AF_INET6)},
    "net/netfilter/nf_conntrack_log_invalid": 255,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One logged packet.

    ``time`` is the packet's arrival in nanoseconds (microsecond steps), None where the kernel gave none.
    """

    group: int
    words: str
    time: int | None
    data: bytes
    packet: Packet | None
    mark: int = 0


class PacketLog(nfnetlink.Listener):
    """All log groups of one namespace, with the kernel told to say why a packet is INVALID.

    :raises MissingError: the kernel lacks nfnetlink_log.
    """

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, _BUFFER)
        self._socket.setblocking(True)
        for group in (REASON_GROUP, WITNESS_GROUP, LOCAL_GROUP):
            self._configure(group, _CFG_CMD, struct.pack("=B", _CMD_BIND))
            self._configure(group, _CFG_MODE, struct.pack("!IBx", _COPIED, _COPY_PACKET))
            # One by one: the default gathers records for up to a second.
            self._configure(group, _CFG_QTHRESH, struct.pack("!I", 1))
        self._socket.setblocking(False)
        # Bound first, named second: a logger without a listener would lose the first records.
        namespace.set_sysctls(_SYSCTLS)

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        setting = nfnetlink.attribute(kind, value)
        request = nfnetlink.message(Subsystem.ULOG, _MSG_CONFIG, nfnetlink.ACK, setting, resource=group)
        if nfnetlink.ask(self._socket, request):
            raise MissingError("the kernel has no nfnetlink_log", "modprobe nfnetlink_log (NETFILTER_NETLINK_LOG)")

    @staticmethod
    def settings(namespace: Namespace) -> dict[str, str | int]:
        """Return the sysctls that it sets as a namespace has them now, to be put back; conntrack must be loaded."""
        return {key: namespace.sysctl(key) for key in _SYSCTLS}

    def read(self) -> list[Record]:
        """Return the records that wait, in the kernel's order."""
        return [
            _record(message.resource, message.body)
            for message in self._waiting()
            if (message.subsystem, message.kind) == (Subsystem.ULOG, _MSG_PACKET)
        ]


@lru_cache(1024)
def _words(prefix: bytes) -> str:
    return prefix.rstrip(b"\0").decode(errors="replace").strip()


def _record(group: int, body: bytes) -> Record:
    words, time, data, mark = "", None, b"", 0
    for kind, value in nfnetlink.attributes(body):
        if kind == _ULA_PREFIX:
            words = _words(value)
        elif kind == _ULA_TIMESTAMP:
            seconds, microseconds = struct.unpack("!QQ", value)
            time = seconds * 1_000_000_000 + microseconds * 1000
        elif kind == _ULA_PAYLOAD:
            data = value
        elif kind == _ULA_MARK:
            mark = int.from_bytes(value, "big")
    return Record(group, words, time, data, decoded(data), mark)
