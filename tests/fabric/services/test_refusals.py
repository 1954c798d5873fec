"""What is not served: refused at once, or met with silence."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.lab_kernel

NODE_PORT = [{"port": 80, "nodePort": 30080}]


@pytest.mark.parametrize("client", ["client", "outside", "node"])
def test_a_service_without_endpoints_refuses(cluster, client):
    """An ICMP error answers the very SYN: there is nothing to wait for."""
    cluster.serve("web", [(1, {"conditions": {"ready": False}})])
    cluster.serve("other", [2])
    network = cluster.start()
    assert network.fate(client, cluster.vip()) == "refused"
    assert network.fate(client, cluster.vip(2)).server == "pod-2"


@pytest.mark.parametrize("client", ["client", "outside"])
def test_every_address_of_a_service_without_endpoints_refuses(cluster, client):
    balancer = {"type": "LoadBalancer", "ports": NODE_PORT, "status": [cluster.balancer(1)]}
    cluster.serve("web", externalIPs=[cluster.balancer(2)], **balancer)
    cluster.serve("other", [2])
    network = cluster.start()
    assert network.fate(client, cluster.balancer(1)) == "refused"
    # v1.14 looks there in INPUT alone: only where the address is the node's own.
    assert network.fate(client, cluster.balancer(2)) == ("silence" if cluster.proxy.old else "refused")
    # Nobody listens there on the node itself, so its stack would refuse as well: see the next test.
    assert network.fate(client, cluster.outside(1), 30080) == "refused"


def test_a_node_port_without_endpoints_refuses_even_where_somebody_listens(cluster):
    cluster.serve("web", type="NodePort", ports=NODE_PORT)
    cluster.serve("other", [2])
    network = cluster.start()
    listener = network.socket("node", cluster.outside(1), 30080)
    listener.listen()
    assert network.fate("outside", cluster.outside(1), 30080) == "refused"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("client", ["client", "outside"])
def test_an_undefined_port_of_a_cluster_ip(cluster, client):
    """Refused in nftables mode. In iptables mode nobody minds: the packet goes where the node's routes lead."""
    cluster.serve("web", [1])
    network = cluster.start()
    network.claim("world", cluster.vip(), 81)
    fate = network.fate(client, cluster.vip(), 81)
    assert fate == ("refused" if cluster.proxy.nftables else ("world", network.address(client)))


def test_source_ranges_let_nobody_else_in(cluster):
    length = 31 if cluster.family.version == 4 else 127
    ranges = {"loadBalancerSourceRanges": [f"{cluster.outside(2)}/{length}"]}
    cluster.serve("web", [1], type="LoadBalancer", ports=NODE_PORT, status=[cluster.balancer()], **ranges)
    network = cluster.start()
    network.claim("world", cluster.balancer())
    inside, beyond = cluster.outside(3), cluster.outside(4)
    assert network.fate("outside", cluster.balancer(), source=inside) == ("pod-1", cluster.gateway(1))
    # v1.14 leaves the drop to the kubelet's KUBE-FIREWALL, which INPUT and OUTPUT lead to: what is forwarded gets by.
    expected = ("world", cluster.uplink()) if cluster.proxy.old else "silence"
    assert network.fate("outside", cluster.balancer(), source=beyond) == expected
    assert network.fate("client", cluster.balancer()) == expected
    # The ranges are the balancer's: its node port and its cluster IP are open to everybody.
    assert network.fate("outside", cluster.outside(1), 30080, source=beyond).server == "pod-1"
    assert network.fate("outside", cluster.vip(), source=beyond).server == "pod-1"


def test_nobody_is_refused_without_a_rule(cluster):
    """A test of the tests: what the hosts' own stacks make of it."""
    cluster.serve("web", [1])
    network = cluster.start()
    assert network.fate("client", cluster.vip()) == ("pod-1", cluster.pod(9))
    assert network.fate("client", cluster.pod(2), 9999) == "refused"  # by the pod's own stack
    assert network.fate("client", cluster.balancer()) == "silence"  # which no host has
