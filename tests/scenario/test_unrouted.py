"""Where packets go no further for a route or for their source: the host and the reason are told."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import cache

import pytest

from lab.cases import find
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Fate, Question, Target
from lab.fabric.lab import Lab
from lab.fixes import FIXES
from lab.scenario.reaching import Reaching
from lab.topology.reader import load, parse
from lab.topology.ways import way
from lab.topology.with_settings import with_proxy
from lab.topology.writer import text_of
from lab.trial import probe, runner
from lab.trial.setting import Setting
from lab.vocabulary import Family, ProxyMode

pytestmark = pytest.mark.lab_kernel

#: A pod that leaves by another uplink than the node itself: what a network plugin does with secondary interfaces.
POLICY = """
topology: policy
hosts:
  pod: {routes: [{to: default, via: 10.0.0.1}]}
  node:
    forwarding: true
    proxy-mode: nftables
    routes: [{to: default, via: 192.0.2.2}, {to: default, via: 198.51.100.2, table: 100}]
    rules: [{from: 10.0.0.0/24, iif: pod, table: 100}]
  main: {forwarding: true, routes: [{to: 10.0.0.0/24, via: 192.0.2.1}]}
  second: {forwarding: true, routes: [{to: 10.0.0.0/24, via: 198.51.100.1}]}
  far: {routes: [{to: default, via: 203.0.113.1}]}
links:
  - [{host: pod, interface: e, addresses: [10.0.0.2/24]}, {host: node, interface: pod, addresses: [10.0.0.1/24]}]
  - [{host: node, interface: main, addresses: [192.0.2.1/24]}, {host: main, interface: e, addresses: [192.0.2.2/24]}]
  - [{host: node, interface: second, addresses: [198.51.100.1/24]},
     {host: second, interface: e, addresses: [198.51.100.2/24]}]
  - [{host: main, interface: far, addresses: [203.0.113.1/24]},
     {host: second, interface: far, addresses: [203.0.113.3/24]},
     {host: far, interface: e, addresses: [203.0.113.2/24]}]
"""


class Asking(Lab):
    """A lab in which somebody far answers."""

    def __init__(self, topology):
        super().__init__(topology, family=Family.IPV4)
        self.reaching = Reaching(self, Family.IPV4)
        self.reaching.listen("far", 80)

    def ask(self):
        return self.reaching.ask(Question("pod", Target.ENDPOINT, SocketAddress("203.0.113.2", 80)))


def policy(node="node", **options):
    topology = parse(POLICY)
    hosts = [dataclasses.replace(one, **options) if one.name == node else one for one in topology.hosts]
    return dataclasses.replace(topology, hosts=tuple(hosts))


def test_a_rule_sends_a_pods_packets_by_another_table():
    topology = policy()
    assert parse(text_of(topology)) == topology
    assert way(topology, "pod", "203.0.113.2") == ("pod", "node", "second", "far")
    assert way(topology, "node", "203.0.113.2") == ("node", "main", "far")
    with Asking(topology) as lab:
        rules = lab.hosts["node"].run("ip", "rule", "show", "table", "100")
        assert rules.split() == ["1000:", "from", "10.0.0.0/24", "iif", "pod", "lookup", "100"]
        lab.hosts["main"].run("ip", "route", "add", "blackhole", "203.0.113.2/32")
        assert lab.ask().fate is Fate.CONNECTED  # it does not come there
        lab.hosts["node"].run("ip", "rule", "del", "priority", "1000")
        found = lab.ask()
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "main")
        assert found.how == "it came in by e and went no further: a blackhole"


def test_an_answer_by_another_way_is_kept_out_by_rp_filter():
    """The main table leads back by `main`, but what goes to the pod would have gone by table 100: strictly, no."""
    strict = (("net/ipv4/conf/main/rp_filter", "1"),)
    with Asking(policy(sysctls=strict)) as lab:
        found = lab.ask()
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "node")
        assert found.how.endswith("went no further: rp_filter: 203.0.113.2 is not to come in by main")
        lab.hosts["node"].namespace.set_sysctls({"net/ipv4/conf/main/rp_filter": 2})  # loosely (RFC 3704, 2.4)
        assert lab.ask().fate is Fate.CONNECTED


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("address add 10.0.0.2/32 dev lo", "martian: 10.0.0.2 is an address of its own"),
        ("route add blackhole 203.0.113.2/32", "a blackhole"),
    ],
)
def test_a_host_on_the_way_that_takes_it_in_and_goes_no_further_says_why(command, words):
    with Asking(policy()) as lab:
        assert lab.ask().fate is Fate.CONNECTED
        lab.hosts["second"].run("ip", *command.split())
        found = lab.ask()
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "second")
        assert found.how == f"it came in by e and went no further: {words}"


def test_what_a_rule_of_the_firewall_drops_is_put_down_to_no_route():
    with Asking(policy()) as lab:
        lab.hosts["second"].nft.run("table ip t {\nchain c {\ntype filter hook forward priority 0\ndrop\n}\n}\n")
        assert lab.ask().how == "it came in by e and went no further"


def test_what_has_come_twice_went_in_a_circle_and_what_had_too_small_a_ttl_did_not():
    with Asking(policy()) as lab:
        lab.hosts["pod"].namespace.set_sysctls({"net/ipv4/ip_default_ttl": 1})
        found = lab.ask()
        assert (found.fate, found.at, found.how) == (Fate.NO_WAY, "node", "ICMP: time exceeded")
        lab.hosts["pod"].namespace.set_sysctls({"net/ipv4/ip_default_ttl": 64})
        for host, via in (("second", "198.51.100.1"), ("main", "192.0.2.1")):
            lab.hosts[host].run("ip", "route", "add", "203.0.113.2", "via", via)
        found = lab.ask()
        assert (found.fate, found.how) == (Fate.NO_WAY, "ICMP: time exceeded: it went in a circle")


#: A node that answers for its pods by a second link, as with pods on a secondary network card of a cloud's.
SECONDARY = """
topology: secondary
hosts:
  outside: {routes: [{to: 10.0.0.0/16, via: 192.0.2.1}]}
  node:
    forwarding: true
    proxy-mode: nftables
    cluster-cidrs: [0.0.0.0/0]
    routes: [{to: default, via: 198.51.100.2, table: 100}]
    rules: [{from: 10.0.1.2/32, table: 100}]
    sysctls: {net.ipv4.conf.main.rp_filter: 1}
  pod: {routes: [{to: default, via: 10.0.1.1}]}
