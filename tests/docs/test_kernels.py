"""docs/kernels.md and docs/five-kernels.md: tables of many kernels, and what guests and the lab need."""

from __future__ import annotations

import re

import pytest

from lab.cases import CASES
from lab.fixes import FIXES
from lab.vocabulary import Behaviour
from tests.support.command import lab
from tests.support.pages import CHECKOUT, DOCS

PAGE = (DOCS / "kernels.md").read_text()


def rows(lines):
    """The rows of a table of many kernels: its kernels' names, and each trial's cells."""
    table = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in lines.splitlines()]
    (_case, _fix, *kernels), _rule, *trials = table
    case = ""
    for name, fix, *cells in trials:
        case = name or case
        yield case, fix, dict(zip(kernels, cells, strict=True))


def tables(page):
    """List each table of many kernels of a page, with its text."""
    text = (CHECKOUT / page).read_text()
    found = re.findall(r"^(\| case \| fix \|.*\n(?:\|.*\n)+)", text, re.MULTILINE)
    assert found
    return [pytest.param(page, lines, text, id=f"{page}-{number}") for number, lines in enumerate(found, 1)]


@pytest.mark.parametrize(
    ("page", "lines", "text"), [*tables("README.md"), *tables("docs/kernels.md"), *tables("docs/five-kernels.md")]
)
def test_the_table_of_many_kernels_is_what_is_expected_of_each(page, lines, text):
    """And its last sentences count what is in it."""
    trials = list(rows(lines))
    for case, fix, cells in trials:
        before = None
        for kernel, cell in cells.items():
            mark, words = re.fullmatch(r"(≠ )?(.*)", cell).groups()
            if words.strip("*") == "not here":
                continue
            kind = Behaviour.STRICT if kernel == "5.10" else Behaviour.IGNORES_LATE
            want = CASES[case].expected(kind, FIXES[fix].protection)
            outcome, *judgement = words.replace("*", "").split(", ")
            assert outcome == want.outcome, (case, fix, kernel)
            assert not judgement or want.judgement in (judgement[0], None), (case, fix, kernel)
            if before is not None and not mark:
                assert words == before, (case, fix, kernel)
            before = words
    if page == "README.md":
        return  # it shows two trials, and counts nothing
    ran = [cell for _case, _fix, cells in trials for cell in cells.values() if cell.strip("≠* ") != "not here"]
    assert f"{len(ran)} of {len(ran)} trials gave what their kernel is expected to give." in text
    assert f"of {len(trials)} trials gave the same on all 5 kernels." in text


def test_every_program_that_guests_need_is_in_the_line_that_installs_them():
    """Debian's util-linux, dpkg, apt and mount are on every machine (priority required or essential)."""
    from lab.kernels.programs import ALL
    from lab.netns import packages

    [line] = re.findall(r"`apt-get install --no-install-recommends (qemu[^`]*)`", PAGE)
    wanted = {packages.package(name) for name in ALL} - {"util-linux", "dpkg", "apt", "mount"}
    assert set(line.split()) == wanted


def test_the_kernels_that_a_matrix_has_by_itself_are_those_that_are_told():
    from lab.cli.matrix import _KERNELS

    [told] = re.findall(r"^lab matrix +# the bug and its controls on (.*?) and the newest$", PAGE, re.MULTILINE)
    assert [*told.split(", "), "newest"] == _KERNELS.split(",")


@pytest.mark.lab_kernel
def test_doctor_asks_for_each_thing_that_is_needed():
    [needs] = re.findall(r"^## What the lab needs of a kernel\n\n(.*?);", PAGE, re.MULTILINE)
    asked = {
        "Network namespaces": "network namespaces",
        "veth": "veth",
        "nf_tables": "libnftables, nf_tables",
        "conntrack with netlink": "ctnetlink",
        "`NETFILTER_NETLINK_LOG`": "nfnetlink_log",
        "AF_PACKET": "AF_PACKET",
        "iptables-nft": "iptables-nft, ipv4",
        "iptables-legacy": "iptables-legacy, ipv4",
    }
    assert all(need in needs for need in asked)
    lines = lab("doctor", "--all").stdout.splitlines()
    told = [re.split(r"  +", line)[1] for line in lines if re.match(r"\w+  +\S", line)]
    assert set(asked.values()) <= set(told)
