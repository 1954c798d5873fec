"""UDP and SCTP: each goes through as TCP does."""

from __future__ import annotations

import socket

import pytest

from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel

SCTP = 132  # RFC 9260


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


def test_sctp_goes_through_by_real_sockets(cluster):
    """One-to-one sockets (RFC 6458 section 4), used as TCP's are."""
    by_vip, by_node_port = serve(cluster, "SCTP")
    network = cluster.start()
    if "sctp" in network.lacking:
        pytest.skip("this kernel has no SCTP sockets; the crafted handshake stands in for them")
    assert network.ask("client", *by_vip, protocol="sctp") == ("pod-1", cluster.pod(9))
    assert network.ask("outside", *by_node_port, protocol="sctp") == ("pod-1", cluster.gateway(1))


def test_sctp_goes_through_by_a_crafted_handshake(cluster):
    """All four packets of an association (RFC 9260 section 5.1), sent and received by raw sockets on both hosts.

    Checksums are looked at where each packet arrives: address translation has to write them anew.
    """
    by_vip, by_node_port = serve(cluster, "SCTP")
    network = cluster.start()
    server = _Sctp(network, "pod-1")
    for name, place, seen_as in (
        ("client", by_vip, cluster.pod(9)),
        ("outside", by_node_port, cluster.gateway(1)),
    ):
        client = _Sctp(network, name)
        initial = {"init_tag": 7, "a_rwnd": 1500, "n_out_streams": 1, "n_in_streams": 1, "init_tsn": 1}
        client.send(place, client.make("SCTPChunkInit", **initial))
        first, peer = server.receive()
        assert (first.dport, peer[0]) == (8080, seen_as)
        assert first.getlayer("SCTPChunkInit").init_tag == 7
        peer = (peer[0], first.sport)
        cookie = server.make("SCTPChunkParamStateCookie", cookie=b"made here")
        server.send(peer, server.make("SCTPChunkInitAck", **{**initial, "init_tag": 8}, params=[cookie]), tag=7)
        second, answerer = client.receive()
        assert (answerer[0], second.sport, second.dport) == (*place, client.port)  # written back to the service
        client.send(place, client.make("SCTPChunkCookieEcho", cookie=b"made here"), tag=8)
        third, _ = server.receive()
        assert third.haslayer("SCTPChunkCookieEcho")
        server.send(peer, server.make("SCTPChunkCookieAck"), tag=7)
        fourth, answerer = client.receive()
        assert fourth.haslayer("SCTPChunkCookieAck")
        assert (answerer[0], fourth.sport) == place


class _Sctp:
    """SCTP packets of one host, by a raw socket; the kernel puts the IP header before them."""

    def __init__(self, network, host):
        from scapy.layers import sctp  # which takes half a second

        self.port = 8080 if host.startswith("pod") else 40000
        self._layers = sctp
        self._has_header = network.family is Family.IPV4  # raw(7): with it; ipv6(7): without
        self._socket = network.socket(host, network.address(host), kind=socket.SOCK_RAW, protocol=SCTP)

    def make(self, chunk, **fields):
        return getattr(self._layers, chunk)(**fields)

    def send(self, place, chunk, tag=0):
        packet = bytes(self._layers.SCTP(sport=self.port, dport=place[1], tag=tag) / chunk)
        self._socket.sendto(packet, (place[0], 0))

    def receive(self):
        """Return the next packet and who it is from; its checksum was right."""
        data, peer = self._socket.recvfrom(2000)
        if self._has_header:
            data = data[(data[0] & 15) * 4 :]
        assert int.from_bytes(data[8:12], "big") == self._layers.crc32c(data[:8] + bytes(4) + data[12:])
        return self._layers.SCTP(data), peer