links:
  - [{host: outside, interface: e, addresses: [192.0.2.2/24]}, {host: node, interface: main, addresses: [192.0.2.1/24]}]
  - [{host: outside, interface: f, addresses: [198.51.100.2/24]},
     {host: node, interface: second, addresses: [198.51.100.1/24]}]
  - [{host: node, interface: pod, addresses: [10.0.1.1/24]}, {host: pod, interface: e, addresses: [10.0.1.2/24]}]
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.0.200.1, type: NodePort,
 ports: [{port: 80, nodePort: 30080}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: w, labels: {kubernetes.io/service-name: web}},
 addressType: IPv4, endpoints: [{addresses: [10.0.1.2]}], ports: [{port: 80}]}
"""


@pytest.mark.parametrize("asked", [SocketAddress("192.0.2.1", 30080), SocketAddress("10.0.200.1", 80)], ids=str)
def test_of_what_a_node_has_translated_its_endpoints_way_is_asked(asked):
    """The source itself has its way back by the main link, and what the pod answers has not."""
    with Lab(parse(SECONDARY), family=Family.IPV4) as lab:
        node, question = lab.hosts["node"], Question("outside", Target.NODE_PORT, asked, source="192.0.2.2")
        reaching = Reaching(lab, Family.IPV4)
        found = reaching.ask(question)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "node")
        assert found.how.endswith("went no further: rp_filter: 192.0.2.2 is not to come in by main, to 10.0.1.2")
        node.namespace.set_sysctls({"net/ipv4/conf/main/rp_filter": 2})
        assert reaching.ask(question).fate is Fate.CONNECTED


@pytest.mark.parametrize("mode", list(ProxyMode))
@pytest.mark.parametrize("family", list(Family))
def test_a_route_behind_the_translation_and_a_neighbour_that_is_not_there(family, mode):
    topology = with_proxy(load("kube-proxy"), mode, None, None)
    vip, pod, gone = ("192.168.0.2", "10.0.1.2", "10.0.1.77")
    if family is Family.IPV6:
        vip, pod, gone = ("fd00:192:168::2", "fd00:10:0:1::2", "fd00:10:0:1::77")
    with Lab(topology, family=family) as lab:
        node, reaching = lab.hosts["node"], Reaching(lab, family)

        def ask(address):
            return reaching.ask(Question("client", Target.VIP, SocketAddress(address, 80)))

        node.run("ip", "route", "add", "blackhole", pod)
        found = ask(vip)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "node")
        assert found.how == f"it came in by client and went no further: a blackhole, to {pod}"
        node.run("ip", "route", "del", "blackhole", pod)
        assert ask(vip).fate is Fate.CONNECTED
        found = ask(gone)
        assert (found.fate, found.at) == (Fate.TIMES_OUT, "node")
        assert found.how == f"it came in by client and went no further: no neighbour: {gone} does not answer at server"


@cache
def known():
    return asyncio.run(probe.ask(Family.IPV4))


def tried(case, topology, steps):
    case = dataclasses.replace(find(case), steps=steps)
    return asyncio.run(runner.run(Setting(case, FIXES["none"], load(topology), Family.IPV4), known()))


def test_the_verdict_on_a_judged_packet_says_why_it_was_routed_nowhere_when_it_was():
    """The address is the node's for a moment alone: what is said is what was so then."""
    source = "10.0.8.2"

    async def steps(scenario):
        await scenario.establish(source=source)
        scenario.give_node(source)
        await scenario.inject(scenario.from_client(0, b"lost"))
        scenario.node.give_back(source)
        await scenario.go_on()

    result = tried("source-filtered-loosely", "two-links", steps)
    why = f"ended at node: martian: {source} is an address of its own"
    assert (result.verdict.outcome, result.verdict.because[0]) == ("dropped", why)
    assert result.timeline.unrouted == f"martian: {source} is an address of its own"


