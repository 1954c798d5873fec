"""Topologies from a cluster's objects: who is where, what the lab gives, and what it says of that."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from lab.errors import InputError, ServiceError
from lab.topology.cluster import is_topology, read_cluster
from lab.topology.from_objects import MOST_ENDPOINTS, MOST_SERVICES, topology_of
from lab.topology.reader import parse, shipped
from lab.topology.routes import node_address
from lab.topology.ways import way
from lab.topology.writer import text_of
from lab.vocabulary import Family

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 172.21.4.4
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
  - {addresses: [10.50.1.9], nodeName: w1.example.org, targetRef: {kind: Pod, name: web-a, namespace: shop}}
  - {addresses: [10.50.2.9], nodeName: w2}
ports: [{name: http, port: 8080}]
"""
NODE = """\
apiVersion: v1
kind: Node
metadata: {name: NAME, labels: {topology.kubernetes.io/zone: z1}}
spec: {podCIDR: 10.50.NUMBER.0/24}
status: {addresses: [{type: InternalIP, address: 192.168.50.1NUMBER}], nodeInfo: {kubeletVersion: v1.31.4}}
"""
NODES = [
    NODE.replace("NAME", "w1.example.org").replace("NUMBER", "1"),
    NODE.replace("NAME", "w2").replace("NUMBER", "2"),
]
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: web, tier: front}}
    spec: {containers: [{name: c, image: nginx, ports: [{name: http, containerPort: 8080}]}]}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web-x, namespace: shop, labels: {app: web}}
spec: {nodeName: w2, containers: [{name: c, ports: [{name: http, containerPort: 8081}]}]}
status: {podIP: 10.50.2.77, phase: Running, conditions: [{type: Ready, status: "False"}]}
"""
ENDPOINTS = """\
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets:
  - addresses: [{ip: 10.50.1.3, nodeName: w2}]
    notReadyAddresses: [{ip: 10.50.1.4}]
    ports: [{name: http, port: 8080}]
