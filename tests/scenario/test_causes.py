"""What somebody has broken in a lab is named, by the kernel that knows it: `lab reach` and `lab trace` say the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lab.cases import find
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Fate, Question, Target
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.scenario.own_packet import OwnPacketScenario, Wanted
from lab.scenario.reaching import Reaching
from lab.topology.reader import load
from lab.trial import probe, runner
from lab.trial.own_packet import roles_for
from lab.trial.setting import Setting
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel

V4, V6 = Family.IPV4, Family.IPV6
VIP = {V4: SocketAddress("192.168.0.2", 80), V6: SocketAddress("fd00:192:168::2", 80)}
NOBODY = "lladdr 02:00:00:99:99:99 dev server nud permanent"
LEFT = "the interface server of node is down"

#: What is done where, the host that is told, and why.
CAUSES = {
    "no way back": (V4, "server", "ip route del default", "server", "no route from server to 10.0.0.2"),
    "no way back, ipv6": (V6, "server", "ip -6 route del default", "server", "no route from server to fd00:10::2"),
    "closed way back": (
        *(V4, "server", "ip route add prohibit 10.0.0.2", "server"),
        "a prohibited route from server to 10.0.0.2",
    ),
    "no forwarding": (
        *(V4, "node", "sysctl -qw net.ipv4.ip_forward=0", "node"),
        "node does not forward: net.ipv4.ip_forward is 0",
    ),
    "no forwarding by one interface": (
        *(V4, "node", "sysctl -qw net.ipv4.conf.client.forwarding=0", "node"),
        "node does not forward: net.ipv4.conf.client.forwarding is 0",
    ),
    "no forwarding, ipv6": (
        *(V6, "node", "sysctl -qw net.ipv6.conf.all.forwarding=0", "node"),
        "node does not forward: net.ipv6.conf.all.forwarding is 0",
    ),
    "nobody's hardware address": (
        *(V4, "node", f"ip neigh replace 10.0.1.2 {NOBODY}", "node"),
        "to 02:00:00:99:99:99, which nobody there has, but node takes for 10.0.1.2's",
    ),
    "nobody's hardware address, ipv6": (
        *(V6, "node", f"ip neigh replace fd00:10:0:1::2 {NOBODY}", "node"),
        "to 02:00:00:99:99:99, which nobody there has, but node takes for fd00:10:0:1::2's",
    ),
    "the node's link is down": (V4, "node", "ip link set server down", "node", LEFT),
    "the node's link is down, ipv6": (V6, "node", "ip link set server down", "node", LEFT),
    "the server's link is down": (
        *(V4, "server", "ip link set eth0 down", "node"),
        "the interface server of node has no carrier, to 10.0.1.2; the interface eth0 of server is down",
    ),
}


def broken(family, host, command):
    lab = Lab(load("kube-proxy"), family=family, traced=True)
    lab.hosts[host].run(*command.split())
    return lab


@pytest.mark.parametrize("cause", CAUSES)
def test_reach_and_trace_name_what_is_broken(cause):
    family, host, command, at, why = CAUSES[cause]
    with broken(family, host, command) as lab:
        found = Reaching(lab, family).ask(Question("client", Target.VIP, VIP[family]))
    assert (found.fate, found.at) == (Fate.NO_WAY if "node's link" in cause else Fate.TIMES_OUT, at)
    assert found.how.endswith(why), found.how

    async def trace(lab):
        return OwnPacketScenario(lab, roles_for(lab.topology, family, None), family).send(Wanted("client", VIP[family]))

    with broken(family, host, command) as lab:
        sent = asyncio.run(trace(lab)).sent
    assert sent.end.endswith(why), sent.end
    assert sent.end.startswith(("came to ", "left ")[at == "node" and "hardware" in cause] + at)
    assert sent.faults == ()


def test_a_link_that_is_down_at_the_client_itself_is_named():
    with broken(V4, "client", "ip link set eth0 down") as lab:
        found = Reaching(lab, V4).ask(Question("client", Target.VIP, VIP[V4]))
    assert (found.fate, found.at) == (Fate.NO_WAY, "client")
    assert found.how.endswith("; the interface eth0 of client is down")


def test_a_trial_says_that_a_server_has_no_way_back_and_nothing_of_a_socket():
    topology = load("kube-proxy")
    hosts = [replace(one, routes=()) if one.name == "server" else one for one in topology.hosts]
    setting = Setting(find("beyond-window"), FIXES["none"], replace(topology, hosts=tuple(hosts)), V4)

    async def run():
        return await runner.run(setting, await probe.ask(V4))

    result = asyncio.run(run())
    assert "it never left server: no route from server to 10.0.0.2" in result.verdict.because
    assert result.timeline.faults == ("no datagram gets to and fro between client and server: Network is unreachable",)


def test_nothing_is_named_where_nothing_is_broken_but_a_rule():
    rule = "nft add table ip t { chain c { type filter hook input priority 0; tcp dport 80 drop; }; }"
    with broken(V4, "server", rule) as lab:
        found = Reaching(lab, V4).ask(Question("client", Target.VIP, VIP[V4]))
    assert (found.at, found.how) == ("server", "it came in by eth0 and went no further")
