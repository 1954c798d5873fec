"""What ``nft -j list ruleset`` prints, read by what this kernel makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.kubeproxy.said import from_words
from lab.netns import Namespace, Nft
from lab.rules import json_dump
from lab.rules.check import check
from lab.rules.read_dump import given, read
from lab.rules.source import Choice
from lab.vocabulary import Family, ProxyMode

HERE = Path(__file__).parent
#: Of a node with v1.33's rules and a firewall of its own; and one with v1.34's as text, with a warning of nft's.
JSON = (HERE / "nft-ruleset.json").read_text()
WARNED = (HERE / "nft-ruleset-warnings.txt").read_text()
NODE = from_words({"node_name": "w1", "node_addresses": "10.66.0.1", "cluster_cidrs": "10.66.0.0/16"})


def test_what_it_is(make_proxy):
    assert given(JSON, "").mode is ProxyMode.NFTABLES
    assert given(f"# Warning: table ip mangle is managed by iptables-nft, do not touch!\n{JSON}", "").mode


def test_others_are_counted_as_in_text():
    """Rules alone: no properties of chains and sets, no elements."""
    text = WARNED.replace("table inet hostfw {", 'table inet hostfw {\n\tchain empty {\n\t\tcomment "none"\n\t}\n')
    assert json_dump.read(JSON, "", Family.IPV4).others == {"ip6 kube-proxy": 22, "inet hostfw": 1}
    assert read(text, "", Family.IPV4).others == {"ip6 kube-proxy": 22, "inet hostfw": 1}
    for other in (json_dump.read(JSON, "", Family.IPV6).others, read(text, "", Family.IPV6).others):
        assert other == {"ip kube-proxy": 30, "inet hostfw": 1}


def test_chains_come_before_what_goes_to_them_and_elements_in_portions():
    many = json.loads(JSON)
    for one in many["nftables"]:
        if one.get("set", {}).get("name") == "cluster-ips" and one["set"]["family"] == "ip":
            one["set"]["elem"] = [f"10.0.{number // 250}.{number % 250}" for number in range(450)]
    objects = json_dump.read(json.dumps(many), "", Family.IPV4).objects
    kinds = [kind for one in objects for kind in one]
    order = ["table", "chain", "set", "map", "element", "rule"]
    assert kinds == sorted(kinds, key=order.index)
    assert set(kinds) == set(order)
    portions = [len(one["element"]["elem"]) for one in objects if one.get("element", {}).get("name") == "cluster-ips"]
    assert portions == [200, 200, 50]
    assert not any("handle" in content for one in objects for content in one.values())
    assert {content["family"] for one in objects for content in one.values()} == {"ip"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (JSON[:5000], r"dump:1: no JSON: .* \(was it cut off\? give what"),
        (f"# Warning: x\n{json.dumps(json.loads(JSON), indent=1)[:-10]}", r"dump:\d{3,}: no JSON: "),
        ('{"nftables": 5}', "dump: JSON, but not nft's"),
        ('{"items": []}', "dump: JSON, but not nft's"),
        ('{"nftables": [[1]]}', "dump: JSON, but not nft's"),
        ('{"nftables": [{"table": 7}]}', "dump: JSON, but not nft's"),
        ('{"nftables": [{"metainfo": {"version": "1.0.6"}}]}', "dump: there is no table ip kube-proxy in it"),
        (
            '{"nftables": [{"chain": {"family": "ip", "table": "nat", "name": "KUBE-SERVICES"}}]}',
            "no table ip kube-proxy in it .*iptables mode: give what iptables-save prints",
        ),
    ],
)
def test_what_is_no_dump_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        json_dump.read(text, "dump", Family.IPV4)


@pytest.mark.lab_kernel
class TestKernel:
    @pytest.fixture
    def proxy(self, make_proxy):
        def proxy(version, family=Family.IPV4):
            return make_proxy(Choice(ProxyMode.NFTABLES, version), family, HERE / "nft-objects.yaml", NODE)

        return proxy

    @pytest.fixture
    def listed(self):
        """Return what nft prints of a script that was loaded, as JSON."""

        def listed(script):
            namespace = Namespace.create()
            nft = Nft(namespace)
            nft.run(script)
            text = nft.run("list ruleset", json=True)
            nft.close()
            namespace.close()
            return text

        return listed

    def test_a_nodes_json_has_the_rules(self, proxy):
        comparison = check(proxy("v1.33.5"), JSON, "node")
        assert comparison.differences == ()
        assert comparison.left_out == (
            "22 rules of kube-proxy for ipv6 not compared: ip6 kube-proxy (give --family ipv6 for that).",
            "1 rule of others left out: inet hostfw.",
            "The comments of tables, chains, sets and maps are not compared: JSON lacks some.",
        )

    def test_a_nodes_text_with_a_warning_has_the_rules(self, proxy):
        comparison = check(proxy("v1.34"), WARNED, "node")
        assert comparison.differences == ()
        assert comparison.left_out == (
            "22 rules of kube-proxy for ipv6 not compared: ip6 kube-proxy (give --family ipv6 for that).",
            "1 rule of others left out: inet hostfw.",
        )

    @pytest.mark.parametrize("family", list(Family), ids=str)
    @pytest.mark.parametrize("version", ["v1.31", "v1.34", "v1.36"])
    def test_every_shape_by_json(self, make_proxy, listed, version, family):
        proxy = make_proxy(Choice(ProxyMode.NFTABLES, version), family)
        (script,) = proxy.render()
        assert check(proxy, listed(script), "node").same
        pretty = json.dumps(json.loads(listed(script)), indent=2)
        assert check(proxy, f"# Warning: something\n{pretty}\n# Warning: at the end\n", "node").same

    def test_a_difference_has_no_line(self, proxy, listed, lab_rules, tmp_path):
        (script,) = proxy("v1.33.5").render()
        text = listed(script.replace("masquerade fully-random", "masquerade random"))
        [difference] = check(proxy("v1.33.5"), text, "node").differences
        assert (difference.expected, difference.found) == ("masquerade fully-random", "masquerade random")
        assert difference.line is None
        node = tmp_path / "node.json"
        node.write_text(text)
        node_words = ("--proxy-version", "v1.33", "--node-name", "w1", "--node-address", "10.66.0.1")
        words = (HERE / "nft-objects.yaml", "--diff", node, *node_words, "--cluster-cidr", "10.66.0.0/16")
        assert "the node: masquerade random" in lab_rules(*words, code=1).stdout
        assert lab_rules(*words, "--json", code=1).json()[0]["differences"][0]["line"] is None

    def test_what_cannot_be_loaded_is_no_difference(self, proxy):
        strange = json.loads(JSON)
        strange["nftables"].append(
            {"rule": {"family": "ip", "table": "kube-proxy", "chain": "services", "expr": [{"unheard-of": None}]}}
        )
        with pytest.raises(InputError, match=r"node: nft's JSON, but it cannot be loaded here .*without -j"):
            check(proxy("v1.33.5"), json.dumps(strange), "node")
