# SPDX-License-Identifier: MIT
"""The walks of packets through one host, from what nftables and iptables-legacy have told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lab.errors import LabError
from lab.evidence.traced import Told, walk_of
from lab.fabric.loaded import Loaded
from lab.scenario import legacy
from lab.scenario.tracer import own_hook

if TYPE_CHECKING:
    from lab.conntrack.nflog import Record
    from lab.evidence.walk import Walk
    from lab.vocabulary import Family


class Met(NamedTuple):
    """What was told of a packet, and the rules that it met."""

    told: Told
    loaded: Loaded


def walked(
    node: str, its: Sequence[Met], records: Sequence[Record], family: Family, places: Iterable[int]
) -> Iterator[Walk | LabError]:
    """Yield the walks of those of a host's packets that are at some places, and of one that cannot be told why not.

    :param its: all packets that were told of, as they came.
    :param records: what iptables-legacy has logged of them.
    """
    of_each = legacy.of_each([one.told for one in its], records)
    is_sure = not any(legacy.why_silent(node, loaded, records) for loaded in dict.fromkeys(one.loaded for one in its))
    unread = "" if is_sure else "iptables-legacy"
    for place in places:
        told, loaded = its[place]
        try:
            whole = legacy.whole(told, of_each[place], loaded, family, is_sure=is_sure)
            yield replace(walk_of(node, whole, loaded, own_hook), unread=unread)
        except LabError as error:
            yield error
