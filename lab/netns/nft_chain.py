# SPDX-License-Identifier: MIT
"""Chains of nftables as the kernel has them, iptables-nft's among them: their rules' handles in order, their hooks.

Asked chain by chain, so that 10,000 Services cost no more than one. Messages and attributes:
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Final

from lab.netns import nfnetlink
from lab.netns.namespace import Namespace
from lab.netns.nfnetlink import DUMP, Subsystem, attribute, message

_GET_TABLE, _GET_CHAIN, _GET_RULE = 1, 4, 7  # NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE
_TABLE_NAME, _TABLE_USE = 1, 3
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK = 1, 3, 4
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICES = 1, 2, 4
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE = 1, 2, 3

#: NFPROTO_*, include/uapi/linux/netfilter.h.
FAMILIES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_NUMBERS: Final = {"": 0, **{name: number for number, name in FAMILIES.items()}}
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress")  # enum nf_inet_hooks
_HOOKS_OF_DEVICES: Final = ("ingress", "egress")  # enum nf_dev_hooks


class NftChains:
    """Questions to the nftables of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._socket = nfnetlink.open_socket(namespace)
        self._socket.setblocking(True)

    def handles(self, family: str, table: str, chain: str) -> tuple[int, ...]:
        """Return the handles of a chain's rules, in their order; none where there is no such chain."""
        with suppress(FileNotFoundError):
            return tuple(int.from_bytes(one[_RULE_HANDLE], "big") for one in self.rules(family, table, chain))
        return ()

    def rules(self, family: str, table: str, chain: str) -> list[dict[int, bytes]]:
        """Return the attributes of each of a chain's rules, in their order."""
        names = {_RULE_TABLE: table, _RULE_CHAIN: chain}
        # The kernel sorts by the names since Linux 4.16 or so; before, they are looked at here.
        return [
            one
            for one in self.listed(_GET_RULE, family, names)
            if all(one.get(kind) == text(name) for kind, name in names.items())
        ]

    def listed(self, kind: int, family: str, names: dict[int, str]) -> list[dict[int, bytes]]:
        """Return the attributes of each thing that is listed.

        :param kind: the question, NFT_MSG_GET*.
        :param names: whose things, by attribute.
        :raises OSError: the question was refused.
        """
        answers = nfnetlink.dump(self._socket, _question(kind, DUMP, family, names), "nftables")
        return [dict(nfnetlink.attributes(one.body)) for one in answers]

    def base(self, family: str, table: str, chain: str) -> tuple[str, int]:
        """Return where a chain hangs: the hook, and the priority as nft counts; no hook where it is no base chain."""
        found = self._ask(_GET_CHAIN, family, {_CHAIN_TABLE: table, _CHAIN_NAME: chain})
        hook = dict(nfnetlink.attributes(found.get(_CHAIN_HOOK, b"")))
        if not hook:
            return "", 0
        priority = int.from_bytes(hook[_HOOK_PRIORITY], "big", signed=True)
        return _hook(family, hook), priority

    def has_bases(self, family: str) -> bool:
        """Check whether any chain of a family hangs at a hook."""
        return any(_CHAIN_HOOK in chain for chain in self.listed(_GET_CHAIN, family, {}))

    def devices(self, hook: str) -> dict[str, frozenset[bytes]]:
        """Return the devices on which chains hang at a hook that is one of devices, by table.

        The name of a device ends with a null byte; what has none is how names begin (Linux 6.16 and later).

        :param hook: ingress or egress.
        """
        found: dict[str, frozenset[bytes]] = {}
        for family in ("netdev", "inet"):
            for chain in self.listed(_GET_CHAIN, family, {}):
                its = dict(nfnetlink.attributes(chain.get(_CHAIN_HOOK, b"")))
                if its and _hook(family, its) == hook:
                    table = chain[_CHAIN_TABLE].rstrip(b"\0").decode(errors="replace")
                    names = (name for _kind, name in nfnetlink.attributes(its.get(_HOOK_DEVICES, b"")))
                    found[table] = found.get(table, frozenset()).union(names)
        return found

    def size(self, family: str, table: str) -> int:
        """Return how many chains, sets and maps a table has."""
        return int.from_bytes(self._ask(_GET_TABLE, family, {_TABLE_NAME: table}).get(_TABLE_USE, b""), "big")

    def _ask(self, kind: int, family: str, names: dict[int, str]) -> dict[int, bytes]:
        """Return the attributes of one thing; none where there is no such thing."""
        self._socket.send(_question(kind, 0, family, names))
        answer = next(nfnetlink.messages(self._socket.recv(65536)))
        return {} if answer.error else dict(nfnetlink.attributes(answer.body))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def has_tables(namespace: Namespace) -> bool:
    """Check whether a namespace has any table of nftables, those of iptables-nft among them."""
    with closing(NftChains(namespace)) as chains:
        return bool(chains.listed(_GET_TABLE, "", {}))


def _hook(family: str, its: dict[int, bytes]) -> str:
    """Return the name of a hook by the attributes of where a chain hangs."""
    number = int.from_bytes(its[_HOOK_NUMBER], "big")
    return (_HOOKS_OF_DEVICES if family == "netdev" else _HOOKS)[number]


def text(name: str) -> bytes:
    """Return a name as attributes have it."""
    return name.encode() + b"\0"


def _question(kind: int, flags: int, family: str, names: dict[int, str]) -> bytes:
    wanted = (attribute(one, text(name)) for one, name in names.items())
    return message(Subsystem.NFTABLES, kind, flags, *wanted, family=_NUMBERS[family])
