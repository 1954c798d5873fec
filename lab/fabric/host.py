# SPDX-License-Identifier: MIT
"""One host of a running lab: its namespace, its links, and the tools that work in it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from lab.netns import Namespace, Nft, Program, RouteSocket, Xtables
from lab.netns.reaper import Closable
from lab.netns.rtnetlink import LOOPBACK_INDEX, VethEnd, no_address
from lab.netns.rtnetlink import address as netlink_address
from lab.topology.model import End, Host

if TYPE_CHECKING:
    from lab.fabric.loaded import Loaded


class RunningHost:
    """One host of a running lab: a namespace with its links."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.name = host.name
        self.namespace = Namespace.create()
        self._number = number
        self.routes = RouteSocket(self.namespace)
        self.interfaces: dict[str, VethEnd] = {}
        self.rules: list[str] = []  # what it was given, in the order in which it was loaded
        self.before_change: list[Callable[[], None]] = []  # called before its rules become others
        self.loaded: tuple[tuple[int, bool], Loaded] | None = None  # what is known of them, and of which
        self.is_changed = False  # whether a kube-proxy or somebody else may have changed them since
        self._nft: Nft | None = None
        self._xtables: Xtables | None = None

    def add_interface(self, name: str, mtu: int | None = None) -> VethEnd:
        """Choose index and hardware address of the next interface, so that nobody has to ask for them."""
        index = LOOPBACK_INDEX + 1 + len(self.interfaces)
        # A locally administered address (IEEE 802, bit 1 of the first byte).
        mac = b"\x02\x00" + self._number.to_bytes(2, "big") + index.to_bytes(2, "big")
        self.interfaces[name] = VethEnd(name, index, mac, mtu)
        return self.interfaces[name]

    def device(self, end: End) -> VethEnd:
        """Return what has the addresses of an end: the interface, or the bridge that it is a port of."""
        return self.interfaces[end.bridge or end.interface]

    def take(self, address: str) -> None:
        """Give it an address besides those of its links, on its loopback, and wait until it is the host's own."""
        own = ip_interface(address)
        self.routes.apply([netlink_address(LOOPBACK_INDEX, own, f"{self.name}: lo")])
        while not self.routes.is_local(own.ip):
            pass

    def give_back(self, address: str) -> None:
        """Take away again what :meth:`take` has given it."""
        self.routes.apply([no_address(LOOPBACK_INDEX, ip_interface(address), f"{self.name}: lo")])

    @property
    def nft(self) -> Nft:
        """Nftables of this host."""
        if self._nft is None:
            self._nft = Nft(self.namespace)
        return self._nft

    @property
    def xtables(self) -> Xtables:
        """Iptables of this host, by its backend."""
        if self._xtables is None:
            self._xtables = Xtables(self.namespace, self.host.backend)
        return self._xtables

    def run(self, *command: str, text: str = "") -> str:
        """Run a program on this host and return what it prints.

        :raises ProgramError: its exit code was not 0.
        """
        environment, keep = self.xtables.lock  # whatever it is, it may call iptables
        return Program(self.namespace, command, text=text, environment=environment, keep=keep).finish()

    def begin_change(self) -> None:
        """Report to whoever wants to know it that rules become others now."""
        for listener in self.before_change:
            listener()

    def parts(self) -> list[Closable]:
        """List what has to be closed for the namespace to go."""
        return [part for part in (self._nft, self._xtables, self.routes, self.namespace) if part is not None]
