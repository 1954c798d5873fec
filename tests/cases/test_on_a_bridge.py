"""Pods on one bridge of their node: what crosses it, what is flooded, and what no rule sees."""

import asyncio
import dataclasses
from functools import cache

import pytest

from lab.cases import bridged_answer, find
from lab.errors import InputError
from lab.evidence.packet import RST
from lab.fixes import FIXES
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


@cache
def known():
    return asyncio.run(probe.ask(Family.IPV4))


def tried(case, place, fix="none", family=Family.IPV4):
    return asyncio.run(runner.run(Setting(case, FIXES[fix], place, family), known()))


def by_udp():
    """Return the topology of a bridge, whose Service is asked by UDP."""
    place = load("bridge")

    def changed(one):
        return one.model_copy(update={"ports": [port.model_copy(update={"protocol": "UDP"}) for port in one.ports]})

    services = tuple(one.model_copy(update={"spec": changed(one.spec)}) for one in place.services)
    slices = tuple(changed(one) for one in place.endpoint_slices)
    return dataclasses.replace(place, services=services, endpoint_slices=slices)


@pytest.mark.parametrize("name", ["dns-race-one-endpoint", "dns-race-two-endpoints"])
def test_no_copy_of_a_flooded_question_is_held_in_its_place(name):
    """Where the bridge has not learned its pods, a copy goes back to the client, and it was what was let go on."""
    for _ in range(3):
        result = tried(find(name), by_udp())
        assert result.as_expected, result.verdict


@pytest.mark.parametrize("fix", ["none", "drop-forward", "be-liberal", "notrack"])
@pytest.mark.parametrize("family", list(Family))
def test_an_answer_that_crosses_the_bridge_unseen_comes_from_a_stranger(family, fix):
    result = tried(bridged_answer.CASE, load("bridge"), fix, family)
    assert (result.verdict.outcome, result.verdict.disagreements) == (Outcome.REFUSED, ())
    timeline = result.timeline
    assert timeline.ends == ()  # nobody has a connection
    [source] = {one.packet.source for one in timeline.sightings if one.packet.tcp and one.packet.tcp.flags & RST}
    assert source == timeline.client_address
    assert [check.holds for check in timeline.checks] == [True] * 4
    assert not any(one.packet.source.port == 8080 for one in timeline.judged)
    control = tried(bridged_answer.CONTROL, load("bridge"), fix, family)
    assert control.as_expected
    assert (control.verdict.outcome is Outcome.DELIVERED) is (fix != "notrack")


def test_a_bridge_that_calls_the_rules_is_not_as_the_case_expects(monkeypatch):
    call = bridged_answer._call
    monkeypatch.setattr(bridged_answer, "_call", lambda scenario, *, called: call(scenario, called=True))
    result = tried(bridged_answer.CASE, load("bridge"))
    assert (result.verdict.outcome, result.as_expected) == (Outcome.CONNECTED, False)


def test_what_is_not_on_one_bridge_is_refused_with_the_reason():
    with pytest.raises(InputError, match="it needs client and every endpoint on one bridge of node"):
        bridged_answer.CASE.roles(load("kube-proxy"), Family.IPV4)
    place = load("bridge")
    hosts = tuple(dataclasses.replace(host, masquerade_all=bool(host.proxy_mode)) for host in place.hosts)
    with pytest.raises(InputError, match="it needs client not to be masqueraded"):
        bridged_answer.CASE.roles(dataclasses.replace(place, hosts=hosts), Family.IPV4)
