"""The way of packets through the rules of one namespace, told by the kernel's own trace.

What ``nft monitor trace`` reads, read here by a socket that listens before the first packet goes: nothing is lost and
nothing is waited for. Message format: ``enum nft_trace_attributes`` in include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from dataclasses import dataclass, field

from lab.errors import LabError
from lab.evidence.packet import decode

_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 270, 1
_GROUP, _MESSAGE = 9, 10 << 8 | 17  # NFNLGRP_NFTRACE, NFT_MSG_TRACE of NFNL_SUBSYS_NFTABLES
_TABLE, _CHAIN, _HANDLE, _KIND, _VERDICT, _ID, _NETWORK, _TRANSPORT, _MARK = 1, 2, 3, 4, 5, 6, 8, 9, 14
_POLICY = 1  # enum nft_trace_types
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
# include/uapi/linux/netfilter.h and enum nft_verdicts
_VERDICTS = {0: "drop", 1: "accept", -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return"}
_BUFFER = 4 * 1024 * 1024

OWN = "one_packet"


def script(states):
    """Return the nft script that has TCP packets of these conntrack states traced.

    The chains without rules are there to be seen in: after DNAT (-100), and when all translation is done (100).
    """
    rules = [f"meta l4proto tcp ct state {state} meta nftrace set 1" for state in states]
    lines = [
        f"table inet {OWN} {{",
        # After conntrack (-200), before the first chain of kube-proxy's (-110): nf_ip_hook_priorities.
        *("chain begin {", "type filter hook prerouting priority -180;", *rules, "}"),
        *("chain translated {", "type filter hook prerouting priority -90;", "}"),
        *("chain end {", "type filter hook postrouting priority 300;", "}"),
        "}",
    ]
    return "\n".join([*lines, ""])


@dataclass(frozen=True)
class Event:
    """One line of the trace. ``packet`` is as it was when the base chain began, told once a base chain."""

    packet_id: int
    family: int
    table: str
    chain: str
    handle: int | None
    is_policy: bool
    verdict: str
    target: str | None
    mark: int
    packet: object


class Trace:
    """The trace of one namespace, from the moment on at which this is made."""

    def __init__(self, namespace):
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)

    def packets(self):
        """Return the events that wait, a list for each packet. A number is used again, so the first rule divides."""
        packets, current = [], {}
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return packets
            for event in _events(data):
                if (event.table, event.chain) == (OWN, "begin") and event.handle is not None:
                    current[event.packet_id] = []
                    packets.append(current[event.packet_id])
                current[event.packet_id].append(event)

    def close(self):
        """Close the socket."""
        self._socket.close()


def _events(data):
    offset = 0
    while offset < len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if kind == _MESSAGE:
            yield _event(data[offset + 16 : offset + length])
        offset += length + 3 & ~3


def _event(message):
    found = _attributes(message[4:])
    verdict = _attributes(found.get(_VERDICT, b""))
    code = struct.unpack("!i", verdict[_VERDICT_CODE])[0] if verdict else 1
    header = found.get(_NETWORK)
    return Event(
        *(int.from_bytes(found[_ID], "big"), message[0], _text(found[_TABLE]), _text(found[_CHAIN])),
        int.from_bytes(found[_HANDLE], "big") if _HANDLE in found else None,
        int.from_bytes(found[_KIND], "big") == _POLICY,
        _VERDICTS[code],
        _text(verdict[_VERDICT_CHAIN]) if _VERDICT_CHAIN in verdict else None,
        int.from_bytes(found.get(_MARK, b""), "big"),
        decode(header + found[_TRANSPORT]) if header else None,
    )


def _attributes(data):
    found, offset = {}, 0
    while offset < len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def _text(data):
    return data.rstrip(b"\0").decode()


@dataclass
class Step:
    """A stretch of a packet's way within one chain.

    :ivar rules: the rules that it met, as (text, whether it matched, the verdict); those after the last one were not
        asked.
    :ivar policy: the base chain's verdict, where the packet came to its end.
    :ivar after: the packet afterwards; None where it was dropped.
    """

    table: str
    chain: str
    rules: list = field(default_factory=list)
    policy: str | None = None
    mark: int = 0
    after: object = None


@dataclass(frozen=True)
class Walk:
    """The way of one packet. ``state`` is conntrack's."""

    state: str
    arrived: object
    steps: list


def walk(events, rules):
    """Put a packet's way together: the trace tells what matched, the rules in order what was asked before it.

    :param rules: of each (table, chain) the rules in order, as (handle, text).
    """
    state = re.search(r"ct state (\w+)", dict(rules[OWN, "begin"])[events[0].handle])[1]
    steps, stack, inside, header = [], [], None, None

    def passes(until=None):
        """Read rules of the innermost chain to one of them, or to the end; return the step and that rule."""
        nonlocal inside
        frame = stack[-1]
        if inside is not frame:
            inside = frame
            steps.append(Step(*frame[:2], mark=steps[-1].mark if steps else 0, after=header))
        while frame[2]:
            handle, text = frame[2].pop(0)
            if handle == until:
                return text
            steps[-1].rules.append((text, False, ""))
        if until is not None:
            raise LabError(f"the trace tells of a rule that the chain {frame[1]} does not have")
        return ""

    def enter(table, chain):
        stack.append((table, chain, list(rules[table, chain])))

    for event in events:
        if event.packet is not None:
            # Translation is done when the base chain ends: what comes of it stands at the beginning of the next one.
            header = event.packet
            if steps:
                steps[-1].after = header
            stack.clear()
            enter(event.table, event.chain)
        if event.family != socket.AF_INET:
            continue
        while stack[-1][1] != event.chain:
            passes()
            stack.pop()
        text = passes(event.handle)
        steps[-1].mark = event.mark
        if event.is_policy:
            steps[-1].policy = event.verdict
        if event.handle is None:  # a chain's end; what follows says where the packet came back to
            continue
        steps[-1].rules.append((text, True, " ".join(filter(None, (event.verdict, event.target)))))
        if event.verdict == "drop":
            steps[-1].after = None
        if event.verdict in {"goto", "return"}:
            stack.pop()
        if event.verdict in {"jump", "goto"}:
            enter(event.table, event.target)
    return Walk(state, next(event.packet for event in events if event.packet), steps)


def rules_of(nft):
    """Return the rules of every chain in order, as (handle, text), and nft's version."""
    listing = json.loads(nft.run("list ruleset", json=True))["nftables"]
    rules = {}
    for item in listing:
        if "chain" in item:
            rules[item["chain"]["table"], item["chain"]["name"]] = []
    handles = {key: [] for key in rules}
    for item in listing:
        if "rule" in item:
            handles[item["rule"]["table"], item["rule"]["chain"]].append(item["rule"]["handle"])
    table = chain = ""
    for line in nft.run("list ruleset").splitlines():
        if match := re.match(r"table \S+ (\S+) \{", line):
            table = match[1]
        elif match := re.match(r"\tchain (\S+) \{", line):
            chain = match[1]
        elif line == "\t}":
            chain = ""
        elif chain and not re.match(r"\t\t(type .* hook|comment )", line):
            rules[table, chain].append(line.strip())
    version = next(item["metainfo"]["version"] for item in listing if "metainfo" in item)
    return {key: list(zip(handles[key], texts, strict=True)) for key, texts in rules.items()}, version
