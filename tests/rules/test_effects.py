"""Which differences change what becomes of a packet, and which do not."""

from __future__ import annotations

import pytest

from lab.rules.diff import compare
from lab.rules.read_dump import read
from lab.vocabulary import Family

FILTER = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n{}COMMIT\n"
NFT = "table ip kube-proxy {{\n{}}}\n"


def effects(ours, theirs, form=FILTER):
    texts = (form.format("".join(f"{line}\n" for line in lines)) for lines in (ours, theirs))
    here, there = (read(text, "dump", Family.IPV4) for text in texts)
    return [(str(one.kind), str(one.effect)) for one in compare(here, there).differences]


CHAINS = [":KUBE-FORWARD - [0:0]", ":KUBE-SERVICES - [0:0]", ":KUBE-SVC-A - [0:0]"]
USED = [*CHAINS, "-A FORWARD -j KUBE-FORWARD"]
PORT = "-d 10.0.0.1/32 -p tcp -m tcp --dport 80"
DROP = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"

RANDOM = "-m statistic --mode random --probability "
SHARES = [
    *CHAINS,
    *(f":KUBE-SEP-{name} - [0:0]" for name in "ABC"),
    "-A FORWARD -j KUBE-SVC-A",
    *(f"-A KUBE-SEP-{name} -d 10.0.0.{place}/32 -j DROP" for place, name in enumerate("ABC")),
    f"-A KUBE-SVC-A {RANDOM}0.33333333349 -j KUBE-SEP-A",
    f"-A KUBE-SVC-A {RANDOM}0.5 -j KUBE-SEP-B",
    "-A KUBE-SVC-A -j KUBE-SEP-C",
]

CASES = {
    "a drop": (USED, [*USED, DROP], ["traffic"]),
    "a drop that is gone": ([*USED, DROP], USED, ["traffic"]),
    "a drop where no packet comes": (CHAINS, [*CHAINS, DROP], ["unused"]),
    "a drop where a chain of others leads": (
        [*CHAINS, ":CNI - [0:0]", "-A CNI -j KUBE-FORWARD"],
        [*CHAINS, ":CNI - [0:0]", "-A CNI -j KUBE-FORWARD", DROP],
        ["traffic"],
    ),
    "a comment": (
        [*USED, f'{DROP[:-8]} -m comment --comment "a b" -j DROP'],
        [*USED, f'{DROP[:-8]} -m comment --comment "c d" -j DROP'],
        ["comment"],
    ),
    "a rule that is a comment": (USED, [*USED, '-A KUBE-FORWARD -m comment --comment "a b"'], ["idle"]),
    "a jump to an empty chain": (USED, [*USED, "-A FORWARD -j KUBE-SERVICES"], ["idle"]),
    "a jump to a chain of a comment": (
        [*USED, '-A KUBE-SERVICES -m comment --comment "a b"'],
        [*USED, '-A KUBE-SERVICES -m comment --comment "a b"', "-A FORWARD -j KUBE-SERVICES"],
        ["idle"],
    ),
    "a jump to a chain that drops": (
        [*USED, "-A KUBE-SERVICES -j DROP"],
        [*USED, "-A KUBE-SERVICES -j DROP", "-A FORWARD -j KUBE-SERVICES"],
        ["traffic"],
    ),
    "an empty chain": (USED, [*USED, ":KUBE-PROXY-CANARY - [0:0]"], ["unused"]),
    "the same chain by another name": (
        [*USED, f"-A KUBE-FORWARD {PORT} -j KUBE-SVC-A", "-A KUBE-SVC-A -j ACCEPT"],
        [
            *USED[:2],
            ":KUBE-SVC-B - [0:0]",
            *USED[3:],
            f"-A KUBE-FORWARD {PORT} -j KUBE-SVC-B",
            "-A KUBE-SVC-B -j ACCEPT",
        ],
        ["form"] * 5,
    ),
    "another chain by another name": (
        [*USED, f"-A KUBE-FORWARD {PORT} -j KUBE-SVC-A", "-A KUBE-SVC-A -j ACCEPT"],
        [*USED[:2], ":KUBE-SVC-B - [0:0]", *USED[3:], f"-A KUBE-FORWARD {PORT} -j KUBE-SVC-B", "-A KUBE-SVC-B -j DROP"],
        ["traffic"] * 5,
    ),
    "an order that matters": (
        [*USED, DROP, "-A KUBE-FORWARD -j ACCEPT"],
        [*USED, "-A KUBE-FORWARD -j ACCEPT", DROP],
        ["traffic"],
    ),
    "an order of the same verdicts": (
        [*USED, DROP, "-A KUBE-FORWARD -s 10.0.0.1/32 -j DROP"],
        [*USED, "-A KUBE-FORWARD -s 10.0.0.1/32 -j DROP", DROP],
        ["order"],
    ),
    "an order of rules for different addresses": (
        [*USED, "-A KUBE-FORWARD -d 10.0.0.1/32 -j DROP", "-A KUBE-FORWARD -d 10.0.0.2/32 -j ACCEPT"],
        [*USED, "-A KUBE-FORWARD -d 10.0.0.2/32 -j ACCEPT", "-A KUBE-FORWARD -d 10.0.0.1/32 -j DROP"],
        ["order"],
    ),
    "an order around what does nothing": (
        [*USED, "-A FORWARD -j KUBE-SERVICES"],
        [*CHAINS, "-A FORWARD -j KUBE-SERVICES", "-A FORWARD -j KUBE-FORWARD"],
        ["order"],
    ),
    "another share": (SHARES, [line.replace("0.3333", "0.9000") for line in SHARES], ["traffic"]),
    "nothing for the last": (SHARES, [line.replace(f"{RANDOM}0.5 ", "") for line in SHARES], ["traffic"]),
    "nobody takes what is left": (SHARES, SHARES[:-1], ["traffic"]),
    "the one who takes what is left first": (SHARES, [*SHARES[:-3], SHARES[-1], *SHARES[-3:-1]], ["traffic"]),
    "unequal shares in another order": (
        [line.replace("0.5", "0.8") for line in SHARES],
        [line.replace("0.5", "0.8") for line in (*SHARES[:-3], SHARES[-2], SHARES[-3], SHARES[-1])],
        ["traffic"],
    ),
    "unequal shares by another name": (
        [line.replace("0.5", "0.8") for line in SHARES],
        [line.replace("0.5", "0.8").replace("KUBE-SEP-A", "KUBE-SEP-D") for line in SHARES],
        ["form"] * 5,
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "answer"), CASES.values(), ids=CASES)
def test_of_iptables(ours, theirs, answer):
    assert sorted(effect for _, effect in effects(ours, theirs)) == answer


