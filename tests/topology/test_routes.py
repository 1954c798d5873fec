"""Where a host sends a packet, and which address a node is known by."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.kubeproxy.nftables import render
from lab.topology.kube_proxy import proxy_options
from lab.topology.node_change import NodeChange
from lab.topology.reader import load, parse
from lab.topology.routes import forwarded_by, leads_to, next_hop, node_address
from lab.topology.ways import way
from lab.vocabulary import Family

PLACE = """
topology: place
hosts:
  pod: {{routes: [{{to: default, via: 10.1.0.1}}]}}
  node: {{forwarding: true, proxy-mode: nftables{node}}}
  router: {{forwarding: true, routes: [{{to: 10.0.0.0/8, via: 192.0.2.1}}]}}
  other: {{forwarding: true, proxy-mode: nftables}}
links:
  - - {{host: node, interface: pod, addresses: [10.1.0.1/24]}}
    - {{host: pod, interface: eth0, addresses: [10.1.0.2/24]}}
  - - {{host: node, interface: up, addresses: [192.0.2.1/24]}}
    - {{host: router, interface: node, addresses: [192.0.2.2/24]}}
  - - {{host: node, interface: other, addresses: [198.51.100.1/24]}}
    - {{host: other, interface: node, addresses: [198.51.100.2/24]}}
