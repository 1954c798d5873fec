# SPDX-License-Identifier: MIT
"""The entry's time is over while the connection is alive."""

from __future__ import annotations

from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.evidence.judgement import Judgement
from lab.kubeproxy import ProxyOptions
from lab.kubeproxy.sysctls import CLOSE_WAIT, ESTABLISHED, KERNELS, sysctls
from lab.scenario import ConnectionScenario
from lab.topology.kube_proxy import node_release
from lab.verdict import Outcome


def _seconds(scenario: ConnectionScenario, key: str) -> int:
    """Return how long entries live at the node by what its kube-proxy makes of the kernel's own time-out.

    At a node whose rules were given, what was given as well, or else the kernel's own.
    """
    host, kernels = scenario.node.host, KERNELS[key]
    if host.given is not None:
        return int(scenario.node.namespace.sysctl(key))
    if host.proxy_mode is None:
        return kernels
    said = {field: value for field, value in host.settings.items() if field.startswith("conntrack_tcp_timeout_")}
    options = ProxyOptions(scenario.family, node_release(host).name, **said)
    return next((one.of(kernels) for one in sysctls(options, host.proxy_mode) if one.key == key), kernels)


async def _expire(scenario: ConnectionScenario) -> None:
    """Have the established connection's entry expire: a timeout of 0 seconds begins with the next packet."""
    await scenario.establish()
    usual = _seconds(scenario, ESTABLISHED)
    scenario.expect_entry(state="ESTABLISHED", timeout=range(usual - 60, usual + 1))
    scenario.set_node_sysctl(ESTABLISHED, 0)
    await scenario.inject(scenario.from_client())  # an acknowledgement once more; nobody answers it
    scenario.set_node_sysctl(ESTABLISHED, usual)
    scenario.expect_no_entry()


async def _steps(scenario: ConnectionScenario) -> None:
    await _expire(scenario)
    await scenario.server_speaks()
    await scenario.go_on()


async def _steps_client_first(scenario: ConnectionScenario) -> None:
    await _expire(scenario)
    await scenario.client_speaks()
    await scenario.go_on()


async def _steps_half_closed(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    usual, now = _seconds(scenario, CLOSE_WAIT), scenario.node.namespace.sysctl(CLOSE_WAIT)
    scenario.expect(f"{usual} s for CLOSE_WAIT", now == str(usual), now)
    scenario.set_node_sysctl(CLOSE_WAIT, 0)
    await scenario.half_close()
    states = [event.entry.tcp_state for event in scenario.recorder.entry_events if event.entry.tcp_state is not None]
    scenario.expect("the entry was in CLOSE_WAIT", states[-1:] == ["CLOSE_WAIT"], states)
    scenario.expect_no_entry()
    await scenario.server_speaks()
    scenario.expect_error(scenario.server_end.host, "EPIPE")
    await scenario.go_on()


CASE: Final = Case(
    name="entry-expired",
    title="the connection was idle for longer than its entry lives, and the server sends next",
    story=(
        "An entry of an idle connection lives for nf_conntrack_tcp_timeout_established: kube-proxy makes one day of "
        "the kernel's five, but v1.23 to v1.28 only raise it and leave five. The case sets 0 seconds for one packet, "
        "so the entry has expired when the next comes, and that one is NEW, untranslated and answered by a RST that "
        "kills. No fix helps; a keepalive of either side would."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "kubernetes/kubernetes#103174",
        "kubernetes/kubernetes#120448",
        "Documentation/networking/nf_conntrack-sysctl.rst",
    ),
    scenario=ConnectionScenario,
    steps=_steps,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
)

_CLIENT_FIRST: Final = Case(
    name="entry-expired-client-first",
    title="the connection was idle for longer than its entry lives, and the client sends next",
    story=(
        "The client's segment finds the service once more, and a new entry begins with the same translation. Where "
        "one endpoint is left to choose, the connection recovers. With several it may go to another, which has never "
        "heard of it."
    ),
    threads=("kubernetes/kubernetes#100698", "Documentation/networking/nf_conntrack-sysctl.rst"),
    scenario=ConnectionScenario,
    steps=_steps_client_first,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED)),
    demands=(one_endpoint, not_masqueraded),
)

_HALF_CLOSED: Final = Case(
    name="entry-expired-half-closed",
    title="the client has said all it has to say, and the server thinks for longer than CLOSE_WAIT lasts",
    story=(
        "After the client's FIN the entry is in CLOSE_WAIT and lives for an hour, which every kube-proxy makes of the "
        "kernel's 60 s, however long the server takes for its answer. The answer is NEW then, leaks, and the client's "
        "RST ends the connection (EPIPE on the server, which had seen the FIN). Only the server can speak, so nobody "
        "brings the entry back: this happens on a node as kube-proxy makes it, and under every fix."
    ),
    threads=(
        "kubernetes/kubernetes#32551",
        "kubernetes/kubernetes#35919",
        "kubernetes/kubernetes#97377",
        "Documentation/networking/nf_conntrack-sysctl.rst",
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_timeouts",
    ),
    scenario=ConnectionScenario,
    steps=_steps_half_closed,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
)

CASES: Final = (CASE, _CLIENT_FIRST, _HALF_CLOSED)
