"""The fixes: what each does to a node, looked at on the kernel."""

import asyncio
import re

import pytest

from lab.cases import HEADLINE, find
from lab.fabric.lab import Lab
from lab.fixes import (
    BE_LIBERAL,
    BE_LIBERAL_LATE,
    DAEMONSET,
    DAEMONSET_TODAY,
    DROP_INPUT,
    FIXES,
    NONE,
    NOTRACK,
    Protection,
)
from lab.topology.kube_proxy import proxy_options, render_rules
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import BE_LIBERAL as SYSCTL
from lab.vocabulary import Family, ProxyMode


@pytest.mark.lab_kernel
@pytest.mark.parametrize("fix", FIXES.values(), ids=lambda fix: fix.name)
def test_the_sysctl_is_set_by_those_that_say_so(fix):
    with Lab(load("kube-proxy"), family=Family.IPV4, change=fix.change) as lab:
        liberal = lab.hosts["node"].namespace.sysctl(SYSCTL) == "1"
    assert liberal == (Protection.LIBERAL in fix.protection)


@pytest.mark.lab_kernel
def test_the_reports_script_finds_its_path_gone_and_is_content():
    with Lab(load("kube-proxy"), family=Family.IPV4) as lab:
        node = lab.hosts["node"]
        words = node.run("sh", "-c", DAEMONSET.change.script)  # its exit code is that of its last command
        assert re.search(r"ip_conntrack_tcp_be_liberal: .*(nonexistent|No such file)", words)
        assert words.endswith("done\n")
        assert node.namespace.sysctl(SYSCTL) == "0"
        assert node.run("sh", "-c", DAEMONSET_TODAY.change.script) == "done\n"
        assert node.namespace.sysctl(SYSCTL) == "1"


@pytest.mark.lab_kernel
@pytest.mark.parametrize(
    ("version", "fix", "has_rule"),
    [
        ("v1.28", BE_LIBERAL, True),
        ("v1.29", BE_LIBERAL, False),  # it looks when it starts
        ("v1.29", BE_LIBERAL_LATE, True),  # and never again
        ("v1.14", BE_LIBERAL_LATE, False),
    ],
)
def test_kube_proxy_looks_at_the_sysctl_once(version, fix, has_rule):
    topology = with_proxy(load("kube-proxy"), None, version, None)
    with Lab(topology, family=Family.IPV4, change=fix.change) as lab:
        rules = lab.hosts["node"].xtables.save(4, "filter")
    assert ("--ctstate INVALID" in rules) == has_rule
    protection = Setting(HEADLINE, fix, topology, Family.IPV4).protection
    assert (Protection.DROP_FORWARD in protection) == has_rule


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("mode", list(ProxyMode))
def test_what_is_between_pods_is_not_tracked(family, mode):
    topology = with_proxy(load("kube-proxy"), mode, None, None)
    options = proxy_options(topology, topology.nodes[0], family, NOTRACK.change)
    text = "".join(render_rules(topology, options, NOTRACK.change, mode))
    networks = ["10.0.0.0/24", "10.0.1.0/24"] if family is Family.IPV4 else ["fd00:10::/64", "fd00:10:0:1::/64"]
    assert "PODS" not in text
    assert "NETWORK" not in text
    if mode is ProxyMode.NFTABLES:
        network, both = ("ip" if family is Family.IPV4 else "ip6"), ", ".join(networks)
        assert f"{network} saddr {{ {both} }} {network} daddr {{ {both} }} notrack" in text
    else:
        for source in networks:
            for destination in networks:
                assert f"-s {source} -d {destination} -j CT --notrack" in text


@pytest.mark.lab_kernel
def test_untracked_answers_are_a_strangers():
    async def run():
        answer = await probe.ask(Family.IPV4)
        return [
            await runner.run(Setting(HEADLINE, fix, load("kube-proxy"), Family.IPV4), answer) for fix in (NONE, NOTRACK)
        ]

    before, after = asyncio.run(run())
    assert before.verdict.outcome is Outcome.RESET
    assert after.verdict.outcome is Outcome.REFUSED
    assert after.verdict.because == ("no connection: the SYN,ACK came from 10.0.1.2",)
    assert after.as_expected


@pytest.mark.lab_kernel
@pytest.mark.parametrize("mode", list(ProxyMode))
def test_a_drop_in_input_is_for_clients_on_the_node_and_no_others(mode):
    async def run():
        answer = await probe.ask(Family.IPV4)
        cases = (find("client-on-node"), HEADLINE)
        settings = [
            Setting(case, fix, with_proxy(load(case.topology), mode, None, None), Family.IPV4)
            for case in cases
            for fix in (NONE, DROP_INPUT)
        ]
        results = [await runner.run(setting, answer) for setting in settings]
        return {(one.trial.case, one.trial.fix): one.verdict.outcome for one in results}

    assert asyncio.run(run()) == {
        ("client-on-node", "none"): Outcome.RESET,
        ("client-on-node", "drop-input"): Outcome.DROPPED,
        ("beyond-window", "none"): Outcome.RESET,
        ("beyond-window", "drop-input"): Outcome.RESET,
    }
