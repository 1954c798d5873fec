"""Links as the kernel has them: bridges and their ports, MTUs, and a host's own sysctls."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import socket
import struct

import pytest

from lab.errors import LabError, MissingError
from lab.fabric.lab import Lab
from lab.topology.model import Link
from lab.topology.reader import load, parse
from lab.vocabulary import Family
from lab.wire.capture import Capture

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


@pytest.mark.parametrize("family", [*Family, None], ids=str)
def test_everybody_on_a_segment_talks_to_everybody_and_nobody_else_hears_it(family):
    topology = load("segment")
    with Lab(topology, family=family) as lab:
        hosts = ("node-a", "node-b", "outside")
        captures = {name: lab.keep(Capture(name, lab.hosts[name].namespace)) for name in hosts}
        for version in [family] if family else Family:
            for asking, asked, other in itertools.permutations(hosts):
                address = str(topology.addresses(asked, version)[0])
                lab.hosts[asking].run("ping", "-c1", "-W5", address)
                counts = {
                    name: sum(address in (one.packet.source.address, one.packet.destination.address) for one in seen)
                    for name, seen in ((name, capture.read()) for name, capture in captures.items())
                }
                assert counts == {asking: 2, asked: 2, other: 0}  # the question and the answer


def test_a_segment_passes_on_what_its_largest_end_sends():
    topology = load("segment")
    first, *others = topology.links
    ends = [dataclasses.replace(end, mtu=9000) if end.host != "outside" else end for end in first.ends]
    with Lab(dataclasses.replace(topology, links=(Link(tuple(ends)), *others)), family=Family.IPV4) as lab:
        lab.hosts["node-a"].run("ping", "-c1", "-W5", "-s", "8900", "-M", "do", "192.0.2.2")
        assert devices(lab, "outside")["eth0"]["mtu"] == 1500


def test_a_host_may_be_the_switch():
    """Without a node's rules nothing has to see what it passes on: br_netfilter is not needed."""
    text = (
        "topology: t\nhosts: {a: {}, b: {}, lan: {}}\nlinks:\n"
        "  - [{host: a, interface: e, addresses: [10.0.0.1/24]}, {host: lan, interface: a, bridge: br}]\n"
        "  - [{host: b, interface: e, addresses: [10.0.0.2/24]}, {host: lan, interface: b, bridge: br}]\n"
    )
    with Lab(parse(text), family=Family.IPV4) as lab:
        lab.hosts["a"].run("ping", "-c1", "-W5", "10.0.0.2")
        assert devices(lab, "lan")["br"]["addr_info"] == []
        assert lab.hosts["lan"].namespace.sysctl("net/bridge/bridge-nf-call-iptables") == "0"


@pytest.mark.parametrize("is_left", [True, False])
def test_an_end_computes_its_checksums_where_it_is_told_to(is_left):
    """What is left to the receiver has the sum of the pseudo header alone (CHECKSUM_PARTIAL, skbuff.h)."""
    topology = load("kube-proxy")
    first, *others = topology.links
    ends = tuple(dataclasses.replace(end, tx_checksum=is_left) for end in first.ends)
    with Lab(dataclasses.replace(topology, links=(Link(ends), *others)), family=Family.IPV4) as lab:
        capture = lab.keep(Capture("node", lab.hosts["node"].namespace))
        client = lab.hosts["client"].namespace
        with contextlib.closing(client.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)) as sender:
            sender.sendto(b"four", ("10.0.0.1", 9))
            seen = [one for one in capture.read() if one.packet.destination.port == 9]
        header = seen[0].data[:20]
        datagram = seen[0].data[20:]
        pseudo = header[12:20] + struct.pack("!BBH", 0, 17, len(datagram))
        words = struct.unpack(f"!{(len(pseudo) + len(datagram)) // 2}H", pseudo + datagram)
        total = sum(words) % 0xFFFF
        assert (total == 0) is not is_left  # RFC 768
