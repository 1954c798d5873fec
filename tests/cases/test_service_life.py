"""Cases of a Service's life: they end as the release and the mode of the node's kube-proxy have it."""

import asyncio
import dataclasses
from typing import Any

import pytest

from lab.cases import CASES
from lab.cli import catalogue
from lab.fixes import NONE
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Family, ProxyMode

IPTABLES, NFTABLES = ProxyMode.IPTABLES, ProxyMode.NFTABLES

#: The releases beside each change, and what becomes of the last packet there.
ENDS = {
    "udp-scaled-to-zero": {
        (IPTABLES, "v1.19"): Outcome.REFUSED,
        (IPTABLES, "v1.31"): Outcome.REFUSED,
        (NFTABLES, "v1.31"): Outcome.REFUSED,
        (IPTABLES, "v1.32.0"): Outcome.LOST,
        (NFTABLES, "v1.36.3"): Outcome.LOST,
    },
    "udp-service-deleted": {
        (IPTABLES, "v1.31"): Outcome.LOST,
        (NFTABLES, "v1.31"): Outcome.LOST,
        (IPTABLES, "v1.32.0"): Outcome.DELIVERED,
        (NFTABLES, "v1.36.3"): Outcome.DELIVERED,
    },
    "local-pod-replaced": {
        (IPTABLES, "v1.24"): Outcome.LOST,
        (IPTABLES, "v1.31"): Outcome.LOST,
        (NFTABLES, "v1.29"): Outcome.DELIVERED,
        (IPTABLES, "v1.32.0"): Outcome.DELIVERED,
    },
    "local-pod-replaced-internal": {
        (IPTABLES, "v1.21"): Outcome.DELIVERED,
        (IPTABLES, "v1.22"): Outcome.LOST,
        (IPTABLES, "v1.31"): Outcome.LOST,
        (NFTABLES, "v1.31"): Outcome.DELIVERED,
        (IPTABLES, "v1.32.0"): Outcome.DELIVERED,
    },
    "hairpin-node-unnamed": {
        (IPTABLES, "v1.36"): Outcome.DELIVERED,
        (NFTABLES, "v1.29"): Outcome.DELIVERED,
        (NFTABLES, "v1.35"): Outcome.DELIVERED,
        (NFTABLES, "v1.36"): Outcome.LOST,
    },
    "local-pod-terminating": {
        (IPTABLES, "v1.14"): Outcome.REFUSED,
        (IPTABLES, "v1.20"): Outcome.REFUSED,
        (IPTABLES, "v1.25"): Outcome.REFUSED,
        (IPTABLES, "v1.26"): Outcome.DELIVERED,
        (NFTABLES, "v1.29"): Outcome.DELIVERED,
    },
}
RUNS = [(case, *node, end) for case, ends in ENDS.items() for node, end in ends.items()]


@pytest.fixture(scope="module")
def answers():
    return {family: asyncio.run(probe.ask(family)) for family in Family}


def setting(case, mode, version, family=Family.IPV4):
    return Setting(CASES[case], NONE, with_proxy(load(CASES[case].topology), mode, version, None), family)


@pytest.mark.lab_kernel
@pytest.mark.parametrize("family", list(Family), ids=str)
@pytest.mark.parametrize(("case", "mode", "version", "end"), RUNS, ids=str)
def test_it_ends_as_the_nodes_release_has_it(case, mode, version, end, family, answers):
    result = asyncio.run(runner.run(setting(case, mode, version, family), answers[family]))
    assert result.as_expected, result.verdict
    assert result.verdict.outcome is end


@pytest.mark.parametrize("case", ENDS)
def test_what_is_expected_elsewhere_is_shown(case):
    data: dict[str, Any] = dataclasses.asdict(catalogue.shown(CASES[case], ()))
    shown = {where: grid["ignores-late"]["none"]["outcome"] for where, grid in data["expected_elsewhere"].items()}
    assert {*shown.values(), data["expected"]["ignores-late"]["none"]["outcome"]} == {*ENDS[case].values()}
