"""kube-proxy's settings on a running node: what a case comes to by them, and what is expected of it."""

from __future__ import annotations

import asyncio

import pytest

from lab.cases import find
from lab.errors import InputError
from lab.fabric.lab import Lab
from lab.fixes import DROP_FORWARD, NONE
from lab.kubeproxy.said import from_words
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial import batch
from lab.vocabulary import BE_LIBERAL, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel


def tried(fix, mode, version, said, family=Family.IPV4):
    selection = batch.select(
        [find("beyond-window")], [fix], load("kube-proxy"), family, (mode, version, None), settings=from_words(said)
    )
    report = asyncio.run(batch.run(selection.settings, family, 1))
    [tally] = report.tallies
    assert tally.good, tally
    return tally


@pytest.mark.parametrize("version", ["v1.29", "v1.36"])
@pytest.mark.parametrize("mode", ProxyMode)
def test_be_liberal_by_kube_proxy_is_what_the_fix_is(mode, version):
    """And there is no drop of INVALID, which stands at a node without it in iptables mode."""
    tally = tried(NONE, mode, version, {"conntrack_tcp_be_liberal": "true"})
    assert tally.sample.verdict.outcome == "delivered"
    assert tally.trial.settings == ("--conntrack-tcp-be-liberal=true",)
    without = tried(NONE, mode, version, {"conntrack_tcp_be_liberal": "false"})
    drops = mode is ProxyMode.IPTABLES or version == "v1.29"
    assert without.sample.verdict.outcome == ("dropped" if drops else "reset")


def test_be_liberal_is_set_on_the_node_alone():
    with Lab(
        with_proxy(load("kube-proxy"), None, "v1.29", None, from_words({"conntrack_tcp_be_liberal": True}))
    ) as lab:
        values = {name: host.run("cat", f"/proc/sys/{BE_LIBERAL}").strip() for name, host in lab.hosts.items()}
        rules = lab.hosts["node"].xtables.save(4)
    assert values == {"client": "0", "node": "1", "server": "0"}
    assert "--ctstate INVALID -j DROP" not in rules


def _interface(kind, name):
    word = {"BridgeInterface": "pod_bridge_interface", "InterfaceNamePrefix": "pod_interface_name_prefix"}[kind]
    return {"detect_local_mode": kind, word: name}


@pytest.mark.parametrize(
    ("said", "local"),
    [
        (_interface("BridgeInterface", "client"), True),
        (_interface("BridgeInterface", "server"), False),
        (_interface("InterfaceNamePrefix", "cli"), True),
        (_interface("InterfaceNamePrefix", "ser"), False),
        ({"detect_local_mode": "NodeCIDR", "node_pod_cidrs": "10.0.0.0/24,fd00:10::/64"}, True),
        ({"detect_local_mode": "NodeCIDR", "node_pod_cidrs": "10.0.1.0/24,fd00:10:0:1::/64"}, False),
        ({"cluster_cidrs": "10.0.0.0/16,fd00:10::/48"}, True),
        ({"cluster_cidrs": "10.0.1.0/24,fd00:10:0:1::/64"}, False),
        ({}, True),
        ({"masquerade_all": True}, False),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize(
    ("mode", "version", "family"),
    [
        (ProxyMode.IPTABLES, "v1.24", Family.IPV4),
        (ProxyMode.IPTABLES, "v1.36", Family.IPV6),
        (ProxyMode.NFTABLES, "v1.36", Family.IPV4),
    ],
)
def test_who_is_a_local_pod_is_not_masqueraded(mode, version, family, said, local):
    """Where the client is masqueraded its answers end at the node, and the drop in FORWARD does not help."""
    tally = tried(DROP_FORWARD, mode, version, said, family)
    assert tally.sample.verdict.outcome == ("dropped" if local else "reset")


def test_a_version_as_people_write_it_is_that_of_the_result():
    tally = tried(NONE, ProxyMode.IPTABLES, "1.33.6+k3s1", {})
    assert tally.trial.proxy_version == "v1.33.6+k3s1"
    assert tried(NONE, ProxyMode.IPTABLES, "1.14", {}).trial.proxy_version == "v1.14"


def test_ranges_of_cluster_ips_are_the_clusters():
    """A node that knows them drops what goes to one that no Service has; a node that does not refuses them."""
    said = from_words({"service_cidrs": "192.168.0.0/24"})
    with Lab(with_proxy(load("kube-proxy"), ProxyMode.NFTABLES, "v1.33", None, said), family=Family.IPV4) as lab:
        assert "ip daddr 192.168.0.0/24 drop" in lab.hosts["node"].nft.run("list table ip kube-proxy")
    tally = tried(NONE, ProxyMode.NFTABLES, "v1.33", {"service_cidrs": "192.168.0.0/24", "masquerade_all": True})
    assert set(tally.trial.settings) == {"--service-cidr=192.168.0.0/24", "--masquerade-all=true"}
    with pytest.raises(InputError, match=r"^--service-cidr: is for nftables mode"):
        with_proxy(load("kube-proxy"), None, None, None, said)


def test_localhost_node_ports_are_a_setting_of_the_node():
    def route_localnet(said):
        with Lab(with_proxy(load("kube-proxy"), None, "v1.29", None, from_words(said))) as lab:
            return lab.hosts["node"].run("cat", "/proc/sys/net/ipv4/conf/all/route_localnet").strip()

    assert route_localnet({}) == "1"
    assert route_localnet({"localhost_node_ports": "false"}) == "0"