"""


def made(*documents, service=None):
    found = topology_of(read_cluster([("---\n".join(documents), "objects.yaml")]), service)
    assert parse(text_of(found.topology)) == found.topology  # every one can be kept
    return found


def endpoints(topology):
    return {
        endpoint.addresses[0]: (endpoint.node_name, endpoint.ready, [port.port for port in piece.ports])
        for piece in topology.endpoint_slices
        for endpoint in piece.endpoints
    }


def behind(topology, address):
    """Return the host before the one that has an address, on the way from outside."""
    return way(topology, "outside", address)[-2]


# --- who is where ---------------------------------------------------------------------------------------


def test_endpoints_are_on_their_nodes_which_have_the_addresses_and_settings_of_their_objects():
    topology = made(SERVICE, SLICE, *NODES).topology
    assert [one.name for one in topology.nodes] == ["w1-example-org", "w2"]
    assert [str(node_address(topology, one.name, Family.IPV4)) for one in topology.nodes] == [
        "192.168.50.11",
        "192.168.50.12",
    ]
    assert {(one.proxy_version, one.node_zone) for one in topology.nodes} == {("v1.31.4", "z1")}
    assert behind(topology, "10.50.1.9") == "w1-example-org"
    assert behind(topology, "10.50.2.9") == "w2"
    assert topology.host_of("10.50.1.9").name == "web-a"
    assert endpoints(topology) == {
        "10.50.1.9": ("w1-example-org", True, [8080]),
        "10.50.2.9": ("w2", True, [8080]),
    }


def test_everybody_reaches_every_pod_and_is_answered():
    topology = made(SERVICE, SLICE, *NODES).topology
    asking = [host for host in topology.hosts if host.name != "router"]
    for address in ("10.50.1.9", "10.50.2.9"):
        owner = topology.host_of(address).name
        for host in asking:
            assert way(topology, host.name, address)[-1] == owner
            assert way(topology, owner, str(topology.addresses(host.name)[0]))[-1] == host.name


def test_each_node_has_a_client_with_an_address_of_its_pods():
    topology = made(SERVICE, SLICE, *NODES).topology
    for node, prefix in (("w1-example-org", "10.50.1."), ("w2", "10.50.2.")):
        [address] = topology.addresses(f"client-{node}")
        assert str(address).startswith(prefix)
        assert behind(topology, str(address)) == node
        assert address in topology.host(node).cluster_cidrs[0]
    assert ip_address("203.0.113.2") not in topology.host("w2").cluster_cidrs[0]


def test_nodes_are_those_that_endpoints_name_where_there_are_no_node_objects():
    found = made(SERVICE, SLICE)
    assert [one.name for one in found.topology.nodes] == ["w1-example-org", "w2"]
    assert any("no Node is given" in note and "w1.example.org, w2" in note for note in found.notes)
    assert any("the nodes' addresses are the lab's" in note for note in found.notes)


def test_pods_that_have_addresses_among_the_nodes_are_reached():
    """As with the network plugins of clouds, where a node's subnet is its pods' as well."""
    nodes = [text.replace(f"10.50.{n}.0/24", f"192.168.50.{n}28/32") for n, text in enumerate(NODES, 1)]
    nodes = [re.sub(r"spec: \{podCIDR[^\n]*\n", "", text) for text in nodes]
    topology = made(SERVICE, SLICE.replace("10.50.2.9", "192.168.50.77"), *nodes).topology
    for host in ("outside", "w1-example-org", "client-w1-example-org", "web-a"):
        assert way(topology, host, "192.168.50.77")[-2] == "w2"
    assert topology.host("w2").cluster_cidrs == ()


def test_an_endpoint_in_no_podcidr_is_behind_the_router():
    found = made(SERVICE, SLICE.replace("10.50.2.9], nodeName: w2", "10.99.0.5]"), *NODES)
    assert behind(found.topology, "10.99.0.5") == "router"
    assert any("10.99.0.5" in note and "behind the router" in note for note in found.notes)


def test_an_endpoint_with_a_nodes_own_address_is_that_node_without_a_word_of_it():
    """As the endpoints of default/kubernetes, which have no nodeName."""
    piece = SLICE.replace("10.50.2.9], nodeName: w2", "192.168.50.12]")
    found = made(SERVICE, piece, *NODES)
    assert found.topology.host_of("192.168.50.12").name == "w2"
    assert not any("192.168.50.12" in note for note in found.notes)


def test_a_load_balancers_address_is_led_to_a_node():
    service = SERVICE.replace("  clusterIP", "  type: LoadBalancer\n  clusterIP")
    service += "status: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}\n"
    found = made(service, SLICE, *NODES)
    assert way(found.topology, "outside", "198.51.100.7")[-1] == "w1-example-org"
    assert any("has no node port: the lab gives 30000" in note for note in found.notes)


def test_both_families_are_built_where_a_service_has_both():
    both = 'clusterIP: 172.21.4.4\n  clusterIPs: [172.21.4.4, "fd00:96::4"]\n  ipFamilies: [IPv4, IPv6]'
    pods = POD.replace("podIP: 10.50.2.77", 'podIP: 10.50.2.77, podIPs: [{ip: 10.50.2.77}, {ip: "fd00:50::77"}]')
    topology = made(SERVICE.replace("clusterIP: 172.21.4.4", both), pods).topology
    assert {str(one) for one in topology.addresses("web-x")} >= {"10.50.2.77", "fd00:50::77"}
    assert {one.address_type for one in topology.endpoint_slices} == {"IPv4", "IPv6"}
    for host in ("outside", "client", "w2"):
        assert way(topology, host, "fd00:50::77")[-1] == "web-x"


def test_a_node_that_is_called_as_a_host_of_the_lab_has_another_name_here():
    topology = made(SERVICE, SLICE.replace("w1.example.org", "router").replace("w2", "client")).topology
    assert [one.name for one in topology.nodes] == ["client-2", "router-2"]
    assert endpoints(topology)["10.50.1.9"] == ("router-2", True, [8080])


def test_pods_whose_addresses_leave_no_subnet_to_each_are_led_to_by_routes():
    slices = SLICE.replace("10.50.2.9], nodeName: w2", "10.50.1.8], nodeName: w1.example.org")
    topology = made(SERVICE, slices).topology
    for address in ("10.50.1.8", "10.50.1.9"):
        for host in ("outside", "w1-example-org", "client"):
            assert way(topology, host, address)[-1] == topology.host_of(address).name


# --- where the endpoints are from -------------------------------------------------------------------------


def test_endpoints_of_an_endpoints_object():
    found = made(SERVICE, ENDPOINTS)
    assert endpoints(found.topology) == {"10.50.1.3": ("w2", True, [8080]), "10.50.1.4": (None, False, [8080])}
    assert any("Endpoints" in note for note in found.notes)


def test_slices_count_where_there_are_endpoints_as_well():
    assert set(endpoints(made(SERVICE, SLICE, ENDPOINTS).topology)) == {"10.50.1.9", "10.50.2.9"}


def test_endpoints_of_pods_by_their_labels_with_the_port_by_its_name():
    stranger = POD.replace("web-x", "other").replace("app: web", "app: else").replace("2.77", "2.78")
    elsewhere = POD.replace("namespace: shop", "namespace: else").replace("2.77", "2.79")
    over = POD.replace("web-x", "old").replace("Running", "Succeeded").replace("2.77", "2.80")
    topology = made(SERVICE, POD, stranger, elsewhere, over).topology
    assert endpoints(topology) == {"10.50.2.77": ("w2", False, [8081])}
    assert topology.host_of("10.50.2.77").name == "web-x"


def test_pods_of_a_deployment_are_given_addresses_and_nodes_in_turn():
    found = made(SERVICE, DEPLOYMENT, *NODES)
    its = endpoints(found.topology)
    assert [node for node, _ready, _ports in its.values()] == ["w1-example-org", "w2", "w1-example-org"]
    assert {tuple(ports) for _node, _ready, ports in its.values()} == {(8080,)}
    for address, (node, _ready, _ports) in its.items():
        assert behind(found.topology, address) == node
    assert {"web-0", "web-1", "web-2"} <= {host.name for host in found.topology.hosts}
    assert any("made by the lab: web-0, web-1, web-2" in note for note in found.notes)
    assert any(note.startswith("pods without an address are given one: web-0 10.50.1.") for note in found.notes)


def test_a_daemonset_has_a_pod_on_each_node():
    topology = made(SERVICE, DEPLOYMENT.replace("Deployment", "DaemonSet"), *NODES).topology
    assert [node for node, _ready, _ports in endpoints(topology).values()] == ["w1-example-org", "w2"]


def test_a_pod_with_its_nodes_network_is_the_node_itself():
    pod = POD.replace("nodeName: w2,", "nodeName: w2, hostNetwork: true,").replace("10.50.2.77", "192.168.50.12")
    topology = made(SERVICE, pod, *NODES).topology
    assert topology.host_of("192.168.50.12").name == "w2"
    assert "web-x" not in {host.name for host in topology.hosts}


def test_a_service_whose_selector_selects_nothing_is_told_and_stays():
    found = made(SERVICE, POD.replace("app: web", "app: else"))
    assert endpoints(found.topology) == {}
    assert any("shop/web has no endpoint: its selector app=web selects nothing" in note for note in found.notes)


def test_a_cluster_ip_is_given_where_none_is_written_and_not_one_that_another_has():
    other = SERVICE.replace("web", "other").replace("172.21.4.4", "10.96.0.10")
    found = made(SERVICE.replace("  clusterIP: 172.21.4.4\n", ""), other, SLICE)
    assert found.topology.services[0].spec.cluster_ip == "10.96.0.11"
    assert "the Service web has no cluster IP: the lab gives 10.96.0.11" in found.notes


# --- limits, and what is left out -------------------------------------------------------------------------


def many(count):
    return [SERVICE.replace("web", f"web-{n}").replace("4.4", f"4.{n + 1}") for n in range(count)]


def test_of_many_services_the_first_are_taken_and_any_by_name():
    services = many(MOST_SERVICES + 3)
    found = made(*services, SLICE)
    assert len(found.topology.services) == MOST_SERVICES
    assert any(f"the first {MOST_SERVICES} are taken" in note and "shop/web-12" in note for note in found.notes)
    last = f"shop/web-{MOST_SERVICES + 2}"
    assert [one.key for one in made(*services, SLICE, service=f"{last}:http").topology.services] == [last]


def test_of_many_endpoints_the_first_are_built_and_that_is_said():
    lines = "".join(f"  - {{addresses: [10.50.1.{n + 1}], nodeName: w2}}\n" for n in range(MOST_ENDPOINTS + 6))
    found = made(SERVICE, re.sub(r"endpoints:\n(?:  - .*\n)+", f"endpoints:\n{lines}", SLICE))
    assert len(endpoints(found.topology)) == MOST_ENDPOINTS
    assert (
        f"of {MOST_ENDPOINTS + 6} endpoints the first {MOST_ENDPOINTS} are built, and the rest left out" in found.notes
    )
    assert all(way(found.topology, "outside", address)[-2] == "w2" for address in endpoints(found.topology))


def test_other_kinds_are_named_and_services_without_a_vip_left_out():
    headless = SERVICE.replace("web", "none").replace("172.21.4.4", "None")
    names = (
        SLICE.replace("web-1", "names")
        .replace("IPv4", "FQDN")
        .replace("10.50.1.9", "a.org")
        .replace("10.50.2.9", "b.org")
    )
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
    found = made(SERVICE, SLICE, names, headless, secret)
    assert any("the EndpointSlices names (FQDN)" in note for note in found.notes)
    assert "not looked at: Secret" in found.notes
    assert any("shop/none" in note and "left out" in note for note in found.notes)
    assert [one.key for one in found.topology.services] == ["shop/web"]


def test_a_service_of_another_proxy_cannot_be_asked():
    other = SERVICE.replace("namespace: shop", "namespace: shop, labels: {service.kubernetes.io/service-proxy-name: x}")
    with pytest.raises(ServiceError, match="shop/web is for another proxy"):
        made(other, SLICE, service="web")


def test_a_service_that_is_not_there():
    with pytest.raises(ServiceError, match=r"there is no Service wep \(did you mean 'web'"):
        made(SERVICE, SLICE, service="wep")


# --- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        ((SERVICE, NODES[1].replace("10.50.2.0/24", "10.50.2.1/24")), r":12: spec\.podCIDR: .*must be a CIDR"),
        (
            (SERVICE, NODES[1].replace("192.168.50.12", "somewhere")),
            r":13: status\.addresses\[0\]\.address: must be",
        ),
        ((SERVICE, NODES[1].replace("v1.31.4", "v9")), r":13: .*kubeletVersion: 'v9' is no version"),
        ((SERVICE, SERVICE), r":9: a second Service shop/web \(it is in objects\.yaml:1: keep one\)"),
        ((SERVICE, NODES[1], NODES[1]), r": a second Node w2"),
        ((SERVICE, *NODES[:1], NODES[1].replace("50.12", "50.11")), r":19: .*w1\.example\.org has the InternalIP"),
        ((SERVICE, *NODES[:1], NODES[1].replace("50.2.0", "50.1.0")), r":18: spec\.podCIDR: 10\.50\.1\.0/24 overlaps"),
        ((SERVICE, DEPLOYMENT.replace("replicas: 3", "replicas: many")), r"spec\.replicas: must be a whole number"),
        ((SERVICE, POD.replace("10.50.2.77", "10.50.2")), r"status\.podIP: .*must be an IP address"),
        ((SERVICE, ENDPOINTS.replace("10.50.1.3", "x")), r"subsets\[0\]\.addresses\[0\]\.ip"),
        ((SERVICE.replace("172.21.4.4", "x"),), r":5: spec\.clusterIP"),
        ((NODES[0],), r"there is no Service in it"),
        ((SERVICE, "topology: x\nhosts: {a: {}}\n"), r":9: topology: a topology among Kubernetes objects"),
        ((SERVICE, "metadata: {name: x}\n"), r":9: 'kind' is missing"),
    ],
)
def test_what_is_wrong_is_one_error_with_its_line(documents, told):
    with pytest.raises(InputError, match=told) as caught:
        topology_of(read_cluster([("---\n".join(documents), "objects.yaml")]), sources=["objects.yaml"])
    assert str(caught.value).startswith("objects.yaml:")


def test_a_topology_is_told_from_objects_by_what_is_in_it():
    assert all(is_topology(path.read_text(), name) for name, path in shipped())
    assert not is_topology(SERVICE, "x")
    assert not is_topology("apiVersion: v1\nitems: []\nkind: List\n", "x")
    assert is_topology(": :", "x")


# --- the file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, _path in shipped()])
def test_each_topology_that_comes_along_is_the_same_when_written_and_read(name):
    topology = parse(dict(shipped())[name].read_text())
    assert parse(text_of(topology, ["made by a test"])) == topology
