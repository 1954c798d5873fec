"""What ``iptables -S`` prints is read as what iptables-save does, and said to be of which table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.rules.read_dump import given, read
from lab.vocabulary import Family, ProxyMode

HERE = Path(__file__).parent


def listed(text):
    """Write what iptables-save printed as ``iptables -S`` does, table by table."""
    tables = dict(re.findall(r"^\*(\w+)\n(.*?)^COMMIT\n", text, re.MULTILINE | re.DOTALL))
    result = {}
    for table, content in tables.items():
        policies = re.sub(r"^:(\S+) (ACCEPT|DROP) .*$", r"-P \1 \2", content, flags=re.MULTILINE)
        result[table] = re.sub(r"^:(\S+) - .*$", r"-N \1", policies, flags=re.MULTILINE)
    return result


@pytest.mark.parametrize("name", ["v1.14.0/iptables-v4", "v1.33.13/iptables-v6"])
def test_every_table_is_known_by_its_built_in_chains(dumps, name):
    family = Family.IPV6 if "v6" in name else Family.IPV4
    text = dumps.text(name)
    whole = read(text, name, family)
    for table, listing in listed(text).items():
        if "KUBE-" not in listing:
            continue
        one = read(listing, name, family)
        assert one.tables == {table}
        assert {place: [line.text for line in found.lines] for place, found in one.containers.items()} == {
            place: [line.text for line in found.lines] for place, found in whole.containers.items() if place[0] == table
        }
        assert one.notes == (
            f"iptables -S does not say which table it is of: by its built-in chains, this is {table}.",
        )


def test_several_listings_may_follow_each_other(dumps):
    text = dumps.text("v1.33.13/iptables-v4")
    joined = "".join(listed(text).values())
    assert read(joined, "", Family.IPV4).tables == read(text, "", Family.IPV4).tables


def test_a_line_keeps_its_number_and_loses_its_counters():
    text = (
        "-P INPUT ACCEPT -c 1 2\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n-N KUBE-FORWARD\n-A KUBE-FORWARD -c 3 4 -j DROP\n"
    )
    [line] = read(text, "", Family.IPV4).containers["filter", "KUBE-FORWARD"].lines
    assert line == ("-j DROP", 5)


def test_a_listing_without_policies_is_known_by_kube_proxys_chains():
    text = "-N KUBE-SVC-AAAAAAAAAAAAAAAA\n-A KUBE-SVC-AAAAAAAAAAAAAAAA -j RETURN\n"
    dump = read(text, "", Family.IPV4)
    assert dump.tables == {"nat"}
    assert dump.notes == ("iptables -S does not say which table it is of: by kube-proxy's chains in it, this is nat.",)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("-N KUBE-SERVICES\n", 1, "the table is not to be known"),
        ("-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-N KUBE-SERVICES\n", 1, "the table is not to be known"),
        ("-N KUBE-FORWARD\n-P INPUT A\n-P FORWARD A\n-P OUTPUT A\n-N KUBE-FORWARD\n", 2, "a second iptables -S of the"),
        ("-N KUBE-FORWARD\nhello\n", 2, "no line of iptables -S"),
    ],
)
def test_what_is_not_decidable_is_refused(text, line, words):
    with pytest.raises(InputError, match=words) as caught:
        read(text, "node.txt", Family.IPV4)
    assert (caught.value.source, caught.value.line) == ("node.txt", line)
    assert caught.value.cure


def test_a_real_one():
    text = (HERE / "iptables-S.txt").read_text()
    assert given(text, "").mode is ProxyMode.IPTABLES
    dump = read(text, "", Family.IPV4)
    assert set(dump.containers) == {("filter", "FORWARD"), ("filter", "KUBE-SERVICES"), ("filter", "KUBE-FORWARD")}
    assert dump.counts_by_name
