"""Which texts mean the same, and which do not."""

from __future__ import annotations

import pytest

from lab.rules.diff import compare
from lab.rules.effects import Kind
from lab.rules.read_dump import read
from lab.vocabulary import Family

IPTABLES = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n{}\nCOMMIT\n"
NFT = "table ip kube-proxy {{\n\tchain services {{\n{}\n\t}}\n}}\n"


def kinds(form, ours, theirs, family=Family.IPV4):
    here, there = (read(form.format("\n".join(rules)), "dump", family) for rules in (ours, theirs))
    return [str(difference.kind) for difference in compare(here, there).differences]


def iptables(ours, theirs, chain="KUBE-SVC-A", **options):
    return kinds(IPTABLES, *([f"-A {chain} {rule}" for rule in rules] for rules in (ours, theirs)), **options)


SAME = {
    "address": ("-d 10.0.0.1/32 -j RETURN", "-d 10.0.0.1 -j RETURN"),
    "quoting": ("-m comment --comment a/b -j RETURN", '-m comment --comment "a/b" -j RETURN'),
    "escapes": (r'-m comment --comment "say \"a\"" -j RETURN', r'-m comment --comment "say \"a\"" -j RETURN'),
    "order of matches": (
        '-m conntrack --ctstate NEW -m comment --comment "a b" -j RETURN',
        '-m comment --comment "a b" -m conntrack --ctstate NEW -j RETURN',
    ),
    "order of options": (
        "-m recent --rcheck --seconds 9 --name X -j RETURN",
        "-m recent --name X --rcheck --seconds 9 -j RETURN",
    ),
    "order of states": ("-m conntrack --ctstate NEW,DNAT -j DROP", "-m conntrack --ctstate DNAT,NEW -j DROP"),
    "hexadecimal": ("-m mark --mark 0x4000/0x4000 -j RETURN", "-m mark --mark 0x00004000/0x004000 -j RETURN"),
    "implied match": (
        "-p tcp -j DNAT --to-destination 10.0.0.1:80",
        "-p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80",
    ),
    "31 bits": (
        "-m statistic --mode random --probability 0.1000000000 -j RETURN",
        "-m statistic --mode random --probability 0.10000000009 -j RETURN",
    ),
    "a match that counts": ("-j RETURN", "-m nfacct --nfacct-name some -j RETURN"),
}
OTHER = {
    "address": ("-d 10.0.0.1/32 -j RETURN", "-d 10.0.0.2/32 -j RETURN"),
    "range": ("-d 10.0.0.0/16 -j RETURN", "-d 10.0.0.0/24 -j RETURN"),
    "negation": ("-d 10.0.0.1/32 -j RETURN", "! -d 10.0.0.1/32 -j RETURN"),
    "negated option": ("-m mark --mark 0x4000/0x4000 -j RETURN", "-m mark ! --mark 0x4000/0x4000 -j RETURN"),
    "target": ("-d 10.0.0.1/32 -j RETURN", "-d 10.0.0.1/32 -j DROP"),
    "goto": ("-d 10.0.0.1/32 -j KUBE-SVC-B", "-d 10.0.0.1/32 -g KUBE-SVC-B"),
    "mask": ("-m mark --mark 0x4000/0x4000 -j RETURN", "-m mark --mark 0x4000/0x8000 -j RETURN"),
    "more": ("-p tcp -m tcp --dport 80 -j RETURN", "-p tcp -m tcp --dport 80 -m mark --mark 0x1 -j RETURN"),
    "comment": ('-m comment --comment "a b" -j RETURN', '-m comment --comment "a c" -j RETURN'),
    "option of a target": ("-d 10.0.0.1/32 -j MASQUERADE", "-d 10.0.0.1/32 -j MASQUERADE --random-fully"),
}


@pytest.mark.parametrize(("ours", "theirs"), SAME.values(), ids=SAME)
def test_the_same_in_other_words(ours, theirs):
    assert iptables([ours], [theirs]) == []


@pytest.mark.parametrize(("ours", "theirs"), OTHER.values(), ids=OTHER)
def test_one_part_that_differs(ours, theirs):
    assert iptables([ours], [theirs]) == ["different"]


def test_an_ipv6_address_has_a_longer_prefix():
    rules = ["-d fd00::1 -j RETURN"], ["-d fd00::1/128 -j RETURN"]
    assert iptables(*rules, family=Family.IPV6) == []


def share(*endpoints, count=None):
    left = count or len(endpoints)
    chances = [f"-m statistic --mode random --probability {1 / (left - place):.10f} " for place in range(left)]
    return [
        f"{chance if place < left - 1 else ''}-j KUBE-SEP-{name}"
        for place, (chance, name) in enumerate(zip(chances, endpoints, strict=False))
    ]


def test_equal_shares_may_be_given_in_any_order():
    assert iptables(share(*"abc"), share(*"cab")) == []


