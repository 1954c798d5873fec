"""One packet of somebody's own: where it went, and where it was lost without a rule."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lab.errors import InputError
from lab.evidence.packet import SocketAddress
from lab.fixes import NONE
from lab.scenario.own_packet import OwnPacket, Protocol, own_packet
from lab.topology.node_change import NodeChange
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial.own_packet import send
from lab.vocabulary import Backend, ProxyMode

pytestmark = pytest.mark.lab_kernel

VIP = SocketAddress("192.168.0.2", 80)
STRICT = replace(NONE, change=NodeChange(sysctls={"net/ipv4/conf/all/rp_filter": "1"}))


def sent(packet, fix=NONE, mode=None, backend=None):
    return asyncio.run(send(with_proxy(load("kube-proxy"), mode, None, backend), fix, packet))


def to(address, port=80, **more):
    return own_packet(load("kube-proxy"), more.pop("host", "client"), SocketAddress(address, port), **more)


@pytest.mark.parametrize(
    ("mode", "backend"),
    [(ProxyMode.IPTABLES, Backend.NFT), (ProxyMode.IPTABLES, Backend.LEGACY), (ProxyMode.NFTABLES, None)],
)
def test_a_syn_comes_to_an_endpoint_and_its_answer_back(mode, backend):
    found = sent(to(VIP.address, VIP.port), mode=mode, backend=backend)
    assert found.faults == found.untraced == ()
    syn, answer, _reset = found.walks
    assert (syn.role, syn.state, syn.packet.destination) == ("judged", "new", VIP)
    assert syn.left.destination == SocketAddress("10.0.1.2", 80)
    assert (answer.state, answer.packet.source, answer.left.source) == ("established", syn.left.destination, VIP)
    assert found.end.startswith("came to server as ")
    assert [packet.source for packet in found.answers] == [VIP]


@pytest.mark.parametrize(
    ("packet", "fix", "where", "why"),
    [
        (to("172.16.0.1"), NONE, "prerouting", "IpExtInNoRoutes 1 (no route)"),
        (to("fd00:dead::1"), NONE, "prerouting", "Ip6InNoRoutes 1 (no route)"),
        (replace(to("10.0.1.2"), source=SocketAddress("10.0.1.9", 1)), STRICT, "prerouting", "IPReversePathFilter 1"),
        (to("10.0.1.7"), NONE, "postrouting", "no neighbour has its address"),
    ],
    ids=["no route", "no route, ipv6", "rp_filter", "no neighbour"],
)
def test_what_vanishes_without_a_rule_is_told_by_the_kernels_counters(packet, fix, where, why):
    found = sent(packet, fix)
    walk = found.walks[0]
    assert walk.vanished
    assert walk.fate is None
    assert walk.last_hook == where
    assert why in walk.vanishing


def test_strict_rp_filter_alone_is_what_loses_it():
    packet = replace(to("10.0.1.2"), source=SocketAddress("10.0.1.9", 1))
    assert not sent(packet).walks[0].vanished


def test_a_nodes_own_packet_meets_its_output():
    packet = to("10.0.1.2", host="node", protocol=Protocol.UDP)
    [walk, *_more] = sent(packet).walks
    assert walk.hooks[0].hook == "output"
    assert not walk.vanished
    assert walk.left.source.address == "10.0.1.1"


def test_what_its_own_stack_refuses_is_told():
    found = sent(to("192.168.0.2", host="node"))
    assert found.refusal == "ENETUNREACH (Network is unreachable)"
    assert found.walks == ()


def test_an_unknown_host_is_refused():
    with pytest.raises(InputError, match=r"there is no host 'clinet'.*did you mean 'client'"):
        to("10.0.1.2", host="clinet")


def test_flags_are_those_that_were_wanted():
    packet = OwnPacket("client", SocketAddress("10.0.0.2", 5), SocketAddress("10.0.1.2", 80), flags="FPU")
    [walk, *_more] = sent(packet).walks
    assert (walk.packet.tcp.flag_names, walk.state) == ("FIN,PSH,URG", "invalid")
