# SPDX-License-Identifier: MIT
"""Go's durations, in which kube-proxy's settings say a time: ``10m``, ``1h30m``, ``1.5s`` (time.ParseDuration)."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_UNITS: Final = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_PART: Final = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_UNITS)})")
_WHOLE: Final = re.compile(rf"[-+]?(?:0|(?:{_PART.pattern})+)")
_MAX_LENGTH: Final = 60


def seconds_of(text: str) -> Fraction | None:
    """Return how long a duration is; None where the text is none."""
    if len(text) > _MAX_LENGTH or not _WHOLE.fullmatch(text):
        return None
    found = sum((Fraction(number.rstrip(".")) * _UNITS[unit] for number, unit in _PART.findall(text)), Fraction(0))
    return -found if text.startswith("-") else found
