# SPDX-License-Identifier: MIT
"""YAML text -> plain values (dict, list, str, int, bool, None), one a document.

Built on libyaml's events: several times as fast as PyYAML's own constructors, and stricter where the freedom
of YAML only hides mistakes: a key that stands twice is refused, as are anchors, aliases and tags. Keys are
always text, and so is a plain value unless it is null, a decimal whole number, or one of YAML 1.1's words for
true and false (https://yaml.org/type/bool.html, without y and n). So ``1.14`` stays "1.14".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import yaml

from lab.errors import InputError
from lab.kubernetes.errors import Path, found

_MAX_DEPTH = 64  # Kubernetes' managedFields reach some 15
# An untyped name: only one of the two classes is there, and their stubs have no common base with get_event().
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_SPELLINGS = {True: ("true", "yes", "on"), False: ("false", "no", "off"), None: ("null", "~", "")}
_WORDS: dict[str, bool | None] = {
    spelling: value
    for value, words in _SPELLINGS.items()
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
}

_CURES = {
    "\t": "indent with spaces, not tabs",
    ":": "mind the indentation, and put a value with ':' in quotes",
    **dict.fromkeys("@`%", "put the value in quotes"),
}
"""What helps where a character is not understood."""

CheckKey = Callable[[str, int], None]
"""Called with each key of the first document's mapping and its line, as soon as it is read."""


def text_of(data: bytes, source: str, what: str = "a topology") -> str:
    """Decode a file's bytes.

    :param what: is read, for errors.
    :raises InputError: where they are no UTF-8 text.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not a text file: the byte 0x{data[error.start]:02x} is not UTF-8"
        raise InputError(message, source=source, line=line, cure=f"{what} is YAML in UTF-8") from None


def documents(
    text: str, source: str, check_key: CheckKey | None = None, what: str = "a topology"
) -> Iterator[dict[str, Any]]:
    """Read a stream's documents one by one, each a mapping; empty ones are left out.

    :param what: is read, for errors.
    :raises InputError: where the text is no YAML, or YAML of a kind that is refused, with its line.
    """
    if binary := _BINARY.search(text):
        message = f"not a text file: it has the control character 0x{ord(binary[0]):02x}"
        line = text.count("\n", 0, binary.start()) + 1
        raise InputError(message, source=source, line=line, cure=f"{what} is YAML in UTF-8")
    try:
        events = _Events(text)
        while (value := events.document(check_key)) is not _END:
            if value is not None:
                check_key = None
                yield value
    except _RefusedError as error:
        raise InputError(str(error), source=source, line=error.line, cure=error.cure) from None
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be read"
        lines = [*text.splitlines(), ""]
        cure = _CURES.get(lines[min(mark.line, len(lines) - 1)][mark.column : mark.column + 1])
        raise InputError(f"not YAML: {problem}", source=source, line=mark.line + 1, cure=cure) from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        message = str(getattr(error, "reason", error)).partition("\n")[0]
        raise InputError(f"not YAML: {message}", source=source) from None


def line_of(text: str, document: int, path: Path) -> int:
    """Find the line (from 1) of the value at a path, or of the nearest thing around it.

    Reads the text once more, which only an error has to pay for.

    :param text: a text that :func:`documents` could read.
    :param document: which of the documents that it gave, from 0.
    """
    events = _Events(text)
    event = events.start_of(document)
    line = _line(event)
    for part in path:
        if type(event) is yaml.MappingStartEvent:
            while type(key := events.next()) is not yaml.MappingEndEvent and key.value != part:
                events.skip(events.next())
            if type(key) is yaml.MappingEndEvent:
                break
            line, event = _line(key), events.next()
        elif type(event) is yaml.SequenceStartEvent and isinstance(part, int):
            for _ in range(part):
                events.skip(events.next())
            event = events.next()
            line = _line(event)
        else:
            break
    return line


@lru_cache(maxsize=1 << 16)
def _plain(text: str) -> str | int | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _WHOLE.fullmatch(text) else text


def _line(event: Any) -> int:  # noqa: ANN401 - PyYAML's events have no common type
    return int(event.start_mark.line) + 1


def _is_empty(event: Any) -> bool:  # noqa: ANN401
    return type(event) is yaml.ScalarEvent and event.implicit[0] and _plain(event.value) is None


_END = object()


class _Events:
    """Builds values from libyaml's events."""

    def __init__(self, text: str) -> None:
        self.next = _Loader(text).get_event
        self.next()  # the stream's start

    def document(self, check_key: CheckKey | None) -> Any:  # noqa: ANN401 - the document's value
        """Build the next document's value; ``_END`` where there is none."""
        if type(self.next()) is yaml.StreamEndEvent:
            return _END
        event = self.next()
        if type(event) is not yaml.MappingStartEvent and not _is_empty(event):
            raise _RefusedError(event, "a document must be a mapping", "write it as 'KEY: VALUE' lines")
        value = self._value(event, _MAX_DEPTH, check_key)
        self.next()  # the document's end
        return value

    def start_of(self, document: int) -> Any:  # noqa: ANN401 - PyYAML's events have no common type
        """Go to a document, empty ones not counted, and give its value's first event."""
        while True:
            self.next()  # the document's start
            event = self.next()
            if not _is_empty(event):
                if not document:
                    return event
                document -= 1
            self.skip(event)
            self.next()  # the document's end

    def skip(self, event: Any) -> None:  # noqa: ANN401
        """Pass over the value that begins with an event."""
        depth = 0
        while True:
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if not depth:
                return
            event = self.next()

    def _value(self, event: Any, depth: int, check_key: CheckKey | None = None) -> Any:  # noqa: ANN401
        kind = type(event)
        if kind is yaml.AliasEvent or event.anchor is not None:
            raise _RefusedError(event, "anchors and aliases are not taken", "write the value out")
        if event.tag is not None:
            raise _RefusedError(event, f"the tag {found(event.tag)} is not taken", "leave it out")
        if kind is yaml.ScalarEvent:
            return _plain(event.value) if event.implicit[0] else event.value
        if not depth:
            raise _RefusedError(event, f"nested deeper than {_MAX_DEPTH} levels")
        if kind is yaml.MappingStartEvent:
            return self._mapping(depth - 1, check_key)
        items = []
        while type(event := self.next()) is not yaml.SequenceEndEvent:
            items.append(self._value(event, depth - 1))
        return items

    def _mapping(self, depth: int, check_key: CheckKey | None) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while type(event := self.next()) is not yaml.MappingEndEvent:
            if type(event) is not yaml.ScalarEvent:
                raise _RefusedError(event, "a key must be text")
            key = event.value
            if key in mapping:
                raise _RefusedError(event, f"duplicate key {found(key)}", "keep one")
            if check_key is not None:
                check_key(key, _line(event))
            mapping[key] = self._value(self.next(), depth)
        return mapping


class _RefusedError(Exception):
    """YAML that is refused, at an event."""

    def __init__(self, event: Any, message: str, cure: str | None = None) -> None:  # noqa: ANN401
        super().__init__(message)
        self.line = _line(event)
        self.cure = cure
