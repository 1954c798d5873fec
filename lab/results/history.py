# SPDX-License-Identifier: MIT
"""What came of each case when it was run last on this machine: for `lab show`, and for nothing else.

One file below $XDG_STATE_HOME (XDG Base Directory Specification: state that should persist, but is not important enough
for the user's data): replacing a file a case would have some file systems flush each to the disk. What cannot be
written is not remembered, which is said, and no run fails for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.evidence.judgement import Judgement
from lab.results.result import Report, Trial
from lab.verdict import Outcome

_FILE: Final = "last.json"


@dataclass(frozen=True)
class Remembered:
    """What came of one case with one fix.

    :param when: in seconds since the epoch.
    :param kernel: its release, as ``uname -r``.
    :param lab: the version of the lab.
    :param runs: how often it was run then.
    :param surprise: what was expected and what was seen instead; empty where that is the same.
    """

    when: int
    kernel: str
    lab: str
    trial: Trial
    outcome: Outcome
    judgement: Judgement | None
    decided_by: str
    as_expected: bool
    runs: int
    surprise: str = ""


def directory() -> Path:
    """Return where it is kept.

    :raises RuntimeError: nobody knows the user's home.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification: a path that is not absolute is to be ignored.
    home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return home / "kube-proxy-lab"


def remember(report: Report) -> str:
    """Keep what came of each trial in place of what came of the same case and fix before; return why that cannot be.

    What was kept before stays as it is then.
    """
    try:
        _keep(report, directory())
    except OSError as error:
        return f"{error.filename or directory() / _FILE}: {error.strerror or error}"
    except RuntimeError as error:
        return str(error)
    return ""


def _keep(report: Report, directory: Path) -> None:
    now = int(time.time())
    with _alone(directory) as place:
        known = _read(place)
        for tally in report.tallies:
            if tally.sample is not None:
                verdict = tally.sample.verdict
                known.setdefault(tally.trial.case, {})[tally.trial.fix] = {
                    "when": now,
                    "kernel": report.kernel,
                    "lab": report.lab,
                    "trial": vars(tally.trial),
                    "outcome": verdict.outcome,
                    "judgement": verdict.judgement,
                    "decided_by": verdict.decided_by,
                    "as_expected": tally.good,
                    "runs": tally.runs,
                    "surprise": tally.sample.surprise,
                }
        fresh = place / f".{_FILE}"
        try:
            fresh.write_text(json.dumps(known))
            fresh.replace(place / _FILE)
        finally:
            fresh.unlink(missing_ok=True)


def recall(case: str) -> tuple[Remembered, ...]:
    """Return what came of a case with each fix when it was run last; empty where it never was.

    What another version of the lab has written otherwise is as good as nothing.
    """
    with suppress(RuntimeError, ValueError):
        return tuple(_remembered(entry) for entry in _read(directory()).get(case, {}).values())
    return ()


@contextmanager
def _alone(place: Path) -> Iterator[Path]:
    """Lock the directory, so that two runs that end at once are both remembered."""
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield place
    finally:
        os.close(descriptor)


def _read(place: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what is kept, by case and fix; nothing where the file is not there or is none of ours."""
    try:
        known = json.loads((place / _FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and all(isinstance(fixes, dict) for fixes in known.values()) else {}


def _remembered(entry: dict[str, Any]) -> Remembered:
    """Return an entry as it was written.

    :raises ValueError: no run of the lab has written it so.
    """
    from pydantic import TypeAdapter

    found = TypeAdapter(Remembered).validate_json(json.dumps(entry), strict=True)
    try:
        time.localtime(found.when)
    except (OverflowError, OSError) as error:
        raise ValueError("a time is none") from error
    return found
