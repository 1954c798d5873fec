r"""A cluster of one node on the running kernel, and questions that real sockets ask in it.

::

    outside 203.0.113.2 ... ----  203.0.113.1  node  10.244.N.1 ---- 10.244.N.2 pod-N, and client, which is N = 9
    (many addresses)              203.0.113.11   \                   (8080 and the echo's 7, TCP and UDP)
                                                 192.0.2.1 ---- 192.0.2.2 world, the node's default gateway

IPv6 the same with 2001:db8:203::2, fd00:244:0:N::2 and 2001:db8:192::2. The pods' range is the node's cluster-cidrs.

The host outside is not the node's gateway: what would go back where it came from makes the kernel send a redirect, and
for a second after one it sends no other ICMP error to that host (``ip_rt_send_redirect`` in net/ipv4/route.c shares
``rate_last`` with ``inet_peer_xrlim_allow``).
"""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address, ip_interface, ip_network
from typing import NamedTuple

import pytest

from lab.fabric.lab import Lab
from lab.topology.model import End, Host, Link, Topology
from lab.topology.reader import load
from lab.topology.route_keys import Route
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.asking import PORT, Network
from tests.support.objects import ONE_PORT, endpoint_slice, service

SOURCES = 24  # addresses of the host outside
PODS = 4


class Proxy(NamedTuple):
    """Which kube-proxy a node has."""

    mode: ProxyMode
    version: str
    backend: Backend

    @property
    def nftables(self):
        return self.mode is ProxyMode.NFTABLES

    @property
    def old(self):
        """With the chains of v1.14, which knew no internalTrafficPolicy."""
        return self.version == "v1.14"


#: One of each sort of rules that there is: iptables mode of both backends and both ages, nftables mode as it is since
#: v1.31, since v1.34 (refuses after DNAT) and since v1.36 (maps of endpoints).
PROXIES = {
    "iptables-nft": Proxy(ProxyMode.IPTABLES, "v1.36", Backend.NFT),
    "iptables-legacy": Proxy(ProxyMode.IPTABLES, "v1.29", Backend.LEGACY),
    "iptables-v1.14": Proxy(ProxyMode.IPTABLES, "v1.14", Backend.NFT),
    "nftables-v1.31": Proxy(ProxyMode.NFTABLES, "v1.31", Backend.NFT),
    "nftables-v1.34": Proxy(ProxyMode.NFTABLES, "v1.34", Backend.NFT),
    "nftables-v1.36": Proxy(ProxyMode.NFTABLES, "v1.36", Backend.NFT),
}


class Objects:
    """Services and EndpointSlices of one family."""

    def __init__(self, family):
        self.family = family
        self.services = []
        self.endpoint_slices = []

    def add(self, name, endpoints=(), *, ports=ONE_PORT, status=(), target=PORT, **spec):
        """Add a service.

        :param endpoints: an address, on the node ``node``, or an Endpoint with an address and its other fields.
        :param status: its load balancer's addresses.
        :param target: the endpoints' port.
        """
        ingress = [{"ip": ip} for ip in status]
        self.services.append(service(name, ports=ports, ingress=ingress, **spec))
        self.endpoint_slices.append(endpoint_slice(name, endpoints, self.family, target=target, ports=ports))


