"""As whom a server sees its client: masquerade where kube-proxy would, and nowhere else.

That the answer comes at all proves the way back: whatever was rewritten on the way there is written back.
"""

from __future__ import annotations

import pytest

from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


def seen(network, client, address, port=80):
    return network.ask(client, address, port).seen_as


def test_a_pod_that_asks_a_cluster_ip_is_seen_as_itself(cluster):
    cluster.serve("web", [1])
    network = cluster.start()
    assert seen(network, "client", cluster.vip()) == cluster.pod(9)
    assert seen(network, "pod-2", cluster.vip()) == cluster.pod(2)


def test_who_comes_from_outside_of_the_cluster_cidr_to_a_cluster_ip_is_masqueraded(cluster):
    """As the node's address on the way to the pod: the pod may be on another node, and the answer has to come back."""
    cluster.serve("web", [1])
    network = cluster.start()
    assert seen(network, "outside", cluster.vip()) == cluster.gateway(1)
    assert seen(network, "node", cluster.vip()) == cluster.gateway(1)


def test_without_a_cluster_cidr_nobody_is_masqueraded_to_a_cluster_ip(cluster):
    cluster.serve("web", [1])
    network = cluster.start(cluster_cidrs=())
    assert seen(network, "client", cluster.vip()) == cluster.pod(9)
    assert seen(network, "outside", cluster.vip()) == cluster.outside()
    assert seen(network, "node", cluster.vip()) == cluster.outside(1)


def test_masquerade_all_means_all_who_ask_a_cluster_ip(cluster):
    cluster.serve("web", [1])
    network = cluster.start(masquerade_all=True)
    for client in ("client", "pod-2", "outside", "node"):
        assert seen(network, client, cluster.vip()) == cluster.gateway(1)


@pytest.mark.parametrize("masquerade_all", [False, True])
def test_who_asks_a_pod_itself_is_never_masqueraded(cluster, masquerade_all):
    cluster.serve("web", [1])
    network = cluster.start(masquerade_all=masquerade_all)
    assert seen(network, "client", cluster.pod(1), 8080) == cluster.pod(9)
    assert seen(network, "outside", cluster.pod(1), 8080) == cluster.outside()


def test_a_pod_reaches_itself_by_its_service(cluster):
    """The hairpin: a packet from its own address would be a martian to it, so it is masqueraded."""
    cluster.serve("web", [1])
    network = cluster.start()
    assert network.ask("pod-1", cluster.vip()) == ("pod-1", cluster.gateway(1))
    assert network.ask("pod-2", cluster.vip()) == ("pod-1", cluster.pod(2))  # and nobody else is


def test_a_pod_reaches_itself_among_others(cluster):
    cluster.serve("web", [1, 2])
    network = cluster.start()
    answers = {network.ask("pod-1", cluster.vip()) for _ in range(31)}  # all to the same one: 2 in 2^31
    assert answers == {("pod-1", cluster.gateway(1)), ("pod-2", cluster.pod(1))}


def test_a_hairpin_needs_the_nodes_name_in_v1_36(cluster):
    """From then on nftables mode takes only endpoints on its own node for hairpins; before, and in iptables mode, any.

    An EndpointSlice without nodeName, which the API allows, then breaks what worked.
    """
    cluster.serve("web", [(1, {"nodeName": "elsewhere"})])
    cluster.serve("other", [2])
    network = cluster.start()
    by_name = cluster.proxy.nftables and cluster.proxy.version == "v1.36"
    expected: object = ("pod-1", cluster.gateway(1))
    if by_name:  # what comes from its own address is a martian in IPv4 alone; in IPv6 the pod answers itself
        ipv4 = cluster.family is Family.IPV4
        expected = "silence" if ipv4 else f"answered by a stranger: [{cluster.pod(1)}]:8080"
    assert network.fate("pod-1", cluster.vip()) == expected


@pytest.mark.parametrize("client", ["client", "outside"])
def test_node_ports_and_the_like_masquerade_everybody(cluster, client):
    """With externalTrafficPolicy Cluster: the endpoint may be on another node."""
    node_port = [{"port": 80, "nodePort": 30080}]
    balancer = {"type": "LoadBalancer", "ports": node_port, "status": [cluster.balancer(1)]}
    cluster.serve("web", [1], externalIPs=[cluster.balancer(2)], **balancer)
    network = cluster.start()
    assert seen(network, client, cluster.outside(1), 30080) == cluster.gateway(1)
    assert seen(network, client, cluster.balancer(1)) == cluster.gateway(1)
    assert seen(network, client, cluster.balancer(2)) == cluster.gateway(1)


def test_a_pod_that_asks_the_world_is_seen_as_its_node(cluster):
    """The SNAT of the pods' network plugin, which is not kube-proxy's: who goes out has the node's address.

    Without it the world sees a pod's address, to which it has no route in a real network. With it, services
    within the cluster are as before.
    """
    cluster.serve("web", [1])
    network = cluster.start()
    network.listen("world", 8080)
    world = (cluster.uplink(2), 8080)
    assert network.ask("client", *world) == ("world", cluster.pod(9))
    rules = f"*nat\n-A POSTROUTING -s {cluster.pod_range} ! -d {cluster.pod_range} -j MASQUERADE\nCOMMIT\n"
    network.lab.hosts["node"].xtables.start_restore(cluster.family.version, rules).finish()
    assert network.ask("client", *world) == ("world", cluster.uplink())
    assert network.ask("pod-1", *world) == ("world", cluster.uplink())
    assert seen(network, "client", cluster.vip()) == cluster.pod(9)
    assert seen(network, "client", cluster.pod(1), 8080) == cluster.pod(9)
