"""Whom the bug hits, and what helps: each sentence from what was seen, and none where nothing was."""

import dataclasses

import pytest

from lab.evidence.judgement import Judgement
from lab.report.affected import answers, regression
from lab.results.matrix import Column, alone, merge
from lab.results.result import Tally
from lab.verdict import Outcome
from lab.vocabulary import Backend, Family, ProxyMode

from .conftest import elsewhere, joined, only, tally, with_outcomes

PLACE = "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4, topology kube-proxy)"
HIT = f"AFFECTED: on Linux 6.18.44, a node of {PLACE} lets one packet reset a healthy connection; "


def said(found):
    matrix = found if hasattr(found, "columns") else alone(found)
    return [remark.text for remark in answers(matrix)]


def test_the_answer_names_the_node_and_what_helps(report):
    assert said(report) == [f"{HIT}drop-forward or be-liberal prevents it."]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"backend": Backend.LEGACY}, "kube-proxy v1.14 in iptables mode (iptables-legacy, ipv4, topology kube-proxy)"),
        ({"family": Family.IPV6}, "kube-proxy v1.14 in iptables mode (iptables-nft, ipv6, topology kube-proxy)"),
        (
            {"proxy_mode": ProxyMode.NFTABLES, "proxy_version": "v1.33", "backend": None, "topology": "mine"},
            "kube-proxy v1.33 in nftables mode (ipv4, topology mine)",
        ),
    ],
    ids=["backend", "family", "mode"],
)
def test_another_node_is_told_as_another(report, where, words):
    [text] = said(elsewhere(report, **where))
    assert f"a node of {words} lets" in text


def test_no_fix_was_tried_is_not_the_same_as_no_fix_helps(report):
    assert said(only(report, "beyond-window", "none")) == [f"{HIT}no fix was tried."]
    failed = Tally(tally(report, "beyond-window", "be-liberal").trial, failure="x")
    bare = only(report, "beyond-window", "none")
    assert said(dataclasses.replace(bare, tallies=(*bare.tallies, failed))) == [f"{HIT}no fix was tried."]
    worse = with_outcomes(only(report, "beyond-window", "none", "be-liberal"), "beyond-window", "be-liberal", "lost")
    assert said(worse) == [f"{HIT}no fix that was tried prevents it."]


def test_several_fixes_are_listed(report):
    third = elsewhere(only(report, "beyond-window", "be-liberal"), fix="drop-prerouting")
    assert said(joined(report, third)) == [f"{HIT}drop-forward, be-liberal or drop-prerouting prevents it."]


def test_a_fix_helps_only_if_the_connection_lived_in_every_run(report):
    outcomes = [Outcome.DROPPED] * 9 + [Outcome.STALLED]
    once = with_outcomes(report, "beyond-window", "drop-forward", *outcomes)
    assert said(once) == [f"{HIT}be-liberal prevents it."]
    doubted = with_outcomes(report, "beyond-window", "drop-forward", Outcome.DROPPED, disagreements=("a b c",))
    assert said(doubted) == [f"{HIT}be-liberal prevents it."]


def test_a_run_that_came_to_no_end_is_no_evidence(report):
    def with_failure(case, fix, **others):
        before = tally(report, case, fix)
        bound = dataclasses.replace(before, failure="no end within 10 s", **others)
        return dataclasses.replace(report, tallies=tuple(bound if one is before else one for one in report.tallies))

    assert said(with_failure("beyond-window", "drop-forward")) == [f"{HIT}be-liberal prevents it."]
    # What a trial left behind that was never decided says nothing, whatever it looks like.
    nothing = {"runs": 0, "as_expected": 0, "outcomes": ()}
    assert said(with_failure("beyond-window", "none", **nothing)) == []
    bare = only(with_failure("beyond-window", "be-liberal", **nothing), "beyond-window", "none", "be-liberal")
    assert said(bare) == [f"{HIT}no fix was tried."]
    alive = with_outcomes(report, "beyond-window", "none", Outcome.DROPPED)
    once = dataclasses.replace(tally(alive, "beyond-window", "none"), failure="no end within 10 s")
    assert said(dataclasses.replace(alive, tallies=(once,))) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_reset_in_many_runs_is_one_too_many(report, place):
    outcomes = [Outcome.DROPPED] * 3
    outcomes[place] = Outcome.RESET
    assert said(with_outcomes(report, "beyond-window", "none", *outcomes))[0].startswith("AFFECTED: ")
    alive = with_outcomes(report, "beyond-window", "none", *[Outcome.DROPPED] * 3)
    assert said(alive) == [f"NOT AFFECTED: on Linux 6.18.44, a node of {PLACE} keeps the connection alive."]


def test_nothing_is_said_of_what_witnesses_disagree_in_or_what_was_not_run(report):
    assert said(with_outcomes(report, "beyond-window", "none", Outcome.RESET, disagreements=("a b c",))) == []
    assert said(with_outcomes(report, "beyond-window", "none", Outcome.STALLED)) == []
    assert said(only(report, "beyond-window", "drop-forward")) == []
    assert said(dataclasses.replace(report, tallies=(Tally(report.tallies[0].trial, failure="x"),))) == []


