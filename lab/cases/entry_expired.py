"""The entry's time is over while the connection is alive."""

from __future__ import annotations

from typing import Final

from lab.cases.case import Case, always, on_every_kernel
from lab.cases.demands import not_masqueraded, one_endpoint
from lab.conntrack.witness import Judgement
from lab.stage import Stage
from lab.verdict import Outcome

_TIMEOUT: Final = "net/netfilter/nf_conntrack_tcp_timeout_"


async def _expire(stage: Stage) -> None:
    """Let the established connection's entry expire: a timeout of 0 seconds begins with the next packet."""
    await stage.establish()
    key = f"{_TIMEOUT}established"
    usual = stage.node.namespace.sysctl(key)
    stage.expect_entry(state="ESTABLISHED", timeout=range(int(usual) + 1))
    stage.set_node_sysctl(key, 0)
    await stage.inject(stage.from_client())  # an acknowledgement once more; nobody answers it
    stage.set_node_sysctl(key, usual)
    stage.expect_no_entry()


async def _play(stage: Stage) -> None:
    await _expire(stage)
    await stage.server_speaks()
    await stage.go_on()


async def _play_client_first(stage: Stage) -> None:
    await _expire(stage)
    await stage.client_speaks()
    await stage.go_on()


async def _play_half_closed(stage: Stage) -> None:
    await stage.establish()
    usual = stage.node.namespace.sysctl(f"{_TIMEOUT}close_wait")
    stage.expect("60 s for CLOSE_WAIT by default", usual == "60", usual)
    stage.set_node_sysctl(f"{_TIMEOUT}close_wait", 0)
    await stage.half_close()
    states = [event.entry.tcp_state for event in stage.recorder.entry_events if event.entry.tcp_state is not None]
    stage.expect("the entry was in CLOSE_WAIT", states[-1:] == ["CLOSE_WAIT"], states)
    stage.expect_no_entry()
    await stage.server_speaks()
    stage.expect_error(stage.server_end.host, "EPIPE")
    await stage.go_on()


CASE: Final = Case(
    name="entry-expired",
    title="the connection was idle for longer than its entry lives, and the server sends next",
    story=(
        "An entry of an idle connection lives for nf_conntrack_tcp_timeout_established, five days unless somebody "
        "saved memory. The case sets 0 seconds for one packet, so the entry has expired when the next comes, and that "
        "one is NEW, untranslated and answered by a RST that kills. No fix helps; a keepalive of either side would."
    ),
    threads=(
        "kubernetes/kubernetes#100698",
        "Documentation/networking/nf_conntrack-sysctl.rst",
    ),
    play=_play,
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
    play=_play_client_first,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.DELIVERED)),
    demands=(one_endpoint, not_masqueraded),
)

_HALF_CLOSED: Final = Case(
    name="entry-expired-half-closed",
    title="the client has said all it has to say, and the server thinks for longer than CLOSE_WAIT lasts",
    story=(
        "After the client's FIN the entry is in CLOSE_WAIT and lives for 60 s by default, however long the server "
        "takes for its answer. The answer is NEW then, leaks, and the client's RST ends the connection (EPIPE on the "
        "server, which had seen the FIN). Only the server can speak, so nobody brings the entry back: this happens "
        "with every sysctl at its default, and under every fix."
    ),
    threads=(
        "Documentation/networking/nf_conntrack-sysctl.rst",
        "net/netfilter/nf_conntrack_proto_tcp.c, tcp_timeouts",
    ),
    play=_play_half_closed,
    expectations=on_every_kernel(always(Judgement.NEW, Outcome.RESET)),
)

CASES: Final = (CASE, _CLIENT_FIRST, _HALF_CLOSED)