class Cluster(Objects):
    """The cluster of this file's head; :meth:`start` runs it with the services that were added before."""

    def __init__(self, proxy, family):
        super().__init__(family)
        self.proxy = proxy
        self.network = None
        ipv4 = family is Family.IPV4
        self.pod_range = "10.244.0.0/16" if ipv4 else "fd00:244::/32"
        self._places = ("10.96.0.{}", "203.0.113.{}", "198.51.100.{}", "10.244.{}.2", "10.244.{}.1", "192.0.2.{}")
        if not ipv4:
            self._places = (
                "fd00:96::{}",
                "2001:db8:203::{}",
                "2001:db8:198::{}",
                "fd00:244:0:{}::2",
                "fd00:244:0:{}::1",
                "2001:db8:192::{}",
            )

    def vip(self, number=1):
        """Return a cluster IP; the first service that is added has the first."""
        return self._places[0].format(number)

    def outside(self, number=2):
        """Return an address of the host outside; 1 and 11 are the node's."""
        return self._places[1].format(number)

    def balancer(self, number=1):
        """Return an address that no host has: an external IP or a load balancer's."""
        return self._places[2].format(number)

    def pod(self, number):
        """Return a pod's address."""
        return self._places[3].format(number)

    def gateway(self, number):
        """Return the node's address on a pod's link."""
        return self._places[4].format(number)

    def serve(self, name, endpoints=(), **options):
        """Add a service; endpoints are numbers of pods, or pairs of one with an Endpoint's other fields.

        They are on the node, where the fields do not say otherwise.
        """
        made = []
        for endpoint in endpoints:
            number, fields = (endpoint, {}) if isinstance(endpoint, int) else endpoint
            made.append({"addresses": [self.pod(number)], "nodeName": "node", **fields})
        self.add(name, made, **{"clusterIP": self.vip(len(self.services) + 1), **options})

    def uplink(self, number=1):
        """Return an address of the node's default route: 1 is the node's own, by which it asks; 2 the gateway's."""
        return self._places[5].format(number)

    def start(self, **node):
        """Run it.

        :param node: settings of the node's kube-proxy besides what ``self.proxy`` says.
        """
        length = 24 if self.family is Family.IPV4 else 64

        def end(host, interface, *addresses):
            return End(host, interface, tuple(ip_interface(f"{address}/{length}") for address in addresses))

        def default(address):
            return (Route("default", ip_interface(address).ip),)

        sources = [self.outside(number) for number in range(2, SOURCES + 3) if number != 11]
        links = [
            Link((end("outside", "eth0", *sources), end("node", "eth0", self.outside(1), self.outside(11)))),
        ]
        hosts = [
            Host("outside", routes=default(self.outside(1))),
            Host(
                "node",
                forwarding=True,
                routes=default(self.uplink(2)),
                proxy_mode=self.proxy.mode,
                proxy_version=self.proxy.version,
                backend=self.proxy.backend,
                # A kubelet that is told by --node-ip: its default route has another address.
                **{"cluster_cidrs": (ip_network(self.pod_range),), "node_ips": (ip_address(self.outside(1)),), **node},
            ),
        ]
        for name, number in (("client", 9), *((f"pod-{number}", number) for number in range(1, PODS + 1))):
            hosts.append(Host(name, routes=default(self.gateway(number))))
            links.append(Link((end(name, "eth0", self.pod(number)), end("node", name, self.gateway(number)))))
        hosts.append(Host("world", routes=default(self.uplink())))
        links.append(Link((end("world", "eth0", self.uplink(2)), end("node", "eth1", self.uplink()))))
        topology = Topology("cluster", tuple(hosts), tuple(links), tuple(self.services), tuple(self.endpoint_slices))
        self.network = Network(Lab(topology, family=self.family), self.family)
        return self.network

    def close(self):
        if self.network:
            self.network.lab.close()


class TwoNodes(Objects):
    """The shipped topology ``two-nodes``; with services of its own where any are added before the start."""

    def __init__(self, proxy, family):
        super().__init__(family)
        self.proxy = proxy
        backend = None if proxy.nftables else proxy.backend  # it is for iptables mode
        self.topology = with_proxy(load("two-nodes"), proxy.mode, proxy.version, backend)
        self.network = None

    def address(self, host, number=0):
        """Return an address of a host, in the order of the links."""
        return str(self.topology.addresses(host, self.family)[number])

    def start(self):
        """Run it."""
        if self.services:
            self.topology = dataclasses.replace(
                self.topology, services=tuple(self.services), endpoint_slices=tuple(self.endpoint_slices)
            )
        self.network = Network(Lab(self.topology, family=self.family), self.family)
        return self.network

    def close(self):
        if self.network:
            self.network.lab.close()


@pytest.fixture(params=PROXIES)
def proxy(request):
    return PROXIES[request.param]


@pytest.fixture(params=list(Family), ids=str)
def family(request):
    return request.param


@pytest.fixture
def cluster(proxy, family):
    made = Cluster(proxy, family)
    yield made
    made.close()


@pytest.fixture
def clusters(family):
    """One for each of PROXIES, by its name: for what takes long enough to be waited for once."""
    made = {name: Cluster(proxy, family) for name, proxy in PROXIES.items()}
    yield made
    for one in made.values():
        one.close()


@pytest.fixture
def two_nodes(proxy, family):
    made = TwoNodes(proxy, family)
    yield made
    made.close()