def test_another_case_says_it_by_its_name(report):
    other = with_outcomes(only(report, "upstream-regression"), "upstream-regression", "none", Outcome.RESET)
    by = f"AFFECTED by upstream-regression: on Linux 6.18.44, with {PLACE}, a healthy connection is reset; "
    assert said(other) == [f"{by}drop-forward or be-liberal prevents it."]
    assert said(only(other, "upstream-regression", "none")) == [f"{by}no fix was tried."]
    assert said(joined(other, only(report, "beyond-window")))[0] == f"{HIT}drop-forward or be-liberal prevents it."


def test_cases_that_say_the_same_say_it_together(report):
    one = only(report, "beyond-window")
    found = joined(*(elsewhere(one, case=case) for case in ("far-behind", "entry-deleted")))
    [text] = said(found)
    assert text.startswith("AFFECTED by far-behind, entry-deleted: ")


def test_not_affected_is_about_one_packet_where_another_one_kills(report):
    alive = with_outcomes(only(report, "beyond-window"), "beyond-window", "none", Outcome.DROPPED)
    other = elsewhere(only(report, "beyond-window", "none"), case="client-on-node", topology="uplink")
    first, second = said(joined(alive, other))
    assert first.startswith("NOT AFFECTED by beyond-window: ")
    assert second.startswith("AFFECTED by client-on-node: ")
    assert "topology uplink" in second


@pytest.mark.parametrize("case", ["in-window", "without-nat", "client-on-node-in-window", "congested-without-nat"])
def test_a_control_speaks_of_no_node(report, case):
    assert said(elsewhere(only(report, "beyond-window"), case=case)) == []


def test_the_controls_of_the_catalogue_are_known_as_such():
    from lab.cases import CASES
    from lab.fixes import NONE
    from lab.report.affected import _CONTROLS
    from lab.vocabulary import Behaviour

    controls = [case for case in CASES.values() if case.name.endswith(_CONTROLS)]
    outcomes = {case.expected(behaviour, NONE.protection).outcome for case in controls for behaviour in Behaviour}
    assert outcomes == {Outcome.DELIVERED}


@pytest.mark.parametrize("outcome", [Outcome.KILLED, Outcome.REFUSED, Outcome.LOST, Outcome.STALLED, Outcome.LEAKED])
def test_other_ends_are_not_the_bug(report, outcome):
    other = with_outcomes(only(report, "upstream-regression"), "upstream-regression", "none", outcome)
    assert said(other) == []


def test_a_client_that_begins_again_was_reset_all_the_same(report):
    found = with_outcomes(only(report, "beyond-window"), "beyond-window", "none", Outcome.RETRIED)
    [text] = said(elsewhere(found, case="retried"))
    assert text.startswith("AFFECTED by retried: ")


def test_kernels_that_say_the_same_are_named_together_and_others_apart(report):
    alive = with_outcomes(report, "beyond-window", "none", Outcome.DELIVERED)
    columns = [Column(name, name, name, its) for name, its in (("5.10", report), ("6.1", alive), ("6.12", report))]
    found = merge("0", columns)
    assert said(found) == [
        HIT.replace("6.18.44", "5.10 and 6.12") + "drop-forward or be-liberal prevents it.",
        f"NOT AFFECTED: on Linux 6.1, a node of {PLACE} keeps the connection alive.",
    ]


def test_families_and_modes_are_told_apart(report):
    both = joined(report, elsewhere(report, family=Family.IPV6))
    texts = said(both)
    assert ["ipv4" in text for text in texts] == [True, False]
    assert ["ipv6" in text for text in texts] == [False, True]


def test_upstreams_own_packet_is_told_by_what_came_of_it(report):
    def told(found):
        return [remark.text for remark in regression(alone(found))]

    [text] = told(report)
    assert text == (
        "Kubernetes' own regression packet (100,000 bytes behind) is not INVALID on Linux 6.18.44 but ignored: let"
        " through and translated. So upstream's test passes there with every fix off, and proves nothing."
    )
    one = tally(report, "upstream-regression", "none")

    def with_verdict(**verdict):
        sample = dataclasses.replace(one.sample, verdict=dataclasses.replace(one.sample.verdict, **verdict))
        return dataclasses.replace(report, tallies=(dataclasses.replace(one, sample=sample),))

    [text] = told(with_verdict(judgement=Judgement.INVALID, outcome=Outcome.RESET))
    assert text.endswith("is INVALID on Linux 6.18.44, so upstream's test means what it says there.")
    # There it was no packet at all that came to something.
    assert told(with_verdict(judgement=None, outcome=Outcome.REFUSED)) == []
    assert told(with_verdict(outcome=Outcome.LEAKED)) == []
