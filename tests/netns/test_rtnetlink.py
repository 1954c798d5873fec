from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from lab.netns import Namespace, RouteSocket
from lab.netns.rtnetlink import LOOPBACK_INDEX, VethEnd, address, link_up, neighbour, route, veth

pytestmark = pytest.mark.lab_kernel

NEAR = VethEnd("near", 2, b"\x02\x00\x00\x00\x00\x01")
FAR = VethEnd("far", 7, b"\x02\x00\x00\x00\x00\x02")


@pytest.fixture
def pair():
    namespaces = Namespace.create(), Namespace.create()
    sockets = tuple(RouteSocket(namespace) for namespace in namespaces)
    yield namespaces, sockets
    for socket in sockets:
        socket.close()
    for namespace in namespaces:
        namespace.close()


def test_a_pair_is_built_as_asked_and_carries_packets(pair):
    (near, far), (near_routes, far_routes) = pair
    near_routes.apply(
        [
            link_up(LOOPBACK_INDEX, "lo"),
            veth(NEAR, FAR, far),
            address(2, ip_interface("10.0.0.1/24"), "near"),
            neighbour(2, ip_address("10.0.0.2"), FAR.mac, "near"),
            link_up(2, "near"),
            route(ip_network("10.1.0.0/16"), ip_address("10.0.0.2"), "near"),
        ]
    )
    assert not near_routes.is_running(2)
    far_routes.apply([link_up(7, "far")])
    while not (near_routes.is_running(2) and far_routes.is_running(7)):
        pass
    with near.entered():
        routes = [line.split()[:3] for line in Path("/proc/net/route").read_text().splitlines()]
        neighbours = Path("/proc/net/arp").read_text()
    assert [
        "near",
        "0000010A",
        "0200000A",
    ] in routes  # 10.1.0.0 by 10.0.0.2, each in the machine's byte order
    assert "02:00:00:00:00:02" in neighbours


def test_an_address_is_local_where_it_was_given_and_nowhere_else(pair):
    (_near, far), (routes, _) = pair
    own = ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")
    others = ip_address("10.0.0.2"), ip_address("fd00::2"), ip_address("10.9.9.9"), ip_address("fd09::1")
    messages = [veth(NEAR, FAR, far), link_up(2, "near"), *(address(2, one, "near") for one in own)]
    assert not any(routes.is_local(one.ip) for one in own)
    routes.apply(messages)
    for one in own:
        while not routes.is_local(one.ip):
            pass
    assert not any(routes.is_local(other) for other in others)


def test_an_error_names_what_was_asked_and_the_kernels_reason(pair):
    (_near, far), (routes, _) = pair
    messages = [
        veth(NEAR, FAR, far),
        link_up(2, "near"),
        route(ip_network("10.1.0.0/16"), ip_address("10.99.0.1"), "the client"),
        link_up(LOOPBACK_INDEX, "lo"),
    ]
    with pytest.raises(OSError, match=r"cannot route 10.1.0.0/16 by 10.99.0.1 on the client: .*gateway"):
        routes.apply(messages)


def test_the_first_of_several_errors_is_told(pair):
    (_near, _far), (routes, _) = pair
    with pytest.raises(OSError, match="cannot set first up"):
        routes.apply([link_up(50, "first"), link_up(51, "second")])


def test_more_messages_than_one_batch_holds(pair):
    (_near, far), (routes, _) = pair
    routes.apply([veth(NEAR, FAR, far)])
    routes.apply([address(2, ip_interface(f"10.{n // 256}.{n % 256}.1/24"), "near") for n in range(3000)])
    with pytest.raises(OSError, match=r"cannot give near the address 10.11.183.1/24"):
        routes.apply([address(2, ip_interface(f"10.{n // 256}.{n % 256}.1/24"), "near") for n in range(2999, 3001)])


def test_asking_for_an_interface_that_is_not_there(pair):
    with pytest.raises(OSError, match="cannot ask for interface 99"):
        pair[1][0].is_running(99)
