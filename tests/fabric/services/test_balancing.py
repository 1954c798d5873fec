"""New connections spread over the endpoints; with session affinity they stay, until it ends."""

from __future__ import annotations

import math
import re
import socket
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.lab_kernel

FALSE_ALARM = 1e-9  # the probability that a test fails where the rules are right
CONNECTIONS = 3000
STICKY = {"sessionAffinity": "ClientIP"}
CLIENTS = math.ceil(-math.log(FALSE_ALARM, 3))  # so many choose the same of three again, all of them, as rarely as that


def test_new_connections_spread_evenly(cluster):
    """Pearson's chi-squared test.

    With three endpoints it has two degrees of freedom, and then its tail is just exp(-x/2), so the bound is exact but
    for the approximation of the multinomial. A balance of 1/3, 2/9, 4/9 (the second probability left as the first)
    gives 220 or so, where the bound is 41.
    """
    cluster.serve("web", [1, 2, 3, (4, {"conditions": {"ready": False}})])
    network = cluster.start()
    chosen = Counter(network.ask("client", cluster.vip()).server for _ in range(CONNECTIONS))
    assert chosen.keys() == {"pod-1", "pod-2", "pod-3"}
    expected = CONNECTIONS / 3
    deviation = sum((count - expected) ** 2 / expected for count in chosen.values())
    assert deviation < -2 * math.log(FALSE_ALARM), chosen


def test_a_client_sticks_to_its_endpoint(cluster):
    cluster.serve("web", [1, 2, 3], **STICKY)
    network = cluster.start()
    sources = [cluster.outside(number) for number in range(2, 8)]
    first = {source: network.ask("outside", cluster.vip(), source=source).server for source in sources}
    for source in sources:
        for _ in range(CLIENTS):
            assert network.ask("outside", cluster.vip(), source=source).server == first[source]


def test_another_client_may_get_another_endpoint(cluster):
    """Affinity is kept by the client's address: not by its host, and not for all."""
    cluster.serve("web", [1, 2, 3], **STICKY)
    network = cluster.start()
    sources = [cluster.outside(number) for number in range(12, 12 + 12)]
    assert len({network.ask("outside", cluster.vip(), source=source).server for source in sources}) > 1


def test_affinity_expires(clusters):
    """One second is the least that Kubernetes takes. Its end is the kernel's own word, asked for again and again."""
    memories, before = {}, {}
    for name, cluster in clusters.items():
        cluster.serve("web", [1, 2, 3], **STICKY, sessionAffinityConfig={"clientIP": {"timeoutSeconds": 1}})
        kind = _SetMemory if cluster.proxy.nftables else _RecentMemory
        memories[name] = kind(cluster.start(), cluster, _sources(cluster)[-1])
        assert not memories[name].lasts()
    for name, cluster in clusters.items():
        for _attempt in range(10):  # a machine may stall for longer than the second
            before[name] = _ask_all(cluster)
            if memories[name].lasts():
                break
        else:
            pytest.fail(f"{name}: nothing is ever remembered")
    for name, memory in memories.items():
        bound = time.monotonic() + 60
        while memory.lasts():
            assert time.monotonic() < bound, f"{name}: never forgotten"
    after = {name: _ask_all(cluster) for name, cluster in clusters.items()}
    assert [name for name in clusters if before[name] == after[name]] == []


def _sources(cluster):
    return [cluster.outside(number) for number in range(2, 3 + CLIENTS) if number != 11]


def _ask_all(cluster):
    """Return who answers each of CLIENTS clients."""
    return [cluster.network.ask("outside", cluster.vip(), source=source).server for source in _sources(cluster)]


class _RecentMemory:
    """The lists of xt_recent in iptables mode, asked as kube-proxy's own rules ask, but without any effect on them.

    ``/proc/net/xt_recent`` does not tell whether an address is still remembered. So a rule drops a datagram while it
    is, and a second datagram shows that the first was dropped.
    """

    def __init__(self, network, cluster, source):
        self._network, node = network, network.lab.hosts["node"]
        names = set(re.findall("--name (KUBE-SEP-[A-Z0-9]+) --rcheck", "".join(node.rules)))
        assert len(names) == 3
        match = "-p udp --dport 7 -m recent --rcheck --seconds 1 --name"
        rules = "".join(f"-I INPUT {match} {name} -j DROP\n" for name in names)
        node.xtables.start_restore(cluster.family.version, f"*filter\n{rules}COMMIT\n").finish()
        self._first, self._second = (
            network.socket("node", cluster.outside(1), port, kind=socket.SOCK_DGRAM) for port in (7, 8)
        )
        self._client = network.socket("outside", source, kind=socket.SOCK_DGRAM)
        self._first.setblocking(False)

    def lasts(self):
        with self._network.in_order():
            for listener in (self._first, self._second):
                self._client.sendto(b"", listener.getsockname())
            self._second.recv(1)
        try:
            self._first.recv(1)
        except BlockingIOError:
            return True
        return False


class _SetMemory:
    """The affinity sets of nftables mode; the kernel lists no element whose time is over."""

    def __init__(self, network, cluster, source):
        self._nft = network.lab.hosts["node"].nft
        self._table = f"{'ip' if cluster.family.version == 4 else 'ip6'} kube-proxy"
        listed = self._nft.run(f"list sets {self._table.split()[0]}")
        self._sets = [line.split()[1] for line in listed.splitlines() if line.startswith("\tset affinity-")]
        assert len(self._sets) == 3

    def lasts(self):
        return any("elements" in self._nft.run(f"list set {self._table} {name}") for name in self._sets)
