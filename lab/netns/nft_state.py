# SPDX-License-Identifier: MIT
"""What nftables of a namespace counts, asked of the kernel itself.

libnftables reads all of a namespace's rules before it lists any: a fifth of a second with a thousand Services. Message
and attribute numbers: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from lab.netns.nfnetlink import attributes
from lab.netns.nft_chain import NftChains, text

if TYPE_CHECKING:
    from lab.netns.namespace import Namespace

_GET_OBJECT: Final = 19  # NFT_MSG_GETOBJ
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_DATA = 1, 2, 4
_RULE_EXPRESSIONS: Final = 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_PACKETS: Final = 2  # enum nft_counter_attributes
_CT_KEY, _BITWISE_MASK, _IMMEDIATE_DATA = 2, 4, 2
_VALUE, _VERDICT, _VERDICT_CODE = 1, 2, 1
_CT_STATE, _DROP = bytes(4), bytes(4)  # NFT_CT_STATE and NF_DROP are 0
_INVALID: Final = 1  # NF_CT_STATE_INVALID_BIT, include/uapi/linux/netfilter/nf_conntrack_common.h
_MATCH_NAME, _MATCH_INFO = 1, 3  # enum nft_match_attributes
#: match_flags, invert_flags and state_mask of struct xt_conntrack_mtinfo2 and 3, and where they begin
#: (include/uapi/linux/netfilter/xt_conntrack.h); there INVALID is the first bit as well.
_MATCH_STATES, _MATCH_FLAGS, _MATCHES_STATE = struct.Struct("=HHH"), 146, 1
#: Its name, and its own attributes.
_Expression: TypeAlias = tuple[str, dict[int, bytes]]


class Chain(NamedTuple):
    """One chain.

    :param family: ``ip``, ``ip6`` or ``inet``.
    """

    family: str
    table: str
    name: str


def counters(namespace: Namespace, table: str) -> dict[str, int]:
    """Return how many packets the named counters of an inet table have counted, by their names."""
    found: dict[str, int] = {}
    with closing(NftChains(namespace)) as nft:
        for values in nft.listed(_GET_OBJECT, "inet", {_OBJECT_TABLE: table}):
            if values.get(_OBJECT_TABLE) == text(table) and _OBJECT_DATA in values:
                name = values[_OBJECT_NAME].rstrip(b"\0").decode()
                found[name] = _packets(values[_OBJECT_DATA])
    return found


def invalid_drops(namespace: Namespace, chains: Sequence[Chain]) -> list[int]:
    """Return what the rules of some chains have counted that drop what is INVALID: nft's own, and iptables-nft's."""
    with closing(NftChains(namespace)) as nft:
        rules = [rule for chain in chains for rule in nft.rules(*chain)]
    expressions = (list(_expressions(rule.get(_RULE_EXPRESSIONS, b""))) for rule in rules)
    return [count for its in expressions for count in _dropped(its)]


def _dropped(expressions: Sequence[_Expression]) -> Iterator[int]:
    """Yield the packets that a rule counted, where it matches on the state INVALID and drops."""
    names = [name for name, _data in expressions]
    if names[-2:] != ["counter", "immediate"]:
        return
    (_, counter), (_, verdict) = expressions[-2:]
    code = dict(attributes(dict(attributes(verdict.get(_IMMEDIATE_DATA, b""))).get(_VERDICT, b"")))
    if code.get(_VERDICT_CODE) == _DROP and any(map(_wants_invalid, expressions, expressions[1:])):
        yield int.from_bytes(counter[_PACKETS], "big")


def _wants_invalid(one: _Expression, following: _Expression) -> bool:
    (name, data), (following_name, mask) = one, following
    if name == "ct" and data.get(_CT_KEY) == _CT_STATE and following_name == "bitwise":
        # A state is held in the machine's byte order, as in every register that is no header's.
        wanted = dict(attributes(mask.get(_BITWISE_MASK, b""))).get(_VALUE, b"")
        return wanted == _INVALID.to_bytes(4, sys.byteorder)
    if name == "match" and data.get(_MATCH_NAME) == text("conntrack"):
        given, inverted, states = _MATCH_STATES.unpack_from(data[_MATCH_INFO], _MATCH_FLAGS)
        return bool(given & ~inverted & _MATCHES_STATE and states & _INVALID)
    return False


def _expressions(data: bytes) -> Iterator[_Expression]:
    for _element, expression in attributes(data):
        values = dict(attributes(expression))
        inner = dict(attributes(values.get(_EXPRESSION_DATA, b"")))
        yield values[_EXPRESSION_NAME].rstrip(b"\0").decode(), inner


def _packets(data: bytes) -> int:
    return int.from_bytes(dict(attributes(data)).get(_PACKETS, b""), "big")
