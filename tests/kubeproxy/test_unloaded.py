"""What is written without loading it is what this kernel gives back of the same rules, line by line."""

from __future__ import annotations

import dataclasses

import pytest

from lab.kubeproxy.options import DetectLocalMode
from lab.rules import check, saving
from lab.rules.expected import expected, printed
from lab.rules.listed import listed
from lab.rules.read_dump import read
from lab.rules.restored import UnknownFormError, restored
from lab.rules.scratch import saved
from lab.rules.source import Choice, proxies
from lab.topology.reader import shipped
from lab.vocabulary import Backend, Family, ProxyMode

FAMILIES = ("v4", "v6")
RELEASES = ("v1.14.0", "v1.18.6", "v1.20.0-rc.0", "v1.22.17", "v1.23.4", "v1.24.3", "v1.26.0", "v1.29.1", "v1.36.3")
NFT_RELEASES = ("v1.29.1", "v1.30.3", "v1.31.14", "v1.33.5", "v1.33.13", "v1.36.3")
SETTINGS = {
    "masquerade all": {"masquerade_all": True},
    "no cluster CIDR": {"cluster_cidrs": ()},
    "a CIDR with bits of hosts": {"cluster_cidrs": ("10.244.3.7/16", "fd44::7/64")},
    "a bridge": {"detect_local_mode": DetectLocalMode.BRIDGE, "pod_bridge_interface": "cni0"},
    "a prefix": {"detect_local_mode": DetectLocalMode.INTERFACE_PREFIX, "pod_interface_name_prefix": "veth"},
    "node port addresses": {"node_port_addresses": ("192.168.50.0/24", "fd50::/64")},
    "the primary address": {"node_port_addresses": ("primary",)},
    "any address": {"node_port_addresses": ("0.0.0.0/0", "::/0")},
    "not at 127.0.0.1": {"localhost_node_ports": False},
    "another bit": {"masquerade_bit": 3},
    "be liberal": {"conntrack_tcp_be_liberal": True},
    "no service CIDR": {"service_cidrs": ()},
}


def without_nfacct(proxy):
    """This kernel may have none."""
    return dataclasses.replace(proxy, options=dataclasses.replace(proxy.options, nfacct=False))


def prove(proxy):
    """Load the rules, and hold what is given back against what is written, as text and as a dump."""
    proxy = without_nfacct(proxy)
    loaded, written = saved(proxy), printed(proxy, proxy.render())
    if proxy.mode is ProxyMode.IPTABLES:
        # The backends have their tables in other orders.
        assert sorted(written.split("COMMIT\n")) == sorted(loaded.split("COMMIT\n"))
    else:
        assert outside_of_elements(written) == outside_of_elements(loaded)
    family = proxy.options.family
    found = contents(read(loaded, "loaded", family))
    assert contents(read(written, "written", family)) == found
    assert contents(expected(proxy)) == found


def contents(dump):
    containers = {
        place: (one.kind, [line.text for line in one.lines], sorted(line.text for line in one.elements))
        for place, one in dump.containers.items()
    }
    return dump.mode, dump.tables, containers


def outside_of_elements(text):
    """Elements stand in another order, which says nothing; and so many on a line as fit."""
    return [line for line in text.split("\n") if not line.startswith(("\t\telements = ", "\t\t\t"))]


