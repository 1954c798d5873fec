"""Which ports there are rules for, and which endpoints each gets."""

from __future__ import annotations

import pytest

from lab.errors import InputError, InputWarning
from lab.kubeproxy import MINORS, ProxyOptions, nftables
from lab.kubeproxy.services import hashed, service_ports
from lab.vocabulary import Family, ProxyMode

IPV4 = ProxyOptions(Family.IPV4, version="v1.29", node_name="node")


def one(world, options=IPV4):
    (port,) = service_ports(world.services, world.endpoint_slices, options)
    return port


def names(targets):
    return [target.text for target in targets]


# Known from every cluster: the two services that each one has.
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("default/kubernetes:httpstcp", "NPX46M4PTMTKRN6Y"),
        ("kube-system/kube-dns:dnsudp", "TCOU7JCQXEZGVUNU"),
    ],
)
def test_hash_is_kube_proxys(text, name):
    assert hashed(text, 16) == name


def test_endpoints_of_all_slices_are_sorted_by_text_and_not_repeated(world):
    world.add("web", [10, 9]).slice("web", [9, 1])
    # As text "10.244.0.10:" is before "10.244.0.1:".
    assert names(one(world).endpoints.cluster) == [world.target(10), world.target(1), world.target(9)]


def test_an_endpoint_is_local_if_any_slice_says_so(world):
    world.add("web", [1, {"n": 2, "nodeName": "other"}], internalTrafficPolicy="Local")
    world.slice("web", [{"n": 1, "nodeName": "other"}, 2])
    assert names(one(world).endpoints.local) == [world.target(1), world.target(2)]


def test_endpoints_belong_to_the_port_of_their_name_and_protocol(world):
    world.add("web", ports=[{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}])
    world.slice("web", [1], ports=[{"name": "a"}])
    world.slice("web", [2], ports=[{"name": "b"}])  # TCP, and so not b's
    a, b = service_ports(world.services, world.endpoint_slices, IPV4)
    assert (names(a.endpoints.cluster), names(b.endpoints.cluster)) == ([world.target(1)], [])


def test_terminating_endpoints_serve_only_where_none_is_ready(world):
    leaving = {"n": 1, "conditions": {"ready": False, "serving": True, "terminating": True}}
    world.add("web", [leaving, {"n": 2, "conditions": {"ready": False, "serving": True}}])
    assert names(one(world).endpoints.cluster) == [world.target(1)]
    world.slice("web", [3])
    assert names(one(world).endpoints.cluster) == [world.target(3)]


def test_terminating_endpoints_are_gone_for_an_old_kube_proxy(world):
    world.add("web", [{"n": 1, "conditions": {"ready": False, "serving": True, "terminating": True}}])
    assert not one(world, ProxyOptions(Family.IPV4, version="v1.15")).endpoints.exist


def test_local_policy_takes_the_endpoints_of_this_node(world):
    world.add("web", [1, {"n": 2, "nodeName": "other"}], internalTrafficPolicy="Local")
    endpoints = one(world).endpoints
    assert (names(endpoints.local), endpoints.cluster) == ([world.target(1)], ())


def test_external_local_policy_keeps_the_others_for_traffic_of_the_node(world):
    ports = [{"port": 80, "nodePort": 30000}]
    away = {"n": 2, "nodeName": "other"}
    world.add("web", [1, away], ports=ports, type="NodePort", externalTrafficPolicy="Local")
    endpoints = one(world).endpoints
    assert names(endpoints.local) == [world.target(1)]
    assert names(endpoints.reachable) == names(endpoints.cluster) == [world.target(1), world.target(2)]


def test_no_local_endpoint_is_not_no_endpoint(world):
    world.add("web", [{"n": 2, "nodeName": "other"}], internalTrafficPolicy="Local")
    endpoints = one(world).endpoints
    assert endpoints.exist
    assert not endpoints.reachable


def test_headless_and_external_names_give_nothing(world):
    world.add("headless", [1], clusterIP="None")
    world.add("elsewhere", clusterIP="", type="ExternalName", externalName="a.example", ports=[])
    assert service_ports(world.services, world.endpoint_slices, IPV4) == []


def test_the_other_family_gives_nothing(world):
    world.add("web", [1])
    assert service_ports(world.services, world.endpoint_slices, ProxyOptions(Family.IPV6)) == []


