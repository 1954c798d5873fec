"""What a name may have meant that is none of its kind: a case, a fix, a topology."""

from __future__ import annotations

from lab.errors import nearest


def meant(name: str, kind: str) -> str:
    """Return the cure: what else has this name, the nearest one of the kind, or where all are listed.

    :param kind: ``case``, ``fix`` or ``topology``.
    """
    from lab.cases import CASES  # the catalogues look names up by this
    from lab.fixes import FIXES
    from lab.topology.reader import shipped

    name = name.replace("_", "-")
    kinds = {"case": tuple(CASES), "fix": tuple(FIXES), "topology": tuple(known for known, _path in shipped())}
    if other := next((one for one, names in kinds.items() if name in names), None):
        return f"that is a {other}: see `lab list`"
    return nearest(name, kinds[kind]) or "see `lab list`"
