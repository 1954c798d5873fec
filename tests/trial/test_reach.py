"""The matrix of clients and addresses, by real connections, held against what Kubernetes documents of each release."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.evidence.reach import Fate, Target
from lab.fabric.lab import Lab
from lab.kubeproxy.releases import MINORS, find_release
from lab.report.reach import lines, tables
from lab.topology.reader import load, shipped
from lab.topology.with_settings import with_proxy
from lab.trial import reach as module
from lab.trial.reach import Chosen, reach, with_affinity
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.cover import sample

pytestmark = pytest.mark.lab_kernel

INPUTS = Path(__file__).parents[1] / "support" / "inputs"

PROXIES = [
    (mode, version, backend)
    for mode, backends in ((ProxyMode.IPTABLES, list(Backend)), (ProxyMode.NFTABLES, [None]))
    for version in MINORS
    if find_release(version).has_mode(mode)
    for backend in backends
]
NFTABLES = (ProxyMode.NFTABLES, "v1.36", None)


def told(found):
    return "\n".join(line.plain for line in lines([found]))


@pytest.mark.parametrize("family", list(Family), ids=str)
@pytest.mark.parametrize("proxy", sample(PROXIES, 3), ids=lambda one: f"{one[0]}-{one[1]}-{one[2]}")
def test_the_services_of_every_kind_are_as_documented(proxy, family):
    found = reach(with_proxy(load("services"), *proxy), family, Chosen())
    assert found.good, told(found)
    judged = [cell for cell in found.cells if cell.expected is not None]
    assert len(judged) > 320  # of 352
    fates = {one.fate for cell in judged for one in cell.reached}
    assert fates >= {Fate.CONNECTED, Fate.REFUSED, Fate.TIMES_OUT, Fate.NO_WAY}


@pytest.mark.parametrize("name", [name for name, _path in shipped()])
def test_every_topology_that_comes_along_is_as_documented(name):
    for family in Family:
        for proxy in sample(PROXIES, 1):
            found = reach(with_proxy(load(name), *proxy), family, Chosen())
            assert found.good, told(found)
            assert found.cells


def cell(found, client, target, service="default/web:http"):
    [one] = [
        one
        for one in found.cells
        if (one.client.host, one.asked.target, one.asked.service) == (client, target, service)
    ]
    return one


def uplink(**change):
    topology = with_proxy(load("uplink"), *NFTABLES)
    hosts = [dataclasses.replace(one, **change) if one.proxy_mode else one for one in topology.hosts]
    return dataclasses.replace(topology, hosts=tuple(hosts))


def test_a_node_that_does_not_as_documented_is_red_and_says_what_was_expected(monkeypatch):
    """The masquerade of node ports is taken away from the node behind the lab's back."""

    class Broken(Lab):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            self.hosts["node"].nft.run("flush chain ip kube-proxy masquerading")

    monkeypatch.setattr(module, "Lab", Broken)
    found = reach(uplink(), Family.IPV4, Chosen())
    assert not found.good
    red = cell(found, "outside", Target.NODE_PORT)
    assert red.surprises == ("server, as 203.0.113.2",)
    said = told(found)
    assert "outside to nodeport 203.0.113.1:30080/tcp: server, as 203.0.113.2" in said
    assert "expected: server, as 10.0.1.1: kubernetes.io/docs/tutorials/services/source-ip" in said
    assert "source 203.0.113.2 kept" in said
    assert cell(found, "client", Target.VIP).surprises == ()
    assert red.reached[0].seen_as.address == "203.0.113.2"


def test_a_drop_of_the_hosts_own_is_red_where_documentation_has_a_connection(monkeypatch):
    class Broken(Lab):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            rule = "type filter hook forward priority 0;\ntcp dport 80 ip saddr 203.0.113.2 drop"
            self.hosts["node"].nft.run(f"table ip firewall {{\nchain c {{\n{rule}\n}}\n}}\n")

    monkeypatch.setattr(module, "Lab", Broken)
    found = reach(uplink(), Family.IPV4, Chosen(targets=(Target.NODE_PORT,)))
    assert [one.client.host for one in found.unexpected] == ["outside"]
    assert cell(found, "outside", Target.NODE_PORT).surprises == ("times out at node",)


def test_an_endpoint_that_is_never_chosen_is_told():
    topology = with_proxy(load("two-nodes"), *NFTABLES)
    found = reach(topology, Family.IPV4, Chosen(("client",), targets=(Target.VIP,)))
    [one] = found.cells
    only = [reached for reached in one.reached if reached.server == "server-a"]
    assert dataclasses.replace(one, reached=tuple(only * one.enough)).surprises == ("never server-b",)
    assert dataclasses.replace(one, reached=tuple(only[:1])).surprises == ()  # chance may have it so


