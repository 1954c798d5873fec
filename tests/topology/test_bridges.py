"""Bridges, tunnels, MTUs and sysctls in a topology file: what is taken, what is refused, and the way."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.topology.reader import load, parse
from lab.topology.routes import is_pod, next_hop
from lab.topology.ways import underlay, way
from lab.vocabulary import Family

FILE = """topology: t
hosts: {a: {}, b: {}, n: {forwarding: true, %s}}
links:
  - [{host: a, interface: eth0, addresses: [10.0.0.2/24]%s}, {host: n, interface: a, %s}]
  - [{host: b, interface: eth0, addresses: [10.0.0.3/24]}, {host: n, interface: b, %s}]
"""
PORT = "bridge: br0, addresses: [10.0.0.1/24]"


def file(options="", end="", one=PORT, other=PORT):
    return FILE % (options, end, one, other)


def test_the_ports_of_a_bridge_have_its_addresses_and_are_one_segment():
    topology = parse(file())
    assert [str(one) for one in topology.addresses("n")] == ["10.0.0.1"]
    assert [end.host for end in topology.neighbours(topology.ends("a")[0])] == ["n", "b"]
    for host, address in (("a", "10.0.0.2"), ("b", "10.0.0.3")):
        hop = next_hop(topology, "n", address)
        assert (hop.end.interface, str(hop.source)) == (host, "10.0.0.1")


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ("proxy-mode: iptables", ("a", "n", "b")),
        ("proxy-mode: iptables, bridge-nf-call-iptables: false", ("a", "b")),
        ("bridge-nf-call-iptables: true", ("a", "n", "b")),
        ("", ("a", "b")),  # who is no node has no rules that want to see it
    ],
)
def test_who_bridges_a_packet_is_on_its_way_where_its_rules_see_that(options, passed):
    assert way(parse(file(options)), "a", "10.0.0.3") == passed


def test_a_bridges_port_leads_to_a_pod():
    topology = load("bridge")
    assert [end.interface for end in topology.ends("node") if is_pod(topology, end)] == [
        "client",
        "server-1",
        "server-2",
    ]


WITHOUT = """topology: t
hosts: {a: {}, n: {%s: true}}
links: [[{host: a, interface: e, addresses: [10.0.0.2/24]}, {host: n, interface: e, addresses: [10.0.0.1/24]}]]
"""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (file(other="addresses: [10.0.0.1/24]"), 5, "n has 10.0.0.1 already"),
        (file(other="bridge: br1, addresses: [10.0.0.1/24]"), 5, "n has 10.0.0.1 already"),
        (file(other="bridge: br0, addresses: [10.0.0.4/24]"), 5, "br0 has other addresses at its port b than at a"),
        (file(one="bridge: b, addresses: [10.0.0.1/24]"), 4, "'b' is no name of a bridge"),
        (file(one="bridge: lo, addresses: [10.0.0.1/24]"), 4, "'lo' is no name of a bridge"),
        (file(other="bridge: br1, addresses: [10.0.0.9/24]"), 5, "subnet 10.0.0.0/24 overlaps 10.0.0.0/24 of links[0]"),
        (file("hairpin: 1"), 2, "hosts.n.hairpin"),
        *(
            (WITHOUT % key, 2, f"hosts.n.{key}: says nothing without a bridge, and n has none")
            for key in ("hairpin", "promiscuous", "bridge-nf-call-iptables")
        ),
        (file(end=", mtu: 67"), 4, "mtu"),
        (file(end=", mtu: '1400'"), 4, "mtu"),
        (file("sysctls: [net.ipv4.ip_forward]"), 2, "must be a mapping"),
        (file("sysctls: {kernel.hostname: x}"), 2, "'kernel.hostname' is no sysctl of a network namespace"),
        (file("sysctls: {net/../kernel/hostname: x}"), 2, "is no sysctl of a network namespace"),
        (file("sysctls: {net.netfilter.nf_conntrack_max: 1}"), 2, "is the whole machine's"),
        (file("sysctls: {net.ipv4.ip_forward: true}"), 2, "must be a number or a text, not true"),
    ],
)
def test_what_cannot_be_is_refused_by_line_and_words(text, line, words):
    with pytest.raises(InputError) as refused:
        parse(text)
    assert words in str(refused.value)
    assert refused.value.line == line


def test_ipv6_wants_a_larger_packet():
    text = file(end=", mtu: 1279").replace("10.0.0.2/24]", '10.0.0.2/24, "fd00::2/64"]')
    text = text.replace("[10.0.0.1/24]", '[10.0.0.1/24, "fd00::1/64"]')
    with pytest.raises(InputError, match=r"1279 is too small for IPv6 .*take 1280 or more"):
        parse(text)


def test_sysctls_are_written_with_dots_or_slashes():
    topology = parse(file("sysctls: {net.ipv4.conf.eth0/1.rp_filter: 2, net/ipv4/tcp_sack: '0'}"))
    assert topology.host("n").sysctls == (
        ("net/ipv4/conf/eth0.1/rp_filter", "2"),
        ("net/ipv4/tcp_sack", "0"),
    )


TUNNEL = """topology: t
hosts: {a: {}, b: {}}
links:
  - [{host: a, interface: t, vxlan: %s, addresses: [10.1.0.1/30]}, {host: b, interface: t, %s addresses: [10.1.0.2/30]}]
"""
UNDERLAY = (
    "  - [{host: a, interface: e, addresses: [10.0.0.1/24]}, {host: b, interface: e, addresses: [10.0.0.2/24]}]\n"
)


def test_a_tunnel_is_a_link_like_others():
    topology = parse(TUNNEL % (7, "vxlan: 7,") + UNDERLAY)
    assert [link.is_tunnel for link in topology.links] == [True, False]
    assert way(topology, "a", "10.1.0.2") == ("a", "b")
    by = underlay(topology, "a", "b", Family.IPV4)
    assert (by.end.interface, str(by.local), str(by.remote)) == ("e", "10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TUNNEL % (7, "vxlan: 7,"), "a and b do not reach each other by ipv4 on links that are no tunnels"),
        (TUNNEL % (7, "vxlan: 8,") + UNDERLAY, "the ends of a tunnel have two numbers, 7 and 8"),
        (TUNNEL % (7, "") + UNDERLAY, " has vxlan 7 at its end of the tunnel, and "),
        (TUNNEL % (0, "vxlan: 0,") + UNDERLAY, "vxlan"),
    ],
)
def test_a_tunnel_that_cannot_be_is_refused(text, words):
    with pytest.raises(InputError) as refused:
        parse(text)
    assert words in str(refused.value)
    assert refused.value.line == 4
