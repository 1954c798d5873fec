# SPDX-License-Identifier: MIT
"""What came of a captured connection that was sent again, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lab.capture.explanation import Finding
from lab.capture.naming import Naming
from lab.capture.replayed import Replayed, Said, plain
from lab.evidence.judgement import Judgement


def lines(one: Replayed, findings: Mapping[tuple[str, int], Finding], named: Naming) -> Iterator[str]:
    """Yield what is printed, line by line.

    :param findings: by file and number of the first of their packets.
    :param named: calls packets by their numbers.
    """
    if one.untold:
        yield f"  Not replayed: {one.untold}."
        return
    sent = "1 segment" if one.sent == 1 else f"{one.sent:,} segments"
    part = ", the first of more: the others are not sent" if one.is_cut else ""
    differing = sum(said.differs for said in one.said)
    agree = (
        "all of them judged as the model expects" if not differing else f"{differing:,} judged otherwise than expected"
    )
    yield f"  Replayed in a lab on Linux {one.kernel}: {sent}{part}; {agree}"
    for said in one.said:
        yield f"  > {named.first(said.place)}: {said.what}: {_judged(said)}"
        finding = findings.get((said.place.file, said.place.number))
        if finding is not None:
            yield from _against(said, finding)


def _judged(said: Said) -> str:
    reason = f", `{said.reason}`" if said.reason else ""
    differs = f"; DIFFERS: the model expects {said.expected}" if said.differs else ""
    return f"{plain(said.judgement)}{reason}{differs}"


def _against(said: Said, finding: Finding) -> Iterator[str]:
    """Yield what it means where the lab's node made something else of a packet than the captured one did."""
    here = plain(said.judgement)
    if finding.judgement is None and here is Judgement.ACCEPTED:
        yield (
            "    Here its entry is there, and so it is translated: there the entry was gone (deleted, or expired), or a"
            " setting is another one."
        )
    elif finding.judgement is not None and (here is Judgement.INVALID) is not (finding.judgement is Judgement.INVALID):
        yield f"    By the capture it was {finding.judgement} there: another kernel, or other settings."
