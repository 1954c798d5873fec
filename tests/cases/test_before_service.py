"""What comes to a VIP before its Service: lost, refused or dropped, by kube-proxy's mode, version and ServiceCIDRs."""

import asyncio
import dataclasses
from typing import Any

import pytest
from rich.table import Table

from lab.cases import CASES
from lab.cases.demands import to_vips
from lab.cli.catalogue import shown, story
from lab.errors import InputError
from lab.evidence.timeline import DatagramsTimeline
from lab.fabric.lab import Lab
from lab.fixes import FIXES, NONE, NOTRACK, Protection
from lab.scenario.datagrams import DatagramsScenario
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.verdict import Outcome
from lab.vocabulary import Family, ProxyMode

BOTH = Protection.REJECT_UNTRANSLATED | Protection.DROP_UNALLOCATED
NODES = {
    "iptables-v1.36": ((ProxyMode.IPTABLES, "v1.36", None), Protection.NOTHING),
    "nftables-v1.29": ((ProxyMode.NFTABLES, "v1.29", None), Protection.NOTHING),
    "nftables-v1.30": ((ProxyMode.NFTABLES, "v1.30", None), Protection.REJECT_UNTRANSLATED),
    "nftables-v1.31": ((ProxyMode.NFTABLES, None, None), Protection.REJECT_UNTRANSLATED),
    "nftables-v1.32": ((ProxyMode.NFTABLES, "v1.32", None), Protection.REJECT_UNTRANSLATED),
    "nftables-v1.33": ((ProxyMode.NFTABLES, "v1.33", None), BOTH),
    "nftables-v1.34": ((ProxyMode.NFTABLES, "v1.34", None), BOTH),
    "nftables-v1.36": ((ProxyMode.NFTABLES, "v1.36", None), BOTH),
}
ENDS = {
    "udp-before-service": {
        Protection.NOTHING: Outcome.LOST,
        Protection.REJECT_UNTRANSLATED: Outcome.REFUSED,
        BOTH: Outcome.DELIVERED,
    },
    "udp-before-service-cleaned": dict.fromkeys(
        (Protection.NOTHING, Protection.REJECT_UNTRANSLATED, BOTH), Outcome.DELIVERED
    ),
    "syn-before-service": {
        Protection.NOTHING: Outcome.REFUSED,
        Protection.REJECT_UNTRANSLATED: Outcome.REFUSED,
        BOTH: Outcome.DELIVERED,
    },
    "syn-before-service-forgotten": dict.fromkeys(
        (Protection.NOTHING, Protection.REJECT_UNTRANSLATED, BOTH), Outcome.DELIVERED
    ),
}


@pytest.fixture(params=list(NODES.values()), ids=list(NODES))
def node(request):
    return request.param


@pytest.fixture(scope="module")
def answer():
    return asyncio.run(probe.ask(Family.IPV4))


def setting(case, topology, family=Family.IPV4, fix=NONE):
    return Setting(CASES[case], fix, topology, family)


def run(chosen, answer):
    result = asyncio.run(runner.run(chosen, answer))
    assert result.as_expected, result.verdict
    return result


@pytest.mark.lab_kernel
@pytest.mark.parametrize("family", list(Family), ids=str)
@pytest.mark.parametrize("case", ENDS)
def test_it_ends_as_the_nodes_mode_and_version_have_it(node, case, family, answer):
    proxy, does = node
    result = run(setting(case, with_proxy(load("dns"), *proxy), family), answer)
    assert result.verdict.outcome is ENDS[case][does]


@pytest.mark.lab_kernel
@pytest.mark.parametrize("case", ENDS)
def test_without_a_range_that_holds_the_vip_a_node_drops_nothing(case, answer):
    topology = dataclasses.replace(load("dns"), service_cidrs=())
    result = run(setting(case, with_proxy(topology, ProxyMode.NFTABLES, "v1.36", None)), answer)
    assert result.verdict.outcome is ENDS[case][Protection.REJECT_UNTRANSLATED]


@pytest.mark.lab_kernel
def test_what_is_for_the_vip_is_refused_by_the_node_and_the_last_question_takes_the_blame(answer):
    topology = with_proxy(load("dns"), ProxyMode.NFTABLES, "v1.31", None)
    result = run(setting("udp-before-service", topology), answer)
    first, second = result.timeline.exchanges
    assert (first.error, second.error) == (None, "ECONNREFUSED")
    first_s = "reached no server, outside does not forward: net.ipv4.ip_forward is 0"  # it went by the default route
    assert result.verdict.because[:2] == ("ECONNREFUSED", first_s)


def test_what_a_node_does_with_what_is_for_a_vip(node):
    proxy, does = node
    place = with_proxy(load("dns"), *proxy)
    chosen = setting("udp-before-service", place)
    assert to_vips(place, chosen.roles) == does
    assert chosen.protection & BOTH == does
    untracked = setting("udp-before-service", place, fix=NOTRACK).protection
    assert untracked & (BOTH | Protection.UNTRACKED) == does | Protection.UNTRACKED


def test_a_range_of_the_other_family_is_none():
    place = with_proxy(load("dns"), ProxyMode.NFTABLES, "v1.33", None)
    place = dataclasses.replace(place, service_cidrs=place.service_cidrs[:1])
    does = {family: setting("udp-before-service", place, family).protection for family in Family}
    assert does == {Family.IPV4: BOTH, Family.IPV6: Protection.REJECT_UNTRANSLATED}


def test_a_client_that_asks_no_service_is_no_matter_of_vips():
    place = with_proxy(load("uplink"), ProxyMode.NFTABLES, "v1.33", None)
    assert to_vips(place, CASES["egress-data-unknown"].roles(place, Family.IPV4)) == Protection.NOTHING


