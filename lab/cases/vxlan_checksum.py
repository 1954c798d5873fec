# SPDX-License-Identifier: MIT
"""A tunnel's packet whose UDP checksum is wrong, and what the node makes of it that is to unwrap it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import Case, Elsewhere, always, on_every_kernel
from lab.errors import InputError
from lab.evidence.entry import Entry
from lab.evidence.judgement import Judgement
from lab.evidence.packet import UDP, SocketAddress, decode
from lab.evidence.sighting import LOCAL, Sighting
from lab.evidence.timeline import Injected, PacketTimeline
from lab.fabric.lab import Lab
from lab.kubeproxy import changes
from lab.netns import mib
from lab.netns.rtnetlink import VXLAN_PORT
from lab.results.result import Expectation
from lab.scenario.base import Scenario
from lab.scenario.recorder import UnseenError
from lab.scenario.roles import CLIENT_PORT, Roles, roles_in
from lab.topology.model import End, Topology
from lab.topology.routes import forwarded_by
from lab.topology.ways import underlay
from lab.traffic.tcp import datagram_socket
from lab.verdict import Outcome, Verdict
from lab.verdict.witnesses import disagreeing_witnesses
from lab.vocabulary import Behaviour, Family
from lab.wire.craft import Datagram, craft

_PORT: Final = 8125  # statsd's
_WORDS: Final = b"through the tunnel"
_ERRORS: Final = {Family.IPV4: "UdpInCsumErrors", Family.IPV6: "Udp6InCsumErrors"}
_UNCHECKED: Final = "net/netfilter/nf_conntrack_checksum"


def _roles(topology: Topology, family: Family, service: str | None = None) -> Roles:
    """Have a pod talk to a pod of the Service behind a tunnel; whose node unwraps is the one that judges.

    :raises InputError: there is no such tunnel.
    """
    roles = roles_in(topology, family, service)
    for host, address in roles.servers:
        passed = forwarded_by(topology, roles.client, address.address) or ()
        if len(passed) == 2 and any(end.vxlan is not None for end in topology.ends(passed[0])):
            server = (host, SocketAddress(address.address, _PORT))
            client = SocketAddress(roles.client_address.address, CLIENT_PORT)
            return Roles(roles.client, passed[1], client, (server,), None)
    raise InputError("it needs an endpoint behind a VXLAN tunnel", cure="topology vxlan has one")


class TunnelScenario(Scenario[PacketTimeline]):
    """A datagram from pod to pod in a tunnel's packet, which nobody but the lab has wrapped."""

    def __init__(self, lab: Lab, roles: Roles, family: Family, behaviour: Behaviour | None = None) -> None:
        super().__init__(lab, roles, family, behaviour)
        self._socket = lab.keep(datagram_socket(lab.hosts[self._server].namespace, self._server_address))
        self._near = self.passed(roles.client, self._server_address.address)[0]

    @staticmethod
    def decide(evidence: PacketTimeline, /) -> Verdict:
        """Decide whether what was in the tunnel's packet came to its pod."""
        judged = evidence.judgement_of(evidence.injected.packet) if evidence.injected else None
        came = any(
            (one.host, one.outgoing, one.packet.source) == (evidence.server, False, evidence.client_address)
            for one in evidence.sightings
        )
        dropped = evidence.counters.dropped
        stack = f"{evidence.node}'s own stack dropped it"
        why = stack if _is_heard(evidence.injected, evidence.sightings) else f"{dropped or 0} dropped by rule"
        because = f"unwrapped, it came to {evidence.server}" if came else why
        return Verdict(
            Outcome.DELIVERED if came else Outcome.DROPPED,
            judged.judgement if judged else None,
            judged.reason if judged else "",
            (because, *evidence.counters.told),
            tuple(disagreeing_witnesses(evidence)),
            evidence.findings,
        )

    def _tunnel(self, host: str) -> End:
        return next(end for end in self.lab.topology.ends(host) if end.vxlan is not None)

    async def send(self, checksum: str) -> None:
        """Put the tunnel's packet on the link between the nodes, with a checksum that is right, wrong or zero."""
        node, near = self.roles.node, self._tunnel(self._near)
        by = underlay(self.lab.topology, self._near, node, self.family)
        if by is None or near.vxlan is None:
            raise UnseenError(f"no link leads from {self._near} to {node} for a tunnel's packets")
        macs = (self.lab.hosts[end.host].device(end).mac for end in (self._tunnel(node), near))
        kind = b"\x86\xdd" if self.family is Family.IPV6 else b"\x08\x00"
        inner = craft(Datagram(self.roles.client_address, self._server_address, _WORDS))
        # RFC 7348, 5: the flag that a number is there, the number, and the frame.
        frame = b"".join((struct.pack("!II", 1 << 27, near.vxlan << 8), *macs, kind, inner))
        ends = SocketAddress(str(by.local), VXLAN_PORT + 1), SocketAddress(str(by.remote), VXLAN_PORT)
        wrapped = bytearray(craft(Datagram(*ends, frame)))
        place = len(wrapped) - len(frame) - 2  # the checksum is the last of UDP's header (RFC 768)
        right = int.from_bytes(wrapped[place : place + 2], "big")
        # Another one, and none of the two that are zero in one's complement.
        number = {"right": right, "wrong": right % 0xFFFE + 1, "zero": 0}[checksum]
        wrapped[place : place + 2] = number.to_bytes(2, "big")
        packet = decode(bytes(wrapped))
        assert packet is not None
        self._injected = Injected(self._near, node, packet, True, None, 0, 0, nodes=(node,))
        self._injector(self._near, str(by.remote)).send(bytes(wrapped))
        await self.barrier()

    def expect_errors(self, *, wrong: bool) -> bool:
        """Expect the node's stack to have counted a wrong checksum, unless a rule has dropped the packet before.

        :param wrong: what came is wrong to UDP.
        """
        heard = _is_heard(self._injected, self.recorder.sightings)
        count, wanted = mib.counters(self.node.namespace).get(_ERRORS[self.family], 0), int(wrong and heard)
        return self.expect(f"{_ERRORS[self.family]} {wanted}", count == wanted, count)

    def entry(self) -> Entry | None:
        """Return the entry of the tunnel's packet, as the node has it now."""
        packet = self._to_judge().packet
        return self._nodes.followed.entry(UDP, packet.source, packet.destination)

    def finish(self) -> PacketTimeline:
        """Stop the instruments, read the counters, and return what was seen: between the tunnel's ends."""
        packet = self._to_judge().packet
        ends = {"peer_address": packet.source, "server_address": packet.destination, "target": packet.destination}
        return PacketTimeline(**(self._stop() | ends), injected=self._injected)


