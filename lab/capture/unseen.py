# SPDX-License-Identifier: MIT
"""What packets alone do not tell of a node, and what beside them would: said once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lab.capture.explanation import Explained
from lab.capture.text import Text


def unseen(connections: Sequence[Explained], texts: Iterable[Text]) -> Iterator[str]:
    """Yield what the captures leave open, as far as no text closes it, in sentences."""
    texts = tuple(texts)
    lacks = []
    if not any(entry.event for text in texts for entry in text.entries):
        lacks.append(
            "an entry that was deleted or expired and that the client's next packet made anew (`conntrack -E`)"
        )
    if not any(text.sysctls.used for text in texts):
        lacks.append("what the node has set (`sysctl -a`)")
    if lacks and any(one.protocol == "TCP" for one in connections):
        yield f"no packet tells of {', nor of '.join(lacks)}: what is in brackets, beside the capture, does"
    if any(" between " in point for one in connections for point in one.points):
        yield (
            "the checksums of tunnels' own packets are not looked at: where one is wrong, its receiver drops it (`lab"
            " show vxlan-wrong-checksum`)"
        )