"""
DEFAULT = ", routes: [{to: default, via: 192.0.2.2}]"


def place(node=""):
    return parse(PLACE.format(node=node))


def test_the_longest_prefix_decides():
    routed = place(", routes: [{to: default, via: 192.0.2.2}, {to: 203.0.113.0/24, via: 198.51.100.2}]")
    assert leads_to(routed, "node", "10.1.0.2") == "pod"
    assert leads_to(routed, "node", "203.0.113.9") == "other"
    assert leads_to(routed, "node", "8.8.8.8") == "router"
    assert str(next_hop(routed, "node", "8.8.8.8").source) == "192.0.2.1"
    assert leads_to(routed, "other", "8.8.8.8") is None


def test_the_way_is_told_host_by_host():
    assert forwarded_by(load("congested"), "client", "10.0.2.2") == ("node", "router")
    assert forwarded_by(load("asymmetric"), "client", "10.0.1.2") == ("router",)
    assert forwarded_by(load("asymmetric"), "server", "10.0.0.2") == ("node",)
    assert forwarded_by(load("uplink"), "outside", "10.0.0.2") is None
    assert forwarded_by(load("across-nodes"), "client", "fd00:10:2:1::2") == ("node-a", "node-b")


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("", "198.51.100.1"),  # towards the other node, where no route tells
        (DEFAULT, "192.0.2.1"),
        (f"{DEFAULT}, node-ips: [10.1.0.1]", "10.1.0.1"),
    ],
)
def test_a_node_is_known_by_its_primary_address(node, address):
    given = place(node)
    assert str(node_address(given, "node", Family.IPV4)) == address
    assert node_address(given, "node", Family.IPV6) is None
    options = proxy_options(given, given.host("node"), Family.IPV4, NodeChange())
    options = type(options)(**{**vars(options), "version": "v1.31"})
    [line] = [line for line in render((), (), options).splitlines() if "add element ip kube-proxy nodeport-ips" in line]
    assert line.split("{")[1].strip(" }") == address


def test_somebody_outside_comes_before_pods():
    assert str(node_address(load("uplink"), "node", Family.IPV6)) == "2001:db8::1"
    text = PLACE.format(node="").replace(", routes: [{to: 10.0.0.0/8, via: 192.0.2.1}]", "")
    lonely = text.replace("router: {forwarding: true}", "router: {}").replace(
        "other: {forwarding: true, proxy-mode: nftables}", "other: {routes: [{to: default, via: 198.51.100.1}]}"
    )
    assert str(node_address(parse(lonely), "node", Family.IPV4)) == "192.0.2.1"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "node-ips: [10.9.9.9]",
            "node does not have 10.9.9.9 (its ipv4 addresses are 10.1.0.1, 192.0.2.1, 198.51.100.1)",
        ),
        ("node-ips: [10.1.0.1, 192.0.2.1]", "a second address of ipv4"),
        ("node-ips: [fd00::1]", "node does not have fd00::1 (give it one on a link)"),
    ],
)
def test_an_address_that_the_node_does_not_have_is_refused(key, message):
    with pytest.raises(InputError) as refused:
        place(f", {key}")
    assert message in str(refused.value)
    assert refused.value.line == 5


def test_an_address_of_a_node_says_nothing_of_a_pod():
    with pytest.raises(InputError, match="says nothing without proxy-mode"):
        parse(PLACE.format(node="").replace("pod: {", "pod: {node-ips: [10.1.0.2], "))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (f"{DEFAULT}, rules: [{{table: 7}}]", "hosts.node.rules[0].table: node has no route in table 7"),
        (
            ", routes: [{to: default, via: 192.0.2.2, table: 7}]",
            "hosts.node.routes[0].table: no rule of node leads to table 7",
        ),
        (
            ", routes: [{to: default, via: 192.0.2.2, table: 7}], rules: [{iif: eth9, table: 7}]",
            "hosts.node.rules[0].iif: node has no interface eth9",
        ),
        (
            ', routes: [{to: default, via: 192.0.2.2, table: 7}], rules: [{from: 10.0.0.0/8, to: "::/0", table: 7}]',
            "hosts.node.rules[0].to: ::/0 is ipv6, 10.0.0.0/8 is not",
        ),
        (", routes: [{to: default, via: 192.0.2.2, table: 254}]", "hosts.node.routes[0].table"),
        (", rules: [{fwmark: 1, table: 7}]", "hosts.node.rules[0].fwmark: the number 1 is no packet mark"),
        (", rules: [{from: default, table: 7}]", "hosts.node.rules[0].from: 'default' is no CIDR"),
        (
            ", routes: [{to: default, via: 192.0.2.2, table: 7}, {to: default, via: 198.51.100.2, table: 7}]",
            "hosts.node.routes[1].to: node has a route to 0.0.0.0/0 already",
        ),
    ],
)
def test_rules_and_tables_that_lead_nowhere_are_refused(node, words):
    with pytest.raises(InputError) as refused:
        place(node)
    assert words in str(refused.value)
    assert refused.value.line == 5


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("closed-routes: [{to: 10.1.0.0/24, kind: blackhole}]", "closed-routes[0].to: node has a route to 10.1.0.0/24"),
        ("closed-routes: [{to: 10.8.0.0/24, kind: prohibit, table: 7}]", "closed-routes[0].table: no rule of node"),
        ("closed-routes: [{to: 10.8.0.0/24, kind: throw}]", "closed-routes[0].kind: "),
        ("closed-routes: [{to: default, kind: prohibit}]", "closed-routes[0].to: 'default' is no CIDR"),
        ("closed-routes: [{to: 10.8.0.0/24, via: 10.1.0.2, kind: prohibit}]", "closed-routes[0].via"),
    ],
)
def test_closed_routes_that_are_none_are_refused(keys, words):
    with pytest.raises(InputError) as refused:
        place(f", {keys}")
    assert f"hosts.node.{words}" in str(refused.value)
    assert refused.value.line == 5


def test_a_closed_route_ends_the_way_and_no_further_table_is_asked():
    closed = "closed-routes: [{to: 203.0.113.0/24, kind: unreachable}, {to: 0.0.0.0/0, kind: prohibit, table: 7}]"
    routed = place(f"{DEFAULT}, {closed}, rules: [{{to: 198.18.0.0/15, table: 7}}]")
    assert leads_to(routed, "node", "8.8.8.8") == "router"
    assert leads_to(routed, "node", "203.0.113.9") is None
    assert leads_to(routed, "node", "198.18.0.1") is None


def test_the_first_rule_that_fits_and_leads_on_decides():
    both = "{to: default, via: 192.0.2.2, table: 7}, {to: 203.0.113.0/24, via: 198.51.100.2, table: 8}"
    routed = place(f", routes: [{both}], rules: [{{to: 203.0.113.0/24, table: 8}}, {{iif: lo, table: 7}}]")
    assert leads_to(routed, "node", "203.0.113.9") == "other"
    assert leads_to(routed, "node", "8.8.8.8") == "router"
    assert way(routed, "pod", "8.8.8.8") == ("pod", "node")  # it comes in by another interface
    assert way(routed, "pod", "203.0.113.9") == ("pod", "node", "other")
    marked = place(f", routes: [{both}], rules: [{{fwmark: '0x1/0x1', table: 7}}, {{table: 8}}]")
    assert leads_to(marked, "node", "8.8.8.8") is None  # nothing has marked it