def _is_heard(injected: Injected | None, sightings: Iterable[Sighting]) -> bool:
    """Check whether the tunnel's packet came to the node's own sockets: no rule has dropped it."""
    likeness = injected.packet.likeness if injected else None
    return any(one.interface == LOCAL and one.packet.likeness == likeness for one in sightings)


async def _steps(scenario: TunnelScenario, *, checksum: str, checked: bool = True) -> None:
    if not checked:
        scenario.set_node_sysctl(_UNCHECKED, 0)
    await scenario.send(checksum)
    if checksum == "wrong" and checked:
        scenario.expect_reason("bad checksum")
    ends_badly = checksum == "wrong" or (checksum == "zero" and scenario.family is Family.IPV6)
    scenario.expect_errors(wrong=ends_badly)


_DROPPED: Final = Expectation(Judgement.NEW, Outcome.DROPPED)
_DELIVERED: Final = on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=None))

WRONG: Final = Case(
    name="vxlan-wrong-checksum",
    title="a tunnel's packet comes to the other node with a wrong UDP checksum",
    story=(
        "Kernels and network cards get the checksum of what they wrap wrong, above all where the tunnel's packet is"
        " masqueraded besides, as kube-proxy did with one whose inside it had marked, before"
        f" {', '.join(changes.CLEARS_MARK.releases)} ({changes.CLEARS_MARK.name})."
        " Conntrack finds it INVALID, but it is for the node itself and never comes to FORWARD, so kube-proxy's drop is"
        " not to blame: UDP checks it as well, drops it and counts UdpInCsumErrors. The pod's packet was right and is"
        " gone with its cover; ethtool -K flannel.1 tx-checksum-ip-generic off at the sender is what helps."
    ),
    threads=(
        "flannel-io/flannel#1279",
        "k3s-io/k3s#2013",
        "projectcalico/calico#3145",
        "kubernetes/kubernetes#88986",
        "kubernetes/kubernetes#92035",
        "net/ipv4/udp.c, udp_queue_rcv_one_skb",
    ),
    scenario=TunnelScenario,
    steps=partial(_steps, checksum="wrong"),
    expectations=on_every_kernel(always(Judgement.INVALID, Outcome.DROPPED, untracked=None)),
    choose_roles=_roles,
    topology="vxlan",
    about_answers=False,
)

_UNCHECKED_CASE: Final = replace(
    WRONG,
    name="vxlan-wrong-checksum-unchecked",
    title="the same with nf_conntrack_checksum=0 on the node",
    story=(
        "Conntrack leaves checksums alone and calls the packet NEW; no rule against INVALID packets sees anything. UDP"
        " drops it all the same. So it is not conntrack that loses it."
    ),
    steps=partial(_steps, checksum="wrong", checked=False),
    expectations=on_every_kernel(lambda _protection: _DROPPED),
)

_RIGHT: Final = replace(
    WRONG,
    name="vxlan-right-checksum",
    title="control: the same packet with the right checksum",
    story=(
        "The node unwraps it, its rules see the pod's packet come out of the tunnel, and forward it. Nothing else is"
        " different from the packet that was dropped. The number alone decides."
    ),
    steps=partial(_steps, checksum="right"),
    expectations=_DELIVERED,
)

_ZERO: Final = replace(
    WRONG,
    name="vxlan-zero-checksum",
    title="control: the same packet without a checksum, as Linux sends it over IPv4",
    story=(
        "Zero says that there is none (RFC 768), which is what a tunnel over IPv4 sends (RFC 7348, 5). There is nothing"
        " to be wrong, so the node unwraps it. Over IPv6 UDP must have one (RFC 8200, 8.1), and a tunnel that was not"
        " made with udp6zerocsumrx drops it, which conntrack does not know."
    ),
    steps=partial(_steps, checksum="zero"),
    expectations=_DELIVERED,
    elsewhere=(
        Elsewhere(
            "over IPv6",
            lambda _topology, roles: ":" in roles.client_address.address,
            on_every_kernel(lambda _protection: _DROPPED),
        ),
    ),
)

CASES: Final = (WRONG, _UNCHECKED_CASE, _RIGHT, _ZERO)
