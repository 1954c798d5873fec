"""UDP and SCTP: each goes through as TCP does."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.lab_kernel


def serve(cluster, protocol, endpoints=(1,), **options):
    """Add a service of one protocol that can be reached by cluster IP and node port; return these two places."""
    ports = [{"port": 80, "protocol": protocol, "nodePort": 30080}]
    cluster.serve("web", endpoints, type="NodePort", ports=ports, **options)
    return (cluster.vip(), 80), (cluster.outside(1), 30080)


def test_udp_goes_through(cluster):
    by_vip, by_node_port = serve(cluster, "UDP")
    network = cluster.start()
    assert network.ask_by_datagram("client", *by_vip) == ("pod-1", cluster.pod(9))
    assert network.ask_by_datagram("outside", *by_vip) == ("pod-1", cluster.gateway(1))
    assert network.ask_by_datagram("outside", *by_node_port) == ("pod-1", cluster.gateway(1))
    assert network.ask_by_datagram("pod-1", *by_vip) == ("pod-1", cluster.gateway(1))  # the hairpin


def test_udp_keeps_the_clients_address_with_local_policy(cluster):
    _, by_node_port = serve(cluster, "UDP", externalTrafficPolicy="Local")
    network = cluster.start()
    assert network.ask_by_datagram("outside", *by_node_port) == ("pod-1", cluster.outside())


def test_udp_without_endpoints_is_refused(cluster):
    by_vip, by_node_port = serve(cluster, "UDP", [])
    network = cluster.start()
    for client in ("client", "outside"):
        with pytest.raises(ConnectionRefusedError):
            network.ask_by_datagram(client, *by_vip)
    with pytest.raises(ConnectionRefusedError):
        network.ask_by_datagram("outside", *by_node_port)


def test_a_protocols_port_is_not_anothers(cluster):
    serve(cluster, "UDP")
    cluster.serve("other", [2])
    network = cluster.start()
    assert network.fate("client", cluster.vip()) == ("refused" if cluster.proxy.nftables else "silence")


def test_sctp_goes_through(cluster):
    """By real sockets where the kernel has them (RFC 6458, 4), else by a handshake of the lab's own packets."""
    by_vip, by_node_port = serve(cluster, "SCTP")
    network = cluster.start()
    assert network.ask("client", *by_vip, protocol="sctp") == ("pod-1", cluster.pod(9))
    assert network.ask("outside", *by_node_port, protocol="sctp") == ("pod-1", cluster.gateway(1))
