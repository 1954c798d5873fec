"""What other releases, the other mode and the kubelet left behind is named as that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.kubeproxy.said import NOTHING_SAID
from lab.rules.check import check
from lab.rules.effects import Effect
from lab.rules.source import Choice
from lab.vocabulary import ProxyMode
from tests.support import cover

pytestmark = pytest.mark.lab_kernel


def chain_of(text, name, kind="chain", table="table ip kube-proxy {"):
    found = re.compile(rf"\t{kind} {re.escape(name)} \{{\n.*?\n\t\}}\n\n?", re.DOTALL).search(text, text.index(table))
    return found[0]


def with_nft(text, *added, table="table ip kube-proxy {\n"):
    return text.replace(table, table + "".join(added), 1)


def notes(comparison):
    return {one.note for one in comparison.differences}


def effects(comparison):
    return {one.effect for one in comparison.differences}


@pytest.mark.parametrize("said", ["v1.29.1", "v1.31"])
def test_chains_of_an_older_release_in_iptables_mode(dumps, said):
    name = "v1.29.1/iptables-v4"
    older = dumps.text("v1.23.4/iptables-v4")
    xlb = re.search(r"KUBE-XLB-\w{16}", older)[0]
    lines = [line for line in older.split("\n") if line.startswith((f":{xlb} ", f"-A {xlb} "))]
    added = "\n".join([lines[0], ":KUBE-MARK-DROP - [0:0]", *lines[1:]])
    text = dumps.text(name).replace("*nat\n", f"*nat\n{added}\n")
    comparison = check(dumps.proxy(name, version=said), text, name)
    left = [one for one in comparison.differences if one.note]
    assert {one.note for one in left} == {
        "KUBE-XLB chains of v1.23 or earlier, unused",
        "KUBE-MARK-DROP of v1.24 or earlier, unused",
    }
    assert {one.effect for one in left} == {Effect.UNUSED}
    assert comparison.fitting == ("v1.28", "v1.29")  # whatever was left behind
    assert (len(left) == len(comparison.differences)) is (said == "v1.29.1")


def test_inputs_jump_of_v119(dumps):
    name = "v1.20.0-rc.0/iptables-v4"
    jump = '-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n'
    text = dumps.text(name).replace("-A INPUT ", f"{jump}-A INPUT ", 1)
    [difference] = check(dumps.proxy(name), text, name).differences
    assert difference.note == "INPUT's jump to KUBE-SERVICES, of v1.19 or earlier, active"
    assert difference.effect is Effect.TRAFFIC


def test_the_empty_chain_that_v124_leaves_to_v125(dumps):
    name = "v1.25.1/iptables-v4"
    text = dumps.text(name).replace("*nat\n", "*nat\n:KUBE-MARK-DROP - [0:0]\n")
    assert notes(check(dumps.proxy(name), text, name)) == {"KUBE-MARK-DROP of v1.24 or earlier, unused"}


def test_chains_of_services_that_are_gone(dumps):
    name = "v1.28.3/iptables-v4"
    text = dumps.text(name).replace("*nat\n", "*nat\n:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]\n")
    text = text.replace("COMMIT", "-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -j DNAT --to-destination 10.0.0.1:80\nCOMMIT")
    text = text.replace("-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -j DNAT --to-destination 10.0.0.1:80\nCOMMIT", "COMMIT", 2)
    comparison = check(dumps.proxy(name), text, name)
    assert notes(comparison) == {"chains of Services or endpoints that are gone, unused"}
    assert effects(comparison) == {Effect.UNUSED}


def test_base_chains_of_v1335_are_active(dumps):
    name = "v1.34.9/nft-v4"
    older = dumps.text("v1.31.14/nft-v4")
    text = with_nft(dumps.text(name), chain_of(older, "filter-prerouting"), chain_of(older, "filter-output-post-dnat"))
    comparison = check(dumps.proxy(name), text, name)
    hooked = {one.name for one in comparison.differences if one.note == "base chains of v1.33.5 or earlier, active"}
    assert hooked == {"filter-prerouting", "filter-output-post-dnat"}
    assert Effect.TRAFFIC in effects(comparison)
    assert None not in notes(comparison)
    assert "v1.34" in comparison.fitting


def test_what_v135_leaves_to_v136(dumps):
    name = "v1.36.3/nft-v4"
    text = with_nft(dumps.text(name), chain_of(dumps.text("v1.35.6/nft-v4"), "mark-for-masquerade"))
    comparison = check(dumps.proxy(name), text, name)
    assert notes(comparison) == {"mark-for-masquerade of v1.35 or earlier, unused"}
    assert effects(comparison) == {Effect.UNUSED}


def test_going_back_from_v136(dumps):
    name = "v1.35.6/nft-v4"
    text = with_nft(dumps.text(name), chain_of(dumps.text("v1.36.3/nft-v4"), "hairpin-connections", "set"))
    [found, *_] = re.finditer(r"\tchain endpoint-\S+ \{\n(\t\tip saddr \S+ jump mark-for-masquerade\n)\t\tupdate", text)
    text = text[: found.start(1)] + text[found.end(1) :]
    comparison = check(dumps.proxy(name), text, name)
    assert notes(comparison) == {
        "hairpin-connections of v1.36 or later, unused",
        "lost by going back from v1.36, which has no rule of this kind",
    }
    assert [one.kind for one in comparison.differences if one.effect is Effect.TRAFFIC] == ["missing"]


@pytest.mark.parametrize("said", cover.sample(["v1.31", "v1.33.13", "v1.35"], 1))
def test_the_rules_of_v136_are_no_leftovers(dumps, said):
    name = "v1.36.3/nft-v4"
    comparison = check(dumps.proxy(name, version=said), dumps.text(name), name)
    assert notes(comparison) == {None}
    assert {one.cause for one in comparison.differences} == {0}
    assert comparison.fitting == ("v1.36",)


def test_an_empty_chain_goes_with_the_next_sync_of_nftables_mode(dumps):
    name = "v1.33.13/nft-v4"
    text = with_nft(dumps.text(name), "\tchain service-AAAAAAAA-default/gone/tcp/web {\n\t}\n\n")
    comparison = check(dumps.proxy(name), text, name)
    assert comparison.same
    assert any("1 unused chain of what is gone" in note and "in its next sync" in note for note in comparison.notes)


def test_an_empty_chain_that_is_used_is_extra(dumps):
    name = "v1.33.13/nft-v4"
    text = with_nft(dumps.text(name), "\tchain service-AAAAAAAA-default/gone/tcp/web {\n\t}\n\n")
    text = text.replace(
        "\tchain services {\n", "\tchain services {\n\t\tjump service-AAAAAAAA-default/gone/tcp/web\n", 1
    )
    differences = check(dumps.proxy(name), text, name).differences
    assert {(one.kind, one.name) for one in differences} == {
        ("extra", "services"),
        ("extra", "service-AAAAAAAA-default/gone/tcp/web"),
    }


FROM_IPTABLES = """\
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter packets 0 bytes 0 jump KUBE-FIREWALL
	}

	chain KUBE-FIREWALL {
		ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 counter packets 0 bytes 0 drop
	}

	chain KUBE-PROXY-CANARY {
	}
}
"""


def test_what_iptables_mode_leaves_to_nftables_mode(dumps):
    name = "v1.33.13/nft-v4"
    comparison = check(dumps.proxy(name), dumps.text(name) + FROM_IPTABLES, name)
    assert comparison.same
    assert (
        "Left behind by iptables mode, and active: ip filter KUBE-FIREWALL: delete the jumps to it." in comparison.notes
    )
    assert "Left behind by iptables mode, unused: ip filter KUBE-PROXY-CANARY." in comparison.notes


KUBELETS = """\
*nat
:KUBE-MARK-DROP - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
"""
DROP = (
    '-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets"'
    " -m mark --mark 0x8000/0x8000 -j DROP\n"
)


@pytest.mark.parametrize(
    "name", ["v1.17.2/iptables-v4", "v1.22.17/iptables-v4", "v1.26.0/iptables-v4", "v1.33.13/iptables-v4"]
)
def test_the_kubelets_chains_are_the_kubelets(dumps, name):
    """In v1.27 and later they are those of an older kubelet, which a node may have."""
    text = dumps.text(name)
    if ":KUBE-MARK-DROP" not in text:
        text = text.replace("*nat\n", KUBELETS)
    marking = "-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000\n"
    if marking not in text:
        text = text.replace("-A KUBE-MARK-MASQ ", f"{marking}-A KUBE-MARK-MASQ ", 1)
    if ":KUBE-FIREWALL" not in text:
        text = text.replace("*filter\n", "*filter\n:KUBE-FIREWALL - [0:0]\n")
        text = text.replace("-A KUBE-FORWARD ", f"-A INPUT -j KUBE-FIREWALL\n{DROP}-A KUBE-FORWARD ", 1)
    else:
        text = text.replace("-A KUBE-FORWARD ", f"{DROP}-A KUBE-FORWARD ", 1)
    comparison = check(dumps.proxy(name), text, name)
    assert comparison.differences == ()
    older = name.startswith("v1.33")
    assert any("is that of a kubelet of v1.26 or earlier" in note for note in comparison.notes) is older


def test_the_kubelets_chains_alone_are_no_kube_proxy(make_proxy):
    here = Path(__file__).parent
    proxy = make_proxy(Choice(ProxyMode.IPTABLES, "v1.15"), reference=here / "any-range.yaml", node=NOTHING_SAID)
    comparison = check(proxy, (here / "kubelet-chains-v115.txt").read_text(), "node")
    assert {one.kind for one in comparison.differences} == {"missing"}
    assert not {one.name for one in comparison.differences} & {"KUBE-FIREWALL", "KUBE-MARK-DROP"}
    assert comparison.notes == (
        "kube-proxy has written nothing here: the chains whose names begin with KUBE are the kubelet's.",
    )
    assert comparison.causes == ()