@pytest.mark.lab_kernel
class TestKernel:
    @pytest.mark.parametrize("backend", Backend)
    @pytest.mark.parametrize("kind", FAMILIES)
    @pytest.mark.parametrize("version", RELEASES)
    def test_iptables(self, dumps, version, kind, backend):
        prove(dataclasses.replace(dumps.proxy(f"{version}/iptables-{kind}"), backend=backend))

    @pytest.mark.parametrize("kind", FAMILIES)
    @pytest.mark.parametrize("version", NFT_RELEASES)
    def test_nft(self, dumps, version, kind):
        prove(dumps.proxy(f"{version}/nft-{kind}"))

    @pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
    @pytest.mark.parametrize("name", ["v1.22.17/iptables", "v1.36.3/iptables", "v1.31.14/nft", "v1.36.3/nft"])
    def test_settings(self, dumps, name, settings):
        if name == "v1.31.14/nft" and "detect_local_mode" in settings:
            pytest.skip("it asks for an interface by its number, which has to be there")
        for kind in FAMILIES:
            prove(dumps.proxy(f"{name}-{kind}", **settings))

    @pytest.mark.parametrize("name", [name for name, _ in shipped()])
    @pytest.mark.parametrize("choice", [Choice(ProxyMode.IPTABLES, "v1.29"), Choice(ProxyMode.NFTABLES, "v1.35")])
    def test_shipped_topologies(self, name, choice):
        for family in Family:
            for proxy in proxies(name, family, choice):
                prove(proxy)

    def test_what_is_not_known_is_loaded_and_that_is_said(self, dumps, monkeypatch):
        def unknown(_):
            raise UnknownFormError("it is not known")

        monkeypatch.setattr(check, "expected", unknown)
        for name in ("v1.36.3/iptables-v4", "v1.36.3/nft-v4"):
            proxy = without_nfacct(dumps.proxy(name))
            comparison = check.check(proxy, saved(proxy), "own")
            assert comparison.same
            assert any("were loaded here, by " in said for said in comparison.left_out)

    def test_very_many_are_not_loaded_unless_it_is_asked_for(self, dumps, monkeypatch):
        monkeypatch.setattr(saving, "MANY", 100)
        for name, words in (("iptables-v4", "as iptables-save prints them"), ("nft-v4", "as nft list table prints")):
            proxy = without_nfacct(dumps.proxy(f"v1.36.3/{name}"))
            result = saving.save(proxy, load=False)
            assert result.text == printed(proxy, proxy.render())
            assert words in result.note
            assert saving.save(proxy, load=True) == saving.Saved(saved(proxy))

    def test_very_many_that_are_not_known_are_loaded_by_the_quicker_backend(self, dumps, monkeypatch):
        def unknown(*_):
            raise UnknownFormError("it is not known")

        monkeypatch.setattr(saving, "MANY", 100)
        monkeypatch.setattr(saving, "printed", unknown)
        proxy = without_nfacct(dumps.proxy("v1.36.3/iptables-v4"))
        result = saving.save(proxy, load=False)
        assert result.text == saved(dataclasses.replace(proxy, backend=Backend.LEGACY))
        assert "loaded by iptables-legacy" in result.note


# --- What is not known is refused, never guessed --------------------------------------------------------

CHAINS = "*nat\n:KUBE-A - [0:0]\n:KUBE-B - [0:0]\n{}\nCOMMIT\n"
UNKNOWN_RULES = (
    "-A KUBE-A -m limit --limit 3/s -j KUBE-B",
    "-A KUBE-A -m comment --comment a --other b -j KUBE-B",
    "-A KUBE-A -m tcp -p tcp --sport 80 -j KUBE-B",
    "-A KUBE-A -m tcp -p tcp ! --dport 80 -j KUBE-B",
    "-A KUBE-A -j LOG",
    "-A KUBE-A -j KUBE-B --random",
    "-A KUBE-A -j KUBE-C",
    "-A KUBE-A -g KUBE-B",
    "-A KUBE-C -j KUBE-B",
    "-A KUBE-A ! -s 0.0.0.0/0 -j KUBE-B",
    "-A KUBE-A -s 10.0.0.0/33 -j KUBE-B",
    "-A KUBE-A -s fd00::1 -j KUBE-B",
    "-A KUBE-A -s",
    '-A KUBE-A -m comment --comment "a \\" b" -j KUBE-B',
    '-A KUBE-A -m comment --comment "it\'s" -j KUBE-B',
    f'-A KUBE-A -m comment --comment "{"a" * 256}" -j KUBE-B',
    "-A KUBE-A -m conntrack --ctstate OTHER -j KUBE-B",
    "-A KUBE-A -m mark --mark 0x1 -j KUBE-B",
    "-A KUBE-A -j MARK --and-mark 0x1",
    "-A KUBE-A -m statistic --mode nth --every 2 -j KUBE-B",
    "-X KUBE-A",
    "*security",
)


