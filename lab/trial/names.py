# SPDX-License-Identifier: MIT
"""What a name may have meant that is none of its kind: a case, a fix, a topology."""

from __future__ import annotations

from lab.cases import CASES
from lab.errors import InputError, UnknownNameError
from lab.fixes import FIXES
from lab.topology.reader import shipped


def explained(error: UnknownNameError) -> InputError:
    """Return the error with another cure where something of another kind has the name."""
    name = error.name.replace("_", "-")
    kinds = {"case": tuple(CASES), "fix": tuple(FIXES), "topology": tuple(known for known, _path in shipped())}
    other = next((kind for kind, names in kinds.items() if name in names), None)
    if other is None:
        return error
    return InputError(error.message, source=error.source, cure=f"that is a {other}: see `lab list`")