def test_an_endpoint_less_is_one_rule_less():
    for left in ("ab", "ac", "bc"):
        assert iptables(share(*"abc"), share(*left)) == ["missing"]
    assert iptables(share(*"ab"), share("b")) == ["missing"]
    assert iptables(share("b"), share(*"ab")) == ["extra"]


def test_an_endpoint_that_gets_another_share_is_different():
    first, *rest = share(*"abc")
    assert iptables([first, *rest], [first.replace("0.3333", "0.4"), *rest]) == ["different"]
    # The first takes all, and the others never have their turn.
    always = [rule.rpartition("-j")[1] + rule.rpartition("-j")[2] for rule in share(*"ab")]
    assert iptables(share(*"ab"), always) == ["different"]
    # Nobody takes what the last one leaves.
    halves = [f"-m statistic --mode random --probability 0.5 -j KUBE-SEP-{name}" for name in "ab"]
    assert iptables(share(*"ab"), halves) == ["different"]
    assert iptables(share(*"abc"), share(*"ab", count=3)) == ["missing"]
    every = "-m statistic --mode nth --every 2 --packet 0 "
    assert iptables(share(*"ab"), [share(*"ab")[0], every + share("b")[0]]) == ["different"]
    # Two share everything, and nothing is left for the third.
    assert iptables(share(*"abc"), [*share(*"ab"), *share("c")])


def test_rules_for_different_destinations_have_no_order():
    rules = [f"-d 10.0.0.{host}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{host}" for host in (1, 2, 3)]
    last = "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    assert iptables([*rules, last], [*reversed(rules), last], "KUBE-SERVICES") == []
    assert iptables([*rules, last], [rules[0], last, *rules[1:]], "KUBE-SERVICES") == ["moved"]


def test_rules_for_the_same_destination_have():
    match = "-d 10.0.0.1/32 -p tcp -m tcp --dport 80"
    rules = [f"{match} -s 10.1.0.0/16 -j KUBE-MARK-MASQ", f"{match} -j KUBE-SVC-A"]
    assert iptables(rules, rules[::-1], "KUBE-SERVICES") == ["moved"]


def test_the_jumps_have_an_order_but_for_the_kubelets():
    jumps = ["-j KUBE-SERVICES", "-m comment --comment x -j KUBE-NODEPORTS", "-j KUBE-FIREWALL"]
    assert iptables(jumps, [jumps[2], *jumps[:2]], "PREROUTING") == []
    assert iptables(jumps, [jumps[1], jumps[0], jumps[2]], "PREROUTING") == ["moved"]


def test_a_rule_that_stands_twice_is_extra_once():
    assert iptables(["-j RETURN"], ["-j RETURN", "-j RETURN"]) == ["extra"]


NFT_SAME = {
    "priority": (
        "type nat hook output priority -110; policy accept;",
        "type nat hook output priority dstnat - 10; policy accept;",
    ),
    "priority 0": (
        "type filter hook input priority 0; policy accept;",
        "type filter hook input priority filter; policy accept;",
    ),
    "hexadecimal": ("mark set mark | 0x00004000", "mark set mark | 0x4000"),
    "anonymous set": ("ip saddr != { 10.0.0.0/8, 10.1.0.1 } drop", "ip saddr != { 10.1.0.1, 10.0.0.0/8 } drop"),
    "counter and handle": ("jump b", "counter packets 5 bytes 300 jump b # handle 7"),
    "what a map gives": (
        "dnat ip to numgen random mod 1 map { 0 : 10.0.0.1 . 80 }",
        "dnat ip addr . port to numgen random mod 1 map { 0 : 10.0.0.1 . 80 }",
    ),
    "order of endpoints": (
        "numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }",
        "numgen random mod 2 vmap { 0 : goto endpoint-b, 1 : goto endpoint-a }",
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), NFT_SAME.values(), ids=NFT_SAME)
def test_the_same_in_nfts_other_words(ours, theirs):
    assert kinds(NFT, [ours], [theirs]) == []


OURS = "numgen random mod 3 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b, 2 : goto endpoint-c }"


@pytest.mark.parametrize(
    ("theirs", "answer"),
    [
        ("numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }", ["missing"]),
        (OURS.replace("mod 3", "mod 4").replace(" }", ", 3 : goto endpoint-d }"), ["extra"]),
        ("numgen random mod 3 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b, 2 : goto endpoint-d }", ["different"]),
        (
            "numgen random mod 3 vmap { 0 : goto endpoint-a, 1 : goto endpoint-a, 2 : goto endpoint-b }",
            ["different"],
        ),
        # One in four of the connections goes nowhere.
        ("numgen random mod 4 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b, 2 : goto endpoint-c }", ["different"]),
    ],
)
def test_shares_of_a_map(theirs, answer):
    assert kinds(NFT, [OURS], [theirs]) == answer


def test_the_order_of_nfts_rules_counts():
    assert kinds(NFT, ["ip daddr @a drop", "jump b"], ["jump b", "ip daddr @a drop"]) == [Kind.MOVED]