def test_many_connections_are_counted_and_affinity_keeps_them_together():
    topology = with_proxy(load("endpoints"), *NFTABLES)
    chosen = Chosen(("client",), targets=(Target.VIP,), repeat=60)
    spread = reach(topology, Family.IPV4, chosen).cells[0]
    assert (len(spread.reached), {one.server for one in spread.reached}) == (
        60,
        {"server-1", "server-2", "server-3"},
    )
    found = reach(with_affinity(topology), Family.IPV4, chosen)
    assert found.good
    stays = found.cells[0]
    assert (len(stays.reached), len({one.server for one in stays.reached})) == (60, 1)
    assert dataclasses.replace(stays, reached=spread.reached).surprises == (
        "one client, and yet server-1 and server-2 and server-3",
    )


def test_several_kube_proxies_are_laid_beside_each_other_and_differences_marked():
    proxies = [(ProxyMode.IPTABLES, "v1.36", Backend.NFT), NFTABLES]
    found = [reach(with_proxy(load("uplink"), *proxy), Family.IPV4, Chosen(("node",))) for proxy in proxies]
    [table] = tables(found)
    column = [text.plain for text in table.columns[-1]._cells]
    assert column == [
        "server, as 10.0.1.1",
        "server, as 10.0.1.1",
        "≠ refused by node (RST)",
        "server, as 10.0.1.1",
    ]


