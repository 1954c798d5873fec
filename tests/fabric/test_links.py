"""Links as the kernel has them: bridges and their ports, MTUs, and a host's own sysctls."""

from __future__ import annotations

import dataclasses
import json

import pytest

from lab.errors import LabError, MissingError
from lab.fabric.lab import Lab
from lab.topology.model import Link
from lab.topology.reader import load
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


def devices(lab, host):
    listed = json.loads(lab.hosts[host].run("ip", "-d", "-j", "address", "show"))
    return {one["ifname"]: one for one in listed}


def node(topology, **options):
    hosts = [dataclasses.replace(one, **options) if one.name == "node" else one for one in topology.hosts]
    return dataclasses.replace(topology, hosts=tuple(hosts))


@pytest.mark.parametrize("is_on", [True, False])
def test_a_bridge_has_its_ports_and_the_addresses(is_on):
    topology = node(load("bridge"), hairpin=is_on, promiscuous=is_on, bridge_nf_call_iptables=is_on)
    with Lab(topology) as lab:
        found = devices(lab, "node")
        ports = [name for name, one in found.items() if one.get("master") == "cbr0"]
        assert ports == ["client", "server-1", "server-2"]
        for name in ports:
            assert found[name]["linkinfo"]["info_slave_data"]["hairpin"] is is_on
            assert not [one for one in found[name]["addr_info"] if one["scope"] == "global"]
        own = [one["local"] for one in found["cbr0"]["addr_info"]]
        assert own == ["10.1.0.1", "fd00:10:1::1"]
        assert (found["cbr0"]["promiscuity"] > 0) is is_on
        for family in ("iptables", "ip6tables"):
            assert lab.hosts["node"].namespace.sysctl(f"net/bridge/bridge-nf-call-{family}") == str(int(is_on))


def test_a_links_end_has_its_mtu():
    topology = load("kube-proxy")
    first, *others = topology.links
    near = dataclasses.replace(first.ends[0], mtu=1400)
    far = dataclasses.replace(first.ends[1], mtu=9000)
    with Lab(dataclasses.replace(topology, links=(Link((near, far)), *others))) as lab:
        assert devices(lab, near.host)[near.interface]["mtu"] == 1400
        assert devices(lab, far.host)[far.interface]["mtu"] == 9000
        assert devices(lab, "server")["eth0"]["mtu"] == 1500


def test_a_host_has_its_sysctls_also_those_of_interfaces_and_conntrack():
    said = {
        "net/ipv4/conf/client/rp_filter": "2",
        "net/ipv4/conf/all/rp_filter": "1",
        "net/netfilter/nf_conntrack_tcp_timeout_established": "77",
    }
    with Lab(node(load("kube-proxy"), sysctls=tuple(said.items())), family=Family.IPV4) as lab:
        assert {key: lab.hosts["node"].namespace.sysctl(key) for key in said} == said
        assert lab.hosts["client"].namespace.sysctl("net/ipv4/conf/all/rp_filter") == "0"


def test_a_sysctl_that_is_not_there_or_not_taken_is_named():
    with pytest.raises(MissingError, match="node: this kernel has no sysctl net/ipv4/nothing"):
        Lab(node(load("kube-proxy"), sysctls=(("net/ipv4/nothing", "1"),)))
    with pytest.raises(LabError, match="node: the kernel takes no net/ipv4/tcp_sack=many: Invalid argument"):
        Lab(node(load("kube-proxy"), sysctls=(("net/ipv4/tcp_sack", "many"),)))


@pytest.mark.parametrize("family", [*Family, None], ids=str)
def test_a_tunnel_travels_by_the_nodes_own_link(family):
    with Lab(load("vxlan"), family=family) as lab:
        tunnel = devices(lab, "node-a")["flannel.1"]
        its = tunnel["linkinfo"]["info_data"]
        ipv6 = family is Family.IPV6
        ends = (its["local6"], its["remote6"]) if ipv6 else (its["local"], its["remote"])
        assert ends == (("2001:db8:2::1", "2001:db8:2::2") if ipv6 else ("192.0.2.1", "192.0.2.2"))
        assert (its["id"], its["port"], its["link"], its["learning"]) == (1, 8472, "node-b", False)
        assert tunnel["mtu"] == (1430 if ipv6 else 1450)
