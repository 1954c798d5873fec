# SPDX-License-Identifier: MIT
"""What may be otherwise than was said, so that a node's rules are kube-proxy's after all: each can be tried.

What may be so of the releases, the settings, the Services, the endpoints and by chance stands in modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.rules.dump import Dump
    from lab.rules.source import Proxy


def same_dump(dump: Dump) -> Dump:
    """Return the node's rules as they are."""
    return dump


@dataclass(frozen=True)
class WhatIf:
    """One thing that may be otherwise.

    :param setting: what it changes: of one setting one alternative can be the case.
    :param sentence: what that explains, for a person.
    :param cure: what to give or to ask.
    :param proxy: changes kube-proxy's part.
    :param dump: changes the node's part.
    :param by_chance: kube-proxy itself leaves it to chance.
    """

    setting: str
    sentence: str
    cure: str
    proxy: Callable[[Proxy], Proxy] = lambda proxy: proxy
    dump: Callable[[Dump], Dump] = same_dump
    by_chance: bool = False


def with_options(**values: Any) -> Callable[[Proxy], Proxy]:  # noqa: ANN401 - a field of ProxyOptions each
    """Return what changes some of kube-proxy's options."""
    return lambda proxy: replace(proxy, options=replace(proxy.options, **values))
