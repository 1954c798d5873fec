"""The way that a packet takes, told from routes alone: no kernel is asked."""

from pathlib import Path

import pytest

from lab.errors import InputError
from lab.evidence.packet import SocketAddress
from lab.scenario.roles import judge, roles_in
from lab.topology.reader import load, parse
from lab.topology.ways import way, way_out
from lab.vocabulary import Family

INPUTS = Path(__file__).parents[1] / "support" / "inputs"
TOPOLOGIES = Path(__file__).parents[2] / "topologies"


@pytest.mark.parametrize(
    ("topology", "source", "destination", "hosts"),
    [
        ("kube-proxy", "client", "10.0.1.2", ("client", "node", "server")),
        ("kube-proxy", "server", "10.0.0.2", ("server", "node", "client")),
        ("kube-proxy", "node", "10.0.0.1", ("node",)),
        ("asymmetric", "client", "10.0.1.2", ("client", "router", "server")),
        ("asymmetric", "server", "10.0.0.2", ("server", "node", "client")),
        ("asymmetric", "client", "fd00:10:0:1::2", ("client", "router", "server")),
        ("across-nodes", "client", "10.2.1.2", ("client", "node-a", "node-b", "server")),
        ("kube-proxy", "client", "192.168.0.2", ("client", "node")),  # a VIP is nobody's
    ],
)
def test_ways(topology, source, destination, hosts):
    assert way(load(topology), source, destination) == hosts


def test_the_longest_prefix_decides_and_not_the_order_of_the_links():
    for name in ("bridge-shortcut", "bridge-shortcut_swapped"):
        topology = load(INPUTS / f"{name}.yaml")
        assert way_out(topology, "stock", "10.61.1.2").interface == "direct"
        assert way_out(topology, "stock", "10.61.1.1").interface == "eth0"


def test_no_route_no_way():
    topology = load(INPUTS / "oneway-otherhalf.yaml")
    assert way_out(topology, "outside", "172.28.0.9") is None
    assert way(topology, "outside", "172.28.0.9") == ("outside",)


def test_hosts_that_send_a_packet_in_a_circle_come_to_an_end():
    text = """
topology: circle
hosts:
  a: {routes: [{to: default, via: 10.0.0.2}]}
  b: {forwarding: true, routes: [{to: 10.9.0.0/16, via: 10.0.1.2}]}
  c: {forwarding: true, routes: [{to: 10.9.0.0/16, via: 10.0.1.1}]}
links:
  - [{host: a, interface: b, addresses: [10.0.0.1/24]}, {host: b, interface: a, addresses: [10.0.0.2/24]}]
  - [{host: b, interface: c, addresses: [10.0.1.1/24]}, {host: c, interface: b, addresses: [10.0.1.2/24]}]
"""
    assert way(parse(text), "a", "10.9.9.9") == ("a", "b", "c")


def test_the_node_that_the_packets_pass_judges_whatever_comes_first_in_the_file():
    spare = "hosts:\n  spare: {forwarding: true, proxy-mode: iptables}\n"
    topology = parse((TOPOLOGIES / "kube-proxy.yaml").read_text().replace("hosts:\n", spare, 1))
    assert topology.nodes[0].name == "spare"
    assert roles_in(topology, Family.IPV4).node == "node"


def test_where_no_node_is_on_the_way_it_is_said():
    topology = load(INPUTS / "bridge-shortcut.yaml")
    client, server = SocketAddress("10.61.9.1", 1), SocketAddress("10.61.9.2", 1)
    with pytest.raises(InputError, match="no node with proxy-mode is on the way"):
        judge(topology, "shop", client, ("stock", server))
