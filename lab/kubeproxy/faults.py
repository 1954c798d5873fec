# SPDX-License-Identifier: MIT
"""What real kube-proxies do wrong with some objects: no rule is loaded, or the program ends.

A node of the lab does not come up with such objects and such a release: the reason is said instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Final

from lab.errors import InputError
from lab.kubeproxy import changes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.kubeproxy.options import ProxyOptions
    from lab.kubernetes.objects import Service

LONGEST_COMMENT: Final = 128
"""Characters of a comment that nft takes (``NFTNL_UDATA_COMMENT_MAXLEN``)."""


@dataclass(frozen=True)
class Fault:
    """Something that kube-proxies do wrong.

    :param releases: which do.
    :param what: what happens, in one sentence.
    """

    releases: str
    what: str


class FaultError(InputError):
    """What a release fails with as a whole, because of one Service.

    :param service: its ``namespace/name``.
    """

    def __init__(self, message: str, *, service: str, cure: str) -> None:
        super().__init__(message, cure=cure)
        self.service = service


FAULTS: Final = (
    Fault(
        "v1.14 to v1.17.13, v1.18.10 and v1.19.3",
        "A blank before a loadBalancerSourceRange ends the program, which starts again and again.",
    ),
    Fault(
        "v1.14 to v1.16.7 and v1.17.3",
        "A load balancer's address of the other family makes the load of all rules fail.",
    ),
    Fault(
        "v1.14 to v1.19",
        "Where the kubelet has not made KUBE-MARK-DROP and a rule jumps there, the load of all rules fails.",
    ),
    Fault("v1.21 to v1.27", "A node of both families takes its own address for 0.0.0.0 (see node-ip-of-family)."),
    Fault("v1.22.0 to v1.22.3", "A Service whose endpoints are all unready is served (see takes-unready)."),
    Fault(
        "v1.29", "In nftables mode source ranges of one Service that overlap make the load of the family's rules fail."
    ),
    Fault(
        "v1.29 to v1.36",
        "In nftables mode a port without usable endpoints (in v1.30 also one with source ranges) whose"
        f" namespace/name:port is longer than {LONGEST_COMMENT} characters makes every load of its family fail, again"
        " every 30 seconds.",
    ),
    Fault("v1.31 to v1.33.5 and v1.34.1", "In nftables mode an interface's name prefix for local pods never loads."),
    Fault(
        "v1.33 to v1.36",
        "In nftables mode the drop of unallocated cluster IPs can be missing until the next full sync: the event of a"
        " ServiceCIDR asks for none.",
    ),
    Fault(
        "v1.34 to v1.36",
        "The node's zone can be lost at the start (2 of 40 starts): hints for zones are not heeded then.",
    ),
)
"""What is known, oldest first; seen with real programs."""


def refuse(service: Service, options: ProxyOptions) -> None:
    """Refuse what such a release fails with as a whole.

    :raises FaultError: with the reason.
    """
    spec, release = service.spec, options.release
    who = f"kube-proxy {options.version}"
    if changes.TRIMS_RANGES not in release and any(cidr.startswith(" ") for cidr in spec.load_balancer_source_ranges):
        message = f"{who} ends, again and again: Service {service.key} has a loadBalancerSourceRange after a blank"
        cure = f"leave it out, or take {release.first_with(changes.TRIMS_RANGES)}"
        raise FaultError(message, service=service.key, cure=cure)
    others = [one.ip for one in service.status.load_balancer.ingress if one.ip and not options.of_family(one.ip)]
    if others and changes.OTHER_BALANCERS not in release and not options.own_cluster:
        message = (
            f"{who} loads no rule at all: Service {service.key} has the load balancer {others[0]}, no {options.family}"
        )
        cure = f"leave that address out, or take {release.first_with(changes.OTHER_BALANCERS)}"
        raise FaultError(message, service=service.key, cure=cure)


def refuse_comment(name: str, options: ProxyOptions) -> None:
    """Refuse a comment that nft does not take.

    :raises FaultError: with the reason.
    """
    if len(name) > LONGEST_COMMENT:
        message = (
            f"kube-proxy {options.version} in nftables mode loads no {options.family} rule at all while {name} has no"
            f" endpoints: its name is longer than {LONGEST_COMMENT} characters, and so the comment"
        )
        service = name.partition(":")[0]
        raise FaultError(message, service=service, cure="give it endpoints or a shorter name")


def refuse_overlap(name: str, ranges: Iterable[str], options: ProxyOptions) -> None:
    """Refuse source ranges of which one holds another.

    :raises FaultError: with the reason.
    """
    for one, other in combinations(ranges, 2):
        if ip_network(one).overlaps(ip_network(other)):
            message = (
                f"kube-proxy {options.version} in nftables mode loads no {options.family} rule at all: {one} and"
                f" {other} of {name}'s source ranges overlap"
            )
            service = name.partition(":")[0]
            raise FaultError(message, service=service, cure="leave one of them out")
