"""What an upgrade changes in the rules."""

from __future__ import annotations

import re

import pytest

from lab.rules.since import said, upgrade


def names(steps):
    return [step.change.name for step in steps]


def lines(proxy):
    written = "".join(proxy.render()).splitlines()
    return [re.sub(r"/(32|128)(?= )", "", line) for line in written if line.startswith((":", "-"))]


def test_the_changes_together_lead_from_one_releases_rules_to_the_others(dumps):
    before, after = dumps.proxy("v1.23.4/iptables-v4-dual"), dumps.proxy("v1.33.13/iptables-v4-dual")
    found = upgrade(after, "v1.23.4")
    rules = lines(before)
    for step in found.steps:
        for line in step.gone:
            rules.remove(line)
        rules += step.new
    assert sorted(rules) == sorted(lines(after))
    assert "external-chains" in names(found.rerouting)
    assert "one-conntrack-rule" not in names(found.steps)  # v1.23 has it
    assert "counts-invalid" in names(found.steps)
    assert "counts-invalid" not in names(found.rerouting)


def test_a_patch_release_has_its_own(dumps):
    found = upgrade(dumps.proxy("v1.33.13/nft-v4"), "v1.33.5")
    assert names(found.steps) == ["filters-after-dnat", "interface-by-name"]
    assert any("filter-prerouting-pre-dnat" in line for line in found.steps[0].new)


def test_what_the_newer_one_lacks_is_taken_back(dumps):
    proxy = dumps.proxy("v1.34.9/nft-v4", version="v1.34.0")
    [step] = [step for step in upgrade(proxy, "v1.33.6").steps if step.undone]
    assert step.change.name == "interface-by-name"
    assert any("taken back" in line for line in said(upgrade(proxy, "v1.33.6"), proxy))


@pytest.mark.parametrize(("since", "words"), [("v1.28", "12 changes"), ("v1.33", "nothing changes in the rules")])
def test_the_command_says_it(lab_rules, since, words):
    assert words in lab_rules("kube-proxy", "--since", since, "--proxy-version", "v1.33", code=0).stdout


def test_the_command_says_it_in_json(lab_rules):
    [answer] = lab_rules("kube-proxy", "--since", "v1.14", "--proxy-version", "v1.15", "--json", code=0).json()
    assert (answer["since"], answer["version"]) == ("v1.14", "v1.15")
    by_name = {change["name"]: change for change in answer["changes"]}
    assert by_name["drops-invalid"]["new"] == ["-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"]
    assert by_name["drops-invalid"]["effect"] == "where packets go"


def test_a_release_before_that_nobody_saw_is_refused(lab_rules):
    done = lab_rules("kube-proxy", "--since", "v1.40", code=2)
    assert done.stderr == "lab: what kube-proxy v1.40 writes is not known (known are v1.14 to v1.36)\n"


def test_without_a_version_the_upgrade_is_to_the_newest(lab_rules):
    found = lab_rules("kube-proxy", "--since", "v1.28", code=0).stdout
    assert "kube-proxy v1.28 to v1.36 (iptables mode, ipv4): " in found


def test_a_way_back_is_told_as_one(lab_rules):
    found = lab_rules("kube-proxy", "--since", "v1.31", "--proxy-version", "v1.30", code=0).stdout
    assert "kube-proxy v1.31 down to v1.30 (iptables mode, ipv4): " in found


def test_a_release_that_nobody_saw_is_told_as_one(lab_rules):
    [answer] = lab_rules("kube-proxy", "--since", "v1.36", "--proxy-version", "v1.37", "--json", code=0).json()
    assert answer["known"] is False


@pytest.mark.parametrize("other", [("--saved",), ("--diff", "x")])
def test_one_question_at_a_time(lab_rules, other):
    assert f"--since and {other[0]}" in lab_rules("kube-proxy", "--since", "v1.28", *other, code=2).stderr
