# SPDX-License-Identifier: MIT
"""Addresses and subnets for a topology that is laid out around addresses that others have chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError
from lab.vocabulary import Family

if TYPE_CHECKING:
    from lab.topology.values import IPAddress, IPInterface, IPNetwork

#: The subnets that a link has at most, as nodes and their pods have them.
USUAL: Final = {Family.IPV4: 24, Family.IPV6: 64}
#: Of links whose subnet nothing is known of: RFC 3927, and a unique local range (RFC 4193).
_TRANSIT: Final = {Family.IPV4: ip_network("169.254.64.0/18"), Family.IPV6: ip_network("fd69:254::/64")}
_MOST: Final = 4096  # addresses of a subnet that are looked at for a free one


@dataclass(frozen=True)
class Joint:
    """One family of a link between a pod and what is before it.

    :param pod: the addresses of the pod's end, in the order that has the kernel take its own one.
    :param gateway: the address of the other end.
    :param via: the pod's address in the link's subnet, where its own is led to by a route.
    """

    pod: tuple[IPInterface, ...]
    gateway: IPInterface
    via: IPAddress | None = None


class Space:
    """What is taken, and what is still free.

    :param reserved: addresses that somebody has, or that Services have.
    """

    def __init__(self, reserved: Iterable[IPAddress]) -> None:
        self._used = set(reserved)
        self._taken: list[IPNetwork] = []
        self._transit: dict[Family, Iterator[Any]] = {
            family: _TRANSIT[family].subnets(new_prefix=_TRANSIT[family].max_prefixlen - 2) for family in Family
        }

    def holds(self, network: IPNetwork, but: Iterable[IPAddress] = ()) -> bool:
        """Return whether a network overlaps one that is taken, or holds an address that is used."""
        mine = set(but)
        overlaps = any(one.version == network.version and one.overlaps(network) for one in self._taken)
        return overlaps or any(_within(one, network) for one in self._used if one not in mine)

    def take(self, network: IPNetwork) -> bool:
        """Take a network for a link; False where it overlaps another link's."""
        if any(one.version == network.version and one.overlaps(network) for one in self._taken):
            return False
        self._taken.append(network)
        return True

    def pick(self, candidates: Iterable[str]) -> IPNetwork:
        """Take the first of several networks that is free.

        :raises InputError: none is.
        """
        for network in map(ip_network, candidates):
            if not self.holds(network):
                self._taken.append(network)
                return network
        raise InputError("no range is left for the lab's own links", cure="ask fewer Services, by --service")

    def unused(self, candidates: Iterable[str]) -> IPNetwork:
        """Return the first of several networks of which nothing is used or taken; no link takes it as a whole.

        :raises InputError: there is none.
        """
        for network in map(ip_network, candidates):
            if not self.holds(network):
                return network
        raise InputError("no range is left for the pods of the lab", cure="ask fewer Services, by --service")

    def free(self, network: IPNetwork) -> IPInterface:
        """Use the first free address of a network.

        :raises InputError: there is none.
        """
        for number in range(min(network.num_addresses, _MOST)):
            own = ip_interface(f"{network[number]}/{network.prefixlen}")
            if _usable(own) and own.ip not in self._used:
                self._used.add(own.ip)
                return own
        raise InputError(f"no address is left in {network} for the lab's own hosts", cure="ask fewer Services")

    def pod_address(self, cidr: IPNetwork) -> IPAddress:
        """Use an address of a range for a pod: one that has room for a link's other end beside it.

        :raises InputError: the range is full.
        """
        if cidr.prefixlen <= cidr.max_prefixlen - 3:
            subnets: Iterator[Any] = cidr.subnets(new_prefix=cidr.max_prefixlen - 2)
            for number, subnet in enumerate(subnets):
                if number > _MOST:
                    break
                if number and not any(_within(one, subnet) for one in self._used):
                    address: IPAddress = subnet[2]
                    self._used.add(address)
                    return address
        raise InputError(f"no address is left for a pod of the lab in {cidr}", cure="ask fewer Services, by --service")

    def joint(self, address: IPAddress) -> Joint:
        """Return a link for a pod: in the largest subnet that it has for itself, else led to by a route."""
        family = Family.of(address)
        for length in range(USUAL[family], address.max_prefixlen):
            own = ip_interface(f"{address}/{length}")
            if _usable(own) and not self.holds(own.network, [address]):
                self._taken.append(own.network)
                return Joint((own,), self.free(own.network))
        subnet = next(self._transit[family])
        near, far = (ip_interface(f"{subnet[number]}/{subnet.prefixlen}") for number in (1, 2))
        routed = ip_interface(str(address))
        # The own address is the first of IPv4, the last of IPv6: see lab.node.places.
        ends = (routed, far) if family is Family.IPV4 else (far, routed)
        return Joint(ends, near, far.ip)


def _usable(own: IPInterface) -> bool:
    """Return whether a host may have it: not the subnet's own address, nor its broadcast address."""
    network = own.network
    if network.prefixlen >= network.max_prefixlen - 1:
        return True
    return own.ip not in (network.network_address, network.broadcast_address if own.version == 4 else None)


def _within(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
