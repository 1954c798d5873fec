# SPDX-License-Identifier: MIT
"""What a case runs on, whatever its kind: the checks that it may make, and the evidence at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Generic, TypeVar, Unpack

from lab.conntrack.witness import counters
from lab.evidence.sighting import LOCAL
from lab.evidence.timeline import Check, Timeline
from lab.evidence.walk import Walk
from lab.fabric.lab import Lab
from lab.scenario.errors import RefusedError
from lab.scenario.instrumented import Instrumented
from lab.scenario.roles import Roles
from lab.scenario.seen import Which, as_words, readable
from lab.verdict import Verdict
from lab.vocabulary import Behaviour, Family

#: The evidence of a kind of scenario.
E = TypeVar("E", bound=Timeline)


class Scenario(Instrumented, ABC, Generic[E]):
    """A lab with its instruments, the steps that a case may take and the checks that it may make.

    The methods that begin with ``expect`` check what was seen against what a case is about. A check that does not hold
    makes the trial fail, whatever its outcome; it never ends the steps.
    """

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._refusal: str | None = None
        self._trace = ""
        self._has_route = True
        self._complete = False
        self._checks: list[Check] = []
        self._findings: list[str] = []
        self._standstill: tuple[str, ...] = ()

    # --- expectations -------------------------------------------------------------------------------

    def expect(self, words: str, holds: bool, seen: object = "") -> bool:
        """Check something that the case is about.

        :param words: what is expected, for whoever reads the result.
        :param seen: what is so instead.
        :returns: whether it holds.
        """
        self._checks.append(Check(words, holds, readable(seen)))
        return holds

    async def expect_packet(self, at: str, **which: Unpack[Which]) -> bool:
        """Expect a packet on a host's interfaces: by now, or before a barrier that is sent now comes through."""
        if not self.seen(at, **which):
            await self.barrier()
        return self.expect(f"at {at} {as_words(which)}", bool(self.seen(at, **which)), "nothing of the kind")

    async def expect_nothing(self, at: str, **which: Unpack[Which]) -> bool:
        """Expect that no such packet was seen: a barrier goes behind it, and the capture must have seen that."""
        await self.barrier()
        match = self.seen(at, **which)
        first = f"{match[0].packet.source} > {match[0].packet.destination}" if match else ""
        return self.expect(f"at {at} no {as_words(which)}", not match, first)

    def expect_entry(
        self, *, state: str | None = None, timeout: range | None = None, assured: bool | None = None
    ) -> bool:
        """Expect the connection's entry at the node, in a state and with so many seconds left."""
        entry = self.entry()
        wanted = {"state": state, "timeout": timeout, "assured": assured}
        words = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        holds = (
            entry is not None
            and state in (None, entry.tcp_state)
            and (timeout is None or (entry.timeout or 0) in timeout)
            and assured in (None, entry.assured)
        )
        return self.expect(f"a conntrack entry{', ' if words else ''}{words}", holds, entry or "none")

    def expect_no_entry(self) -> bool:
        """Expect that the node has no entry of the connection."""
        entry = self.entry()
        return self.expect("no conntrack entry", entry is None, entry or "")

    def expect_counter(self, name: str, count: int) -> bool:
        """Expect a counter of the node: one of ``conntrack -S``, or the packets of a ct state such as ``related``."""
        both = {**self.statistics(), **counters(self.node.namespace)}
        return self.expect(f"{name} counted {count:,}", both.get(name, 0) == count, f"{both.get(name, 0):,}")

    def expect_counted(self, name: str, least: int = 1) -> bool:
        """Expect a counter of ``conntrack -S`` to have counted as many or more: retransmissions come when they come."""
        count = self.statistics().get(name, 0)
        return self.expect(f"{name} counted {least:,} or more", count >= least, f"{count:,}")

    def expect_reason(self, *beginnings: str) -> bool:
        """Expect the kernel's reason for what it made of the packet that was judged last, at whichever node it came to.

        :param beginnings: of the reason; several where kernels word it differently.
        """
        reasons = [one.reason for one in self._judged_everywhere()]
        words = reasons[-1] if reasons else ""
        wanted = " or ".join(map(repr, beginnings))
        return self.expect(f"the kernel's reason {wanted}", words.startswith(beginnings), repr(words))

    def find(self, words: str) -> None:
        """Note something that kernels may differ in, in the same words on each that does the same."""
        self._findings.append(words)

    # --- the end ------------------------------------------------------------------------------------

    def refuse(self, refusal: str, trace: str = "", *, has_route: bool = True) -> RefusedError:
        """Note how it is known that there is no connection; return the error that ends the steps.

        :param trace: where its last segment was seen last, where that is known.
        :param has_route: whether the client's host had a route at all.
        """
        self._refusal, self._trace, self._has_route = refusal, trace, has_route
        return RefusedError(f"no connection to {self._target}: {refusal}")

    def unanswered(self, known: str) -> str:
        """Return how it is known that there is no connection, and whether somebody refused it, as its client saw."""
        came = self.seen(self.roles.client, destination=self._own, flags="R", outgoing=False)
        told = self.seen(self.roles.client, destination=self._own.address, outgoing=False)
        errors = [one for one in told if one.packet.icmp and one.packet.icmp.quoted == (self._own, self._target)]
        for sightings, what in ((came, "a RST"), (errors, "an ICMP error")):
            if sightings:
                return f"{known}, and {what} from {sightings[0].packet.source.address} refused it"
        return f"{known}, and nobody refused it (it times out)"

    def stand_still(self, *words: str) -> None:
        """Note that the connection neither goes on nor ends: it is what became of the trial, and not a fault of it.

        :param words: how it is known, briefly; then what more there is to tell.
        """
        self._standstill = words

    @abstractmethod
    def finish(self) -> E:
        """Stop the instruments, read the counters, and return the evidence."""

    @staticmethod
    @abstractmethod
    def decide(evidence: E, /) -> Verdict:
        """Decide from the evidence alone what became of the trial."""

    def _stop(self) -> dict[str, Any]:
        """Stop the instruments, read the counters, and return what the evidence of every kind has, by its fields."""
        self._order.close()
        walks, untraced = self._walks()  # reads what all that is judged is counted behind
        counted = self._nodes.count(self.recorder)
        if self._is_lost() and not counted.dropped:
            counted = replace(counted, other_drops=self._nodes.other_drops())
        self.recorder.stop()
        self._check_instruments()
        self._ask_why_lost()
        bypasses = self._nodes.bypasses(self._server, self._server_address.address, self._peer.address)
        return {
            "client": self.roles.client,
            "node": self.roles.node,
            "server": self._server,
            "target": self._target,
            "client_address": self._own,
            "server_address": self._server_address,
            "peer_address": self._peer,
            "sightings": tuple(sorted(self.recorder.sightings, key=lambda sighting: sighting.time)),
            "judged": tuple(self.recorder.judged),
            "entry_events": tuple(self.recorder.entry_events),
            "entry": self.entry(),
            "counters": counted,
            "bystanders": self._bystanders(),
            "refusal": self._refusal,
            "complete": self._complete,
            "checks": tuple(self._checks),
            "findings": (*self._findings, *bypasses),
            "trace": self._trace,
            "standstill": self._standstill,
            "held_up": self._punctuality.late,
            "faults": tuple(dict.fromkeys(self._faults)),
            "walks": walks,
            "untraced": untraced,
            "unrouted": self._unrouted,
        }

    def _walks(self) -> tuple[tuple[Walk, ...], tuple[str, ...]]:
        """Return the walks of the trial's packets where it is traced, and what could not be told of them."""
        judged = self._injected.packet if self._injected else None
        return self._tracing.walks(judged) if self._tracing else ((), ())

    def _check_instruments(self) -> None:
        """Note what the instruments missed."""
        self._faults += self.recorder.missed()
        # Where the client's own host had no route, there was nothing to be seen.
        looked_for = self.sees_each and self._has_route
        for host in dict.fromkeys((self.roles.client, self.roles.node)) if looked_for else ():
            if not any(one.host == host and one.interface != LOCAL for one in self.recorder.sightings):
                self._faults.append(f"the capture on {host} saw nothing")
        # All namespaces of a machine share one hash table: somebody else's millions of entries fill its chains.
        if crowded_out := self.statistics().get("chain_toolong"):
            self._faults.append(f"conntrack dropped {crowded_out} packets, for the machine's hash table is overfull")

    def _is_lost(self) -> bool:
        """Check whether a packet that the trial is about did not come to its end, or no connection came about."""
        if self._refusal is not None or self._standstill:
            return True
        return self._injected is not None and not self._has_come(self._injected)

    def _bystanders(self) -> tuple[str, ...]:
        having_roles = {self.roles.client, self._server, *self._nodes.names}
        hosts = self.lab.topology.hosts
        return tuple(host.name for host in hosts if not host.forwarding and host.name not in having_roles)
