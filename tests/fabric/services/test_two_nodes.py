"""Services across nodes, in the shipped topology ``two-nodes``: its file draws it."""

from __future__ import annotations

import pytest

from lab.conntrack.netlink import ConntrackTable
from lab.evidence.packet import SocketAddress
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel

MANY = 31  # connections: by chance alone, all go to the same one of two endpoints once in 2^30
LOCAL = {"externalTrafficPolicy": "Local"}


def serve(two_nodes, *servers, node_port=30080, **options):
    """Add a service with a node port; its endpoints are on the nodes that their hosts are linked to."""
    number = len(two_nodes.services) + 2
    two_nodes.add(
        f"web-{number}",
        [{"addresses": [two_nodes.address(name)], "nodeName": name.replace("server", "node")} for name in servers],
        **{
            "type": "NodePort",
            "clusterIP": f"192.168.0.{number}" if two_nodes.family is Family.IPV4 else f"fd00:192:168::{number}",
            "ports": [{"port": 80, "nodePort": node_port}],
            **options,
        },
    )
    return two_nodes.services[-1].spec.cluster_ip


def shipped_vip(two_nodes):
    return two_nodes.topology.services[0].spec.cluster_ips[0 if two_nodes.family is Family.IPV4 else 1]


def between(two_nodes, node):
    """Return a node's address on the link between the nodes."""
    return two_nodes.address(node, 1)


def gateway(two_nodes, server):
    """Return the node's address on a server's link."""
    node = server.replace("server", "node")
    return two_nodes.address(node, 3 if server == "server-a" else 2)


def test_a_pod_gets_endpoints_on_both_nodes_and_keeps_its_address(two_nodes):
    network = two_nodes.start()
    client = two_nodes.address("client")
    answers = {network.ask("client", shipped_vip(two_nodes)) for _ in range(MANY)}
    assert answers == {("server-a", client), ("server-b", client)}


def test_the_second_node_sees_one_pod_talking_to_another(two_nodes):
    """Only the node on which the client's packets arrive rewrites them: conntrack of the other has no translation."""
    vip = serve(two_nodes, "server-b")
    network = two_nodes.start()
    tables = [ConntrackTable(network.lab.hosts[name].namespace) for name in ("node-a", "node-b")]
    with network.socket("client", two_nodes.address("client")) as asking:
        asking.connect((vip, 80))
        client = SocketAddress(*asking.getsockname()[:2])
        pod = SocketAddress(two_nodes.address("server-b"), 8080)
        first, second = tables[0].entry(6, client, SocketAddress(vip, 80)), tables[1].entry(6, client, pod)
    for table in tables:
        table.close()
    assert first.reply == second.reply == (pod, client)


def test_a_node_is_masqueraded_as_it_is_outside_of_the_cluster_cidr(two_nodes):
    vip = serve(two_nodes, "server-b")
    network = two_nodes.start()
    assert network.ask("node-a", vip) == ("server-b", between(two_nodes, "node-a"))
    assert network.ask("node-b", vip) == ("server-b", gateway(two_nodes, "server-b"))


def test_a_server_reaches_itself_and_the_other_by_its_service(two_nodes):
    network = two_nodes.start()
    for server, other in (("server-a", "server-b"), ("server-b", "server-a")):
        answers = {network.ask(server, shipped_vip(two_nodes)) for _ in range(MANY)}
        assert answers == {(server, gateway(two_nodes, server)), (other, two_nodes.address(server))}


def test_a_node_port_where_the_endpoint_is_on_the_other_node(two_nodes):
    """The answer has to come back through the node that was asked, so it puts itself in the client's place."""
    serve(two_nodes, "server-b")
    network = two_nodes.start()
    by_a = network.ask("outside", two_nodes.address("node-a"), 30080)
    assert by_a == ("server-b", between(two_nodes, "node-a"))
    by_b = network.ask("outside", two_nodes.address("node-b"), 30080, source=two_nodes.address("outside", 1))
    assert by_b == ("server-b", gateway(two_nodes, "server-b"))


