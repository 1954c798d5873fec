"""The catalogue: one file a case."""

from __future__ import annotations

from typing import Final

from lab.cases import beyond_window, in_window, upstream_regression, without_nat
from lab.cases.case import Case, Protection
from lab.errors import InputError

__all__ = ["CASES", "HEADLINE", "Case", "Protection", "find"]

HEADLINE: Final = beyond_window.CASE
CASES: Final = {case.name: case for case in (HEADLINE, in_window.CASE, without_nat.CASE, upstream_regression.CASE)}


def find(name: str) -> Case:
    """Return the case of a name; underscores will do for dashes.

    :raises InputError: there is none of this name.
    """
    try:
        return CASES[name.replace("_", "-")]
    except KeyError:
        raise InputError(f"there is no case {name!r}", cure=f"one of: {', '.join(CASES)}") from None
