# SPDX-License-Identifier: MIT
"""What a namespace's stack counts: its MIB counters, as nstat(8) names them.

Some are of packets that are lost without any rule. What each stands for: include/uapi/linux/snmp.h, and where they are
counted: ip_rcv_core, ip_rcv_finish_core (net/ipv4/ip_input.c), ip_error (net/ipv4/route.c), ip6_pkt_drop
(net/ipv6/route.c).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from lab.netns.namespace import Namespace

_NET: Final = Path("/proc/thread-self/net")  # /proc/net would be the main thread's
_FILES: Final = ("snmp", "netstat", "snmp6")  # the last one is missing where the kernel has no IPv6
_MOST: Final = 1 << 16  # bytes of a file; they have 4,000

#: What the files said, as it is.
Reading: TypeAlias = tuple[bytes, ...]

#: Counters of packets that are lost, and in words what for.
MEANINGS: Final[Mapping[str, str]] = {
    "IpExtInNoRoutes": "no route",
    "IpOutNoRoutes": "no route",
    "TcpExtIPReversePathFilter": "rp_filter: its source's way back is another one",
    "IpInAddrErrors": "an address that nothing is received from or passed on to: martian, or none is forwarded to",
    "IpInHdrErrors": "a wrong header, or a TTL at its end",
    "IpInDiscards": "discarded on arrival",
    "IpOutDiscards": "discarded on the way out",
    "IpInUnknownProtos": "nobody listens to its protocol",
    "IpFragFails": "larger than the next link's MTU",
    "IpExtInTruncatedPkts": "shorter than its header says",
    "TcpInErrs": "a wrong checksum or header of TCP",
    "UdpInErrors": "a wrong checksum of UDP, or no room",
    "UdpNoPorts": "no socket at its port",
    "TcpExtListenDrops": "a listening socket refused it",
    "Ip6InNoRoutes": "no route",
    "Ip6OutNoRoutes": "no route",
    "Ip6InAddrErrors": "an address that nothing is received from or passed on to, or none is forwarded to",
    "Ip6InHdrErrors": "a wrong header, or a hop limit at its end",
    "Ip6InDiscards": "discarded on arrival",
    "Ip6OutDiscards": "discarded on the way out",
    "Ip6InTooBigErrors": "larger than the next link's MTU",
    "Udp6NoPorts": "no socket at its port",
}

#: Counters of packets with a wrong checksum, which TCP and UDP drop, by the IP protocol (udp_queue_rcv_one_skb and
#: __udp4_lib_rcv, net/ipv4/udp.c; tcp_v4_rcv, net/ipv4/tcp_ipv4.c). TCP over IPv6 counts in the same one.
_WRONG_CHECKSUMS: Final[Mapping[int, Mapping[str, str]]] = {
    6: {"TcpInCsumErrors": "TCP drops what has a wrong checksum"},
    17: dict.fromkeys(("UdpInCsumErrors", "Udp6InCsumErrors"), "UDP drops what has a wrong checksum"),
}


class Files:
    """The counters of a namespace's stack, of which each reading is quick: the files stay open.

    A file of ``/proc/net`` is that of the namespace in which it was opened (seq_open_net, fs/proc/proc_net.c).
    """

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self._descriptors = [
                os.open(_NET / name, os.O_RDONLY | os.O_CLOEXEC) for name in _FILES if (_NET / name).exists()
            ]

    def read(self) -> Reading:
        """Return what they say now, for :func:`counted`: most of what is read is compared with nothing."""
        return tuple(os.pread(descriptor, _MOST, 0) for descriptor in self._descriptors)

    def close(self) -> None:
        """Close them."""
        for descriptor in self._descriptors:
            os.close(descriptor)


def counted(reading: Reading) -> dict[str, int]:
    """Return what a stack has counted, by the kernel's names (net/ipv4/proc.c) behind their protocols'."""
    found: dict[str, int] = {}
    texts = [one.decode() for one in reading]
    lines = [line for text in texts[:2] for line in text.splitlines()]
    # Two lines each: the names and the values, both behind the protocol.
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol = names.partition(":")[0]
        its = zip(names.split()[1:], map(int, values.split()[1:]), strict=True)
        found |= {f"{protocol}{name}": value for name, value in its}
    six = "".join(texts[2:]).split()
    return found | dict(zip(six[::2], map(int, six[1::2]), strict=True))


def counters(namespace: Namespace) -> dict[str, int]:
    """Return what a namespace's stack has counted until now, as :func:`counted` names it."""
    with closing(Files(namespace)) as files:
        return counted(files.read())


def tcp_counters(namespace: Namespace) -> dict[str, int]:
    """Return the counters of TCP, without the protocols before their names. TCP over IPv6 counts here as well."""
    found = counters(namespace)
    extended = {name.removeprefix("TcpExt"): value for name, value in found.items() if name.startswith("TcpExt")}
    plain = {name.removeprefix("Tcp"): value for name, value in found.items() if name.startswith("Tcp")}
    return plain | extended


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    """Return in words what was counted in between of packets that were lost."""
    return _moved(before, after, MEANINGS)


def wrong_checksums(before: Mapping[str, int], after: Mapping[str, int], protocol: int) -> tuple[str, ...]:
    """Return in words what was counted in between of packets that TCP or UDP dropped for their checksum.

    :param protocol: IP's number of it; of another one, nothing.
    """
    return _moved(before, after, _WRONG_CHECKSUMS.get(protocol, {}))


def _moved(before: Mapping[str, int], after: Mapping[str, int], meanings: Mapping[str, str]) -> tuple[str, ...]:
    counts = {name: after.get(name, 0) - before.get(name, 0) for name in meanings}
    return tuple(f"{name} {count:,} ({meanings[name]})" for name, count in counts.items() if count > 0)
