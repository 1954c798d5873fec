# SPDX-License-Identifier: MIT
"""Which kernels there are: in the archive, in the cache, and the one that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from lab.errors import LabError
from lab.kernels import archive
from lab.kernels.cache import Cache
from lab.kernels.find import cached
from lab.kernels.kernel import order, series, upstream


@dataclass(frozen=True)
class Known:
    """A kernel that can be had.

    :param version: the upstream version, such as ``6.1.192``.
    :param suite: Debian's, empty where it is in the cache already.
    :param size: bytes to fetch; 0 where it is in the cache.
    """

    series: str
    version: str
    release: str
    suite: str
    size: int
    cached: bool


@dataclass(frozen=True)
class Stock:
    """All of them.

    :param running: what ``uname -r`` says here.
    :param known: the newest of each series in the archive, and all that are in the cache; the newest first.
    :param trouble: what kept the archive's lists from being as new as could be.
    """

    running: str
    cache: str
    known: tuple[Known, ...]
    trouble: tuple[str, ...]


def take_stock(cache: Cache) -> Stock:
    """Read what the archive has, and what the cache has. Without the archive, what it had when it was last asked."""
    try:
        found, trouble = archive.look(cache, archive.sources())
    except LabError as error:
        found, trouble = [], [str(error)]
    there = {(release, version) for release, version, _directory in cached(cache)}
    known = {
        (one.version, one.release): Known(
            one.series, upstream(one.version), one.release, one.suite, one.size, (one.release, one.version) in there
        )
        for one in archive.newest_of_each_series(found)
    }
    for release, version in there:
        own = Known(series(version), upstream(version), release, "", 0, cached=True)
        known.setdefault((version, release), own)
    ordered = sorted(known.items(), key=lambda item: order(item[0][0]), reverse=True)
    return Stock(os.uname().release, str(cache.directory), tuple(one for _key, one in ordered), tuple(trouble))


def lines(stock: Stock) -> Iterator[str]:
    """Return it as a table."""
    width = max((len(one.release) for one in stock.known), default=0)
    for one in stock.known:
        where = "in the cache" if one.cached else f"{one.size / 1e6:.0f} MB from {one.suite}"
        yield f"{one.series:6}{one.version:10}{one.release:{width}}  {where}"
    yield f"running: {stock.running}"
    yield f"cache: {stock.cache}"
