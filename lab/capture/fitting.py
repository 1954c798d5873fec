# SPDX-License-Identifier: MIT
"""What conntrack counted (`conntrack -S`), held against what captures show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from lab.capture.explanation import Explained, Finding, Place, Remark
from lab.capture.naming import Naming
from lab.capture.statistics import COUNTERS
from lab.capture.text import Text
from lab.evidence.judgement import Judgement
from lab.verdict import Outcome

_UNANSWERED: Final = (Outcome.STALLED, Outcome.LOST)
_SHOWN: Final = 3


def fitting(
    remarks: Iterable[Remark], texts: Iterable[Text], connections: Sequence[Explained], named: Naming
) -> Iterator[Remark]:
    """Yield remarks, those on counters with what of the captures they fit, and where the two contradict each other."""
    invalid = [one for connection in connections for one in connection.findings if one.judgement is Judgement.INVALID]
    for one in remarks:
        words = _fits(one.words.partition(" ")[0], connections, invalid, named) if one.kind == "counter" else ""
        yield replace(one, further=(*one.further, words)) if words and one.is_wrong else one
    leaked = [one for one in invalid if len(one.packets) > 1]
    for text in texts:
        samples = text.statistics.samples
        if samples and leaked and samples[-1].get("invalid", 0) == (samples[0]["invalid"] if samples[1:] else 0):
            yield Remark(
                text.name,
                "counters",
                f"invalid {'has not grown' if samples[1:] else 'is 0'}, and yet the captures have packets that are"
                f" INVALID ({_places([one.packets[0] for one in leaked], named)}): the counters are of another node or"
                " namespace, or of another time",
                (text.statistics.line,),
                1,
                is_wrong=False,
            )


def _fits(name: str, connections: Sequence[Explained], invalid: Sequence[Finding], named: Naming) -> str:
    """Return what of the captures a counter fits, in a sentence; empty where nothing is seen that does."""
    if name == "invalid" and invalid:
        return f"That fits the captures: INVALID are {_places([one.packets[0] for one in invalid], named)}."
    cases = COUNTERS[name].cases if name in COUNTERS else ()
    for one in connections:
        known = next((found for found in one.findings if found.case and found.case in cases), None)
        if known is not None and name != "invalid":
            return f"That fits {one.client} > {one.target}: {known.case}."
        if name in ("insert_failed", "drop", "chaintoolong") and one.outcome in _UNANSWERED and one.endpoint is None:
            return (
                f"That may be why {one.client} > {one.target} has no answer, which was seen untranslated alone; the"
                " counter does not tell which packets"
            )
    return ""


def _places(places: Sequence[Place], named: Naming) -> str:
    return named.all(list(dict.fromkeys(places))[:_SHOWN], more=len(set(places)) > _SHOWN)
