# SPDX-License-Identifier: MIT
"""What is to be tried: one case with one fix, on one topology, in one address family."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lab.cases import AnyCase
from lab.cases.demands import answered_at_node, to_vips
from lab.errors import InputError
from lab.fixes import Fix, Protection
from lab.results.result import Expectation, Trial
from lab.scenario.roles import Roles
from lab.topology.kube_proxy import node_release, proxy_options
from lab.topology.model import Host, Topology
from lab.vocabulary import Behaviour, Family, ProxyMode


@dataclass(frozen=True)
class Setting:
    """A case, a fix, and where to try them.

    :param topology: with the proxy mode, version and backend that its nodes are to have.
    :param service: which Service is asked, as ``[NAMESPACE/]NAME[:PORT]``; None for the first.
    :param said: the settings that its nodes have besides those of the topology, as options.
    :param traced: whether the kernel is to tell which rules the packets meet, also of nodes that the lab made.
    """

    case: AnyCase
    fix: Fix
    topology: Topology
    family: Family
    service: str | None = None
    said: tuple[str, ...] = ()
    traced: bool = False

    @cached_property
    def roles(self) -> Roles:
        """The roles of hosts.

        :raises InputError: the topology, or its Service of this name, cannot run the case; says why.
        """
        return self.case.roles(self.topology, self.family, self.service)

    @cached_property
    def trial(self) -> Trial:
        """What is tried, as plain data: the node is the one that judges, or where that is a pod, the first.

        :raises InputError: the topology has no node, or cannot run the case.
        """
        node = self._node
        mode = node.proxy_mode or ProxyMode.IPTABLES
        release = node_release(node)
        return Trial(
            self.case.name,
            self.fix.name,
            self.topology.name,
            mode,
            release.name,
            node.backend if mode is ProxyMode.IPTABLES else None,
            self.family,
            self.service,
            self.said,
            release.known,
            node.given.name if node.given else "",
            node.program.label if node.program else "",
        )

    @property
    def is_traced(self) -> bool:
        """Whether the kernel tells which rules the packets met: of a real node's, which nobody here knows, always."""
        return self.traced or self._node.given is not None

    @property
    def is_unknown(self) -> bool:
        """Whether the node has a real one's rules, or the fix is one of which the lab knows nothing."""
        return self._node.given is not None or not self.fix.known

    @cached_property
    def _node(self) -> Host:
        names = (self.roles.node, *(node.name for node in self.topology.nodes))
        node = next((one for one in map(self.topology.host, names) if one.proxy_mode is not None), None)
        if node is None:
            raise InputError(
                f"{self.topology.name}: a trial needs a node",
                cure="give a host proxy-mode, or see `lab list`",
            )
        return node

    @property
    def protection(self) -> Protection:
        """What the node lets nobody have, by the fix or by kube-proxy's mode, version and settings.

        Of a fix that the lab does not know, without it.
        """
        fix, node = self.fix, self._node
        options = proxy_options(self.topology, node, self.family, fix.change)
        by_version = options.drops_invalid(node.proxy_mode or ProxyMode.IPTABLES)
        protection = fix.protection | (Protection.DROP_FORWARD if by_version else Protection.NOTHING)
        if node.conntrack_tcp_be_liberal:
            protection |= Protection.LIBERAL
        protection |= to_vips(self.topology, self.roles)
        hidden = self.case.about_answers and answered_at_node(self.topology, self.family, self.roles)
        return protection.at_node if hidden else protection

    def expected(self, behaviour: Behaviour) -> Expectation | None:
        """Return what should come of it on a kernel of this behaviour; None where the lab does not know the node."""
        if self.is_unknown:
            return None
        return self.case.expectations_in(self.topology, self.roles)[behaviour](self.protection)