def test_a_mark_that_the_kubelet_drops_is_traffic():
    """KUBE-MARK-DROP is the kubelet's to fill: that it is empty in a dump says nothing."""
    form = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-MARK-DROP - [0:0]\n:KUBE-FW-A - [0:0]\n{}COMMIT\n"
    jump = "-A PREROUTING -j KUBE-FW-A"
    assert effects([jump], [jump, "-A KUBE-FW-A -j KUBE-MARK-DROP"], form) == [("extra", "traffic")]


BASE = ["chain nat-prerouting {", "type nat hook prerouting priority dstnat; policy accept;", "jump services", "}"]
MAP = ["map service-ips {", "type ipv4_addr : verdict", "elements = { 10.0.0.1 : goto service-a }", "}"]
TO_MAP = ["chain services {", "ip daddr vmap @service-ips", "}", *MAP]

NFT_CASES = {
    "an element": (
        [*BASE, *TO_MAP, "chain service-a {", "drop", "}"],
        [*BASE, *(line.replace("10.0.0.1", "10.0.0.2") for line in TO_MAP), "chain service-a {", "drop", "}"],
        ["traffic", "traffic"],
    ),
    "a comment": (
        [*BASE, "chain services {", 'drop comment "a b"', "}"],
        [*BASE, "chain services {", 'drop comment "c d"', "}"],
        ["comment"],
    ),
    "a chain that nothing leads to": (
        [*BASE, "chain services {", "}"],
        [*BASE, "chain services {", "}", "chain mark-for-masquerade {", "meta mark set 0x4000", "}"],
        ["unused", "unused"],
    ),
    "a base chain": (
        [*BASE, "chain services {", "drop", "}"],
        [*BASE, "chain services {", "drop", "}", *(line.replace("nat-prerouting", "nat-output") for line in BASE)],
        ["idle", "traffic", "traffic"],
    ),
    "a base chain that leads nowhere": (
        [*BASE, "chain services {", "}"],
        [*BASE, "chain services {", "}", *(line.replace("nat-prerouting", "nat-output") for line in BASE)],
        ["idle", "idle", "idle"],
    ),
}


@pytest.mark.parametrize(("ours", "theirs", "answer"), NFT_CASES.values(), ids=NFT_CASES)
def test_of_nftables(ours, theirs, answer):
    assert sorted(effect for _, effect in effects(ours, theirs, NFT)) == answer


def test_a_difference_says_whose_it_is():
    port = '-p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80'
    rules = [*USED, "-A FORWARD -j KUBE-SERVICES", f"-A KUBE-SERVICES {port} -j KUBE-SVC-A"]
    texts = (FILTER.format("\n".join([*rules, last, ""])) for last in ("", "-A KUBE-SVC-A -j DROP"))
    here, there = (read(text, "dump", Family.IPV4) for text in texts)
    [difference] = compare(here, there).differences
    assert (difference.name, difference.service) == ("KUBE-SVC-A", "shop/web")
