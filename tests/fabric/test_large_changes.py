"""A change that is too large for one transaction of an ordinary user: it comes in parts, and traffic goes on."""

from __future__ import annotations

import asyncio
import re

import pytest

from lab.errors import LabError
from lab.fabric.lab import Lab
from lab.netns import parts
from lab.vocabulary import Family, ProxyMode
from tests.support.objects import endpoint_slice, service

from .conftest import ADDRESSES, ask, connect, rules, servers
from .test_changes import lost_packets, one_processor, words  # noqa: F401  a fixture

pytestmark = pytest.mark.lab_kernel

BESIDE = 60  # Services beside the one that is asked
ROOM = 60_000  # bytes: all of them are several parts, and KUBE-SERVICES fits into one
ROOM_OF_NFT = 20_000


@pytest.fixture(params=["iptables-nft-v1.29", "nftables-v1.31", "nftables-v1.36"])
def node(request):
    from .conftest import NODES

    return NODES[request.param]


@pytest.fixture
def sent(monkeypatch):
    """Let so much be sent at once as in an ordinary user's namespace of a small machine; gather the parts."""
    gathered = []
    load = parts.load

    def gathering(blocks, size, weigh, send):
        load(blocks, size, weigh, lambda lines: (gathered.append(lines), send(lines))[1])

    monkeypatch.setattr(parts, "load", gathering)
    monkeypatch.setattr(parts, "room", lambda *_, **__: ROOM_OF_NFT)
    monkeypatch.setattr(parts, "room_of_programs", lambda: ROOM)
    return gathered


def with_many_beside(services, slices, endpoints):
    """Return the objects with many Services before them, each with so many endpoints."""
    more_services, more_slices = [], []
    for number in range(BESIDE):
        name = f"beside-{number}"
        ports = [{"name": "http", "port": 80}]
        more_services.append(service(name, clusterIP=f"192.168.1.{number + 1}", ports=ports))
        addresses = [{"addresses": [f"10.9.{number}.{last + 1}"]} for last in range(endpoints)]
        more_slices.append(endpoint_slice(name, addresses, Family.IPV4, target=80, ports=ports))
    return (*more_services, *services), (*more_slices, *slices)


def test_connections_are_made_meanwhile(build, sent, one_processor):  # noqa: F811
    addresses = ADDRESSES[next(iter(ADDRESSES))]
    first, second, _third = addresses.pods
    lab = build(addresses, 1)
    one = lab.services, lab.endpoint_slices
    lab.endpoints.add("web", second)
    two = lab.services, lab.endpoint_slices

    async def connect_until(changed):
        made = 0
        while not changed.done() or not made:
            with await connect(lab, addresses) as sock:
                assert lost_packets(sock) == 0
                assert await ask(sock) in {first, second}
            made += 1
        return made

    async def observe():
        async with servers(lab, addresses):
            for objects, endpoints in ((one, 3), (two, 2), (one, 0), (two, 3)) * 2:
                change = asyncio.create_task(asyncio.to_thread(lab.sync, *with_many_beside(*objects, endpoints)))
                await asyncio.gather(change, connect_until(change))

    asyncio.run(observe())
    assert len(sent) > 8


def test_the_rules_are_those_of_one_transaction(topology, monkeypatch, request):
    labs = []
    for _ in range(2):
        with Lab(topology) as lab:
            services, slices = lab.services, lab.endpoint_slices
            for endpoints in (3, 1, 2):
                lab.sync(*with_many_beside(services, slices, endpoints))
            labs.append(rules(lab))
        if len(labs) == 1:
            gathered = request.getfixturevalue("sent")
            assert gathered == []
    assert len(gathered) > 3
    if topology.nodes[0].proxy_mode is ProxyMode.IPTABLES:
        assert labs[0] == labs[1]
    else:
        assert words(labs[0]) == words(labs[1])


@pytest.mark.parametrize("node", ["iptables-nft-v1.29"], indirect=True)
def test_what_is_refused_in_a_later_part_is_taken_back(build, sent):
    addresses = ADDRESSES[next(iter(ADDRESSES))]
    lab = build(addresses, 1)
    services, slices = lab.services, lab.endpoint_slices
    lab.sync(*with_many_beside(services, slices, 3))
    xtables = lab.hosts["node"].xtables
    (chain,) = re.findall(r"-A (KUBE-SEP-\w+) .* 10\.9\.7\.3:80", rules(lab))
    xtables.start_restore(4, f"*nat\n-A OUTPUT -j {chain}\nCOMMIT\n").finish()
    before = rules(lab)
    # Its chain is in use, and what is to be deleted comes last.
    with pytest.raises(LabError, match=r"\(after \d+ parts of nat that are loaded\)"):
        lab.sync(*with_many_beside(services, slices, 2))
    assert sorted(rules(lab).splitlines()) == sorted(before.splitlines())
