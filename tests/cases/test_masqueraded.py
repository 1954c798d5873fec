"""A node that masquerades its clients: what the lab expects of one that does not holds, where the answers end at it."""

import asyncio
import dataclasses

import pytest

from lab.cases import CASES, usual
from lab.fixes import BE_LIBERAL, DROP_FORWARD, DROP_INPUT, NONE
from lab.topology.reader import load
from lab.trial import batch
from lab.vocabulary import Family, ProxyMode
from tests.support import cover

pytestmark = pytest.mark.lab_kernel


def place():
    """Return the plainest topology, and its node masquerades whatever asks a VIP (kube-proxy's --masquerade-all)."""
    topology = load("kube-proxy")
    hosts = (dataclasses.replace(host, masquerade_all=bool(host.proxy_mode)) for host in topology.hosts)
    return dataclasses.replace(topology, hosts=tuple(hosts))


NODES = (
    (ProxyMode.IPTABLES, "v1.14", Family.IPV4),
    (ProxyMode.IPTABLES, "v1.31", Family.IPV6),
    (ProxyMode.NFTABLES, "v1.36", Family.IPV4),
)
FIXES = (NONE, DROP_FORWARD, DROP_INPUT, BE_LIBERAL)


def tried(node, pairs):
    """Try these cases with these fixes, as far as they can be had there."""
    mode, version, family = node
    cases = list({case.name: case for case, _fix in pairs}.values())
    selection = batch.select(cases, FIXES, place(), family, (mode, version, None), named=False)
    wanted = {(case.name, fix.name) for case, fix in pairs}
    settings = [one for one in selection.settings if (one.case.name, one.fix.name) in wanted]
    report = asyncio.run(batch.run(settings, family, 1))
    return {(tally.trial.case, tally.trial.fix): tally for tally in report.tallies}


@pytest.mark.parametrize("node", NODES, ids="-".join)
def test_every_case_that_runs_there_is_as_expected(node):
    """Every case with every fix, each pair in one of the places."""
    chosen = cover.pairs(usual(all_=True, slow=False), FIXES, lambda case: NODES)
    tallies = tried(node, [(case, fix) for case, fix, where in chosen if where == node])
    assert {(name, fix): tally.sample for (name, fix), tally in tallies.items() if not tally.good} == {}
    assert len({name for name, _fix in tallies}) > 50


def test_the_drop_in_forward_does_not_protect_a_client_that_is_masqueraded():
    """kubernetes #117924: the answer is for the node itself, so it never comes to FORWARD."""
    tallies = tried(NODES[0], [(CASES["beyond-window"], fix) for fix in FIXES])
    outcomes = {fix: tally.sample.verdict.outcome for (name, fix), tally in tallies.items() if name == "beyond-window"}
    assert outcomes == {"none": "reset", "drop-forward": "reset", "drop-input": "dropped", "be-liberal": "delivered"}


def test_what_the_client_sends_is_forwarded_all_the_same():
    tallies = tried(NODES[0], [(CASES["without-nat"], DROP_FORWARD)])
    assert tallies["without-nat", "drop-forward"].sample.verdict.outcome == "dropped"
    assert CASES["client-beyond-window"].about_answers is False
