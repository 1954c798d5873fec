"""What came of a case is kept for `lab show`; what cannot be kept harms nobody."""

import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest
from rich.console import Console

from lab.cases import HEADLINE
from lab.cli.catalogue import shown, story
from lab.fixes import FIXES
from lab.results.history import directory, recall, remember
from lab.results.result import Tally
from lab.results.saved import from_json
from lab.verdict import Outcome
from tests.support.command import lab

TRIAL = {
    "case": "beyond-window",
    "fix": "none",
    "topology": "kube-proxy",
    "proxy_mode": "iptables",
    "proxy_version": "v1.14",
    "backend": "nft",
    "family": "ipv4",
}


def entry(**changed):
    """Return what is kept of one case with one fix, with something in it that no run has written."""
    kept = {
        "when": 1795711263,
        "kernel": "6.18.44",
        "lab": "0.1.0",
        "trial": TRIAL,
        "outcome": "reset",
        "judgement": "INVALID",
        "decided_by": "INVALID, leaked, RST, ECONNRESET",
        "as_expected": True,
        "runs": 1,
    }
    return json.dumps({"beyond-window": {"none": kept | changed}})


RESULTS = Path(__file__).parents[1] / "report" / "results.json"


@pytest.fixture(scope="module")
def report():
    return from_json(RESULTS.read_text())


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "kube-proxy-lab"


def told(case=HEADLINE):
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        for part in story(case, recall(case.name)):
            console.print(part)
    return capture.get()


def test_what_came_is_told(report):
    assert "Not run here yet: `lab run beyond-window` does that" in told()
    remember(report)
    text = told()
    assert "Not run here yet" not in text
    assert "Linux 6.18.44: iptables v1.14 by nft, ipv4" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "│ none │ reset │ INVALID, leaked, RST, ECONNRESET │" in lines
    assert "│ drop-forward │ dropped │ INVALID, 1 dropped by rule │" in lines


def test_a_fix_that_is_tried_again_takes_the_place_of_what_it_gave_before(report):
    remember(report)
    other = report.tallies[0].sample
    changed = dataclasses.replace(other, verdict=dataclasses.replace(other.verdict, outcome=Outcome.STALLED))
    remember(dataclasses.replace(report, kernel="7.0", tallies=(Tally(other.trial).and_then(changed),)))
    came = {one.trial.fix: (one.kernel, one.outcome, one.as_expected) for one in recall("beyond-window")}
    assert came == {
        "none": ("7.0", Outcome.STALLED, False),
        "drop-forward": ("6.18.44", Outcome.DROPPED, True),
        "be-liberal": ("6.18.44", Outcome.DELIVERED, True),
    }
    for line in ("NOT AS EXPECTED", "expected INVALID, reset", "seen INVALID, stalled"):
        assert f"│ {line} " in told()


def test_what_was_not_run_leaves_what_was_there(report):
    remember(report)
    before = recall("beyond-window")
    tallies = tuple(Tally(tally.trial, missing="no such thing") for tally in report.tallies)
    remember(dataclasses.replace(report, tallies=tallies))
    assert recall("beyond-window") == before


def test_the_data_is_the_same(report):
    remember(report)
    data = json.loads(json.dumps(dataclasses.asdict(shown(HEADLINE, recall("beyond-window")))))
    assert [one["outcome"] for one in data["last"]] == ["reset", "dropped", "delivered"]
    assert data["expected"]["strict"]["none"] == {"judgement": "INVALID", "outcome": "reset"}
    assert set(data["expected"]["ignores-late"]) == set(FIXES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"beyond-window": 1}',
        '{"beyond-window": {"none": {"when": 1}}}',
        entry(decided_by=float("inf")),
        entry(when=[1]),
        entry(when=float("nan")),
        entry(when=10**30),
        entry(runs="3"),
        entry(as_expected=None),
        entry(trial={**TRIAL, "fix": 1}),
        entry(trial={**TRIAL, "settings": 1}),
    ],
)
def test_a_file_that_is_none_of_ours_is_as_good_as_none(report, state, text):
    state.mkdir(parents=True)
    (state / "last.json").write_text(text)
    assert recall("beyond-window") == ()
    remember(report)
    assert len(recall("upstream-regression")) == 3


def test_what_looks_like_markup_is_text(state):
    state.mkdir(parents=True)
    (state / "last.json").write_text(entry(trial={**TRIAL, "fix": "[bold]x[/nope]"}, decided_by="[/]"))
    assert "[bold]x[/nope]" in told()


def test_what_cannot_be_written_harms_nobody(report, state, monkeypatch):
    state.parent.write_text("a file in the place of the directory")
    remember(report)
    assert recall("beyond-window") == ()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    remember(report)
    assert recall("beyond-window") == ()


def test_a_relative_path_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "somewhere")
    assert directory() == Path.home() / ".local" / "state" / "kube-proxy-lab"


def test_two_that_end_at_once_are_both_remembered(report, state):
    def other(number):
        tallies = [
            dataclasses.replace(tally, trial=dataclasses.replace(tally.trial, fix=f"fix-{number}"))
            for tally in report.tallies[:1]
        ]
        return dataclasses.replace(report, tallies=tuple(tallies))

    threads = [threading.Thread(target=remember, args=(other(number),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.trial.fix for one in recall("beyond-window")} == {f"fix-{number}" for number in range(20)}
    assert [path.name for path in state.iterdir()] == ["last.json"]


@pytest.mark.lab_kernel
def test_the_command_keeps_it_and_tells_it(state):
    done = lab("run", "in-window", "--fix", "none", "--no-timeline")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in state.iterdir()] == ["last.json"]
    assert "came of it on" in lab("show", "in-window").stdout
    last = json.loads(lab("show", "in_window", "--json").stdout)["cases"][0]["last"]
    assert [(one["trial"]["fix"], one["outcome"], one["kernel"]) for one in last] == [
        ("none", "delivered", os.uname().release)
    ]
