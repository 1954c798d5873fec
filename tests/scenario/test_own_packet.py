"""One packet of somebody's own: where it went, and where it was lost without a rule."""

from __future__ import annotations

import asyncio
import platform
from dataclasses import replace

import pytest

from lab.errors import InputError
from lab.evidence.packet import SocketAddress
from lab.fabric.lab import Lab
from lab.fixes import NONE
from lab.scenario.own_packet import OwnPacketScenario, Protocol, Wanted, checked
from lab.topology.node_change import NodeChange
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.trial.own_packet import roles_for, send
from lab.vocabulary import Backend, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel

VIP = SocketAddress("192.168.0.2", 80)
STRICT = replace(NONE, change=NodeChange(sysctls={"net/ipv4/conf/all/rp_filter": "1"}))


def sent(packet, fix=NONE, mode=None, backend=None):
    return asyncio.run(send(with_proxy(load("kube-proxy"), mode, None, backend), fix, packet)).sent


def to(address, port=80, **more):
    return checked(load("kube-proxy"), Wanted(more.pop("host", "client"), SocketAddress(address, port), **more))


WAYS = [(ProxyMode.IPTABLES, Backend.NFT), (ProxyMode.IPTABLES, Backend.LEGACY), (ProxyMode.NFTABLES, None)]


@pytest.mark.parametrize(("mode", "backend"), WAYS)
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
        (to("10.0.1.2", source="10.0.1.9", port=1), STRICT, "prerouting", "IPReversePathFilter 1"),
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


def on_a_device(family, hook, device, *rules):
    """Return a fix that hangs a chain on a device of the node."""
    chain = f"chain c {{ type filter hook {hook} device {device} priority -1000; policy accept; {'; '.join(rules)}; }}"
    return replace(NONE, change=NodeChange(script=f"nft 'table {family} fw {{ {chain}; }}'"))


@pytest.mark.parametrize(
    ("family", "hook", "device"),
    [("netdev", "ingress", "client"), ("inet", "ingress", "client"), ("netdev", "egress", "server")],
)
def test_a_rule_on_a_device_is_named_where_it_drops(family, hook, device):
    if hook == "egress" and tuple(map(int, platform.release().split(".")[:2])) < (5, 16):
        pytest.skip("the kernel has no egress hook")
    found = sent(to(VIP.address, VIP.port), on_a_device(family, hook, device, "tcp dport 80 drop"))
    [walk] = found.walks
    assert (walk.fate.family, walk.fate.table, walk.fate.rule.text) == (family, "fw", "tcp dport 80 drop")
    assert (walk.hooks[-1].hook, walk.vanished, walk.state) == (hook, False, "" if hook == "ingress" else "new")
    assert found.untraced == ()
    assert found.answers == ()


@pytest.mark.parametrize(("mode", "backend"), WAYS)
def test_what_a_chain_on_a_device_lets_pass_has_one_walk(mode, backend):
    found = sent(to(VIP.address, VIP.port), on_a_device("netdev", "ingress", "client"), mode, backend)
    assert found.faults == found.untraced == ()
    syn, answer, reset = found.walks
    assert [[at.hook for at in walk.hooks].count("ingress") for walk in (syn, answer, reset)] == [1, 0, 1]
    assert (syn.hooks[0].hook, syn.hooks[1].hook, syn.state) == ("ingress", "prerouting", "new")
    assert syn.left.destination == SocketAddress("10.0.1.2", 80)


def test_rules_of_a_bridge_are_told_also_where_it_passes_frames_on_by_itself():
    [its] = [host for host in load("bridge").hosts if host.proxy_mode]
    plain = replace(its, bridge_nf_call_iptables=False)
    topology = load("bridge")
    topology = replace(topology, hosts=tuple(plain if host.proxy_mode else host for host in topology.hosts))
    packet = Wanted("client", SocketAddress("10.1.0.3", 8080))

    def walks(rule):
        chain = f"chain c {{ type filter hook prerouting priority 0; policy accept; {rule}; }}"
        fix = replace(NONE, change=NodeChange(script=f"nft 'table bridge fw {{ {chain}; }}'"))
        found = asyncio.run(send(topology, fix, packet)).sent
        assert found.faults == found.untraced == ()
        return found.walks

    passed = walks("tcp dport 1 drop")
    syn, [answer] = passed[0], [walk for walk in passed if walk.role == "handshake"]
    assert [[(at.hook, at.family) for at in walk.hooks] for walk in (syn, answer)] == [[("prerouting", "bridge")]] * 2
    assert not any(walk.vanished for walk in passed)  # nor do copies that the bridge makes
    assert (syn.left, syn.state) == (syn.packet, "")
    [dropped] = walks("tcp dport 8080 drop")
    assert (dropped.fate.family, dropped.fate.rule.text) == ("bridge", "tcp dport 8080 drop")


