"""What commands tell programs, held against its schema, more strictly than a program should: nothing besides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import typer

from lab.cli import app
from lab.cli.documents import DOCUMENTS, schema_of


def check(name: str, data: object) -> None:
    """Check that data is what the schema of a document says, and that it has no other members."""
    _validator(name).validate(data)
    version = DOCUMENTS[name].version
    assert version is None or (isinstance(data, dict) and next(iter(data.items())) == ("version", version))


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: _closed(one) for key, one in schema.items()}
    return told | {"additionalProperties": False} if isinstance(told.get("properties"), dict) else told


def commands(group: Any = None, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of the command, by the words that call it."""
    for name, one in (group or typer.main.get_command(app)).commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, *words, name)
        else:
            yield (*words, name), one
