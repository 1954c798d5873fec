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
import errno
import os
import select
import socket
import struct
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from typing import NamedTuple

import pytest

from lab.fabric.lab import Lab
from lab.netns.rtnetlink import LOOPBACK_INDEX
from lab.netns.rtnetlink import address as netlink_address
from lab.topology.model import End, Host, Link, Route, Topology
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.objects import ONE_PORT, endpoint_slice, service

PORT = 8080  # the pods' own
ECHO = 7  # the pods' too; nobody but a barrier asks there
BOUND = 10  # seconds; a generous end to waits that an event ends within a millisecond
SOURCES = 24  # addresses of the host outside
PODS = 4
# SOL_IP and IP_RECVERR, SOL_IPV6 and IPV6_RECVERR (include/uapi/linux/in.h, in6.h)
_RECEIVE_ERRORS = {Family.IPV4: (0, 11), Family.IPV6: (41, 25)}


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


class Answer(NamedTuple):
    """Who answered, and as whom it saw the client."""

    server: str
    seen_as: str


class Network:
    """Questions to the hosts of a running lab, of one family. Every server listens on PORT and on ECHO."""

    def __init__(self, lab, family):
        self.lab = lab
        self.family = family
        self._listeners = {PORT: {}, ECHO: {}}
        self._datagrams = {}
        for host in lab.topology.servers:
            for port in self._listeners:
                self.listen(host.name, port)
            self._datagrams[self.socket(host.name, self.address(host.name), PORT, kind=socket.SOCK_DGRAM)] = host.name

    def address(self, host):
        """Return the first address of a host."""
        return str(self.lab.topology.addresses(host, self.family)[0])

    def socket(self, host, address, port=0, *, kind=socket.SOCK_STREAM, protocol=0):
        """Open a socket with an address of its own; it ends with the lab, a connection at once by a reset."""
        version = socket.AF_INET6 if self.family is Family.IPV6 else socket.AF_INET
        opened = self.lab.keep(self.lab.hosts[host].namespace.socket(version, kind, protocol))
        opened.settimeout(BOUND)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.bind((address, port))
        return opened

    def listen(self, host, port=PORT, *, address=None, protocol=0):
        """Have a host answer on a port of an address, its first if None."""
        listener = self.socket(host, address or self.address(host), port, protocol=protocol)
        listener.listen(64)
        self._listeners[ECHO if port == ECHO else PORT][listener] = host

    def claim(self, host, address, port=80):
        """Have a host answer for an address that none has: what gets there has slipped past the node's rules."""
        running, own = self.lab.hosts[host], ip_address(address)
        running.routes.apply([netlink_address(LOOPBACK_INDEX, ip_interface(own), f"the address {own}")])
        while not running.routes.is_local(own):
            pass
        self.listen(host, port, address=address)

    @staticmethod
    @contextmanager
    def in_order():
        """Keep this thread, and so every packet that it sends, on one processor.

        Then packets on one path can't overtake each other: each processor has one queue for all veth pairs
        (``netif_rx`` in net/core/dev.c).
        """
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def ask(self, client, address, port=80, *, source=None, protocol=0):
        """Connect, and have whoever accepts send its name back.

        :raises OSError: there is no connection, as the client's kernel says.
        """
        with self.socket(client, source or self.address(client), protocol=protocol) as asking:
            asking.connect((address, port))
            return self._answer(asking, PORT)

    def _answer(self, asking, port):
        listeners = self._listeners[port]
        ready, _, _ = select.select(listeners, [], [], BOUND)
        assert len(ready) == 1, "one connection, one server"
        name = listeners[ready[0]]
        accepted, peer = ready[0].accept()
        with accepted:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.sendall(name.encode())
            assert asking.recv(100) == name.encode()
        return Answer(name, peer[0])

    def fate(self, client, address, port=80, *, source=None, barrier=None):
        """Return what becomes of a connection at once: an :class:`Answer`, ``refused`` or ``silence``.

        Nothing is timed: the SYN is followed by a barrier, a second connection on the same path, and what has not come
        when the barrier's bytes have made their way there and back does not come for this SYN.

        :param barrier: an address and a port that lead to some server's ECHO; the first server's own if None.
        """
        source = source or self.address(client)
        with self.socket(client, source) as asking, self.socket(client, source) as second, self.in_order():
            asking.setblocking(False)
            # An ICMP error that is here before connect() has let go of the socket is kept for the next SYN, a second
            # later (tcp_v6_err in net/ipv6/tcp_ipv6.c), but with this it is reported at once.
            asking.setsockopt(*_RECEIVE_ERRORS[self.family], 1)
            code = asking.connect_ex((address, port))
            if barrier is None:
                others = (host.name for host in self.lab.topology.servers if host.name != client)
                barrier = (self.address(next(others)), ECHO)
            second.connect(barrier)
            self._answer(second, ECHO)
            arrived, _, _ = select.select(self._listeners[PORT], [], [], 0)
            _, decided, _ = select.select([], [asking], [], 0)
            if code == errno.EINPROGRESS and decided:
                code = asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                asking.settimeout(BOUND)
                return self._answer(asking, PORT)
            assert not arrived
            return {errno.EINPROGRESS: "silence", errno.ECONNREFUSED: "refused"}[code]

    def ask_by_datagram(self, client, address, port=80, *, source=None):
        """Send a datagram, and have whoever gets it send its name back.

        :raises ConnectionRefusedError: an ICMP error came back.
        """
        with self.socket(client, source or self.address(client), kind=socket.SOCK_DGRAM) as asking:
            asking.connect((address, port))
            asking.send(b"who is there?")
            ready, _, _ = select.select([asking, *self._datagrams], [], [], BOUND)
            assert len(ready) == 1
            if ready == [asking]:
                asking.recv(100)
            received, peer = ready[0].recvfrom(100)
            assert received == b"who is there?"
            name = self._datagrams[ready[0]]
            ready[0].sendto(name.encode(), peer)
            assert asking.recv(100) == name.encode()
            return Answer(name, peer[0])


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
