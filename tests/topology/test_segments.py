"""Segments that several hosts share: who is whose neighbour, by which address they send, and what is refused."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.topology.reader import load, parse
from lab.topology.routes import next_hop, node_address, node_of
from lab.topology.ways import step, way
from lab.topology.writer import text_of
from lab.vocabulary import Family

SHARED = """topology: t
hosts:
  a: {routes: [{to: 10.9.0.0/16, via: 10.0.0.3}]}
  b: {}
  c: {forwarding: true}
  d: {}
links:
  - - {host: a, interface: eth0, addresses: [10.0.0.1/24]}
    - {host: b, interface: eth0, addresses: [10.0.0.2/24]}
    - {host: c, interface: eth0, addresses: [10.0.0.3/24]}
  - - {host: c, interface: d, addresses: [10.9.0.1/24]}
    - {host: d, interface: c, addresses: [10.9.0.2/24]}
"""
#: The same, with the switch as a host: its ports have no addresses.
SWITCHED = """topology: t
hosts:
  a: {routes: [{to: 10.9.0.0/16, via: 10.0.0.3}]}
  b: {}
  c: {forwarding: true}
  d: {}
  lan: {}
links:
  - [{host: a, interface: eth0, addresses: [10.0.0.1/24]}, {host: lan, interface: a, bridge: lan0}]
  - [{host: lan, interface: b, bridge: lan0}, {host: b, interface: eth0, addresses: [10.0.0.2/24]}]
  - [{host: lan, interface: c, bridge: lan0}, {host: c, interface: eth0, addresses: [10.0.0.3/24]}]
  - [{host: c, interface: d, addresses: [10.9.0.1/24]}, {host: d, interface: c, addresses: [10.9.0.2/24]}]
"""


@pytest.mark.parametrize("text", [SHARED, SWITCHED], ids=["shared link", "host that switches"])
def test_everybody_on_a_segment_is_a_neighbour(text):
    topology = parse(text)
    others = [end.host for end in topology.neighbours(topology.ends("a")[0]) if end.addresses]
    assert others == ["b", "c"]
    assert way(topology, "a", "10.0.0.2") == ("a", "b")
    assert way(topology, "a", "10.9.0.2") == ("a", "c", "d")
    assert way(topology, "a", "10.0.0.77") == ("a",)  # nobody has it
    hop = next_hop(topology, "a", "10.9.0.2")
    assert (hop.end.interface, str(hop.source), hop.to.host) == ("eth0", "10.0.0.1", "c")
    assert step(topology, "a", "10.9.0.2").bridging == (("lan",) if text == SWITCHED else ())
    assert parse(text_of(topology)) == topology


def test_the_order_of_the_ends_and_of_the_links_changes_nothing():
    text = SHARED.partition("links:")[0] + "links:\n"
    text += (
        "  - [{host: d, interface: c, addresses: [10.9.0.2/24]}, {host: c, interface: d, addresses: [10.9.0.1/24]}]\n"
    )
    text += (
        "  - [{host: c, interface: eth0, addresses: [10.0.0.3/24]},"
        " {host: b, interface: eth0, addresses: [10.0.0.2/24]},"
        " {host: a, interface: eth0, addresses: [10.0.0.1/24]}]\n"
    )
    one, other = parse(SHARED), parse(text)
    for host in ("a", "b", "c", "d"):
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.0.2", "10.9.0.1"):
            assert way(one, host, address) == way(other, host, address)


def test_on_a_shared_segment_nobody_is_a_pod_for_having_a_default_route():
    topology = load("segment")
    assert {host.name: node_of(topology, host.name) for host in topology.hosts} == {
        "client": "node-a",
        "server-a": "node-a",
        "server-b": "node-b",
        "node-a": None,
        "node-b": None,
        "outside": None,
    }
    assert str(node_address(topology, "node-b", Family.IPV4)) == "192.0.2.2"
    text = SHARED.replace("c: {forwarding: true}", "c: {forwarding: true, proxy-mode: iptables}")
    text = text.replace("b: {}", "b: {routes: [{to: default, via: 10.0.0.3}]}")
    text = text.replace("d: {}", "d: {routes: [{to: default, via: 10.9.0.1}]}")
    assert [node_of(parse(text), host) for host in ("a", "b", "d")] == [None, None, "c"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            SHARED.replace("10.0.0.3/24", "10.0.1.3/24"),
            10,
            "10.0.1.3/24 of c is in no subnet of who shares its segment",
        ),
        (SHARED.replace("10.0.0.3/24", "10.0.0.2/24"), 10, "b has 10.0.0.2 already"),
        (
            SHARED.replace("10.9.0.1/24", "10.0.0.9/24").replace("10.9.0.2/24", "10.0.0.8/24"),
            11,
            "overlaps 10.0.0.0/24",
        ),
        (
            SHARED.replace("via: 10.0.0.3", "via: 10.9.0.1"),
            3,
            "10.9.0.1 is on no link of a (its neighbours are 10.0.0.2",
        ),
        (SHARED.replace("host: b, interface: eth0", "host: a, interface: eth1"), 8, "a is linked to itself"),
        (SHARED.replace("24]}\n    -", "24], vxlan: 7}\n    -").replace("3/24]", "3/24], vxlan: 7"), 8, "has two ends"),
        (
            SWITCHED + "  - [{host: lan, interface: e, bridge: lan1}, {host: lan2, interface: e, bridge: br}]\n"
            "  - [{host: lan, interface: f, bridge: lan1}, {host: lan2, interface: f, bridge: br}]\n",
            15,
            "frames of lan e go in a circle by the bridges of lan",
        ),
    ],
)
def test_a_segment_that_cannot_be_is_refused(text, line, words):
    text = text.replace("  lan: {}\n", "  lan: {}\n  lan2: {}\n") if "lan2" in text else text
    with pytest.raises(InputError) as refused:
        parse(text)
    assert words in str(refused.value)
    assert refused.value.line == line


def test_a_segment_has_so_many_ends_at_most():
    ends = "".join(f"    - {{host: h{n}, interface: e, addresses: [10.0.0.{n}/24]}}\n" for n in range(1, 102))
    hosts = ", ".join(f"h{n}: {{}}" for n in range(1, 102))
    with pytest.raises(InputError, match=r"links\[0\]: 101 ends are too many \(keep 100 at most\)"):
        parse(f"topology: t\nhosts: {{{hosts}}}\nlinks:\n  -\n{ends}")
