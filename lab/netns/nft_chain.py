# SPDX-License-Identifier: MIT
"""Chains of nftables as the kernel has them, iptables-nft's among them: their rules' handles in order, their hooks.

Asked chain by chain, so that 10,000 Services cost no more than one. Messages and attributes:
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lab.netns import nfnetlink
from lab.netns.namespace import Namespace
from lab.netns.nfnetlink import DUMP, Message, Subsystem, attribute, message

_GET_TABLE, _GET_CHAIN, _GET_RULE = 1, 4, 7  # NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE
_TABLE_NAME, _TABLE_USE = 1, 3
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK = 1, 3, 4
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE = 1, 2, 3

#: NFPROTO_*, include/uapi/linux/netfilter.h.
FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_NUMBERS: Final = {name: number for number, name in FAMILIES.items()}
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")  # enum nf_inet_hooks


class NftChains:
    """Questions to the nftables of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = nfnetlink.open_socket(namespace)
        self._socket.setblocking(True)

    def handles(self, family: str, table: str, chain: str) -> tuple[int, ...]:
        """Return the handles of a chain's rules, in their order; none where there is no such chain."""
        names = {_RULE_TABLE: table, _RULE_CHAIN: chain}
        answers = self._ask(_GET_RULE, DUMP, family, names)
        found = [dict(nfnetlink.attributes(one.body)) for one in answers]
        # The kernel sorts by the names since Linux 4.16 or so; before, they are looked at here.
        return tuple(
            int.from_bytes(one[_RULE_HANDLE], "big")
            for one in found
            if all(one.get(kind) == name.encode() + b"\0" for kind, name in names.items())
        )

    def base(self, family: str, table: str, chain: str) -> tuple[str, int]:
        """Return where a chain hangs: the hook, and the priority as nft counts; no hook where it is no base chain."""
        for answer in self._ask(_GET_CHAIN, 0, family, {_CHAIN_TABLE: table, _CHAIN_NAME: chain}):
            hook = dict(nfnetlink.attributes(dict(nfnetlink.attributes(answer.body)).get(_CHAIN_HOOK, b"")))
            if hook:
                number = int.from_bytes(hook[_HOOK_NUMBER], "big")
                return _HOOKS[number], int.from_bytes(hook[_HOOK_PRIORITY], "big", signed=True)
        return "", 0

    def size(self, family: str, table: str) -> int:
        """Return how many chains, sets and maps a table has."""
        for answer in self._ask(_GET_TABLE, 0, family, {_TABLE_NAME: table}):
            return int.from_bytes(dict(nfnetlink.attributes(answer.body))[_TABLE_USE], "big")
        return 0

    def _ask(self, kind: int, flags: int, family: str, names: dict[int, str]) -> list[Message]:
        wanted = [attribute(one, name.encode() + b"\0") for one, name in names.items()]
        self._socket.send(message(Subsystem.NFTABLES, kind, flags, *wanted, family=_NUMBERS[family]))
        return list(self._answers(is_dump=bool(flags)))

    def _answers(self, *, is_dump: bool) -> Iterator[Message]:
        while True:
            for answer in nfnetlink.messages(self._socket.recv(1 << 17)):
                if answer.error:
                    return  # there is no such chain
                if answer.is_done:
                    return
                yield answer
                if not is_dump:
                    return

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
