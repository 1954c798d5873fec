# SPDX-License-Identifier: MIT
"""The catalogue: one file a case."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from lab.cases import (
    ack_above,
    ack_below,
    address_recycled,
    affinity_moves,
    after_close,
    asymmetric_route,
    bad_checksum,
    bad_checksum_unchecked,
    beyond_window,
    bridged_answer,
    client_beyond_window,
    client_masqueraded,
    client_on_node,
    congested,
    dns_race,
    endpoint_removed,
    entry_deleted,
    entry_deleted_client_first,
    entry_deleted_strictly,
    entry_expired,
    far_behind,
    first_invalid_byte,
    flag_sets,
    hairpin,
    icmp_error,
    in_window,
    last_ack,
    last_ignored_byte,
    local_policy,
    past_the_node,
    path_mtu,
    picked_up,
    port_reused,
    promiscuous_bridge,
    redirected_in_pod,
    reset_after_syn,
    reset_behind,
    reset_exact,
    reset_inexact,
    reset_out_of_window,
    retried,
    sack_beyond,
    server_calls_back,
    service_cidr_late,
    snat_port_race,
    snat_ports,
    source_filtered,
    stale_syn_ack,
    stale_udp_entry,
    syn_ack_again,
    syn_before_service,
    syn_from_client,
    syn_from_server,
    table_full,
    table_full_gc,
    tour_of_states,
    truncated_header,
    two_nodes,
    udp_before_service,
    udp_service_gone,
    upstream_regression,
    vxlan_checksum,
    without_nat,
)
from lab.cases.case import AnyCase, Case
from lab.errors import UnknownNameError

__all__ = ["CASES", "DEFAULT_CASES", "GROUPS", "HEADLINE", "AnyCase", "Case", "find", "usual"]

HEADLINE: Final = beyond_window.CASE

#: What `lab run` shows unless it is told what to run: the bug, its two controls, and upstream's own test.
DEFAULT_CASES: Final = (HEADLINE, in_window.CASE, without_nat.CASE, upstream_regression.CASE)

#: The catalogue by what its cases are about.
GROUPS: Final[Mapping[str, tuple[AnyCase, ...]]] = MappingProxyType(
    {
        "the bug and its controls": DEFAULT_CASES,
        "out of the window": (
            *beyond_window.CASES[1:],
            *first_invalid_byte.CASES,
            *last_ignored_byte.CASES,
            *far_behind.CASES,
            *upstream_regression.CASES[1:],
            *ack_above.CASES,
            *ack_below.CASES,
            *sack_beyond.CASES,
        ),
        "not a window matter": (
            bad_checksum.CASE,
            bad_checksum_unchecked.CASE,
            *flag_sets.CASES,
            truncated_header.CASE,
            syn_from_server.CASE,
            syn_from_client.CASE,
            syn_ack_again.CASE,
            reset_out_of_window.CASE,
            *reset_behind.CASES,
            *reset_exact.CASES,
            *reset_inexact.CASES,
            *reset_after_syn.CASES,
            *icmp_error.CASES,
            *path_mtu.CASES,
            tour_of_states.CASE,
        ),
        "the entry is gone": (
            *entry_deleted.CASES,
            entry_deleted_client_first.CASE,
            *entry_deleted_strictly.CASES,
            *entry_expired.CASES,
            *picked_up.CASES,
        ),
        "the port is used again": (*port_reused.CASES, *last_ack.CASES, *server_calls_back.CASES, *stale_syn_ack.CASES),
        "where the packet ends, and who judges it": (
            *client_on_node.CASES,
            *client_masqueraded.CASES,
            *client_beyond_window.CASES,
            *asymmetric_route.CASES,
            *redirected_in_pod.CASES,
            *after_close.CASES,
            *two_nodes.CASES,
            *past_the_node.CASES,
            *hairpin.CASES,
            *bridged_answer.CASES,
            *promiscuous_bridge.CASES,
            *vxlan_checksum.CASES,
            *source_filtered.CASES,
        ),
        "the table is full": (*table_full.CASES, table_full_gc.CASE),
        "the entry stays": (
            endpoint_removed.CASE,
            *syn_before_service.CASES,
            *address_recycled.CASES,
            *stale_udp_entry.CASES,
            *udp_before_service.CASES,
            *udp_service_gone.CASES,
            *local_policy.CASES,
            *affinity_moves.CASES,
            *service_cidr_late.CASES,
        ),
        "a port of the node's": snat_ports.CASES,
        "two at once": (*snat_port_race.CASES, *dns_race.CASES),
        "as people meet it": (retried.CASE, *congested.CASES),
    }
)

#: Every case by its name.
CASES: Final = {case.name: case for group in GROUPS.values() for case in group}


def usual(*, all_: bool, slow: bool) -> tuple[AnyCase, ...]:
    """Return the cases that are run unless some are named.

    :param all_: all that are not slow.
    :param slow: the slow ones, alone or as well.
    """
    if not all_ and not slow:
        return DEFAULT_CASES
    return tuple(case for case in CASES.values() if (slow if case.slow else all_))


def find(name: str) -> AnyCase:
    """Return the case of a name; underscores will do for dashes.

    :raises UnknownNameError: there is none of this name.
    """
    try:
        return CASES[name.replace("_", "-")]
    except KeyError:
        raise UnknownNameError("case", name, CASES) from None