def test_balancers_addresses_in_proxy_mode_are_left_out(world):
    status = [{"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"hostname": "a"}]
    world.add("web", type="LoadBalancer", status=status)
    assert one(world, ProxyOptions(Family.IPV4, "v1.30")).load_balancer_ips == ("203.0.113.1",)


def test_a_range_of_everything_is_no_range(world):
    world.add("web", type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8", "0.0.0.0/0"])
    assert one(world, ProxyOptions(Family.IPV4, "v1.34")).source_ranges == ()
    assert one(world, ProxyOptions(Family.IPV4, "v1.33")).source_ranges == ("10.0.0.0/8", "0.0.0.0/0")


def test_two_services_of_one_name_are_refused(world):
    world.add("web").add("web")
    with pytest.raises(InputError, match="two Services default/web"):
        service_ports(world.services, [], IPV4)


@pytest.mark.parametrize(
    ("spec", "claim"),
    [
        ({"clusterIP": "10.96.0.1"}, "10.96.0.1 80/tcp"),
        ({"type": "NodePort", "ports": [{"port": 81, "nodePort": 30000}]}, "node port 30000/tcp"),
    ],
)
def test_two_services_with_one_claim_are_refused(world, spec, claim):
    ports = [{"port": 80, "nodePort": 30000}]
    world.add("a", type="NodePort", ports=ports, externalIPs=["203.0.113.1"]).add("b", **spec)
    with pytest.raises(InputError, match=f"default/a and default/b both claim {claim}"):
        service_ports(world.services, [], IPV4)


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"externalIPs": ["203.0.113.1"]}, []),
        ({"type": "LoadBalancer"}, [{"ip": "203.0.113.1"}]),
        ({"clusterIP": "203.0.113.1"}, []),
    ],
    ids=["external-ip", "load-balancer", "cluster-ip"],
)
def test_what_nobody_allocates_is_taken_with_a_warning(world, spec, status):
    """kube-proxy writes the rules of both in iptables mode, and one element in nftables mode."""
    world.add("a", [1], externalIPs=["203.0.113.1"]).add("b", [2], status=status, **spec)
    with pytest.warns(InputWarning, match=r"^default/a and default/b both claim 203\.0\.113\.1 80/tcp: ") as warned:
        first, second = service_ports(world.services, world.endpoint_slices, IPV4)
    assert len(warned) == 1
    assert (first.service, second.service) == ("default/a", "default/b")


def test_the_second_of_two_is_served_when_the_first_is_gone(world):
    world.add("a", [1], externalIPs=["203.0.113.1"]).add("b", [2], externalIPs=["203.0.113.1"])
    options = ProxyOptions(Family.IPV4, version="v1.33", node_name="node")
    with pytest.warns(InputWarning):
        both = service_ports(world.services, world.endpoint_slices, options)
    script = nftables.sync(both, both[1:], options).script
    elements = [line for line in script.splitlines() if "service-ips { 203.0.113.1 . tcp . 80" in line]
    assert [line.split(None, 2)[0] for line in elements] == ["delete", "add"]
    assert "-default/b/tcp/" in elements[1]


def test_an_unknown_version_is_refused_by_name():
    with pytest.raises(InputError, match=r"no kube-proxy version 'v1.13'.*v1.14 to v1.36"):
        _ = ProxyOptions(Family.IPV4, version="v1.13").release


def test_versions_know_what_they_do_with_invalid_packets():
    assert [name for name in MINORS if not ProxyOptions(Family.IPV4, name).drops_invalid(ProxyMode.IPTABLES)] == [
        "v1.14"
    ]
    liberal = {
        name: ProxyOptions(Family.IPV4, version=name, conntrack_tcp_be_liberal=True).drops_invalid(ProxyMode.IPTABLES)
        for name in ("v1.15", "v1.28", "v1.29", "v1.31")
    }
    assert liberal == {"v1.15": True, "v1.28": True, "v1.29": False, "v1.31": False}


@pytest.mark.parametrize(
    ("version", "changes", "addresses"),
    [
        ("v1.33", {}, ("127.0.0.1", "192.168.0.2", "192.168.1.2")),
        ("v1.33", {"localhost_node_ports": False}, ("192.168.0.2", "192.168.1.2")),
        ("v1.25", {"localhost_node_ports": False}, ("127.0.0.1", "192.168.0.2", "192.168.1.2")),  # not known yet
        ("v1.33", {"family": Family.IPV6}, None),  # none of the family: all
        ("v1.19", {"family": Family.IPV6}, ()),  # one program a family: none
        ("v1.33", {"node_port_addresses": ("192.168.0.0/24",)}, ("192.168.0.2",)),
        ("v1.33", {"node_port_addresses": ("0.0.0.0/0",)}, None),
        ("v1.33", {"node_port_addresses": ("primary",)}, ("192.168.1.2",)),
        ("v1.33", {"node_port_addresses": ("primary",), "family": Family.IPV6}, None),
        ("v1.25", {"node_port_addresses": ("::/64",), "family": Family.IPV6}, ("::1",)),
        ("v1.26", {"node_port_addresses": ("::/64",), "family": Family.IPV6}, ()),
    ],
)
def test_addresses_that_take_node_ports(version, changes, addresses):
    settings = {
        "family": Family.IPV4,
        "node_addresses": ("192.168.1.2", "192.168.0.2"),
        "node_port_addresses": ("127.0.0.0/8", "192.168.0.0/16"),
    }
    found = ProxyOptions(version=version, **{**settings, **changes}).node_port_ips
    assert (found and tuple(sorted(found))) == addresses
