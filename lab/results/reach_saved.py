# SPDX-License-Identifier: MIT
"""What `lab reach` found out in files: written as JSON with a version, and read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from lab.results.reach import Cell, Reaches, ReachReport
from lab.results.saved import harmless, refusal
from lab.results.versioned import versioned

#: The version that is written; all up to it are read.
VERSION: Final = 1

#: The member by which such a file is told from others.
KEY: Final = "reaches"


def to_json(found: ReachReport) -> bytes:
    """Return it as JSON in UTF-8, a line a cell; what has its default is left out, and what a cell means is in it."""
    from pydantic import TypeAdapter

    cells = TypeAdapter(Cell)
    data: dict[str, Any] = TypeAdapter(ReachReport).dump_python(
        replace(found, reaches=tuple(replace(one, cells=()) for one in found.reaches)), mode="json"
    )
    for told, one in zip(data[KEY], found.reaches, strict=True):
        told["cells"] = [
            {
                "as_expected": None if cell.expected is None else not cell.surprises,
                "surprises": list(cell.surprises),
                **cells.dump_python(cell, mode="json", exclude_defaults=True),
            }
            for cell in one.cells
        ]
    return _lines({"version": VERSION, **data})


def from_data(data: dict[str, Any], text: str) -> ReachReport:
    """Return what :func:`to_json` of this version or of an earlier one wrote, from what was read of it.

    :param text: that it was read of.
    :raises ValueError: it is none; says what is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    version = data.get("version")
    if version not in range(1, VERSION + 1):
        newest = f"this one reads files up to version {VERSION}"
        raise ValueError(f"another lab wrote these results, in version {version!r:.40}: {newest}")
    try:
        found = TypeAdapter(ReachReport).validate_python(harmless(data, text))
    except ValidationError as error:
        raise ValueError(refusal(error)) from None
    if not found.reaches or any(not cell.reached for one in found.reaches for cell in one.cells):
        raise ValueError(f"{KEY}: nothing was asked")
    return found


def schema() -> dict[str, Any]:
    """Return the JSON Schema of what is written."""
    from pydantic import TypeAdapter

    found = TypeAdapter(ReachReport).json_schema(mode="validation")
    meaning = {
        "as_expected": {
            "type": ["boolean", "null"],
            "description": "Null where nothing is expected, or the kernel lacks what it takes.",
        },
        "surprises": {"type": "array", "items": {"type": "string"}, "description": "What is not as expected."},
    }
    cell = found["$defs"][Cell.__name__]
    cell["properties"] = {**meaning, **cell["properties"]}
    cell["required"] = [*meaning, *cell["required"]]
    return versioned(found, "reach", VERSION)


def _lines(data: dict[str, Any]) -> bytes:
    """Return an object as JSON whose cells have a line each."""
    from json import dumps

    reaches = data.pop(KEY)
    told = []
    for one in reaches:
        cells = ",\n".join(dumps(cell, ensure_ascii=False) for cell in one.pop("cells"))
        told.append(f'{dumps(one, ensure_ascii=False)[:-1]}, "cells": [\n{cells}\n]}}')
    return f'{dumps(data, ensure_ascii=False)[:-1]}, "{KEY}": [\n{",".join(told)}\n]}}\n'.encode()


def joined(found: list[ReachReport]) -> ReachReport:
    """Return what several files hold as one: their kube-proxies beside each other, in the order of the files.

    :raises ValueError: they are of several kernels, families or topologies; says which.
    """
    first = found[0]
    for what, its in (
        ("kernels", dict.fromkeys(one.kernel for one in found)),
        ("families", dict.fromkeys(str(reaches.family) for one in found for reaches in one.reaches)),
        ("topologies", dict.fromkeys(reaches.topology for one in found for reaches in one.reaches)),
    ):
        if len(its) > 1:
            raise ValueError(f"results of `lab reach` of several {what} ({', '.join(its)}) are no one table")
    reaches: tuple[Reaches, ...] = tuple(reaches for one in found for reaches in one.reaches)
    alone = len(found) == 1
    return replace(first, reaches=reaches, when=max(one.when for one in found), command=first.command if alone else "")
