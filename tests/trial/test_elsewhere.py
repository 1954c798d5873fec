"""Cases run in topologies that are not their own, under other names and addresses, and come out as expected."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from lab.cases import CASES
from lab.errors import InputError, MissingError
from lab.fixes import DROP_FORWARD, NONE
from lab.topology.model import Link
from lab.topology.reader import load, parse
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Family
from tests.support import cover
from tests.support.families import OF_IPV4

pytestmark = pytest.mark.lab_kernel

HERE = Path(__file__).parent
BRANCH = (HERE / "branch.yaml").read_text()
SECOND = """
  - - {host: worker, interface: spare, addresses: [10.70.9.1/24, "fd00:70:9::1/64"]}
    - {host: spare, interface: net0, addresses: [10.70.9.5/24, "fd00:70:9::5/64"]}
"""
HOST = '  spare:\n    routes: [{to: default, via: 10.70.9.1}, {to: default, via: "fd00:70:9::1"}]\n'


def two_endpoints():
    text = BRANCH.replace("topology: branch", "topology: twice").replace("  world:\n", f"{HOST}  world:\n", 1)
    text = text.replace("\n---", f"{SECOND}---", 1)
    text = text.replace("[10.70.8.5]}", "[10.70.8.5]}\n  - {addresses: [10.70.9.5]}")
    return parse(text.replace('["fd00:70:8::5"]}', '["fd00:70:8::5"]}\n  - {addresses: ["fd00:70:9::5"]}'))


def without_way_out():
    """The branch whose node knows its own links and nothing else."""
    given = parse(BRANCH)
    hosts = (dataclasses.replace(host, routes=()) if host.proxy_mode else host for host in given.hosts)
    return dataclasses.replace(given, name="island", hosts=tuple(hosts))


def renamed(name):
    """A shipped topology whose hosts have other names, in another order."""
    given = load(name)
    hosts = [dataclasses.replace(host, name=f"h{number}") for number, host in enumerate(given.hosts)]
    names = {host.name: other.name for host, other in zip(given.hosts, hosts, strict=True)}
    turned = ((dataclasses.replace(end, host=names[end.host]) for end in link.ends[::-1]) for link in given.links)
    links = (Link((first, second)) for first, second in turned)
    slices = tuple(
        piece.model_copy(update={"endpoints": [one.model_copy(update={"node_name": None}) for one in piece.endpoints]})
        for piece in given.endpoint_slices
    )
    return dataclasses.replace(
        given, name=f"{name}-renamed", hosts=tuple(hosts), links=tuple(links), endpoint_slices=slices
    )


PLACES = [
    parse(BRANCH),
    two_endpoints(),
    without_way_out(),
    *(renamed(name) for name in ("across-nodes", "congested", "asymmetric", "dns", "service-cidr", "two-links")),
]


def places(case, family):
    for place in PLACES:
        try:
            roles = case.roles(place, family)
        except InputError:
            continue
        if not case.doubt(place, family, roles):
            yield place


@pytest.fixture(scope="module")
def answers():
    return {family: asyncio.run(probe.ask(family)) for family in Family}


def run(case, fix, place, family, answers):
    try:
        return asyncio.run(runner.run(Setting(case, fix, place, family), answers[family]))
    except MissingError as missing:
        pytest.skip(str(missing))


#: Whose cases have no other place here.
ONE_OF_A_KIND = {"segment", "vxlan", "bridge"}


def place_of(case, family):
    found = next(places(case, family), None)
    if family is Family.IPV6 and case.name in OF_IPV4:
        assert found is None
        pytest.skip("IPv6 validates no source")
    if found is None:
        assert case.topology in ONE_OF_A_KIND
        pytest.skip(f"only {case.topology} will do")
    return found


QUICK = [case for case in CASES.values() if not case.slow]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_a_case_comes_out_as_expected_in_every_other_topology_that_will_do(case, answers):
    place_of(case, Family.IPV4)
    for place in cover.some(list(places(case, Family.IPV4)), of=case.name):
        result = run(case, NONE, place, Family.IPV4, answers)
        assert result.as_expected, (place.name, result.verdict)


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_so_does_it_by_ipv6_and_with_a_drop(case, answers):
    place = place_of(case, Family.IPV6)
    result = run(case, DROP_FORWARD, place, Family.IPV6, answers)
    assert result.as_expected, (place.name, result.verdict)


def test_the_node_is_asked_by_its_primary_address(answers):
    result = run(CASES["client-masqueraded"], NONE, PLACES[0], Family.IPV4, answers)
    assert str(result.timeline.target) == "198.51.100.1:31234"


@pytest.mark.parametrize("name", ["udp-before-service", "udp-before-service-cleaned", "dns-race-one-endpoint"])
def test_a_udp_service_of_ones_own_is_asked(name, answers):
    result = run(CASES[name], NONE, load(HERE / "statsd.yaml"), Family.IPV4, answers)
    assert result.as_expected, result.verdict
    assert {str(exchange.target) for exchange in result.timeline.exchanges} == {"172.21.9.9:8125"}


def test_the_service_that_is_chosen_gets_the_connection(answers):
    setting = Setting(CASES["beyond-window"], NONE, load(HERE / "several.yaml"), Family.IPV4, "green/db:admin")
    result = asyncio.run(runner.run(setting, answers[Family.IPV4]))
    assert result.verdict.outcome is Outcome.RESET
    assert result.as_expected
    assert (result.timeline.server, str(result.timeline.target)) == ("two", "172.22.0.3:8080")