@pytest.mark.parametrize("rule", UNKNOWN_RULES)
def test_an_unknown_rule_is_refused(rule):
    restored([CHAINS.format("-A KUBE-A -s 10.0.0.0/8 -j KUBE-B")], Family.IPV4)
    with pytest.raises(UnknownFormError, match="not known"):
        restored([CHAINS.format(rule)], Family.IPV4)


TABLE = """\
add table ip kube-proxy {{ comment "rules for kube-proxy" ; }}
add chain ip kube-proxy a
add chain ip kube-proxy b
add set ip kube-proxy s {{ type ipv4_addr ; comment "some" ; }}
{}
"""
UNKNOWN_COMMANDS = (
    "add rule ip kube-proxy a log",
    "add rule ip kube-proxy a jump c",
    "add rule ip kube-proxy c jump b",
    "add rule ip kube-proxy a ip saddr @t drop",
    "add rule ip kube-proxy a ip saddr 10.0.0.0/33 drop",
    "add rule ip kube-proxy a ip saddr 10.0.0.1, drop",
    "add rule ip kube-proxy a ct state established accept",
    'add rule ip kube-proxy a iif "veth*" drop',
    'add rule ip kube-proxy a comment "a" drop',
    "add element ip kube-proxy s { 10.0.0.0/8 }",
    "add element ip kube-proxy t { 10.0.0.1 }",
    "add element ip kube-proxy s { 10.0.0.1 timeout 3s }",
    "add set ip kube-proxy t { type ipv4_addr ; size 3 ; }",
    "add chain ip kube-proxy c { type filter hook input priority 0 ; policy drop ; }",
    "delete chain ip kube-proxy s",
    "add rule ip other a drop",
    "add rule ip6 kube-proxy a drop",
    "list ruleset",
    "nonsense",
)


@pytest.mark.parametrize("command", UNKNOWN_COMMANDS)
def test_an_unknown_command_is_refused(command):
    listed(TABLE.format("add rule ip kube-proxy a ip saddr @s jump b"), Family.IPV4)
    with pytest.raises(UnknownFormError, match="not known"):
        listed(TABLE.format(command), Family.IPV4)


RANGES = {
    "10.0.0.0/25 , 10.0.0.128/25": "{ 10.0.0.0/24 }",
    "10.0.0.0/25 , 10.0.0.128/25 , 10.0.1.0/24 , 10.0.2.0/24": "{ 10.0.0.0-10.0.2.255 }",
    "0.0.0.0/0": "0.0.0.0/0",
    "10.0.0.1/8": "10.0.0.0/8",
    "10.0.0.1/32": "10.0.0.1",
    "10.0.0.3 , 10.0.0.1 , 10.0.0.2": "{ 10.0.0.1, 10.0.0.2, 10.0.0.3 }",
    "10.0.0.1 , 10.0.0.2/32 , 10.0.0.9/30": "{ 10.0.0.1-10.0.0.2, 10.0.0.8/30 }",
    "10.0.0.1 , 10.0.0.0/24, 10.0.0.0/24": "{ 10.0.0.0/24 }",
}


@pytest.mark.parametrize(("given", "wanted"), RANGES.items())
def test_ranges(given, wanted):
    listing = listed(TABLE.format(f"add rule ip kube-proxy a ip saddr != {{ {given} }} drop"), Family.IPV4)
    assert f"\t\tip saddr != {wanted} drop\n" in listing.text()


@pytest.mark.lab_kernel
@pytest.mark.parametrize(("given", "wanted"), RANGES.items())
def test_so_the_kernel_has_ranges(in_namespace, given, wanted):
    script = TABLE.format(f"add rule ip kube-proxy a ip saddr != {{ {given} }} drop")
    assert f"\t\tip saddr != {wanted} drop\n" in in_namespace("nft -f rules; nft list ruleset", rules=script)
