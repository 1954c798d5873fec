"""A node that masquerades its clients: what the lab expects of one that does not holds, where the answers end at it."""

import asyncio
import dataclasses
from functools import cache

import pytest

from lab.cases import CASES, usual
from lab.fixes import BE_LIBERAL, DROP_FORWARD, DROP_INPUT, NONE
from lab.topology.reader import load
from lab.trial import batch
from lab.vocabulary import Family, ProxyMode

pytestmark = pytest.mark.lab_kernel


def place():
    """Return the plainest topology, and its node masquerades whatever asks a VIP (kube-proxy's --masquerade-all)."""
    topology = load("kube-proxy")
    hosts = (dataclasses.replace(host, masquerade_all=bool(host.proxy_mode)) for host in topology.hosts)
    return dataclasses.replace(topology, hosts=tuple(hosts))


@cache
def tried(mode, version, family):
    cases, fixes = usual(all_=True, slow=False), (NONE, DROP_FORWARD, DROP_INPUT, BE_LIBERAL)
    selection = batch.select(cases, fixes, place(), family, (mode, version, None), named=False)
    report = asyncio.run(batch.run(selection.settings, family, 1))
    return {(tally.trial.case, tally.trial.fix): tally for tally in report.tallies}


@pytest.mark.parametrize(
    ("mode", "version", "family"),
    [
        (ProxyMode.IPTABLES, "v1.14", Family.IPV4),
        (ProxyMode.IPTABLES, "v1.31", Family.IPV6),
        (ProxyMode.NFTABLES, "v1.36", Family.IPV4),
    ],
)
def test_every_case_that_runs_there_is_as_expected(mode, version, family):
    tallies = tried(mode, version, family)
    assert {(name, fix): tally.sample for (name, fix), tally in tallies.items() if not tally.good} == {}
    assert len({name for name, _fix in tallies}) > 50


def test_the_drop_in_forward_does_not_protect_a_client_that_is_masqueraded():
    """kubernetes #117924: the answer is for the node itself, so it never comes to FORWARD."""
    tallies = tried(ProxyMode.IPTABLES, "v1.14", Family.IPV4)
    outcomes = {fix: tally.sample.verdict.outcome for (name, fix), tally in tallies.items() if name == "beyond-window"}
    assert outcomes == {"none": "reset", "drop-forward": "reset", "drop-input": "dropped", "be-liberal": "delivered"}


def test_what_the_client_sends_is_forwarded_all_the_same():
    tallies = tried(ProxyMode.IPTABLES, "v1.14", Family.IPV4)
    assert tallies["without-nat", "drop-forward"].sample.verdict.outcome == "dropped"
    assert CASES["client-beyond-window"].about_answers is False
