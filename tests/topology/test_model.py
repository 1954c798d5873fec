"""The model made in Python: what it derives, and that it is as strict as a file."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from lab.kubernetes.errors import TopologyError
from lab.topology.model import End, Host, Link, Topology
from lab.topology.reader import load
from lab.topology.route_keys import Route
from lab.vocabulary import Family


def link(first: str, second: str, number: int) -> Link:
    """Join two hosts by a subnet of its own: the first host has .1, the second .2."""
    subnet = ip_network("10.0.0.0/8").network_address + number * 256
    return Link(
        (
            End(
                first,
                f"to-{second}"[:15],
                (ip_interface(f"{subnet + 1}/24"), ip_interface(f"fd00:{number:x}::1/64")),
            ),
            End(
                second,
                f"to-{first}"[:15],
                (ip_interface(f"{subnet + 2}/24"), ip_interface(f"fd00:{number:x}::2/64")),
            ),
        )
    )


def star(pods: int) -> Topology:
    names = [f"pod-{number}" for number in range(pods)]
    return Topology(
        "star",
        hosts=(
            Host("router", forwarding=True),
            *(
                Host(name, routes=(Route("default", link("router", name, n).ends[0].addresses[0].ip),))
                for n, name in enumerate(names)
            ),
        ),
        links=tuple(link("router", name, number) for number, name in enumerate(names)),
    )


def test_two_hundred_hosts_around_a_router() -> None:
    topology = star(200)
    assert len(topology.hosts) == 201
    assert len(topology.ends("router")) == 200
    assert topology.addresses("pod-199", Family.IPV4) == (ip_address("10.0.199.2"),)
    assert topology.clients == topology.hosts[1:]


def test_roles_of_the_shipped_figure() -> None:
    topology = load("kube-proxy")
    names = [[host.name for host in hosts] for hosts in (topology.clients, topology.nodes, topology.servers)]
    assert names == [["client"], ["node"], ["server"]]


def test_a_node_that_is_an_endpoint_is_both_and_no_client() -> None:
    figure = load("kube-proxy")
    server = replace(figure.host("server"), proxy_mode=figure.host("node").proxy_mode)
    topology = replace(figure, hosts=(*figure.hosts[:2], server))
    assert [host.name for host in topology.nodes] == ["node", "server"]
    assert topology.servers == (server,)
    assert [host.name for host in topology.clients] == ["client"]


def test_addresses_of_one_family_or_both_in_the_order_of_the_links() -> None:
    topology = load("kube-proxy")
    v4 = [ip_address("10.0.0.1"), ip_address("10.0.1.1")]
    v6 = [ip_address("fd00:10::1"), ip_address("fd00:10:0:1::1")]
    assert list(topology.addresses("node", Family.IPV4)) == v4
    assert list(topology.addresses("node", Family.IPV6)) == v6
    assert list(topology.addresses("node")) == [v4[0], v6[0], v4[1], v6[1]]


def test_host_of_knows_hosts_but_no_vip() -> None:
    topology = load("kube-proxy")
    assert topology.host_of(ip_address("fd00:10:0:1::2")) is topology.host("server")
    assert topology.host_of(ip_address("10.0.0.2")) is topology.host("client")
    assert topology.host_of(ip_address("192.168.0.2")) is None


def test_a_neighbour_is_the_other_end() -> None:
    topology = load("kube-proxy")
    (pod,) = topology.ends("server")
    (other,) = topology.neighbours(pod)
    assert (other.host, other.interface) == ("node", "server")
    assert topology.neighbours(other) == (pod,)


def test_default_route_takes_the_family_of_its_gateway() -> None:
    assert Route("default", ip_address("10.0.0.1")).network == ip_network("0.0.0.0/0")
    assert Route("default", ip_address("fd00::1")).network == ip_network("::/0")
    assert Route(ip_network("10.9.0.0/16"), ip_address("10.0.0.1")).network == ip_network("10.9.0.0/16")


@pytest.mark.parametrize(("family", "version", "text"), [(Family.IPV4, 4, "10.0.0.1"), (Family.IPV6, 6, "fd00::1")])
def test_family(family: Family, version: int, text: str) -> None:
    assert family.version == version
    assert Family.of(ip_address(text)) is Family.of(ip_interface(text)) is Family.of(ip_network(text)) is family


def test_unknown_host() -> None:
    with pytest.raises(KeyError):
        load("kube-proxy").host("nobody")


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load("kube-proxy").name = "other"  # type: ignore[misc]


def test_a_copy_derives_its_own_helpers() -> None:
    figure = load("kube-proxy")
    assert figure.servers
    assert replace(figure, services=(), endpoint_slices=()).servers == ()


def test_python_is_held_to_the_same_rules() -> None:
    with pytest.raises(TopologyError, match=r"^hosts\.a: duplicate host") as raised:
        Topology("pair", hosts=(Host("a"), Host("a")))
    assert raised.value.path == ("hosts", "a")
    with pytest.raises(TopologyError, match=r"^links\[0\]\[1\]\.host: no host is named 'c'"):
        Topology("pair", hosts=(Host("a"), Host("b")), links=(link("a", "c", 0),))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nested_subnets_are_found_in_either_order(order: tuple[int, int]) -> None:
    wide = Link((End("a", "w", (ip_interface("10.0.0.1/8"),)), End("b", "w", (ip_interface("10.0.0.2/8"),))))
    links = (wide, link("a", "b", 77))
    with pytest.raises(TopologyError, match=r"overlaps 10\.0\.\S+ of links\[0\]") as raised:
        Topology("pair", hosts=(Host("a"), Host("b")), links=tuple(links[index] for index in order))
    assert raised.value.path[:2] == ("links", 1)


def test_a_subnet_is_found_in_the_wider_of_two_of_one_link() -> None:
    pairs = [("10.0.0.1/24", "10.0.0.3/8"), ("10.0.0.2/24", "10.0.0.4/8")]
    ends = [End(host, "e", tuple(map(ip_interface, pair))) for host, pair in zip("ab", pairs, strict=True)]
    links = (Link((ends[0], ends[1])), link("a", "b", 77))
    with pytest.raises(TopologyError, match=r"10\.0\.77\.0/24 overlaps 10\.0\.0\.0/8 of links\[0\]"):
        Topology("pair", hosts=(Host("a"), Host("b")), links=links)


def test_subnets_of_one_link_may_nest() -> None:
    addresses = [("10.0.0.1/8", "10.1.0.1/24"), ("10.0.0.2/8", "10.1.0.2/24")]
    ends = [End(host, "e", tuple(map(ip_interface, pair))) for host, pair in zip("ab", addresses, strict=True)]
    topology = Topology("pair", hosts=(Host("a"), Host("b")), links=(Link((ends[0], ends[1])),))
    assert len(topology.addresses("a")) == 2


@pytest.mark.parametrize("pair", [("10.0.0.0/31", "10.0.0.1/31"), ("fd00::/127", "fd00::1/127")])
def test_a_subnet_of_two_has_no_address_to_spare(pair: tuple[str, str]) -> None:
    ends = [End(host, "e", (ip_interface(text),)) for host, text in zip("ab", pair, strict=True)]
    topology = Topology("pair", hosts=(Host("a"), Host("b")), links=(Link((ends[0], ends[1])),))
    assert topology.addresses("a") == (ip_interface(pair[0]).ip,)
