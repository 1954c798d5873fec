# SPDX-License-Identifier: MIT
"""A topology as the text of a topology file: read again, it is the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import yaml
from pydantic.fields import FieldInfo

from lab.errors import InputError
from lab.topology.model import End, HostOptions, Topology
from lab.topology.route_keys import ClosedRoute, PolicyRule, Route

if TYPE_CHECKING:
    from pydantic import BaseModel

_WIDTH: Final = 120
_PAIRS: Final = ("sysctls", "feature_gates")  # mappings in the file


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, which the lab does not take."""

    def ignore_aliases(self, data: object) -> bool:
        """Write what stands twice twice."""
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent the items of a list, as the files that come along do."""
        del indentless
        super().increase_indent(flow, False)


def text_of(topology: Topology, comments: Iterable[str] = ()) -> str:
    """Return the text of a topology's file.

    :param comments: are written above it.
    :raises InputError: a node has somebody's own rules or program, for which the file has no word.
    """
    for host in topology.hosts:
        if host.given is not None or host.program is not None:
            raise InputError(f"{host.name} has rules of its own, which no topology file can say")
    first: dict[str, Any] = {"topology": topology.name}
    if topology.description:
        first["description"] = topology.description
    if topology.service_cidrs:
        first["service-cidrs"] = [str(one) for one in topology.service_cidrs]
    first["hosts"] = {host.name: _plain(HostOptions, host) for host in topology.hosts}
    first["links"] = [[_plain(End, end) for end in link.ends] for link in topology.links]
    objects = [_object(one) for one in (*topology.services, *topology.endpoint_slices)]
    head = "".join(f"# {line}\n" for line in comments)
    return head + "---\n".join(map(_dumped, (first, *objects)))


def _dumped(document: dict[str, Any]) -> str:
    text = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True, default_flow_style=None
    )
    assert isinstance(text, str)
    return text


def _plain(kind: type, value: object) -> dict[str, Any]:
    """Return the fields of a file's class that are not as they are without being said, by their keys."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Any] = {}
    for one in fields(kind):
        own = getattr(value, one.name)
        if one.default is not MISSING and own == one.default:
            continue
        described = (info for info in getattr(hints[one.name], "__metadata__", ()) if isinstance(info, FieldInfo))
        name = next((info.alias for info in described if info.alias), one.name)
        found[name] = dict(own) if one.name in _PAIRS else _value(own)
    return found


def _value(value: Any) -> Any:  # noqa: ANN401 - whatever a field holds
    match value:
        case Enum():
            return str(value)
        case Route() | ClosedRoute() | PolicyRule():
            return _plain(type(value), value)
        case tuple():
            return [_value(one) for one in value]
        case bool() | int():
            return value
        case _:
            return str(value)


def _object(one: BaseModel) -> dict[str, Any]:
    said: dict[str, Any] = one.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {key: said[key] for key in ("apiVersion", "kind", *said)}
