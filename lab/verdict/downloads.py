# SPDX-License-Identifier: MIT
"""What became of many downloads at once, decided from what was counted."""

from __future__ import annotations

from collections import Counter

from lab.evidence.judgement import Judgement
from lab.evidence.timeline import DownloadsTimeline, Load
from lab.verdict.verdict import Outcome, Verdict
from lab.verdict.witnesses import broken, miscounts

_RESET_BY_PEER, _STOOD_STILL = 56, 28  # curl(1), EXIT CODES


def decide(timeline: DownloadsTimeline) -> Verdict:
    """Decide what became of the downloads, and what conntrack made of the late packets that there must have been.

    Where no packet came late nothing was judged, and so nothing is proved.
    """
    load = timeline.load
    if load is None:
        faults = (*timeline.faults, *broken(timeline))
        return Verdict(Outcome.REFUSED, None, "", timeline.refused, faults, timeline.findings)
    outcome, because = _outcome(timeline, load)
    because = (*because, *timeline.counters.told)
    judgement = _judgement(timeline, load)
    disagreements = (*timeline.faults, *broken(timeline), *_disagreements(timeline, load, outcome))
    return Verdict(outcome, judgement, _reason(timeline, judgement), because, disagreements, timeline.findings)


def _judgement(timeline: DownloadsTimeline, load: Load) -> Judgement | None:
    """Return the harshest word that conntrack had; None where nothing came late."""
    words = {judged.judgement for judged in timeline.judged}
    for word in (Judgement.INVALID, Judgement.IGNORED):
        if word in words:
            return word
    if not load.late:
        return None
    tracked = timeline.counters.states.get("established", 0)
    return Judgement.ACCEPTED if tracked else Judgement.UNTRACKED


def reasons(timeline: DownloadsTimeline, judgement: Judgement | None = None) -> Counter[str]:
    """Return the kernel's words about what it did not like, without their numbers, and how often it used them.

    :param judgement: only about packets with this one.
    """
    return Counter(
        " ".join(word for word in judged.reason.split() if not word.isdecimal())
        for judged in timeline.judged
        if judged.reason and judgement in (None, judged.judgement)
    )


def _reason(timeline: DownloadsTimeline, judgement: Judgement | None) -> str:
    often = reasons(timeline, judgement).most_common(1)
    return often[0][0] if often else ""


def _outcome(timeline: DownloadsTimeline, load: Load) -> tuple[Outcome, tuple[str, ...]]:
    whole = sum(one.exit_code == 0 and one.received == load.size for one in load.downloads)
    count = len(load.downloads)
    arrived = f"{whole} of {count} downloads whole"
    disliked = Counter(judged.judgement for judged in timeline.judged)
    late = f"{load.late} segments late for the client"
    words = f"{disliked[Judgement.IGNORED]} packets ignored, {disliked[Judgement.INVALID]} INVALID"
    if whole == count:
        return Outcome.DELIVERED, (arrived, words, late)
    codes = [one.exit_code for one in load.downloads if one.exit_code]
    failed = ", ".join(f"curl: {code}, {number} times" for code, number in sorted(Counter(codes).items()))
    if codes and set(codes) == {_RESET_BY_PEER} and load.resets.get(timeline.server):
        return Outcome.RESET, (f"{len(codes)} of {count} downloads reset", words, failed, late)
    return (Outcome.STALLED if _STOOD_STILL in codes else Outcome.LOST), (arrived, failed, words, late)


def _disagreements(timeline: DownloadsTimeline, load: Load, outcome: Outcome) -> list[str]:
    found = miscounts(timeline)
    if not all(one.intact for one in load.downloads):
        found.append("a client received bytes that the server does not have there")
    ignored = sum(judged.judgement is Judgement.IGNORED for judged in timeline.judged)
    if ignored and not load.late:
        found.append(f"conntrack let {ignored} late packets through, and the client's kernel counted none")
    if not load.held:
        found.append("the router held nothing back")
    resets = sum(load.resets.values())
    if outcome is Outcome.DELIVERED and resets:
        found.append(f"all downloads are whole, and yet {resets} connections were reset")
    return found
