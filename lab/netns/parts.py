# SPDX-License-Identifier: MIT
"""Rules in parts, where the whole is larger than what a socket sends at once.

One transaction of nftables is one netlink message, and the kernel refuses one that is larger than the socket's send
buffer (EMSGSIZE of ``netlink_sendmsg``, net/netlink/af_netlink.c). libnftables and iptables-nft-restore make theirs
larger by SO_SNDBUFFORCE alone, which takes CAP_NET_ADMIN in the machine's own user namespace (``sk_setsockopt``,
net/core/sock.c). An ordinary user's stays at ``net.core.wmem_default``, 212,992 bytes unless it was changed; a Service
with ten endpoints takes 21 kB of it in iptables mode, and 9.4 kB in nftables mode (1.2 kB from v1.36 on). By SO_SNDBUF
it can be twice ``net.core.wmem_max``, where the socket can be had. iptables-legacy sends no messages and has no limit.

Each part is a transaction of its own, so that the whole is none any more. What can be kept is kept: a chain's rules are
replaced in one part as long as they fit into one, chains come before what jumps to them, and what is deleted goes last.
The text of a part is only weighed, so that one may still be too large: then it is halved.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from lab.errors import LabError

_NETLINK_NETFILTER: Final = 12
_SO_SNDBUFFORCE: Final = 32  # include/uapi/asm-generic/socket.h
_WANTED: Final = 1 << 29  # SO_SNDBUF: the kernel takes twice of it, but net.core.wmem_max at most

TOO_LONG: Final = os.strerror(errno.EMSGSIZE)

Block = list[str]  # lines that belong together

_STRINGS: Final = re.compile(r'"[^"]*"')
_TARGET: Final = re.compile(r" -[jg] (\S+)")


def room(channel: socket.socket, *, raised: bool = False) -> int:
    """Return how many bytes one message of a netlink socket may have, when its owner has done what it can.

    :param raised: raise it as far as it goes; otherwise only root's is, because programs do no more.
    """
    try:
        channel.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _WANTED)
    except PermissionError:
        if raised:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WANTED)
    return channel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def room_of_programs() -> int:
    """Return how many bytes one message of a program may have that sends rules."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as channel:
        return room(channel)


def load(blocks: Iterable[Block], size: int, weigh: Callable[[str], int], send: Callable[[Block], bool]) -> None:
    """Send blocks in their order, as many at once as weigh no more than ``size``.

    :param send: sends lines; False where they are too many.
    :raises LabError: a single line is too much.
    """
    for part in _packed(blocks, size, weigh):
        _send(part, send)


def _packed(blocks: Iterable[Block], size: int, weigh: Callable[[str], int]) -> Iterator[list[Block]]:
    part: list[Block] = []
    weight = 0
    for block in blocks:
        own = sum(map(weigh, block))
        if part and weight + own > size:
            yield part
            part, weight = [], 0
        part.append(block)
        weight += own
    if part:
        yield part


def _send(part: list[Block], send: Callable[[Block], bool]) -> None:
    lines = [line for block in part for line in block]
    if send(lines):
        return
    if len(lines) == 1:
        raise LabError(f"too large for one transaction without root, run it with sudo: {lines[0][:80]}...")
    units = part if len(part) > 1 else [[line] for line in lines]
    middle = len(units) // 2
    for half in (units[:middle], units[middle:]):
        _send(half, send)


def restore_tables(text: str) -> Iterator[tuple[str, Block]]:
    """Return each table of an iptables-restore input with its lines."""
    name = ""
    lines: Block = []
    for line in text.splitlines():
        if line.startswith("*"):
            name, lines = line[1:], []
        elif line == "COMMIT":
            yield name, lines
        elif line and not line.startswith("#"):
            lines.append(line)


def restore_weight(line: str) -> int:
    """Estimate what a line of iptables-restore takes in a message (seen within 10% for kube-proxy's)."""
    return 150 + len(line) + 150 * line.count(" -m ") + 150 * ("--comment" in line)


def restore_blocks(lines: Sequence[str]) -> list[Block]:
    """Gather a table's lines by chain: what is jumped to before what jumps, and what is deleted last."""
    chains: dict[str, Block] = {}
    deletions: dict[str, str] = {}
    for line in lines:
        verb, _, rest = line.partition(" ")
        if verb == "-X":
            deletions[rest] = line
        else:
            chains.setdefault(verb[1:] if line.startswith(":") else rest.split(" ", 1)[0], []).append(line)
    blocks = [chains[name] for name in _leaves_first(chains) if name not in deletions]
    blocks += [chains[name] for name in chains if name in deletions]
    return [*blocks, *([line] for line in deletions.values())]


def _leaves_first(chains: dict[str, Block]) -> list[str]:
    done: dict[str, bool] = {}  # False while what it jumps to is looked at
    for first in chains:
        waiting = [first]
        while waiting:
            name = waiting[-1]
            if name not in done:
                done[name] = False
                targets = (found[1] for line in chains[name] if (found := _TARGET.search(line)))
                waiting += [target for target in dict.fromkeys(targets) if target in chains and target not in done]
                continue
            waiting.pop()
            if not done[name]:
                del done[name]  # to the end: the order of a dict is that of insertion
                done[name] = True
    return list(done)


def script_weight(line: str) -> int:
    """Estimate what a line of an nft script takes in a message (seen within 10% for v1.31's)."""
    return 110 + len(line)


def script_blocks(script: str) -> list[Block]:
    """Cut an nft script where no chain waits for its rules, no element for its new value, and no brace for its end.

    A chain waits from where it is made or emptied to its last rule.
    """
    lines = script.splitlines()
    until: dict[int, int] = {}  # from a line to the last one that belongs to it
    opened: dict[str, int] = {}
    depth, start = 0, 0
    for number, (line, follows) in enumerate(zip(lines, [*lines[1:], ""], strict=True)):
        words = line.split(" ", 5)
        if words[:2] in (["add", "chain"], ["flush", "chain"]) and len(words) > 4:
            opened.setdefault(" ".join(words[2:5]), number)
        elif words[:2] == ["add", "rule"] and (place := " ".join(words[2:5])) in opened:
            until[opened[place]] = number
        elif words[:2] == ["delete", "element"] and follows.startswith(" ".join(["add", *words[1:5]])):
            until[number] = number + 1
        bare = _STRINGS.sub("", line)
        if not depth:
            start = number
        depth += bare.count("{") - bare.count("}")
        until[start] = max(number, until.get(start, 0))
    blocks: list[Block] = []
    last = -1
    for number, line in enumerate(lines):
        if number > last:
            blocks.append([])
        blocks[-1].append(line)
        last = max(last, until.get(number, number))
    return blocks