def test_strict_rp_filter_alone_is_what_loses_it():
    packet = to("10.0.1.2", source="10.0.1.9", port=1)
    assert not sent(packet).walks[0].vanished


def test_a_nodes_own_packet_meets_its_output():
    packet = to("10.0.1.2", host="node", protocol=Protocol.UDP)
    [walk, *_more] = sent(packet).walks
    assert walk.hooks[0].hook == "output"
    assert not walk.vanished
    assert walk.left.source.address == "10.0.1.1"


def test_a_packet_that_comes_back_to_its_own_host_is_no_answer():
    topology = load("uplink")
    found = asyncio.run(send(topology, NONE, Wanted("server", VIP))).sent
    assert found.end == "came to server as 10.0.1.1:34567 > 10.0.1.2:80 SYN"
    assert [(packet.source, packet.tcp.flag_names) for packet in found.answers] == [(VIP, "SYN,ACK")]


def test_what_its_own_stack_refuses_is_told():
    found = sent(to("192.168.0.2", host="node"))
    assert found.refusal == "ENETUNREACH (Network is unreachable)"
    assert found.walks == ()


def sent_by(topology, wanted, *before, family=Family.IPV4):
    """Send a packet from a host at which some commands were run before."""

    async def trace():
        with Lab(topology, family=family, traced=True) as lab:
            for command in before:
                lab.hosts[wanted.host].run(*command.split())
            return OwnPacketScenario(lab, roles_for(topology, family, None), family).send(wanted)

    return asyncio.run(trace())


def test_its_source_is_what_its_senders_kernel_chooses():
    second = "ip address add 10.0.0.77/24 dev eth0", "ip route replace default via 10.0.0.1 src 10.0.0.77"
    traced = sent_by(load("kube-proxy"), to(VIP.address, VIP.port), *second)
    assert traced.packet.source == SocketAddress("10.0.0.77", 34567)
    assert traced.sent.end == "came to server as 10.0.0.77:34567 > 10.0.1.2:80 SYN"


@pytest.mark.parametrize(
    ("family", "command"),
    [
        (Family.IPV4, "sysctl -qw net.ipv4.ip_default_ttl=1"),
        (Family.IPV4, "ip route replace default via 10.0.0.1 hoplimit 1"),
        (Family.IPV6, "sysctl -qw net.ipv6.conf.eth0.hop_limit=1"),
        (Family.IPV6, "ip route replace default via fd00:10::1 hoplimit 1"),
    ],
)
def test_its_hop_limit_is_that_of_its_senders_stack_and_route(family, command):
    address = {Family.IPV4: "192.168.0.2", Family.IPV6: "fd00:192:168::2"}[family]
    traced = sent_by(load("kube-proxy"), to(address), command, family=family)
    assert traced.packet.hop_limit == 1
    assert traced.sent.end.startswith("came to node and no further")
    assert [(one.icmp.kind, one.icmp.code) for one in traced.sent.answers] == [
        (11, 0) if family is Family.IPV4 else (3, 0)
    ]
    assert sent_by(load("kube-proxy"), to(address), family=family).packet.hop_limit == 64


@pytest.mark.parametrize("routes_localnet", [True, False])
def test_what_a_node_sends_to_its_loopback_is_sent_from_there(routes_localnet):
    uplink = with_proxy(load("uplink"), ProxyMode.IPTABLES, "v1.20", None)
    wanted = Wanted("node", SocketAddress("127.0.0.1", 30080))
    before = [] if routes_localnet else ["sysctl -qw net.ipv4.conf.all.route_localnet=0"]
    traced = sent_by(uplink, wanted, *before)
    assert traced.packet.source == SocketAddress("127.0.0.1", 34567)
    answers = [one.source for one in traced.sent.answers]
    if routes_localnet:
        assert (traced.sent.refusal, answers) == ("", [wanted.destination])
    else:
        assert traced.sent.refusal.startswith("EINVAL (Invalid argument)")
        assert (traced.sent.end, answers) == ("was seen nowhere", [])


def test_an_unknown_host_is_refused():
    with pytest.raises(InputError, match=r"there is no host 'clinet'.*did you mean 'client'"):
        to("10.0.1.2", host="clinet")


def test_flags_are_those_that_were_wanted():
    [walk, *_more] = sent(to("10.0.1.2", port=5, flags="FPU")).walks
    assert (walk.packet.tcp.flag_names, walk.state) == ("FIN,PSH,URG", "invalid")
