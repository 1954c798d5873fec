"""By which addresses a service is reached: node ports, external IPs and load balancers' IPs."""

from __future__ import annotations

import pytest

from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel

NODE_PORT = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}


@pytest.mark.parametrize("client", ["client", "outside", "node"])
def test_a_node_port_by_each_address_of_the_node(cluster, client):
    """iptables mode takes any local address; nftables mode the primary one alone, the others have no listener."""
    cluster.serve("web", [1], **NODE_PORT)
    network = cluster.start()
    for address in (cluster.outside(1), cluster.outside(11), cluster.gateway(9)):
        fate = network.fate(client, address, 30080)
        if cluster.proxy.nftables and address != cluster.outside(1):
            assert fate == "refused"
        else:
            assert fate == ("pod-1", cluster.gateway(1))


def test_a_node_port_by_localhost(cluster):
    """Only in iptables mode and IPv4: it needs ``route_localnet``, of which IPv6 has nothing."""
    cluster.serve("web", [1], **NODE_PORT)
    network = cluster.start()
    localhost = "127.0.0.1" if cluster.family is Family.IPV4 else "::1"
    fate = network.fate("node", localhost, 30080, source=localhost)
    if cluster.proxy.old and cluster.family is Family.IPV6:
        assert fate == "silence"  # v1.14 catches it all the same, and what comes from ::1 cannot leave the node
    elif cluster.proxy.nftables or cluster.family is Family.IPV6:
        assert fate == "refused"
    else:
        assert fate == ("pod-1", cluster.gateway(1))
    assert network.ask("node", cluster.outside(1), 30080) == ("pod-1", cluster.gateway(1))


def test_a_node_port_is_no_other_port(cluster):
    cluster.serve("web", [1], **NODE_PORT)
    network = cluster.start()
    assert network.fate("outside", cluster.outside(1), 30081) == "refused"
    assert network.fate("outside", cluster.outside(1), 80) == "refused"


@pytest.mark.parametrize("client", ["client", "outside", "node"])
def test_external_ips_and_load_balancer_ips(cluster, client):
    """Addresses that no host has: the rules alone answer for them."""
    balancer = {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]}
    cluster.serve("web", [1], externalIPs=[cluster.balancer(1)], status=[cluster.balancer(2)], **balancer)
    network = cluster.start()
    if not (client == "node" and cluster.proxy.old):
        # v1.14 sends to an external IP only what neither comes over a bridge nor from the node itself.
        assert network.ask(client, cluster.balancer(1)) == ("pod-1", cluster.gateway(1))
    assert network.ask(client, cluster.balancer(2)) == ("pod-1", cluster.gateway(1))
    assert network.fate("client", cluster.balancer(3)) == "silence"


def test_ports_of_one_service_have_their_own_endpoints(cluster):
    """And so do services on one address: nothing but the port tells them apart."""
    cluster.serve("first", [1], externalIPs=[cluster.balancer()])
    cluster.serve("second", [2], externalIPs=[cluster.balancer()], ports=[{"port": 81}])
    several = [{"name": "a", "port": 90}, {"name": "b", "port": 91, "protocol": "UDP"}]
    cluster.serve("several", [3], externalIPs=[cluster.balancer()], ports=several)
    network = cluster.start()
    servers = [network.ask("outside", cluster.balancer(), port).server for port in (80, 81, 90)]
    assert servers == ["pod-1", "pod-2", "pod-3"]
    assert network.ask_by_datagram("outside", cluster.balancer(), 91).server == "pod-3"
