"""Stale conntrack entries of UDP flows: a client that keeps its port, across changes of the endpoints."""

from __future__ import annotations

import asyncio
import dataclasses
import socket

import pytest

from lab.conntrack.netlink import ConntrackTable
from lab.evidence.packet import TCP, UDP, SocketAddress
from lab.topology.reader import parse, shipped
from lab.topology.with_settings import with_proxy
from lab.traffic.tcp import datagram_socket, listen
from lab.vocabulary import Family

from .conftest import PATIENCE

pytestmark = pytest.mark.lab_kernel

CLIENTS = {Family.IPV4: "10.0.0.2", Family.IPV6: "fd00:10::2"}
NODE = "node: {forwarding: true,"
# What is not for the node itself goes out by the link of server-3, as on nodes that have a default route.
UPLINK = 'node: {forwarding: true, routes: [{to: default, via: 10.0.3.2}, {to: default, via: "fd00:10:0:3::2"}],'


@pytest.fixture
def topology(node):
    text = dict(shipped())["endpoints"].read_text().replace("protocol: TCP", "protocol: UDP")
    assert NODE in text
    # Where the VIP is known to be of no Service nothing of it is let on its way, and no entry stays.
    return dataclasses.replace(with_proxy(parse(text.replace(NODE, UPLINK)), *node), service_cidrs=())


class Flow:
    """A client that sends from one port to the VIP, and servers that take it in."""

    def __init__(self, lab, addresses):
        self.lab = lab
        self.ends = SocketAddress(CLIENTS[addresses.family], 5353), SocketAddress(addresses.vip, 80)
        self.client = lab.keep(datagram_socket(lab.hosts["client"].namespace, *self.ends))
        self.table = lab.keep(ConntrackTable(lab.hosts["node"].namespace))
        self.servers = {}
        for number, pod in enumerate(addresses.pods[:2], 1):
            server = datagram_socket(lab.hosts[f"server-{number}"].namespace, SocketAddress(pod, 80), self.ends[0])
            self.servers[lab.keep(server)] = pod

    def send(self):
        self.client.send(b"?")

    def received_by(self):
        """Send a datagram, and return the address of the server that got it."""

        async def observe():
            loop = asyncio.get_running_loop()
            receiving = {asyncio.create_task(loop.sock_recv(server, 16)): pod for server, pod in self.servers.items()}
            self.send()
            done, pending = await asyncio.wait(receiving, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            (task,) = done
            return receiving[task]

        return asyncio.run(observe())

    def endpoint(self):
        """Who conntrack takes to answer the flow; None without an entry."""
        entry = self.table.entry(UDP, *self.ends)
        return entry and entry.reply[0].address


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "keep"])
def test_a_flow_leaves_an_endpoint_that_is_gone_only_when_its_entry_does(build, addresses, clean):
    first, second, _third = addresses.pods
    lab = build(addresses, 1)
    flow = Flow(lab, addresses)
    assert flow.received_by() == first
    lab.endpoints.add("web", second)
    assert flow.received_by() == first
    lab.endpoints.remove("web", first, clean_conntrack=clean)
    assert flow.endpoint() == (None if clean else first)
    assert flow.received_by() == (second if clean else first)


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "keep"])
def test_a_flow_that_came_before_its_service_is_served_only_when_its_entry_is_gone(build, addresses, clean):
    lab = build(addresses, 1)
    services, slices = lab.services, lab.endpoint_slices
    lab.sync((), ())
    flow = Flow(lab, addresses)
    flow.send()
    assert flow.endpoint() == addresses.vip  # on its way out by the default route
    lab.sync(services, slices, clean_conntrack=clean)
    if clean:
        assert flow.received_by() == addresses.pods[0]
    else:
        flow.send()
        assert flow.endpoint() == addresses.vip


def test_entries_of_others_stay(build, addresses):
    first, second, third = addresses.pods
    lab = build(addresses, 2)
    client = CLIENTS[addresses.family]
    straight = SocketAddress(client, 7777), SocketAddress(first, 80)  # to the pod itself, not by the VIP
    lab.keep(datagram_socket(lab.hosts["client"].namespace, *straight)).send(b"?")
    listener = lab.keep(listen(lab.hosts["server-3"].namespace, SocketAddress(third, 80)))
    stream = lab.keep(lab.hosts["client"].namespace.socket(listener.family, socket.SOCK_STREAM))
    stream.setblocking(True)
    stream.connect((third, 80))
    lab.endpoints.remove("web", first)
    lab.endpoints.remove("web", second)
    left = lab.keep(ConntrackTable(lab.hosts["node"].namespace)).entries()
    assert {entry.protocol for entry in left} == {UDP, TCP}
    assert straight in [entry.original for entry in left]


def test_only_the_nodes_namespace_is_touched(build, addresses):
    first, second, _third = addresses.pods
    lab, other = build(addresses, 2), build(addresses, 2)
    lab.endpoints.remove("web", second)
    other.endpoints.remove("web", second)
    flow, others = Flow(lab, addresses), Flow(other, addresses)
    assert flow.received_by() == others.received_by() == first
    lab.endpoints.add("web", second)
    lab.endpoints.remove("web", first)
    assert flow.endpoint() is None
    assert others.endpoint() == first
