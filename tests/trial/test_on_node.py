"""An endpoint that is the node itself (hostNetwork): cases about a pod never meet it, by chance or otherwise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lab.cases import CASES
from lab.errors import InputError
from lab.fixes import NONE
from lab.topology.reader import load, parse
from lab.trial.batch import run, select
from lab.vocabulary import Family

FILE = Path(__file__).parent / "on-node.yaml"
BOTH = "{addresses: [203.0.113.1], nodeName: node}, {addresses: [10.0.1.2], nodeName: node}"
ITSELF = "{addresses: [203.0.113.1], nodeName: node}"


def choose(place, *names, stands=False):
    cases = [CASES[name] for name in names]
    return select(cases, [NONE], place, Family.IPV4, (None, None, None), stands=stands)


@pytest.mark.parametrize("case", ["beyond-window", "in-window", "reset-exact", "flag-sets", "client-beyond-window"])
def test_where_there_is_no_other_a_case_about_a_pod_is_refused(case):
    place = parse(FILE.read_text().replace(BOTH, ITSELF))
    with pytest.raises(InputError, match=r"needs endpoints other than node itself, and default/web has 203\.0\.113\.1"):
        choose(place, case)


def test_beside_a_pod_it_is_left_out_and_that_is_said():
    chosen = choose(load(FILE), "beyond-window", "in-window")
    assert [setting.roles.servers[0][0] for setting in chosen.settings] == ["server", "server"]
    assert all(len(setting.roles.servers) == 1 for setting in chosen.settings)
    [remark] = chosen.remarks
    assert "default/web is without 203.0.113.1" in remark
    assert remark.endswith(": beyond-window, in-window")


def test_in_a_lab_that_stands_nothing_is_left_out():
    with pytest.raises(InputError, match="other than node itself"):
        choose(load(FILE), "beyond-window", stands=True)


def test_an_endpoint_on_another_node_is_a_pods_to_the_node_that_judges():
    text = (Path(__file__).parents[2] / "topologies" / "two-nodes.yaml").read_text()
    changed = text.replace("- {addresses: [10.2.1.2]", "- {addresses: [192.0.2.2]")
    assert changed != text
    chosen = choose(parse(changed), "beyond-window")
    assert [host for host, _ in chosen.settings[0].roles.servers] == ["server-a", "node-b"]


def test_the_connection_that_is_broken_is_the_pods_each_time():
    """By the rules of both endpoints half of the connections came to the node itself."""
    chosen = choose(load(FILE), "beyond-window")
    report = asyncio.run(run(chosen.settings, Family.IPV4, 6))
    [tally] = report.tallies
    assert (tally.as_expected, tally.runs) == (6, 6)
