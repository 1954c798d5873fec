# SPDX-License-Identifier: MIT
"""The trace of packets in one namespace, as the kernel tells it: what ``nft monitor trace`` reads.

The socket listens before the first packet goes, so nothing is waited for. Message format: ``enum
nft_trace_attributes`` in include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from lab.evidence.traced import TraceEvent
from lab.netns import Namespace, nfnetlink
from lab.netns.nfnetlink import Message, Subsystem
from lab.netns.nft_chain import FAMILIES

_GROUP: Final = 9  # NFNLGRP_NFTRACE
_NEW_TRACE: Final = 17  # NFT_MSG_TRACE
_TABLE, _CHAIN, _HANDLE, _KIND, _VERDICT, _ID = 1, 2, 3, 4, 5, 6
_NETWORK, _TRANSPORT, _MARK, _POLICY = 8, 9, 14, 16
_NUMBER: Final = struct.pack("=HH", 8, _ID)  # struct nlattr, in front of it
_IS_POLICY: Final = 1  # enum nft_trace_types
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
# include/uapi/linux/netfilter.h and enum nft_verdicts; of NF_QUEUE the upper half is the queue's number.
_VERDICTS: Final = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    4: "repeat",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_BUFFER: Final = 16 * 1024 * 1024


class Trace(nfnetlink.Listener):
    """The trace of one namespace, from the moment on at which this is made."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, _BUFFER, (_GROUP,))

    def read(self) -> list[TraceEvent]:
        """Return the events that wait, in the kernel's order."""
        return [
            _event(message)
            for message in self._waiting()
            if (message.subsystem, message.kind) == (Subsystem.NFTABLES, _NEW_TRACE)
        ]


def _event(message: Message) -> TraceEvent:
    # But for the packet's number most events are told again and again. It comes behind two numbers that do not look
    # like it: family and kind (nft_trace_notify, net/netfilter/nf_tables_trace.c).
    before, _number, behind = message.body.partition(_NUMBER)
    packet_id = int.from_bytes(behind[:4], "big")
    return TraceEvent(packet_id, *_told(message.family, before + behind[4:]))


@lru_cache(4096)
def _told(family: int, attributes: bytes) -> tuple[str, str, str, int | None, bool, str, str, int, bytes]:
    """Read all of an event but for the packet's number."""
    found = dict(nfnetlink.attributes(attributes))
    is_policy = int.from_bytes(found[_KIND], "big") == _IS_POLICY
    if is_policy:
        verdict, target = _VERDICTS[int.from_bytes(found.get(_POLICY, b""), "big")], ""
    else:
        verdict, target = _verdict(found.get(_VERDICT, b""))
    return (
        FAMILIES[family],
        _text(found[_TABLE]),
        _text(found[_CHAIN]),
        int.from_bytes(found[_HANDLE], "big") if _HANDLE in found else None,
        is_policy,
        verdict,
        target,
        int.from_bytes(found.get(_MARK, b""), "big"),
        found.get(_NETWORK, b"") + found.get(_TRANSPORT, b""),
    )


@lru_cache(1024)
def _verdict(data: bytes) -> tuple[str, str]:
    """Read a verdict, and the chain that it leads to."""
    found = dict(nfnetlink.attributes(data))
    code = struct.unpack("!i", found[_VERDICT_CODE])[0] if found else 1
    return _VERDICTS[code & 0xFF if code > 0 else code], _text(found.get(_VERDICT_CHAIN, b""))


@lru_cache(1024)
def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
