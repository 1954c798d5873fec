"""Several trials in one lab of a node whose rules were given: each comes out as it does in a lab of its own."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

import pytest

from lab import cases, fixes
from lab.node.read import read
from lab.results.result import Result, Trial
from lab.trial import batch, probe, runner
from lab.trial.fix_file import find_fix
from lab.trial.own_node import OwnNode, own_node
from lab.trial.setting import Setting
from lab.trial.shared import SharedLabs
from tests.support import cover

Outcome: TypeAlias = tuple[object, ...]

pytestmark = pytest.mark.lab_kernel


@pytest.fixture(scope="module")
def own(dumps) -> OwnNode:
    return own_node(read([str(dumps.path("v1.14.0/iptables-v4"))]))


def outcome(result: Result) -> Outcome:
    verdict = result.verdict
    return verdict.outcome, verdict.judgement, verdict.disagreements, verdict.decided_by


def test_trials_that_share_a_lab_come_out_as_in_fresh_ones(own: OwnNode):
    """In one order of all fixes and of many cases, those that mute hosts and set sysctls among them."""
    family = own.families[0]
    quick = [case for case in cases.CASES.values() if not case.slow]
    usual = [
        case for case in quick if case.name in ("beyond-window", "stale-syn-ack", "entry-expired", "client-on-node")
    ]
    some = quick if cover.whole() else [*usual, *cover.sample([one for one in quick if one not in usual], 8)]
    named = [fixes.find(name) for name in ("none", "be-liberal", "drop-forward")]
    chosen = batch.select(some, named, own.topology, family, (None, None, None), own.service, named=False).settings
    settings = sorted(chosen, key=lambda setting: named.index(setting.fix))

    async def go() -> tuple[dict[Trial, Outcome], dict[Trial, Outcome]]:
        behaviour = await probe.ask(family)
        with closing(SharedLabs()) as labs:
            shared = {one.trial: outcome(await labs.run(one, behaviour, lambda _seen: None)) for one in settings}
        return shared, {one.trial: outcome(await runner.run(one, behaviour)) for one in settings}

    shared, fresh = asyncio.run(go())
    assert shared == fresh


def test_a_lab_is_built_once_for_trials_without_a_fix_and_with_those_that_can_be_added(
    own: OwnNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    built = []
    make = runner.fresh_lab

    def counted(setting: Setting) -> object:
        built.append(setting.fix.name)
        return make(setting)

    monkeypatch.setattr(runner, "fresh_lab", counted)
    family = own.families[0]
    (tmp_path / "mine.rules").write_text("*filter\n-I FORWARD 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n")
    mine = find_fix(str(tmp_path / "mine.rules"))
    order = (fixes.NONE, fixes.NONE, fixes.BE_LIBERAL, fixes.NONE, fixes.DROP_FORWARD, fixes.DROP_FORWARD, mine)

    async def go() -> list[str]:
        behaviour = await probe.ask(family)
        with closing(SharedLabs()) as labs:
            return [
                (
                    await labs.run(
                        Setting(cases.find("beyond-window"), fix, own.topology, family, own.service),
                        behaviour,
                        lambda _seen: None,
                    )
                ).verdict.outcome.value
                for fix in order
            ]

    outcomes = asyncio.run(go())
    assert outcomes == ["reset", "reset", "delivered", "reset", "dropped", "dropped", "dropped"]
    assert built == ["none", "none"]  # what a fix's rules changed cannot be taken away


def test_a_lab_in_which_a_case_loaded_rules_is_not_used_again(own: OwnNode):
    family = own.families[0]

    async def go() -> list[str]:
        behaviour = await probe.ask(family)
        found: list[str] = []
        with closing(SharedLabs()) as labs:
            for name in ("redirected-in-pod", "in-window", "redirected-in-pod", "in-window"):
                setting = Setting(cases.find(name), fixes.NONE, own.topology, family, own.service)
                found.append((await labs.run(setting, behaviour, lambda _seen: None)).verdict.outcome.value)
        return found

    assert asyncio.run(go()) == ["reset", "delivered"] * 2
