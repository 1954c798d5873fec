# SPDX-License-Identifier: MIT
"""A bridge in promiscuous mode: a question by a Service's address comes to its pod twice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import alone
from lab.conntrack.nflog import WITNESS_GROUP
from lab.errors import MissingError
from lab.evidence.judgement import Judgement
from lab.evidence.timeline import DatagramsTimeline
from lab.fixes import Protection
from lab.results.result import Expectation
from lab.scenario import DatagramsScenario
from lab.scenario.roles import roles_in
from lab.verdict import Outcome, Verdict, datagrams
from lab.vocabulary import Family

_BRIDGE: Final = "cbr0"  # kubenet's
_CALL: Final = {
    Family.IPV4: "net/bridge/bridge-nf-call-iptables",
    Family.IPV6: "net/bridge/bridge-nf-call-ip6tables",
}
#: The copy has been in PREROUTING already, on its way through the bridge, so it has to be counted behind that.
_WITNESS: Final = f"""
add chain inet lab_witness forward {{ type filter hook forward priority -190; policy accept; }}
add rule inet lab_witness forward ct state invalid counter name "invalid" log prefix "invalid" group {WITNESS_GROUP}
"""


def _put_pods_on_a_bridge(scenario: DatagramsScenario, *, promiscuous: bool) -> None:
    """Make the node's links to its pods the ports of one bridge, which takes over their addresses."""
    node, topology = scenario.node, scenario.lab.topology
    pods = {scenario.roles.client, *(host for host, _address in scenario.roles.servers)}
    commands = [f"link add {_BRIDGE} type bridge mcast_snooping 0"]
    moved = []
    for end in topology.ends(node.name):
        pod = next((other for other in topology.neighbours(end) if other.host in pods), None)
        if pod is not None:
            mac = scenario.lab.hosts[pod.host].interfaces[pod.interface].mac.hex(":")
            own = [address for address in end.addresses if Family.of(address) is scenario.family]
            commands += [f"addr del {address} dev {end.interface}" for address in own]
            commands.append(f"link set {end.interface} master {_BRIDGE}")
            moved += [f"addr add {address} dev {_BRIDGE} nodad" for address in own]
            theirs = [address.ip for address in pod.addresses if Family.of(address) is scenario.family]
            moved += [f"neigh add {address} lladdr {mac} dev {_BRIDGE} nud permanent" for address in theirs]
    commands += [f"link set {_BRIDGE} up", *moved]
    if promiscuous:
        commands.append(f"link set {_BRIDGE} promisc on")
    scenario.lab.is_altered = True
    node.run("ip", "-batch", "-", text="\n".join(commands) + "\n")
    try:
        node.namespace.set_sysctls({_CALL[scenario.family]: 1})
    except FileNotFoundError:
        raise MissingError("rules do not see what a bridge forwards", "modprobe br_netfilter") from None
    node.nft.run(_WITNESS)


async def _steps(scenario: DatagramsScenario, *, promiscuous: bool) -> None:
    _put_pods_on_a_bridge(scenario, promiscuous=promiscuous)
    scenario.ask("who is there?")
    await scenario.settle()


async def _promiscuous(scenario: DatagramsScenario) -> None:
    await _steps(scenario, promiscuous=True)


async def _plain(scenario: DatagramsScenario) -> None:
    await _steps(scenario, promiscuous=False)


def _decide(timeline: DatagramsTimeline) -> Verdict:
    """Decide what became of the copy of a question; where none was seen, of the question."""
    verdict = datagrams.decide(timeline)
    asked = timeline.exchanges[0] if timeline.exchanges else None
    invalid = any(judged.judgement is Judgement.INVALID for judged in timeline.judged)
    if asked is None or not asked.answered or not invalid:
        return verdict
    came = len(asked.reached)
    outcome, words = Outcome.DUPLICATED, f"the question came {came} times"
    if came == 1:
        outcome, words = Outcome.DROPPED, f"{timeline.counters.dropped or 0} dropped by rule"
    return replace(verdict, outcome=outcome, judgement=Judgement.INVALID, because=(words, *verdict.because))


class _BridgeScenario(DatagramsScenario):
    """Questions by datagram, of which a copy may come."""

    decide = staticmethod(_decide)


def _expected(protection: Protection) -> Expectation:
    """Expect only a drop in FORWARD to take the copy: it comes to no PREROUTING, and nobody judged its window."""
    if protection.is_untracked:
        return _UNTRACKED
    dropped = Protection.DROP_FORWARD in protection
    return Expectation(Judgement.INVALID, Outcome.DROPPED if dropped else Outcome.DUPLICATED)


#: The question to the VIP is tracked, but not the answer from pod to pod.
_UNTRACKED: Final = Expectation(Judgement.NEW, Outcome.LEAKED)
_THREADS: Final = (
    "kubernetes/kubernetes#25793",
    "kubernetes/kubernetes#28717",
    "net/bridge/br_netfilter_hooks.c, ip_sabotage_in",
)

CASE: Final = Case(
    name="promiscuous-bridge",
    title="client and endpoint share a bridge in promiscuous mode, and a question goes by the Service's address",
    story=(
        "The bridge hands a copy of every frame to the node itself, also of the question that it passes on to the pod,"
        " translated already. The copy is kept from PREROUTING, so it has no entry and rules call it INVALID; the node"
        " forwards it, and the pod gets the question twice. kube-proxy's drop in FORWARD hides that; a liberal"
        " conntrack, which is about TCP's window, and a drop in PREROUTING do not."
    ),
    threads=_THREADS,
    scenario=_BridgeScenario,
    steps=_promiscuous,
    expectations=on_every_kernel(_expected),
    choose_roles=partial(roles_in, protocol="udp"),
    topology="dns",
    demands=(alone,),
    needs=("br_netfilter",),
)

CONTROL: Final = replace(
    CASE,
    name="promiscuous-bridge-off",
    title="control: the same pods and the same bridge, which is not promiscuous",
    story=(
        "The question crosses the bridge and is translated there as before. But the bridge keeps no copy for the node,"
        " and the pod gets it once. It is the mode that makes the copies, which kubelet's --hairpin-mode used to set."
    ),
    steps=_plain,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED, untracked=_UNTRACKED)),
)

CASES: Final = (CASE, CONTROL)