def test_local_policy_serves_each_nodes_own_endpoints_to_clients_by_their_own_address(two_nodes):
    serve(two_nodes, "server-a", "server-b", **LOCAL)
    network = two_nodes.start()
    for number, letter in enumerate("ab"):
        own = two_nodes.address("outside", number)
        node = two_nodes.address(f"node-{letter}")
        answers = {network.ask("outside", node, 30080, source=own) for _ in range(MANY)}
        assert answers == {(f"server-{letter}", own)}


def test_local_policy_is_silent_on_the_node_without_an_endpoint(two_nodes):
    vip = serve(two_nodes, "server-b", **LOCAL)
    network = two_nodes.start()
    node_a, node_b = two_nodes.address("node-a"), two_nodes.address("node-b")
    assert network.fate("outside", node_a, 30080) == "silence"
    own = two_nodes.address("outside", 1)
    assert network.fate("outside", node_b, 30080, source=own) == ("server-b", own)
    client = two_nodes.address("client")
    assert network.fate("client", node_a, 30080) == ("server-b", client)  # a pod may, and keeps its address
    assert network.fate("client", vip) == ("server-b", client)


def test_internal_local_stays_on_the_clients_node(two_nodes):
    both = serve(two_nodes, "server-a", "server-b", internalTrafficPolicy="Local")
    away = serve(two_nodes, "server-b", internalTrafficPolicy="Local", node_port=30081)
    network = two_nodes.start()
    servers = {network.ask("client", both).server for _ in range(MANY)}
    assert servers == ({"server-a", "server-b"} if two_nodes.proxy.old else {"server-a"})  # the field came with v1.21
    fate = network.fate("client", away)
    assert fate == (("server-b", two_nodes.address("client")) if two_nodes.proxy.old else "silence")


def test_without_endpoints_each_node_refuses(two_nodes):
    vip = serve(two_nodes)
    network = two_nodes.start()
    for client in ("client", "server-b"):
        assert network.fate(client, vip) == "refused"
    for number, node in enumerate(("node-a", "node-b")):
        address, own = two_nodes.address(node), two_nodes.address("outside", number)
        # Somebody listens there on the node itself: so it is not the node's stack that refuses.
        network.socket(node, address, 30080).listen()
        assert network.fate("outside", address, 30080, source=own) == "refused"


def test_udp_crosses_nodes(two_nodes):
    ports = [{"port": 53, "protocol": "UDP", "nodePort": 30080}]
    vip = serve(two_nodes, "server-b", ports=ports)
    network = two_nodes.start()
    assert network.ask_by_datagram("client", vip, 53) == ("server-b", two_nodes.address("client"))
    answer = network.ask_by_datagram("outside", two_nodes.address("node-a"), 30080)
    assert answer == ("server-b", between(two_nodes, "node-a"))


def test_a_pod_that_asks_the_world_is_seen_as_its_node_and_between_pods_as_itself(two_nodes):
    """The network plugin's SNAT ends at the cluster's edge: pods on other nodes still see pods."""
    network = two_nodes.start()
    version = two_nodes.family.version
    [cidr] = [cidr for cidr in two_nodes.topology.host("node-a").cluster_cidrs if cidr.version == version]
    rules = f"*nat\n-A POSTROUTING -s {cidr} ! -d {cidr} -j MASQUERADE\nCOMMIT\n"
    for node in ("node-a", "node-b"):
        network.lab.hosts[node].xtables.start_restore(version, rules).finish()
    for number, (pod, node) in enumerate((("client", "node-a"), ("server-b", "node-b"))):
        world = two_nodes.address("outside", number)
        network.listen("outside", 8080, address=world)
        assert network.ask(pod, world, 8080) == ("outside", two_nodes.address(node))
    client = two_nodes.address("client")
    assert network.ask("client", two_nodes.address("server-b"), 8080) == ("server-b", client)
    assert {network.ask("client", shipped_vip(two_nodes)).seen_as for _ in range(MANY)} == {client}
