# SPDX-License-Identifier: MIT
"""The counts as node_exporter's textfile collector reads them.

The format is Prometheus' text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from lab.observed.tally import Pair, Tally

_PREFIX: Final = "kube_proxy_lab"
_Sample = tuple[dict[str, str], float]


def exposition(tally: Tally, *, since: float, now: float, missed_some: bool) -> str:
    """Return the counts as a file for node_exporter.

    :param since: when the watch began; ``now``: in seconds since the epoch both.
    :param missed_some: whether only candidates are looked at by now, as there are too many packets.
    """
    missed = tally.missed
    families: tuple[tuple[str, str, str, Iterable[_Sample]], ...] = (
        (
            *("leaked_packets_total", "counter"),
            "Packets that left with an endpoint's address, for a client that only knows the VIP.",
            _by_pair(tally, "leaks"),
        ),
        (
            *("resets_total", "counter"),
            "RSTs to an endpoint that answer a packet which was not translated.",
            _by_pair(tally, "resets"),
        ),
        (
            *("affected_connections_total", "counter"),
            "Connections that leaked or were reset while they lived.",
            _by_pair(tally, "connections"),
        ),
        (
            *("late_leaks_total", "counter"),
            "Leaks and resets of connections that were over already: harmless.",
            _by_pair(tally, "late"),
        ),
        (
            *("connections_total", "counter"),
            "Connections to VIPs of which packets were seen.",
            [({}, tally.connections)],
        ),
        ("missed_packets_total", "counter", "Packets that the kernel could not hand over.", [({}, missed.packets)]),
        (
            *("missed_events_total", "counter"),
            "How often the kernel threw away what conntrack told.",
            [({}, missed.events)],
        ),
        (
            *("missed_connections_total", "counter"),
            "Connections that were given up for memory.",
            [({}, missed.connections)],
        ),
        (
            *("only_candidates", "gauge"),
            "1 while there are too many packets to follow windows, so that only candidates are looked at.",
            [({}, missed_some)],
        ),
        ("start_time_seconds", "gauge", "When the watch began, since the epoch.", [({}, since)]),
        ("written_time_seconds", "gauge", "When this was written, since the epoch.", [({}, now)]),
    )
    return "".join(line for name, kind, meaning, samples in families for line in _family(name, kind, meaning, samples))


def _by_pair(tally: Tally, what: str) -> Iterator[_Sample]:
    if not tally.pairs:
        yield {}, 0
    for (service, endpoint), pair in sorted(tally.pairs.items()):
        yield {"service": service, "endpoint": endpoint}, _number(pair, what)


def _number(pair: Pair, what: str) -> float:
    return float(getattr(pair, what))


def _family(name: str, kind: str, meaning: str, samples: Iterable[_Sample]) -> Iterator[str]:
    whole = f"{_PREFIX}_{name}"
    yield f"# HELP {whole} {meaning}\n# TYPE {whole} {kind}\n"
    for labels, value in samples:
        words = ",".join(f'{key}="{text}"' for key, text in labels.items())
        yield f"{whole}{f'{{{words}}}' if words else ''} {value:.15g}\n"
