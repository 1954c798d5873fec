# SPDX-License-Identifier: MIT
"""The sysctls that kube-proxy sets when it starts: with its rules they are what makes a host a node.

Of those that a network namespace has of its own. ``nf_conntrack_max`` is the machine's, and no lab's to change.
Source: what real kube-proxies of each minor were seen to set (``tests/kubeproxy/test_sysctls.py``).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.kubeproxy import changes
from lab.kubeproxy.durations import seconds_of
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.kubeproxy.options import ProxyOptions

ESTABLISHED: Final = "net/netfilter/nf_conntrack_tcp_timeout_established"
CLOSE_WAIT: Final = "net/netfilter/nf_conntrack_tcp_timeout_close_wait"

#: What a fresh namespace has, in seconds (tcp_timeouts in net/netfilter/nf_conntrack_proto_tcp.c).
KERNELS: Final = {ESTABLISHED: 432_000, CLOSE_WAIT: 60}


@dataclass(frozen=True)
class Sysctl:
    """One sysctl that kube-proxy sets.

    :param key: with slashes, below ``/proc/sys``.
    :param only_raised: where the kernel has more than ``value``, it keeps that.
    """

    key: str
    value: int
    only_raised: bool = False

    @property
    def name(self) -> str:
        """Its name as ``sysctl`` has it."""
        return self.key.replace("/", ".")

    def of(self, now: int) -> int:
        """Return what a kernel has afterwards that has ``now``."""
        return max(now, self.value) if self.only_raised else self.value


def sysctls(options: ProxyOptions, mode: ProxyMode) -> tuple[Sysctl, ...]:
    """Return what a kube-proxy sets, whatever the family: it is one program.

    What iptables mode set is not taken back by nftables mode.

    :raises InputError: the version is not known or has no such mode.
    """
    release = options.release
    options.require_mode(mode)
    only_raised = changes.RAISES_TIMEOUTS in release and changes.SETS_TIMEOUTS not in release
    time_outs = {
        ESTABLISHED: seconds_of(options.conntrack_tcp_timeout_established),
        CLOSE_WAIT: seconds_of(options.conntrack_tcp_timeout_close_wait),
    }
    found = [Sysctl(key, int(seconds), only_raised) for key, seconds in time_outs.items() if seconds]
    if mode is ProxyMode.IPTABLES and dataclasses.replace(options, family=Family.IPV4).localhost_opened:
        found.append(Sysctl("net/ipv4/conf/all/route_localnet", 1))
    if options.conntrack_tcp_be_liberal and changes.SETS_BE_LIBERAL in release:
        found.append(Sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", 1))
    return tuple(found)


def text(settings: Sequence[Sysctl]) -> str:
    """Write sysctls as ``sysctl -p`` takes them; what a kernel keeps that has its own value is a comment."""
    return "".join(f"{line}\n" for one in settings for line in _lines(one))


def _lines(one: Sysctl) -> Iterator[str]:
    line = f"{one.name} = {one.value}"
    kernels = KERNELS.get(one.key, 0)
    if not one.only_raised:
        yield line
    elif kernels < one.value:
        yield f"# only where it is less; the kernel's own is {kernels}:"
        yield line
    else:
        yield f"# only where it is less; the kernel's own is {kernels}, and stays: {line}"
