# SPDX-License-Identifier: MIT
"""The JSON Schema of what the lab tells programs: derived from the types that are told, with a version first."""

from __future__ import annotations

from typing import Any, Final

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_of_type(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type, also one that has members
    """Return the JSON Schema of a type whose members are all told, also those that have their defaults."""
    from pydantic import TypeAdapter

    found = TypeAdapter(kind).json_schema(mode="validation")
    for one in (found, *found.get("$defs", {}).values()):
        for property_ in one.get("properties", {}).values():
            property_.pop("default", None)
        if "properties" in one:
            one["required"] = [*one["properties"]]
    return found


def versioned(schema: dict[str, Any], title: str, version: int) -> dict[str, Any]:
    """Return a schema of objects with a version as their first member."""
    told = {"const": version, "description": "Of the file's form; it changes where a program would notice."}
    return {
        "$schema": DIALECT,
        **schema,
        "title": f"kube-proxy-lab: {title}",
        "properties": {"version": told, **schema["properties"]},
        "required": ["version", *schema.get("required", ())],
    }
