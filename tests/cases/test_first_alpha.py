"""nftables mode of v1.29 drops what is INVALID, as no other release does in that mode."""

from __future__ import annotations

import asyncio

import pytest

from lab.cases import find
from lab.fixes import FIXES
from lab.topology.reader import load
from lab.trial import batch, runner
from lab.trial.probe import ask
from lab.vocabulary import Family, ProxyMode

CASES = ("beyond-window", "egress-fin-unknown", "egress-late-reset", "client-on-node", "entry-deleted-strictly")


async def results(settings):
    behaviour = await ask(Family.IPV4)
    return [(setting, await runner.run(setting, behaviour)) for setting in settings]


@pytest.mark.lab_kernel
@pytest.mark.parametrize("name", CASES)
def test_what_its_drop_takes_is_told_by_its_count(name):
    fixes = [FIXES[fix] for fix in ("none", "drop-input", "be-liberal")]
    words = (ProxyMode.NFTABLES, "v1.29", None)
    settings = batch.select([find(name)], fixes, load("uplink"), Family.IPV4, words, named=True).settings
    assert len(settings) == len(fixes)
    for setting, result in asyncio.run(results(settings)):
        assert result.as_expected, (setting.fix.name, result.verdict)