# --- ServiceCIDRs that come late ----------------------------------------------------------------------


def drops(lab):
    """Return whether each family has the drop."""
    words = (lab.hosts["node"].nft.run(f"list chain {table} kube-proxy cluster-ips-check") for table in ("ip", "ip6"))
    return ["Drop traffic to unallocated ClusterIPs" in text for text in words]


@pytest.fixture
def modern():
    with Lab(load("service-cidr")) as lab:
        yield lab


@pytest.mark.lab_kernel
class TestFullSync:
    def test_it_alone_has_ranges_heeded(self, modern):
        assert drops(modern) == [True, True]
        modern.full_sync(())
        assert drops(modern) == [False, False]
        services, slices = modern.services, modern.endpoint_slices
        modern.sync((), ())
        modern.sync(services, slices)
        assert drops(modern) == [False, False]
        modern.full_sync(modern.topology.service_cidrs[1:])
        assert drops(modern) == [False, True]

    def test_it_writes_the_rules_that_there_are(self, modern):
        def rules():
            return modern.hosts["node"].nft.run("list ruleset")

        before = rules()
        modern.full_sync(modern.topology.service_cidrs)
        assert sorted(rules().splitlines()) == sorted(before.splitlines())

    def test_it_serves_what_there_is_now(self, modern):
        modern.sync((), ())
        modern.full_sync(modern.topology.service_cidrs)
        assert "10.0.1.2" not in modern.hosts["node"].nft.run("list table ip kube-proxy")

    @pytest.mark.parametrize("fix", [fix for fix in FIXES.values() if fix.change.nftables], ids=lambda fix: fix.name)
    def test_it_keeps_what_a_fix_added(self, fix):
        with Lab(load("service-cidr"), change=fix.change) as lab:
            before = lab.hosts["node"].nft.run("list ruleset")
            lab.full_sync(lab.topology.service_cidrs)
            after = lab.hosts["node"].nft.run("list ruleset")
        assert sorted(after.splitlines()) == sorted(before.splitlines())

    def test_in_iptables_mode_it_changes_nothing(self):
        with Lab(with_proxy(load("service-cidr"), ProxyMode.IPTABLES, "v1.36", None), family=Family.IPV4) as lab:
            before = lab.hosts["node"].xtables.save(4)
            lab.full_sync(())
            assert lab.hosts["node"].xtables.save(4) == before


@pytest.mark.lab_kernel
@pytest.mark.parametrize("family", list(Family), ids=str)
@pytest.mark.parametrize("version", ["v1.33", "v1.34", "v1.36"])
@pytest.mark.parametrize(
    ("case", "outcome"), [("service-cidr-late", Outcome.REFUSED), ("service-cidr-late-synced", Outcome.DELIVERED)]
)
def test_a_drop_that_comes_late_leaves_the_entry_in_the_way(case, outcome, version, family, answer):
    place = with_proxy(load("service-cidr"), None, version, None)
    assert run(setting(case, place, family), answer).verdict.outcome is outcome


@pytest.mark.parametrize(
    ("proxy", "service_cidrs"),
    [((ProxyMode.IPTABLES, "v1.36", None), True), ((None, "v1.32", None), True), ((None, "v1.36", None), False)],
    ids=str,
)
def test_where_nothing_is_dropped_nothing_can_be_late(proxy, service_cidrs):
    place = with_proxy(load("service-cidr"), *proxy)
    place = place if service_cidrs else dataclasses.replace(place, service_cidrs=())
    with pytest.raises(InputError, match=r"it needs node in nftables mode of v1\.33 or later, and service-cidrs that"):
        CASES["service-cidr-late"].roles(place, Family.IPV4)


# --- whose error it is --------------------------------------------------------------------------------


@pytest.mark.lab_kernel
def test_an_error_is_of_a_question_that_has_not_settled(answer):
    """The first goes out and is lost; the second and the third are refused, one after the other and both at once."""
    case = CASES["udp-before-service"]
    chosen = dataclasses.replace(case, steps=ask_again)
    topology = with_proxy(load("dns"), ProxyMode.NFTABLES, "v1.31", None)
    timeline = asyncio.run(runner.run(Setting(chosen, NONE, topology, Family.IPV4), answer)).timeline
    assert isinstance(timeline, DatagramsTimeline)
    assert [one.error for one in timeline.exchanges] == [None, "ECONNREFUSED", "ECONNREFUSED"]


async def ask_again(scenario: DatagramsScenario) -> None:
    services, slices = scenario.lab.services, scenario.lab.endpoint_slices
    scenario.lab.sync((), ())
    scenario.ask("1")
    await scenario.settle()
    scenario.lab.sync(services, slices, clean_conntrack=False)
    for question in ("22", "333"):
        scenario.ask(question)
        await scenario.settle()


def test_what_is_expected_is_shown_for_each_kind_of_node():
    data: dict[str, Any] = dataclasses.asdict(shown(CASES["udp-before-service"], ()))
    grids = {"": data["expected"], **data["expected_elsewhere"]}
    assert {where: grid["ignores-late"]["none"]["outcome"] for where, grid in grids.items()} == {
        "": "lost",
        "in nftables mode from v1.30 on": "refused",
        "in nftables mode from v1.33 on, with service-cidrs": "delivered",
    }
    assert shown(CASES["beyond-window"], ()).expected_elsewhere == {}
    titles = [str(part.title) for part in story(CASES["syn-before-service"], ()) if isinstance(part, Table)]
    assert titles == ["expected", "expected in nftables mode from v1.33 on, with service-cidrs"]
