# SPDX-License-Identifier: MIT
"""The objects that are served now, and every change that they have seen, for watches."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lab.kubeapi.resources import Object


class Change(NamedTuple):
    """One object became another; None where there was none before, or is none any more.

    :param revision: counts all changes of a store, from 1.
    """

    revision: int
    plural: str
    before: Object | None
    after: Object | None


class ClosedError(Exception):
    """The store is no more: whoever waits for a change waits in vain."""


class Store:
    """Objects by kind; one thread changes them, and any may read them or wait for changes."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Object]] = {}
        self._changes: list[Change] = []
        self._news = threading.Condition()
        self._heard: dict[object, int] = {}  # by watch: up to which revision its client was told
        self._closed = False

    def put(self, wanted: Mapping[str, Iterable[Object]]) -> Counter[str]:
        """Have these objects and no others of their kinds, and return how many changed, by kind.

        Kinds that are not named stay as they are.
        """
        counts: Counter[str] = Counter()
        with self._news:
            for plural, objects in wanted.items():
                old = self._objects.get(plural, {})
                new = {_key(one): one for one in objects}
                kept: dict[str, Object] = {}
                for key in itertools.chain(new, (key for key in old if key not in new)):
                    before, after = old.get(key), new.get(key)
                    if after is None or before is None or not _same(before, after):
                        counts[plural] += 1
                        after = self._log(plural, key, before, after)
                    else:
                        after = before
                    if after is not None:
                        kept[key] = after
                self._objects[plural] = kept
            self._news.notify_all()
        return counts

    def _log(self, plural: str, key: str, before: Object | None, after: Object | None) -> Object | None:
        revision = len(self._changes) + 1
        stamped = None if after is None else _stamped(after, plural, key, revision)
        # What is told of an object that is gone is its last state, with the revision at which it went.
        gone = None if before is None or after is not None else _stamped(before, plural, key, revision)
        self._changes.append(Change(revision, plural, gone or before, stamped))
        return stamped

    def all_of(self, plural: str) -> tuple[int, tuple[Object, ...]]:
        """Return the revision of now, and the objects of a kind."""
        with self._news:
            return len(self._changes), tuple(self._objects.get(plural, {}).values())

    def changes(self, plural: str, since: int, seconds: float) -> Iterator[Change]:
        """Yield each change of a kind after a revision, as it comes, for so long.

        :raises ClosedError: the store was closed.
        """
        end = time.monotonic() + seconds
        watch = object()
        try:
            while True:
                with self._news:
                    self._heard[watch] = since
                    while len(self._changes) <= since and not self._closed:
                        if (left := end - time.monotonic()) <= 0:
                            return
                        self._news.wait(left)
                    if self._closed:
                        raise ClosedError
                    new = self._changes[since:]
                since += len(new)
                yield from (one for one in new if one.plural == plural)
        finally:
            del self._heard[watch]

    @property
    def is_delivered(self) -> bool:
        """Whether every watch that there is has been told of every change."""
        with self._news:
            return all(heard >= len(self._changes) for heard in self._heard.values())

    def close(self) -> None:
        """Wake whoever waits."""
        with self._news:
            self._closed = True
            self._news.notify_all()


def _key(one: Object) -> str:
    metadata = one["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"


def _stamped(one: Object, plural: str, key: str, revision: int) -> Object:
    """Return an object with what an API server writes into its metadata."""
    uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{plural}/{key}"))
    return {**one, "metadata": {**one["metadata"], "resourceVersion": str(revision), "uid": uid}}


def _same(stored: Object, wanted: Object) -> bool:
    metadata = {key: value for key, value in stored["metadata"].items() if key not in {"resourceVersion", "uid"}}
    return {**stored, "metadata": metadata} == wanted
