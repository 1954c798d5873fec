# SPDX-License-Identifier: MIT
"""One clear error for a topology that cannot be used: where it is wrong, and what to write instead."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from lab.errors import InputError, nearest

if TYPE_CHECKING:
    from pydantic import ValidationError

Path = tuple[str | int, ...]
"""Keys and indices that lead to a value of a document, as in ``("hosts", "node", "routes", 0, "via")``."""

_WORD = re.compile(r"[A-Za-z0-9_./-]{1,80}")
_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}
_MISSING = {"missing", "missing_argument"}
_WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
}


class TopologyError(InputError):
    """A topology that no lab can be built from; mend the value at ``path``.

    :param path: where, in the words of the topology file.
    :param problem: what is wrong there.
    """

    def __init__(self, path: Path, problem: str, cure: str | None = None) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{spell(path)}: {problem}" if path else problem, cure=cure)


def spell(path: Path) -> str:
    """Write a path as people do: ``hosts.node.routes[0].via``; a strange key is quoted."""
    text = ""
    for part in path:
        if isinstance(part, str) and _WORD.fullmatch(part):
            text += f".{part}"
        else:
            text += f"[{part if isinstance(part, int) else found(part)}]"
    return text.removeprefix(".")


def found(value: Any) -> str:  # noqa: ANN401 - anything may stand in a file
    """Describe a value in a few words, however large it is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int():
            return f"the number {value}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def first_error(error: ValidationError, document: Any, schema: dict[str, Any]) -> TopologyError:  # noqa: ANN401
    """Turn pydantic's list of errors into the one to mend first.

    An unknown key goes first: a misspelt one is often the reason why another is missing.

    :param document: what was validated; :param schema: its JSON Schema, for the known keys.
    """
    details: Any = min(error.errors(include_url=False), key=lambda item: item["type"] not in _UNKNOWN)
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    path = _standing(details["loc"], document)
    if kind in _UNKNOWN:
        key = str(details["loc"][-1])
        return TopologyError((*path[:-1], key), "unknown key", cure_of_key(key, path[:-1], schema))
    if kind in _MISSING:
        return TopologyError(path, f"{details['loc'][-1]!r} is missing")
    if kind in _WANTED:
        cure = "put it in quotes" if kind == "string_type" and isinstance(value, (bool, int)) else None
        return TopologyError(path, f"must be {_WANTED[kind]}, not {found(value)}", cure)
    if "expected" in context:
        return TopologyError(path, f"must be {context['expected']}, not {found(value)}")
    message = str(context.get("error") or context.get("message") or details["msg"])
    return TopologyError(path, message, context.get("cure"))


def _standing(location: Path, document: Any) -> Path:  # noqa: ANN401
    """Cut from pydantic's location what stands for a type's alternative, not for a place in the document."""
    path: list[str | int] = []
    for part in location:
        if isinstance(document, str):
            break
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(part)
    return tuple(path)


def cure_of_key(key: str, path: Path, schema: dict[str, Any]) -> str | None:
    """Return what to write instead of an unknown key of the mapping at a path.

    In a topology that may be a host's key that stands beside the hosts, or the other way round.
    """
    known = keys(schema, path)
    other, where = set[str](), ""
    if not path:
        other, where = keys(schema, ("hosts", "NAME")), "in a host"
    elif len(path) == 2 and path[0] == "hosts":
        other, where = keys(schema, ()), "beside hosts"
    [best] = difflib.get_close_matches(key[:80], sorted(known | other), n=1) or [""]
    return f"did you mean {best!r}, {where}?" if best in other - known else nearest(key, known)


def keys(schema: dict[str, Any], path: Path) -> set[str]:
    """Return the keys that a JSON Schema knows for the mapping at a path."""
    places = _resolve(schema, schema)
    for part in path:
        deeper: list[Any] = []
        for place in places:
            below = place.get("properties", {}).get(part) or place.get("additionalProperties")
            deeper.append(place.get("items") if isinstance(part, int) else below)
        places = [found for place in deeper if isinstance(place, dict) for found in _resolve(schema, place)]
    return {key for place in places for key in place.get("properties", {})}


def _resolve(schema: dict[str, Any], place: dict[str, Any]) -> list[dict[str, Any]]:
    """Follow a reference and spread alternatives."""
    if "$ref" in place:
        return _resolve(schema, schema["$defs"][place["$ref"].rpartition("/")[2]])
    if "anyOf" in place:
        return [found for branch in place["anyOf"] for found in _resolve(schema, branch)]
    return [place]
