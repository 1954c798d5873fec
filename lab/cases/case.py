# SPDX-License-Identifier: MIT
"""What a case is: one way in which a connection breaks, its story, and what a kernel should do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

from lab.cases.demands import Demand, both_ways
from lab.cases.on_node import own_endpoints, unusable
from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.fixes import Protection
from lab.results.result import Expectation
from lab.scenario import ConnectionScenario, Scenario
from lab.scenario.roles import Roles, roles_in
from lab.topology.model import Topology
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import IcmpError, Segment

#: What should become of a trial under a protection.
Row = Callable[[Protection], Expectation]

#: By kernel behaviour, then by protection.
Expectations = Mapping[Behaviour, Row]


@dataclass(frozen=True)
class Elsewhere:
    """Nodes on which a case comes to something else, for what their kube-proxy does besides dropping INVALID packets.

    :param where: which these are, for whoever reads: ``from v1.32 on``.
    :param holds: whether the nodes of a topology are of them.
    """

    where: str
    holds: Callable[[Topology, Roles], bool]
    expectations: Expectations


S = TypeVar("S", bound=Scenario[Any])


@dataclass(frozen=True)
class Case(Generic[S]):
    """One way in which a connection breaks, or a control that shows why it does not.

    :param title: what is done, in a line.
    :param story: what happens and why, in three sentences.
    :param threads: where people met it, or where the kernel's rule comes from.
    :param scenario: what it runs on. Its class brings the steps that can be taken, the evidence and the decision.
    :param steps: does it, in that scenario.
    :param expectations: what should come of it. Written down beforehand, not learned from trials.
    :param elsewhere: the nodes on which that is something else; the first that holds counts.
    :param choose_roles: chooses the roles in the topology, by the Service that is named where one is.
    :param topology: the shipped topology that it runs in where nobody asks for another.
    :param demands: what it demands of any topology besides its roles.
    :param both_ways: whether what is expected of it is so only where both directions pass the node.
    :param slow: takes seconds or more, or what all labs share; is left out of `lab run --all`, and has the machine for
        itself.
    :param needs: what the kernel must have beyond what every trial needs: modules by name, or ``CONFIG_`` options.
    :param about_answers: what is judged answers what came by the VIP, and so ends at a node that masquerades the
        client; False where the client sends it, or nothing is translated.
    :param endpoint_on_node: the endpoint may be the node itself (hostNetwork): nothing is put on its link, and no drop
        in FORWARD is waited for.
    """

    name: str
    title: str
    story: str
    threads: tuple[str, ...]
    scenario: type[S]
    steps: Callable[[S], Awaitable[None]]
    expectations: Expectations
    choose_roles: Callable[[Topology, Family, str | None], Roles] = roles_in
    topology: str = "kube-proxy"
    demands: tuple[Demand, ...] = ()
    both_ways: bool = True
    slow: bool = False
    needs: tuple[str, ...] = ()
    about_answers: bool = True
    endpoint_on_node: bool = False
    elsewhere: tuple[Elsewhere, ...] = ()

    def roles(self, topology: Topology, family: Family, service: str | None = None) -> Roles:
        """Return the roles.

        :param service: the Service that is asked instead of the first, as :func:`lab.scenario.roles.service_port` knows
            it.
        :raises InputError: the topology, or this Service of it, will not do; says why.
        """
        roles = self.choose_roles(topology, family, service)
        for demand in self.demands:
            if lacking := demand(topology, family, roles):
                raise InputError(lacking)
        if not self.endpoint_on_node and (lacking := unusable(topology, roles)):
            raise InputError(lacking)
        return roles

    def left_out(self, topology: Topology, family: Family, service: str | None = None) -> tuple[str, tuple[str, ...]]:
        """Return which Service has endpoints that the case cannot use beside some that it can, and their addresses.

        :raises InputError: as :meth:`roles` does for who is missing.
        """
        roles = self.choose_roles(topology, family, service)
        own = () if self.endpoint_on_node else own_endpoints(topology, roles)
        return roles.service, own if len(own) < len(roles.servers) else ()

    def doubt(self, topology: Topology, family: Family, roles: Roles) -> str:
        """Return why what comes of it is a finding about the topology and not what is expected; empty where it is."""
        return both_ways(topology, family, roles) if self.both_ways else ""

    def expected(self, behaviour: Behaviour, protection: Protection) -> Expectation:
        """Return what should come of it on a kernel of this behaviour."""
        return self.expectations[behaviour](protection)

    def expectations_in(self, topology: Topology, roles: Roles) -> Expectations:
        """Return what should come of it on the nodes of a topology."""
        return next((one.expectations for one in self.elsewhere if one.holds(topology, roles)), self.expectations)


#: A case on whatever scenario.
AnyCase: TypeAlias = Case[Any]


@dataclass(frozen=True)
class Injection:
    """The steps of most cases: connect by the VIP, put one packet on its sender's link, go on.

    :param packet: makes it from the live connection.
    :param answer: and ``stranger``: what its receiver's stack says to it, as
        :meth:`lab.scenario.ConnectionScenario.expect_answer` knows it; None where that is no
        part of the story.
    :param reason: how the kernel's reason begins, on every kernel.
    :param besides: holds more against what is seen before the connection goes on.
    """

    packet: Callable[[ConnectionScenario], Segment | IcmpError]
    answer: str | None = None
    stranger: str = "RST"
    reason: str = ""
    besides: Callable[[ConnectionScenario], None] | None = None

    async def __call__(self, scenario: ConnectionScenario) -> None:
        """Take them."""
        await scenario.establish()
        await scenario.inject(self.packet(scenario))
        if self.answer is not None:
            scenario.expect_answer(self.answer, stranger=self.stranger)
        if self.reason:
            scenario.expect_reason(self.reason)
        if self.besides is not None:
            self.besides(scenario)
        await scenario.go_on()


def expect_number_0(scenario: ConnectionScenario) -> None:
    """Expect the RST that answers a packet without an acknowledgement to have number 0 (RFC 9293, 3.10.7.1)."""
    scenario.expect("number 0 in it", all(one.tcp is None or one.tcp.sequence == 0 for one in scenario.answers()))


#: Replies from pod to pod pass conntrack by, so nobody translates them back: no handshake by a VIP comes to its end.
NO_WAY: Final = Expectation(None, Outcome.REFUSED)


def row(
    nothing: Expectation,
    drop: Expectation,
    liberal: Expectation,
    *,
    untracked: Expectation | None = NO_WAY,
    local: bool = False,
) -> Row:
    """Return what is expected under each protection.

    With a drop and a liberal conntrack the drop has work only where being liberal leaves the packet INVALID.

    :param untracked: where packets from pod to pod are not tracked; None where this one is none of them, and so judged
        as ever.
    :param local: the packet ends at the node itself, in INPUT; otherwise the node forwards it.
    """

    def expected(protection: Protection) -> Expectation:
        drops = protection.drops_local if local else protection.drops_forwarded
        if protection.is_untracked and untracked is not None:
            return untracked
        if protection.is_liberal and not (drops and liberal.judgement is Judgement.INVALID):
            return liberal
        return drop if drops else nothing

    return expected


def always(judgement: Judgement | None, outcome: Outcome, *, untracked: Expectation | None = NO_WAY) -> Row:
    """Expect the same under every protection, but for what is not tracked."""
    expected = Expectation(judgement, outcome)
    return row(expected, expected, expected, untracked=untracked)


def unless_dropped(kept: Row, *, dropped: Row) -> Row:
    """Expect something else where the node drops what comes to a VIP before a Service has it.

    :param kept: what is expected where it lets it go on.
    """

    def expected(protection: Protection) -> Expectation:
        return (dropped if protection.drops_unallocated else kept)(protection)

    return expected


def on_every_kernel(expected: Row) -> Expectations:
    """Expect the same of every kernel."""
    return dict.fromkeys(Behaviour, expected)


ACCEPTED = Expectation(Judgement.ACCEPTED, Outcome.DELIVERED)
IGNORED = Expectation(Judgement.IGNORED, Outcome.DELIVERED)
DROPPED = Expectation(Judgement.INVALID, Outcome.DROPPED)
RESET = Expectation(Judgement.INVALID, Outcome.RESET)
LEAKED = Expectation(Judgement.INVALID, Outcome.LEAKED)

#: Out of the window with the exact acknowledgement: the client's reset kills.
KILLS_UNLESS_LIBERAL = row(RESET, DROPPED, ACCEPTED)
#: Out of the window, but no exact reset comes of it.
LEAKS_UNLESS_LIBERAL = row(LEAKED, DROPPED, ACCEPTED)
#: Not a window matter, so being liberal changes nothing; no exact reset comes of it.
LEAKS_UNLESS_DROPPED = row(LEAKED, DROPPED, LEAKED)
#: Not a window matter, and the client's reset kills.
KILLS_UNLESS_DROPPED = row(RESET, DROPPED, RESET)
#: What kernels that ignore late packets make of one: it is let through and translated, whatever the protection.
IGNORED_UNLESS_LIBERAL = row(IGNORED, IGNORED, ACCEPTED)
#: A reset as its sender's own stack would send it: it ends the connection, and no fix is about that.
KILLED_ALWAYS = always(Judgement.ACCEPTED, Outcome.KILLED)
#: Nothing is wrong with it, or nothing that conntrack looks at.
ACCEPTED_ALWAYS = always(Judgement.ACCEPTED, Outcome.DELIVERED)
#: Ignored by the table of states, not by the window: being liberal changes nothing.
IGNORED_ALWAYS = always(Judgement.IGNORED, Outcome.DELIVERED)
