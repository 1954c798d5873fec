# SPDX-License-Identifier: MIT
"""What a report of this machine's labs does not say of anybody's own node, and how to find that out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.releases import MINORS, Release, find_release
from lab.kubeproxy.settings import DEFAULT_VERSIONS
from lab.vocabulary import Family, ProxyMode


def advice(*, programs: bool = False, standing: bool = False) -> Iterator[str]:
    """Report who made what was judged, what other versions of kube-proxy do, and how to judge one's own node.

    :param programs: kube-proxy programs wrote the node's rules.
    :param standing: it was in a lab that stands.
    """
    mode = ProxyMode.IPTABLES
    made = "The lab made the node that it judged"
    own = "whether a node of your own is affected, `lab doctor` says there, as root."
    if programs:
        yield f"{made}, and the kube-proxy that was given wrote its rules; {own}"
    elif standing:
        yield f"{made}, as `lab up` had it; {own}"
    else:
        yield (
            f"{made}: by default one of kube-proxy {DEFAULT_VERSIONS[mode]} in {mode} mode. For others give"
            f" --proxy-mode, --proxy-version, --backend, --family or --topology; {own}"
        )
    modes = (f"in {mode} mode {', '.join(_ranges(mode))}" for mode in ProxyMode)
    yield f"INVALID packets that a node forwards: {'; '.join(modes)}."


def drops_invalid(mode: ProxyMode, version: str, *, be_liberal: bool = False) -> bool:
    """Return whether kube-proxy drops INVALID packets by a rule of its own.

    :param be_liberal: whether ``nf_conntrack_tcp_be_liberal`` is set when it starts.
    """
    options = ProxyOptions(Family.IPV4, version, conntrack_tcp_be_liberal=be_liberal)
    return options.drops_invalid(mode)


def _ranges(mode: ProxyMode) -> Iterator[str]:
    """Report what the versions that know a mode do, those together that do the same."""
    versions = [one for one in map(find_release, MINORS) if one.has_mode(mode)]
    for words, group in itertools.groupby(versions, key=lambda version: _deed(mode, version)):
        first, *others = (version.name for version in group)
        name = f"{first} to {others[-1]}" if others else first
        yield words.format(name)


def _deed(mode: ProxyMode, version: Release) -> str:
    if not drops_invalid(mode, version.name):
        return "not dropped by {}"
    if drops_invalid(mode, version.name, be_liberal=True):
        return "dropped by {}"
    return "by {} unless be_liberal is set when it starts"
