"""externalTrafficPolicy and internalTrafficPolicy Local, as one node sees them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.lab_kernel

ELSEWHERE = {"nodeName": "elsewhere"}
MANY = 31  # connections: by chance alone, all go to the same one of two endpoints once in 2^30
PORTS = [{"port": 80, "nodePort": 30080}]


def serve(cluster, endpoints, policy="Local", **options):
    """Add a service that can be reached by node port, load balancer and external IP; return these three places."""
    balancer = {"type": "LoadBalancer", "ports": PORTS, "status": [cluster.balancer(1)], **options}
    cluster.serve("web", endpoints, externalTrafficPolicy=policy, **balancer)
    return (cluster.outside(1), 30080), (cluster.balancer(1), 80)


def answers(network, client, place):
    return {network.ask(client, *place) for _ in range(MANY)}


def test_external_local_keeps_the_clients_address_and_its_node(cluster):
    places = serve(cluster, [1, (2, ELSEWHERE)])
    network = cluster.start()
    for place in places:
        assert answers(network, "outside", place) == {("pod-1", cluster.outside())}


def test_external_cluster_does_neither(cluster):
    """The control: the same service without the policy."""
    places = serve(cluster, [1, (2, ELSEWHERE)], "Cluster")
    network = cluster.start()
    for place in places:
        expected = {("pod-1", cluster.gateway(1)), ("pod-2", cluster.gateway(2))}
        assert answers(network, "outside", place) == expected


def test_external_local_is_for_who_comes_from_outside(cluster):
    """Pods and the node itself get any endpoint; the node's own connections are masqueraded, the pods' are not."""
    places = serve(cluster, [1, (2, ELSEWHERE)])
    network = cluster.start()
    for place in places:
        assert answers(network, "client", place) == {("pod-1", cluster.pod(9)), ("pod-2", cluster.pod(9))}
        expected = {("pod-1", cluster.gateway(1)), ("pod-2", cluster.gateway(2))}
        if cluster.proxy.old:  # v1.14 takes the node for anybody outside; it comes from its own address
            expected = {("pod-1", cluster.outside(1))}
        assert answers(network, "node", place) == expected


def test_without_a_cluster_cidr_a_pod_comes_from_outside_too(cluster):
    places = serve(cluster, [1, (2, ELSEWHERE)])
    network = cluster.start(cluster_cidrs=())
    for place in places:
        assert answers(network, "client", place) == {("pod-1", cluster.pod(9))}


def test_external_local_without_a_local_endpoint_is_silent(cluster):
    """Every version means to drop: who sends here is to try another node, not to hear that nobody serves."""
    places = _, balancer = serve(cluster, [(2, ELSEWHERE)])
    network = cluster.start()
    network.claim("world", balancer[0])
    # In OUTPUT the first nftables modes refused before DNAT, and so what the node itself may do (until v1.34).
    refuses_before_dnat = cluster.proxy.nftables and cluster.proxy.version == "v1.31"
    for place in places:
        # v1.14 leaves the drop to the kubelet's KUBE-FIREWALL, which INPUT and OUTPUT lead to, and FORWARD does not.
        slips_past = cluster.proxy.old and place == balancer
        assert network.fate("outside", *place) == (("world", cluster.outside()) if slips_past else "silence")
        assert network.fate("client", *place) == ("pod-2", cluster.pod(9))
        if not (cluster.proxy.old or (refuses_before_dnat and place == balancer)):
            assert network.fate("node", *place) == ("pod-2", cluster.gateway(2))
        else:
            assert network.fate("node", *place) == "silence"
    assert network.fate("outside", cluster.vip()) == ("pod-2", cluster.gateway(2))  # the policy is not the VIP's


def test_external_local_without_any_endpoint_refuses(cluster):
    places = serve(cluster, [])
    cluster.serve("other", [1])
    network = cluster.start()
    for place in places:
        assert network.fate("outside", *place) == "refused"


def test_a_terminating_endpoint_is_used_where_there_is_no_other(cluster):
    """The last local one still serves, so the balancer's connections are not lost (v1.26 and later, KEP-1669)."""
    leaving = {"conditions": {"ready": False, "serving": True, "terminating": True}}
    places = serve(cluster, [(1, leaving), (2, ELSEWHERE)])
    network = cluster.start()
    for place in places:
        expected = "silence" if cluster.proxy.old else ("pod-1", cluster.outside())
        assert network.fate("outside", *place) == expected
    assert answers(network, "client", (cluster.vip(), 80)) == {("pod-2", cluster.pod(9))}


def test_internal_local_stays_on_its_node(cluster):
    cluster.serve("web", [1, (2, ELSEWHERE)], internalTrafficPolicy="Local")
    network = cluster.start()
    servers = {"pod-1", "pod-2"} if cluster.proxy.old else {"pod-1"}  # the field came with v1.21
    expected = {(server, cluster.pod(9)) for server in servers}
    assert answers(network, "client", (cluster.vip(), 80)) == expected


def test_internal_local_without_a_local_endpoint_is_silent(cluster):
    cluster.serve("web", [(2, ELSEWHERE)], internalTrafficPolicy="Local", type="NodePort", ports=PORTS)
    network = cluster.start()
    expected = ("pod-2", cluster.pod(9)) if cluster.proxy.old else "silence"
    network.claim("world", cluster.vip())
    assert network.fate("client", cluster.vip()) == expected
    assert network.fate("outside", cluster.outside(1), 30080) == ("pod-2", cluster.gateway(2))  # which is external
