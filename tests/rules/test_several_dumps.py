"""Several dumps in one file, and rules that no program prints."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.rules.check import check


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("order", [1, -1])
def test_of_both_families_the_one_that_is_asked_for_is_compared(dumps, family, order):
    name = f"v1.33.13/iptables-{family}"
    texts = [dumps.text(f"v1.33.13/iptables-{one}") for one in ("v4-dual", "v6")][::order]
    comparison = check(dumps.proxy("v1.33.13/iptables-v4-dual" if family == "v4" else name), "".join(texts), "both")
    assert comparison.same
    first = order == 1 if family == "v4" else order == -1
    line = 2 if first else "".join(texts).split("\n").index(texts[1].split("\n")[1], texts[0].count("\n")) + 1
    assert f"2 dumps stand in the file: compared is the one from line {line} on." in comparison.notes


def test_two_of_one_family_are_one_too_many(dumps):
    text = dumps.text("v1.33.13/iptables-v4")
    with pytest.raises(InputError, match="another dump begins here, and 2 of the 2 are of ipv4"):
        check(dumps.proxy("v1.33.13/iptables-v4"), text + text, "twice")


@pytest.mark.parametrize("rule", ["-p -m tcp --dport 80 -j KUBE-MARK-MASQ", "-d -j KUBE-MARK-MASQ", "-p tcp -j"])
def test_a_rule_that_lacks_a_value_is_named_by_its_line(dumps, rule):
    text = dumps.text("v1.33.13/iptables-v4")
    line = f"-A KUBE-SERVICES {rule}"
    text = text.replace("-A KUBE-SERVICES ", f"{line}\n-A KUBE-SERVICES ", 1)
    with pytest.raises(InputError, match=r"no rule that iptables-save prints: nothing behind -[pdj]") as caught:
        check(dumps.proxy("v1.33.13/iptables-v4"), text, "broken")
    assert caught.value.line == text.split("\n").index(line) + 1
