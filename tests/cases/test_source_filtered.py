"""Sources that a node's kernel does not believe: what becomes of the SYN, why, and what the control changes."""

import asyncio
import dataclasses
from functools import cache
from ipaddress import ip_address

import pytest

from lab.cases import find, source_filtered
from lab.errors import InputError
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Family, ProxyMode

pytestmark = pytest.mark.lab_kernel

SOURCE = "10.0.8.2"
FILTER = "net/ipv4/conf/{}/rp_filter"


@cache
def known():
    return asyncio.run(probe.ask(Family.IPV4))


def setting(case, family=Family.IPV4, mode=None, version=None, fix="none"):
    return Setting(find(case), FIXES[fix], with_proxy(load("two-links"), mode, version, None), family)


def tried(one):
    return asyncio.run(runner.run(one, known()))


@pytest.mark.parametrize("fix", ["none", "drop-forward", "be-liberal", "notrack"])
@pytest.mark.parametrize("mode", list(ProxyMode))
@pytest.mark.parametrize("case", [one.name for one in source_filtered.CASES])
def test_no_fix_changes_what_becomes_of_it(case, mode, fix):
    result = tried(setting(case, mode=mode, version="v1.36", fix=fix))
    assert result.as_expected, (result.verdict, result.timeline.checks)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("source-filtered", f"rp_filter: {SOURCE} is not to come in by client"),
        ("source-conflicts", f"martian: {SOURCE} is an address of its own"),
    ],
)
def test_the_verdict_says_why_the_node_routed_it_nowhere(case, why):
    because = tried(setting(case)).verdict.because
    assert because == (
        "no connection: the SYN came to no server, and nobody refused it (it times out)",
        f"it came to node and no further, NEW there: {why}",
    )


def test_an_answer_that_the_node_has_the_address_of_ends_in_its_own_sockets():
    result = tried(setting("source-conflicts-accepted"))
    assert result.verdict.because[1] == "it came to the sockets of node itself, accepted there"
    assert result.timeline.client_address.address == SOURCE


def test_in_ipv6_nobody_validates_a_source():
    place = load("two-links")
    for case in source_filtered.CASES[:3]:
        with pytest.raises(InputError, match="it needs IPv4: in IPv6 the kernel validates no source"):
            case.roles(place, Family.IPV6)
    assert tried(setting("source-conflicts-accepted", Family.IPV6)).as_expected


def test_a_client_with_one_link_has_no_other_way_back():
    with pytest.raises(InputError, match="it needs client with two links to node, and an address on each"):
        source_filtered.CASE.roles(load("kube-proxy"), Family.IPV4)


def test_a_lab_that_was_lent_has_its_sysctls_and_addresses_back():
    first = setting("source-filtered-loosely")
    with Lab(first.topology, family=Family.IPV4) as lab:
        node = lab.hosts["node"]
        for case in ("source-filtered-loosely", "source-conflicts-accepted", "source-filtered"):
            result = asyncio.run(runner.run(setting(case), known(), build=lambda _setting: lab.lent()))
            assert result.as_expected, result.verdict
            keys = [FILTER.format(name) for name in ("all", "client", "client2")] + ["net/ipv4/conf/all/accept_local"]
            assert {node.namespace.sysctl(key) for key in keys} == {"0"}
            assert not node.routes.is_local(ip_address(SOURCE))


def test_a_case_that_sees_nothing_of_it_is_no_pass():
    """Were the node to let it in, the case would say so: here its drop is taken away between its steps."""

    async def unfiltered(scenario):
        scenario.set_node_sysctl(FILTER.format("all"), 0)
        await source_filtered._refused(scenario, SOURCE, "rp_filter")

    case = dataclasses.replace(source_filtered.CASE, steps=unfiltered)
    result = tried(dataclasses.replace(setting("source-filtered"), case=case))
    assert not result.as_expected
    assert result.verdict.outcome == "connected"
