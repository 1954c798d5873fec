# SPDX-License-Identifier: MIT
"""A scratch namespace in which this kernel loads rules, to see what it makes of them."""

from __future__ import annotations

import dataclasses
import re
from contextlib import closing
from typing import TYPE_CHECKING, Final

from lab.errors import InputError, LabError
from lab.kubeproxy.nftables import table_of
from lab.netns import Namespace, Nft, NftError, Xtables, nfacct, userns
from lab.rules import json_dump, read_dump
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.rules.dump import Dump
    from lab.rules.source import Proxy
    from lab.vocabulary import Family

_COUNTERS: Final = re.compile(r"^\[\d+:\d+\] ", re.MULTILINE)
_ACCOUNT: Final = re.compile(r" -m nfacct --nfacct-name \S+")
_TIMES: Final = re.compile(r"^# (Generated|Completed) .*\n", re.MULTILINE)


class RefusedError(LabError):
    """The kernel or libnftables refused what was to be loaded; the words are nft's."""


def saved(proxy: Proxy) -> str:
    """Load a kube-proxy's rules and return what ``iptables-save`` or ``nft list table`` gives back.

    Left out are only the lines that say when it was saved. Where this kernel has no nfacct, kube-proxy would not
    count by it, and so it is done here.

    :raises MissingError: a program or a kernel feature is not there.
    :raises LabError: the kernel refused the rules.
    """
    with closing(_namespace()) as namespace:
        if proxy.mode is ProxyMode.IPTABLES:
            proxy = dataclasses.replace(proxy, options=nfacct.provide(namespace, proxy.options))
        return _load(namespace, proxy, proxy.render())


def saved_uncounted(proxy: Proxy) -> str:
    """Like :func:`saved`, with every rule of ``proxy`` whatever this kernel has: none counts by nfacct."""
    with closing(_namespace()) as namespace:
        return _load(namespace, proxy, [_ACCOUNT.sub("", text) for text in proxy.render()])


def read_json(text: str, source: str, family: Family) -> Dump:
    """Read what is kube-proxy's of what ``nft -j list ruleset`` printed: loaded, and listed as text.

    :param source: what to call it in errors.
    :raises InputError: it is no dump, has nothing of kube-proxy in this family, or cannot be loaded here.
    :raises MissingError: libnftables is not installed.
    """
    objects = json_dump.read(text, source, family)
    try:
        listing = listed(objects.objects, family)
    except RefusedError as error:
        cure = f"give what 'nft list ruleset' prints, without -j: {error}"
        raise InputError("nft's JSON, but it cannot be loaded here", source=source, cure=cure) from None
    found = read_dump.read(listing, source, family)
    return dataclasses.replace(found, others=objects.others, owners=objects.owners, notes=objects.notes)


def listed(objects: Sequence[object], family: Family) -> str:
    """Load what ``nft -j list`` printed of kube-proxy's table and return what ``nft list table`` gives back of it.

    :raises MissingError: libnftables is not installed.
    :raises RefusedError: the kernel or libnftables refused it.
    """
    with closing(_namespace()) as namespace, closing(Nft(namespace)) as nft:
        try:
            nft.add(objects)
            return nft.run(f"list table {table_of(family)}")
        except NftError as error:
            raise RefusedError(str(error)) from error


def _namespace() -> Namespace:
    userns.ensure()
    return Namespace.create()


def _load(namespace: Namespace, proxy: Proxy, texts: Sequence[str]) -> str:
    if proxy.mode is ProxyMode.NFTABLES:
        with closing(Nft(namespace)) as nft:
            for text in texts:
                nft.run(text)
            return nft.run(f"list table {table_of(proxy.options.family)}")
    version = proxy.options.family.version
    with closing(Xtables(namespace, proxy.backend)) as xtables:
        for text in texts:
            xtables.start_restore(version, text, unused=True).finish()
        return _COUNTERS.sub("", _TIMES.sub("", xtables.save(version)))