def test_the_verdict_on_a_question_says_why_it_was_routed_nowhere():
    async def steps(scenario):
        scenario.give_node("10.0.2.2")
        scenario.ask("is anybody there?", client="client-2")
        await scenario.settle()

    result = tried("hairpin", "dns", steps)
    words = "reached no server, martian: 10.0.2.2 is an address of its own"
    assert (result.verdict.outcome, result.verdict.because) == ("lost", (words,))


CLOSED = """
topology: closed
hosts:
  client: {routes: [{to: default, via: 10.0.0.1}, {to: default, via: "fd00::1"}]}
  node:
    forwarding: true
    proxy-mode: nftables
    closed-routes:
      - {to: 192.0.2.1/32, kind: blackhole}
      - {to: 192.0.2.2/32, kind: unreachable}
      - {to: 192.0.2.3/32, kind: prohibit}
      - {to: 192.0.2.4/32, kind: prohibit, table: 100}
      - {to: "2001:db8::1/128", kind: blackhole}
      - {to: "2001:db8::2/128", kind: unreachable}
      - {to: "2001:db8::3/128", kind: prohibit}
    rules: [{iif: client, table: 100}]
links:
  - [{host: client, interface: e, addresses: [10.0.0.2/24, "fd00::2/64"]},
     {host: node, interface: client, addresses: [10.0.0.1/24, "fd00::1/64"]}]
"""


@pytest.mark.parametrize(
    ("address", "fate", "how"),
    [
        ("192.0.2.1", Fate.TIMES_OUT, "it came in by client and went no further: a blackhole"),
        ("192.0.2.2", Fate.NO_WAY, "ICMP: host unreachable"),
        ("192.0.2.3", Fate.NO_WAY, "ICMP: administratively prohibited"),
        ("192.0.2.4", Fate.NO_WAY, "ICMP: administratively prohibited"),
        ("2001:db8::1", Fate.TIMES_OUT, "it came in by client and went no further: a blackhole"),
        ("2001:db8::2", Fate.NO_WAY, "ICMP: no route"),
        ("2001:db8::3", Fate.NO_WAY, "ICMP: administratively prohibited"),
    ],
)
def test_a_closed_route_is_silent_or_says_what_it_is(address, fate, how):
    topology = parse(CLOSED)
    assert parse(text_of(topology)) == topology
    assert way(topology, "client", address) == ("client", "node")
    family = Family.IPV6 if ":" in address else Family.IPV4
    with Lab(topology, family=family) as lab:
        found = Reaching(lab, family).ask(Question("client", Target.ENDPOINT, SocketAddress(address, 80)))
    assert (found.fate, found.at, found.how) == (fate, "node", how)
