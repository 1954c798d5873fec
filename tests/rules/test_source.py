"""What `lab rules` is given: a topology or objects alone, and whose rules they make."""

from __future__ import annotations

import io
import re
import types

import pytest

from lab.errors import InputError
from lab.rules.source import Choice, NodeSettings, proxies
from lab.topology.model import Topology
from lab.topology.reader import Objects, load_either
from lab.words import Backend, Family, ProxyMode

NOTHING = Choice(), NodeSettings()
TWO_NODES = """\
topology: pair
hosts:
  one: {proxy-mode: iptables, proxy-version: v1.29, forwarding: true}
  two: {proxy-mode: nftables, forwarding: true}
"""


@pytest.fixture
def given(monkeypatch):
    def give(text):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(text.encode())))

    return give


def test_a_file_is_a_topology_where_it_says_so(objects):
    assert isinstance(load_either("kube-proxy"), Topology)
    assert isinstance(load_either(objects), Objects)


def test_stdin_and_many_documents(given, objects):
    given(objects.read_text())
    assert load_either("-") == load_either(objects)
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {clusterIP: None, ports: [{port: 80}]}\n"
    given(f"---\n{service.replace('NAME', 'a')}---\n---\n{service.replace('NAME', 'b')}")
    found = load_either("-")
    assert isinstance(found, Objects)
    assert [one.metadata.name for one in found.services] == ["a", "b"]


def test_nothing_is_refused(given):
    given("---\n")
    with pytest.raises(InputError, match="<stdin>: empty"):
        load_either("-")


def test_objects_take_what_the_command_says(objects):
    node = NodeSettings("worker-1", ("192.0.2.9",), ("10.244.0.0/16",), ("10.96.0.0/16",), masquerade_all=True)
    [proxy] = proxies(str(objects), Family.IPV4, Choice(version="v1.29", backend=Backend.LEGACY), node)
    assert (proxy.mode, proxy.backend, proxy.options.version) == (ProxyMode.IPTABLES, Backend.LEGACY, "v1.29")
    restore, jumps = proxy.render()
    assert "10.96.0.1 --dport 80 -j KUBE-MARK-MASQ" in restore  # all is masqueraded
    assert restore.count("KUBE-SVL-") > 0  # worker-1 has local endpoints
    assert "-I PREROUTING" in jumps
    [nowhere] = proxies(str(objects), Family.IPV4, Choice(version="v1.29"), NodeSettings())
    assert "KUBE-SVL-" not in nowhere.render()[0]
    assert nowhere.title == "kube-proxy ipv4"


def test_the_default_mode_is_for_objects_alone(objects):
    [proxy] = proxies(str(objects), Family.IPV4, *NOTHING, ProxyMode.NFTABLES)
    assert (proxy.mode, proxy.options.version) == (ProxyMode.NFTABLES, "v1.31")
    [proxy] = proxies("kube-proxy", Family.IPV4, *NOTHING, ProxyMode.NFTABLES)
    assert proxy.mode is ProxyMode.IPTABLES


def test_a_topology_has_its_own_nodes(given):
    given(TWO_NODES)
    one, two = proxies("-", Family.IPV4, *NOTHING)
    assert [one.title, two.title] == ["one: kube-proxy ipv4", "two: kube-proxy ipv4"]
    assert (one.mode, one.options.version, two.mode) == (ProxyMode.IPTABLES, "v1.29", ProxyMode.NFTABLES)
    given(TWO_NODES)
    assert [proxy.node for proxy in proxies("-", Family.IPV4, Choice(), NodeSettings("two"))] == ["two"]
    given(TWO_NODES)
    with pytest.raises(InputError, match=r"no host with proxy-mode is named 'too' \(did you mean 'two'\?\)"):
        proxies("-", Family.IPV4, Choice(), NodeSettings("too"))


@pytest.mark.parametrize(
    ("node", "option"),
    [
        (NodeSettings(addresses=("10.0.0.1",)), "--node-address"),
        (NodeSettings(cluster_cidrs=("10.0.0.0/8",)), "--cluster-cidr"),
        (NodeSettings(service_cidrs=("10.0.0.0/8",)), "--service-cidr"),
        (NodeSettings(masquerade_all=True), "--masquerade-all"),
    ],
    ids=str,
)
def test_what_a_topology_decides_cannot_be_given(node, option):
    with pytest.raises(InputError, match=f"^{option}: the topology kube-proxy decides that"):
        proxies("kube-proxy", Family.IPV4, Choice(), node)


def test_a_topology_says_which_ranges_cluster_ips_come_from():
    [proxy] = proxies("dns", Family.IPV6, Choice(ProxyMode.NFTABLES, "v1.33"), NodeSettings())
    assert proxy.options.service_cidrs == ("10.96.0.0/12", "fd00:10:96::/112")
    assert "ip6 daddr { fd00:10:96::/112 } drop" in proxy.render()[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"addresses": ("10.0.0",)}, "--node-address: '10.0.0' does not appear"),
        ({"cluster_cidrs": ("10.0.0.1/8",)}, "--cluster-cidr: 10.0.0.1/8 has host bits set"),
        ({"service_cidrs": ("a",)}, "--service-cidr: 'a' does not appear"),
    ],
)
def test_what_is_no_address_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        NodeSettings(**settings)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("v1.29", None),
        ("v1.33.6", None),
        ("v1.33", r"newest patch: it has filters-after-dnat \(v1\.33\.6\), interface-by-name \(v1\.33\.6\)\."),
        ("v1.37", r"What kube-proxy v1\.37 writes is not known; these are the rules of v1\.36"),
    ],
)
def test_what_a_versions_name_leaves_open_is_said(objects, version, words):
    [proxy] = proxies(str(objects), Family.IPV4, Choice(version=version), NodeSettings())
    assert proxy.note is None if words is None else re.search(words, proxy.note)
