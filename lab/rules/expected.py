# SPDX-License-Identifier: MIT
"""Kube-proxy's rules as a node has them, without loading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.rules import restored
from lab.rules.listed import listed
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.rules.dump import Dump
    from lab.rules.source import Proxy


def expected(proxy: Proxy) -> Dump:
    """Return what :func:`lab.rules.read_dump.read` would read of a node with these rules; all numbers of lines are 0.

    No namespace, program or kernel is needed. Rules that count by nfacct are in it where ``proxy.options`` has nfacct.

    :raises UnknownFormError: what is printed of some rule is not known here; then a kernel has to load it.
    :raises InputError: as of rendering.
    """
    texts, family = proxy.render(), proxy.options.family
    if proxy.mode is ProxyMode.IPTABLES:
        return restored.as_dump(restored.restored(texts, family))
    return listed("".join(texts), family).as_dump()


def printed(proxy: Proxy, texts: Sequence[str]) -> str:
    """Return what ``iptables-save`` or ``nft list table`` prints of rules; elements of sets in another order.

    :param texts: what ``proxy`` renders.
    :raises UnknownFormError: what is printed of some rule is not known here.
    """
    if proxy.mode is ProxyMode.IPTABLES:
        return restored.written(restored.restored(texts, proxy.options.family))
    return listed("".join(texts), proxy.options.family).text()
