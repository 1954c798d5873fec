"""Captures of `-i any` that tcpdump writes on a node: hop by hop, where a translation is missing and a RST answers."""

import asyncio
from dataclasses import dataclass

import pytest

from lab.cases import CASES
from lab.fixes import FIXES
from lab.topology.reader import load
from lab.trial.runner import run
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Behaviour, Family
from tests.support.dumping import Dumps
from tests.support.explaining import explained

pytestmark = pytest.mark.lab_kernel


def dumped(case, *points, topology="kube-proxy", fix="none"):
    """Return the only connection that tcpdump captured while a case was tried."""
    dumps = Dumps(*points)
    setting = Setting(CASES[case], FIXES[fix], load(topology), Family.IPV4)
    asyncio.run(run(setting, Behaviour.IGNORES_LATE, build=dumps.build))
    [one] = explained(dumps.captures).connections
    return one


def test_x():
    for case,topology,fix in (("beyond-window","kube-proxy","none"),("beyond-window","kube-proxy","drop-forward"),("in-window","kube-proxy","none"),("answer-across-bridge","bridge","none"),("beyond-window","bridge","none"),("client-on-node","uplink","none"),("hairpin","bridge","none")):
        try:
            one=dumped(case,("node","any"),topology=topology,fix=fix)
        except Exception as e:
            print(case, "FAILED", repr(e)); continue
        print(case, topology, fix, one.outcome, one.points)
        for f in one.findings:
            print("  *", f.words)
            for h in f.hops: print("      ", h.place.number, h.way, h.place.point, h.source, h.destination, h.words)
