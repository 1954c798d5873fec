# SPDX-License-Identifier: MIT
"""Holding packets on their way through a node, to let them go on in another order: races are made, not hoped for.

Packets are held in POSTROUTING behind the translation of addresses, so each has chosen its tuples; and before conntrack
confirms its entry (nf_confirm, the hook's last), so no other packet knows of them.

The rule is iptables' target NFQUEUE in a chain of nftables, where its priority is free to choose: iptables has no table
behind the translation, and nftables' own statement is not in every kernel. libnftables cannot write such a rule, hence
the message (include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h, nfnetlink_queue.h).
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from lab.errors import MissingError
from lab.evidence.packet import Packet, decode
from lab.netns import Namespace, Nft, nfnetlink
from lab.netns.nfnetlink import ACK, CREATE, Subsystem, attribute, nested
from lab.vocabulary import Family

#: What the kernel must have, for :func:`lab.netns.features.require`.
NEEDS: Final = ("nfnetlink_queue", "nft_compat", "xt_NFQUEUE")

_TABLE: Final = "lab_hold"
_PRIORITY: Final = 110  # behind the translation of sources, NF_IP_PRI_NAT_SRC
_QUEUE: Final = 0
_BATCH_BEGIN, _BATCH_END, _NEW_RULE, _APPEND = 0x10, 0x11, 6, 0x800
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT, _NAME, _DATA = 1, 1, 2
_TARGET: Final = b"NFQUEUE\0"
_TARGET_NAME, _TARGET_REVISION, _TARGET_INFO = 1, 2, 3
_PACKET, _VERDICT, _CONFIG = 0, 1, 2  # NFQNL_MSG_*
_CONFIG_COMMAND, _CONFIG_PARAMETERS, _BIND, _COPY_PACKET = 1, 2, 1, 2
_PACKET_HEADER, _PACKET_PAYLOAD, _VERDICT_HEADER = 1, 10, 2
_DROP, _ACCEPT = 0, 1
_COPIED: Final = 512  # bytes of a packet; headers are all that is looked at


class Hold:
    """Holds the packets of one namespace that a rule says, from the moment on at which it is made.

    :param match: an nftables expression for the packets: ``udp dport 53``.
    :raises MissingError: the kernel cannot give packets to a program.
    """

    def __init__(self, namespace: Namespace, nft: Nft, family: Family, match: str) -> None:
        self.held: list[Packet] = []
        self._numbers: dict[int, int] = {}
        table = f"{family.nft} {_TABLE}"
        nft.run(
            f"table {table} {{\nchain held {{\n}}\nchain postrouting {{\n"
            f"type filter hook postrouting priority {_PRIORITY};\n{match} jump held\n}}\n}}\n"
        )
        self._socket = nfnetlink.open_socket(namespace)
        self._socket.setblocking(True)
        try:
            self._ask(nfnetlink.message(Subsystem.QUEUE, _CONFIG, ACK, _command(_BIND), resource=_QUEUE))
            self._ask(nfnetlink.message(Subsystem.QUEUE, _CONFIG, ACK, _copy(_COPIED), resource=_QUEUE))
            self._ask(_queue_rule(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6))
        except MissingError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def _ask(self, request: bytes) -> None:
        if code := nfnetlink.ask(self._socket, request):
            raise MissingError(
                f"the kernel gives no packets to a program ({os.strerror(code)})",
                "modprobe nfnetlink_queue xt_NFQUEUE nft_compat"
                " (NETFILTER_NETLINK_QUEUE, NETFILTER_XT_TARGET_NFQUEUE, NFT_COMPAT)",
            )

    def fileno(self) -> int:
        """Return the descriptor, readable when packets wait."""
        return self._socket.fileno()

    def read(self) -> None:
        """Read what has come: :attr:`held` has it, in the order in which it came."""
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            for message in nfnetlink.messages(data):
                if (message.subsystem, message.kind) == (Subsystem.QUEUE, _PACKET):
                    parts = dict(nfnetlink.attributes(message.body))
                    packet = decode(parts[_PACKET_PAYLOAD])
                    assert packet is not None
                    self._numbers[id(packet)] = struct.unpack_from("!I", parts[_PACKET_HEADER])[0]
                    self.held.append(packet)

    def release(self, packet: Packet) -> None:
        """Release a packet."""
        self._decide(packet, _ACCEPT)

    def discard(self, packet: Packet) -> None:
        """Drop a packet, and with it the entry that it would have made."""
        self._decide(packet, _DROP)

    def _decide(self, packet: Packet, verdict: int) -> None:
        decision = attribute(_VERDICT_HEADER, struct.pack("!II", verdict, self._numbers.pop(id(packet))))
        self._socket.send(nfnetlink.message(Subsystem.QUEUE, _VERDICT, 0, decision, resource=_QUEUE))
        self.held = [other for other in self.held if other is not packet]

    def close(self) -> None:
        """Close the socket; what is still held is dropped."""
        self._socket.close()


def _command(command: int) -> bytes:
    return attribute(_CONFIG_COMMAND, struct.pack("!BxH", command, 0))


def _copy(length: int) -> bytes:
    return attribute(_CONFIG_PARAMETERS, struct.pack("!IB", length, _COPY_PACKET))


def _queue_rule(family: int) -> bytes:
    """Return the transaction that adds the rule, `-j NFQUEUE --queue-num 0`."""
    target = nested(
        _ELEMENT,
        attribute(_NAME, b"target\0"),
        nested(
            _DATA,
            attribute(_TARGET_NAME, _TARGET),
            attribute(_TARGET_REVISION, struct.pack("!I", 0)),
            attribute(_TARGET_INFO, struct.pack("=H6x", _QUEUE)),  # struct xt_NFQ_info, aligned to 8 bytes
        ),
    )
    rule = nfnetlink.message(
        Subsystem.NFTABLES,
        _NEW_RULE,
        CREATE | _APPEND | ACK,
        attribute(_RULE_TABLE, _TABLE.encode() + b"\0"),
        attribute(_RULE_CHAIN, b"held\0"),
        nested(_RULE_EXPRESSIONS, target),
        family=family,
    )
    begin, end = (nfnetlink.message(0, kind, 0, resource=Subsystem.NFTABLES) for kind in (_BATCH_BEGIN, _BATCH_END))
    return begin + rule + end
