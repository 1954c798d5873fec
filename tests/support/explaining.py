"""Explaining captures that a test has made."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lab.capture.explain import explain
from lab.capture.reader import Reader
from lab.vocabulary import Behaviour

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.capture.explanation import Explanation


def explained(files: Mapping[str, bytes], behaviour: Behaviour = Behaviour.IGNORES_LATE) -> Explanation:
    """Return what captures tell, by their names."""
    return explain([Reader(io.BufferedReader(io.BytesIO(data)), name) for name, data in files.items()], behaviour)
