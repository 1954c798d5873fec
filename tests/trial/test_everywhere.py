"""Every case by every fix, with every rule set that any kube-proxy writes, in every shipped topology that it claims.

They are hundreds of thousands of trials: `LAB_EVERYWHERE=1 pytest tests/trial/test_everywhere.py` runs them, `-n auto`
on all processors, `-k reset-exact` some of them. The slow cases are test_trial.py's (LAB_SLOW=1).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from functools import cache

import pytest

from lab.cases import CASES
from lab.errors import InputError, LabError, MissingError
from lab.fixes import FIXES
from lab.kubeproxy.releases import MINORS
from lab.report.timeline import timeline_text
from lab.topology.kube_proxy import proxy_options, render_rules
from lab.topology.reader import load, shipped
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Backend, Family, ProxyMode

QUICK = [case for case in CASES.values() if not case.slow]
FIRST, *_, NEWEST = MINORS
PROGRAMS = ((ProxyMode.IPTABLES, Backend.NFT), (ProxyMode.IPTABLES, Backend.LEGACY), (ProxyMode.NFTABLES, None))


topology = cache(load)


def claimed(case, family):
    """Name the shipped topologies that a case says it runs in."""
    return [name for name, _path in shipped() if can_run(case, topology(name), family)]


def can_run(case, place, family):
    try:
        roles = case.roles(place, family)
    except InputError:
        return False
    return not case.doubt(place, family, roles)


@cache
def rules(name, fix, mode, version, family):
    """Return what all nodes are given, without comments: equal rules are one trial. None where no such rules are."""
    place = with_proxy(topology(name), mode, version, None)
    change = FIXES[fix].change
    try:
        texts = (
            text
            for node in place.nodes
            for text in render_rules(place, proxy_options(place, node, family, change), change, mode)
        )
        return tuple(line for text in texts for line in text.splitlines() if not line.startswith("#"))
    except InputError:
        return None


@cache
def kinds(name, fix, family):
    """Return mode, version and backend of each different set of rules, by the last version that writes it."""
    chosen = []
    for mode, backend in PROGRAMS:
        last = {rules(name, fix, mode, version, family): version for version in MINORS}
        chosen += [(mode, version, backend) for text, version in last.items() if text is not None]
    return chosen


def settings(case, name, family):
    for fix in FIXES.values():
        for kind in kinds(name, fix.name, family):
            place = with_proxy(topology(name), *kind)
            if can_run(case, place, family):  # some need a mode, and a version
                yield Setting(case, fix, place, family)


def command(setting):
    """Say a trial as one would try it again."""
    tried = setting.trial
    backend = f" --backend {tried.backend}" if tried.backend else ""
    return (
        f"lab run {tried.case} --fix {tried.fix} --topology {tried.topology} --proxy-mode {tried.proxy_mode}"
        f" --proxy-version {tried.proxy_version}{backend} --family {tried.family}"
    )


def places():
    """Return every case with every topology and family that it claims."""
    return [(case, name, family) for case in QUICK for family in Family for name in claimed(case, family)]


@pytest.fixture(scope="module")
def answers():
    return {family: asyncio.run(probe.ask(family)) for family in Family}


async def failures(settings, answers):
    """Try all of them; return the commands of those that failed with how, and how many could be tried."""
    failed, tried, missing = [], 0, ""
    for setting in settings:
        try:
            result = await runner.run(setting, answers[setting.family])
        except MissingError as error:
            missing = str(error)
            continue
        except LabError as error:
            failed.append(f"{command(setting)}\n    {error}")
        else:
            verdict, expected = result.verdict, result.expected
            if not result.as_expected:
                failed.append(
                    f"{command(setting)}\n    expected {expected.judgement}, {expected.outcome};"
                    f" got {verdict.judgement}, {verdict.outcome}: {'; '.join(verdict.because)}"
                    + "".join(f"\n    {words}" for words in verdict.disagreements)
                    + "".join(f"\n      {line}" for line in timeline_text(result.timeline).splitlines())
                )
        tried += 1
    return failed, tried, missing


WANTED = bool(os.environ.get("LAB_EVERYWHERE"))


@pytest.mark.lab_kernel
@pytest.mark.skipif(
    not WANTED, reason="every set of rules in every topology, two hours of a processor: set LAB_EVERYWHERE=1"
)
@pytest.mark.parametrize(
    ("case", "name", "family"),
    places() if WANTED else [(QUICK[0], "kube-proxy", Family.IPV4)],  # finding them takes a second
    ids=lambda value: str(getattr(value, "name", value)).lower(),
)
def test_a_case_is_right_wherever_it_may_be_tried(case, name, family, answers):
    failed, tried, missing = asyncio.run(failures(settings(case, name, family), answers))
    if missing and not tried:
        pytest.skip(missing)
    assert not failed, f"{len(failed)} of {tried} trials failed:\n" + "\n".join(failed)


# --- the sweep itself ---------------------------------------------------------------------------------


def test_every_case_is_tried_somewhere():
    found = places()
    assert {case.name for case, _name, _family in found} == {case.name for case in QUICK}
    assert {name for _case, name, _family in found} == {name for name, _path in shipped()}


def test_each_set_of_rules_is_tried_once_and_none_is_left_out():
    for name, family in itertools.product(("kube-proxy", "uplink"), Family):
        tried = kinds(name, "none", family)
        for mode, backend in PROGRAMS:
            versions = [version for one, version, program in tried if (one, program) == (mode, backend)]
            texts = [rules(name, "none", mode, version, family) for version in versions]
            everything = {rules(name, "none", mode, version, family) for version in MINORS} - {None}
            assert len(texts) == len(everything) > 1
            assert set(texts) == everything
            assert versions[-1] == NEWEST


@pytest.mark.lab_kernel
def test_a_wrong_expectation_is_told_as_the_command_that_shows_it(answers):
    import dataclasses

    from lab.cases import HEADLINE
    from lab.cases.case import DROPPED, on_every_kernel

    wrong = dataclasses.replace(HEADLINE, expectations=on_every_kernel(lambda protection: DROPPED))
    first = next(iter(settings(wrong, "across-nodes", Family.IPV6)))
    failed, tried, _missing = asyncio.run(failures([first], answers))
    assert tried == 1
    assert failed[0].startswith(
        "lab run beyond-window --fix none --topology across-nodes --proxy-mode iptables"
        f" --proxy-version {FIRST} --backend nft --family ipv6\n    expected INVALID, dropped; got INVALID, reset: "
    )