def test_a_cell_tells_of_the_entry_and_where_few_are_asked_all_of_it():
    found = reach(uplink(), Family.IPV4, Chosen(("outside",), targets=(Target.NODE_PORT,)))
    assert "masqueraded to 10.0.1.1; node has an entry ESTABLISHED, 203.0.113.2:" in told(found)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (Chosen(("clint",)), "there is no host clint (did you mean 'client'?)"),
        (Chosen(service="wep"), "there is no Service wep"),
        (Chosen(service="web:https"), "default/web has no port https (its ports: http)"),
        (Chosen(protocols=("udp",)), "no port is for udp (there is: tcp)"),
        (
            Chosen(targets=(Target.EXTERNAL_IP,)),
            "no Service is reached by external-ip (there is: vip, nodeport, localhost, endpoint)",
        ),
        (
            Chosen(("node", "outside"), targets=(Target.LOCALHOST,)),
            "outside cannot ask by localhost, which is each node's own (--from node; or another address: --to vip,",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(chosen, words):
    with pytest.raises(InputError, match=re.escape(words)):
        reach(uplink(), Family.IPV4, chosen)


def test_terminating_endpoints_serve_from_the_release_that_has_it():
    """KEP-1669: the control and the change, side by side."""
    chosen = Chosen(("outside",), "leaving", (Target.LOAD_BALANCER,))
    fates = [
        reach(with_proxy(load("services"), ProxyMode.IPTABLES, version, None), Family.IPV4, chosen)
        .cells[0]
        .reached[0]
        .words
        for version in ("v1.25", "v1.26")
    ]
    assert fates == ["times out at node-a", "server-a, as 203.0.113.2"]


def scaled_to_zero(name):
    topology = load(name)
    slices = tuple(piece.model_copy(update={"endpoints": ()}) for piece in topology.endpoint_slices)
    return dataclasses.replace(topology, endpoint_slices=slices)


def kept_local():
    """No endpoint says on which node it is, so none is local to any."""
    topology = load("kube-proxy")
    specs = [one.spec.model_copy(update={"internal_traffic_policy": "Local"}) for one in topology.services]
    pairs = zip(topology.services, specs, strict=True)
    return dataclasses.replace(topology, services=tuple(one.model_copy(update={"spec": spec}) for one, spec in pairs))


@pytest.mark.parametrize("made", [lambda: scaled_to_zero("kube-proxy"), kept_local], ids=["no endpoint", "none local"])
@pytest.mark.parametrize("family", list(Family), ids=str)
@pytest.mark.parametrize("proxy", sample(PROXIES, 3), ids=lambda one: f"{one[0]}-{one[1]}-{one[2]}")
def test_a_node_without_a_route_says_so_before_a_rule_refuses(proxy, family, made):
    """Its rules refuse in FORWARD, which comes behind the routes, and the node of `kube-proxy` has no default route."""
    found = reach(with_proxy(made(), *proxy), family, Chosen(("client", "node"), targets=(Target.VIP,)))
    assert found.good, told(found)


@pytest.mark.parametrize("proxy", [(ProxyMode.IPTABLES, "v1.14", None), NFTABLES], ids=str)
def test_what_a_route_leads_on_has_to_be_refused(proxy):
    chosen = Chosen(("client",), targets=(Target.VIP,))
    with_route, without = (
        reach(with_proxy(scaled_to_zero(name), *proxy), Family.IPV4, chosen) for name in ("uplink", "kube-proxy")
    )
    assert with_route.cells[0].expected.fates == (Fate.REFUSED,)
    assert with_route.good, told(with_route)
    assert "refused, as expected: no endpoint: refused (" in told(with_route)
    assert "no way, as expected: node has no route to 192.168.0.2" in told(without)
    assert "node has no route to 192.168.0.2" in without.cells[0].expected.why
    assert {one.fate for one in without.cells[0].reached} == {Fate.NO_WAY}


def bridged(**change):
    topology = load("bridge")
    hosts = [dataclasses.replace(one, **change) if one.proxy_mode else one for one in topology.hosts]
    return dataclasses.replace(topology, hosts=tuple(hosts))


@pytest.mark.parametrize("family", list(Family), ids=str)
def test_what_a_bridge_passes_on_by_itself_is_not_translated_back(family):
    """What kube-proxy warns of when it starts: missing br-netfilter module or unset sysctl br-nf-call-iptables."""
    chosen = Chosen(("client",), targets=(Target.VIP,))
    assert reach(bridged(), family, chosen).good
    found = reach(bridged(bridge_nf_call_iptables=False), family, chosen)
    pods = (
        ("10.1.0.3:8080", "10.1.0.4:8080") if family is Family.IPV4 else ("[fd00:10:1::3]:8080", "[fd00:10:1::4]:8080")
    )
    assert set(found.cells[0].surprises) == {f"answered by a stranger: {pod}" for pod in pods}


def test_a_pod_on_a_bridge_reaches_itself_only_in_hairpin_mode():
    chosen = Chosen(("server-1",), targets=(Target.VIP,))
    assert reach(bridged(), Family.IPV4, chosen).good
    found = reach(bridged(hairpin=False), Family.IPV4, chosen)
    assert found.cells[0].surprises == ("times out at node",)


@pytest.mark.parametrize("family", list(Family), ids=str)
@pytest.mark.parametrize("proxy", [(ProxyMode.IPTABLES, "v1.14", None), (ProxyMode.NFTABLES, "v1.36", None)], ids=str)
def test_an_answer_past_the_node_that_translated_is_a_strangers(proxy, family):
    """Kubernetes #74383: a pod asks the node port of another node, the only endpoint is beside the pod."""
    topology = with_proxy(load("segment"), *proxy)
    chosen = Chosen(("client",), "local-a", (Target.NODE_PORT,))
    found = reach(topology, family, chosen)
    assert found.good, told(found)
    own, other = found.cells
    assert {one.fate for one in own.reached} == {Fate.CONNECTED}
    assert {one.fate for one in other.reached} == {Fate.STRANGER}
    assert Fate.CONNECTED not in other.expected.fates
    assert "#74383" in other.expected.why
    [why] = [line for line in told(found).splitlines() if line.startswith("answered by a stranger, as expected: ")]
    assert why.endswith(f"{other.expected.why}: client to {other.asked}")
    # Masqueraded the answer comes back by the node.
    hosts = [dataclasses.replace(one, masquerade_all=True) if one.proxy_mode else one for one in topology.hosts]
    masqueraded = reach(dataclasses.replace(topology, hosts=tuple(hosts)), family, Chosen(("client",), "web"))
    assert masqueraded.good, told(masqueraded)


@pytest.mark.parametrize("name", ["bridge-shortcut", "oneway-otherhalf"])
def test_the_order_of_links_changes_what_becomes_of_no_question(name):
    """Only the address that a client with several has first in the file is that of another link."""
    topology = load(INPUTS / f"{name}.yaml")
    turned = dataclasses.replace(topology, links=topology.links[::-1])
    one, other = (reach(each, Family.IPV4, Chosen()) for each in (topology, turned))
    fates = [
        {(cell.client.host, cell.asked.target): (cell.reached[0].fate, cell.reached[0].server) for cell in each.cells}
        for each in (one, other)
    ]
    assert fates[0] == fates[1]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("v1.18", {"web": "server", "headless": "", "labelled": "server", "other": "", "slicelabel": "server"}),
        ("v1.35", {"web": "server", "headless": "", "labelled": "refused", "other": "", "slicelabel": "refused"}),
        ("v1.36", {"web": "server", "headless": "server", "labelled": "refused", "other": "", "slicelabel": "server"}),
    ],
)
def test_labels_that_keep_kube_proxy_away_and_slices_that_conflict_are_as_documented(version, words):
    """kubernetes #134623 and #135593; up to v1.18 kube-proxy reads Endpoints, which have no such labels."""
    topology = load(Path(__file__).parent / "labels.yaml")
    for proxy in sample([one for one in PROXIES if one[1] == version], 1):
        found = reach(with_proxy(topology, *proxy), Family.IPV4, Chosen(("client",), targets=(Target.VIP,)))
        assert found.good, told(found)
        assert {
            one.asked.service.partition("/")[2]: one.reached[0].words.split(",")[0].split(" ")[0] for one in found.cells
        } == {name: word or "times" for name, word in words.items()}


def test_nobody_says_which_of_two_slices_counts_that_chance_chooses_from():
    topology = load(Path(__file__).parent / "labels.yaml")
    first, second, *others = topology.endpoint_slices
    [endpoint] = second.endpoints
    here = second.model_copy(update={"endpoints": (endpoint.model_copy(update={"node_name": "node"}),)})
    for version, is_open in (("v1.35", True), ("v1.36", False)):
        both = dataclasses.replace(topology, endpoint_slices=(first, here, *others))
        proxied = with_proxy(both, ProxyMode.NFTABLES, version, None)
        found = reach(proxied, Family.IPV4, Chosen(("outside",), "web", (Target.NODE_PORT,)))
        assert [one.expected is None for one in found.cells] == [is_open]
        assert found.good, told(found)
