# SPDX-License-Identifier: MIT
"""Results: what was tried, what came of it, and what should have. Plain data, the same on any machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lab.evidence.judgement import Judgement
from lab.evidence.timeline import SavedTimeline
from lab.verdict import Outcome, Verdict
from lab.vocabulary import Backend, Behaviour, Family, ProxyMode


@dataclass(frozen=True)
class Trial:
    """What is tried: one case with one fix on one kind of node, in one address family.

    :param backend: None in nftables mode, which has no choice of programs.
    :param service: which Service was asked, as ``namespace/name:port``, where it was named or there are several.
    :param settings: of kube-proxy, those that were given besides the topology's, as options.
    :param proxy_known: whether rules of that version were seen; of others those of the last that was are loaded.
    :param given: what a real node is called whose own rules it had; empty where the lab wrote them. Then the version is
        nobody's.
    :param program: which kube-proxy program wrote the rules, and what it was told; empty where the lab wrote them.
    """

    case: str
    fix: str
    topology: str
    proxy_mode: ProxyMode
    proxy_version: str
    backend: Backend | None
    family: Family
    service: str | None = None
    settings: tuple[str, ...] = ()
    proxy_known: bool = True
    given: str = ""
    program: str = ""


@dataclass(frozen=True)
class Expectation:
    """What should become of a trial.

    :param judgement: None where there should be no packet to judge.
    """

    judgement: Judgement | None
    outcome: Outcome

    @property
    def words(self) -> str:
        """The same for a person."""
        return f"{self.judgement or 'not judged'}, {self.outcome}"


@dataclass(frozen=True)
class Result:
    """What came of one trial, beside what should have come of it on a kernel of this behaviour.

    :param expected: None where nothing is: of rules and fixes that are somebody's own.
    """

    trial: Trial
    behaviour: Behaviour
    expected: Expectation | None
    timeline: SavedTimeline
    verdict: Verdict

    @property
    def as_expected(self) -> bool:
        """True when kernel and rules did what they were expected to, and no two sources disagree."""
        verdict = self.verdict
        if self.expected is None:
            return not verdict.disagreements
        return (verdict.judgement, verdict.outcome, verdict.disagreements) == (
            self.expected.judgement,
            self.expected.outcome,
            (),
        )

    @property
    def surprise(self) -> str:
        """What was expected and what was seen instead; empty where that is the same."""
        seen = Expectation(self.verdict.judgement, self.verdict.outcome)
        if self.expected is None or seen == self.expected:
            return ""
        return f"expected {self.expected.words}; seen {seen.words}"


@dataclass(frozen=True)
class Tally:
    """One trial, run once or many times.

    :param outcomes: how often each outcome came.
    :param sample: the first result that was not as expected, the last one where all were; of a run that failed, what
        was seen until then. None where nothing was seen.
    :param failure: why the trial could not be run (to its end); empty where it could.
    :param missing: what the machine lacks for it, and what brings that; empty where it lacks nothing.
    :param seconds: what all runs took together, from making the lab to its end.
    """

    trial: Trial
    runs: int = 0
    as_expected: int = 0
    outcomes: tuple[tuple[Outcome, int], ...] = ()
    sample: Result | None = None
    failure: str = ""
    missing: str = ""
    seconds: float = 0.0

    def and_then(self, result: Result) -> Tally:
        """Return the tally with one more result."""
        counts = dict(self.outcomes)
        counts[result.verdict.outcome] = counts.get(result.verdict.outcome, 0) + 1
        keep = self.sample is not None and not self.sample.as_expected
        return replace(
            self,
            runs=self.runs + 1,
            as_expected=self.as_expected + result.as_expected,
            outcomes=tuple(counts.items()),
            sample=self.sample if keep else result,
        )

    def and_took(self, seconds: float) -> Tally:
        """Return the tally of a trial that took so much longer."""
        return replace(self, seconds=self.seconds + seconds)

    @property
    def good(self) -> bool:
        """True when every run was as expected, and there was one or it could not be had on this machine."""
        return self.as_expected == self.runs and not self.failure and (self.runs > 0 or bool(self.missing))


@dataclass(frozen=True)
class Remedy:
    """How a fix is made on a real node.

    :param commands: for root's shell there.
    :param lasting: in a sentence, how it outlives kube-proxy's next sync and the node's next start.
    """

    fix: str
    commands: tuple[str, ...]
    lasting: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that one call found out.

    :param kernel: its release, as ``uname -r``.
    :param behaviours: what the kernel does with packets out of the window, by family; decided by asking it.
    :param notes: in sentences, what has to be known of what was tried: of a real node what was left out or stands for
        something.
    :param remedies: of a real node, how each fix that was tried is made there.
    :param when: it was found out, in seconds since the epoch; 0 where nobody knows.
    :param command: what repeats it; empty likewise.
    """

    lab: str
    kernel: str
    behaviours: dict[Family, Behaviour]
    tallies: tuple[Tally, ...]
    notes: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    when: int = 0
    command: str = ""

    @property
    def good(self) -> bool:
        """True when every trial gave what this kernel is expected to give, or cannot be had on this machine."""
        return bool(self.tallies) and all(tally.good for tally in self.tallies)


def joined(*reports: Report) -> Report:
    """Return what several calls found out on one kernel as one report; of the same trial the last counts."""
    first = reports[0]
    behaviours = {family: behaviour for one in reports for family, behaviour in one.behaviours.items()}
    tallies = {tally.trial: tally for one in reports for tally in one.tallies}
    notes = dict.fromkeys(note for one in reports for note in one.notes)
    return replace(first, behaviours=behaviours, tallies=tuple(tallies.values()), notes=tuple(notes))
