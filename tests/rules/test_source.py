"""What `lab rules` is given: a topology or objects alone, and whose rules they make."""

from __future__ import annotations

import io
import re
import types
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.kubeproxy.said import Settings, from_words
from lab.rules.source import Choice, proxies
from lab.topology.model import Topology
from lab.topology.reader import Objects, load_either
from lab.vocabulary import Backend, Family, ProxyMode

NOTHING = Choice(), Settings()
REAL = Path(__file__).parent
TWO_NODES = """\
topology: pair
hosts:
  one: {proxy-mode: iptables, proxy-version: v1.29, forwarding: true}
  two: {proxy-mode: nftables, forwarding: true}
"""


def node_in(zone):
    return from_words({"node_name": "worker-1", "node_zone": zone})


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
    node = from_words({"node_name": "worker-1", "node_addresses": ["192.0.2.9"], "masquerade_all": "true"})
    [proxy] = proxies(str(objects), Family.IPV4, Choice(version="v1.29", backend=Backend.LEGACY), node)
    assert (proxy.mode, proxy.backend, proxy.options.version) == (ProxyMode.IPTABLES, Backend.LEGACY, "v1.29")
    restore, jumps = proxy.render()
    assert "10.96.0.1 --dport 80 -j KUBE-MARK-MASQ" in restore  # all is masqueraded
    assert restore.count("KUBE-SVL-") > 0  # worker-1 has local endpoints
    assert "-I PREROUTING" in jumps
    [nowhere] = proxies(str(objects), Family.IPV4, Choice(version="v1.29"))
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
    assert [proxy.node for proxy in proxies("-", Family.IPV4, Choice(), from_words({"node_name": "two"}))] == ["two"]
    given(TWO_NODES)
    with pytest.raises(InputError, match=r"no host with proxy-mode is named 'too' \(did you mean 'two'\?\)"):
        proxies("-", Family.IPV4, Choice(), from_words({"node_name": "too"}))


def test_a_topologys_links_say_which_addresses_a_node_has():
    with pytest.raises(InputError, match=r"^--node-address: the topology kube-proxy decides that \(the links' ends"):
        proxies("kube-proxy", Family.IPV4, Choice(), from_words({"node_addresses": "10.0.0.1"}))


def test_a_topology_says_which_ranges_cluster_ips_come_from():
    [proxy] = proxies("dns", Family.IPV6, Choice(ProxyMode.NFTABLES, "v1.33"))
    assert proxy.options.service_cidrs == ("10.96.0.0/12", "fd00:10:96::/112")
    assert "ip6 daddr { fd00:10:96::/112 } drop" in proxy.render()[0]
    said = from_words({"service_cidrs": "10.96.0.0/16,fd00:10:96::/108"})
    [proxy] = proxies("dns", Family.IPV6, Choice(ProxyMode.NFTABLES, "v1.33"), said)
    assert proxy.options.service_cidrs == ("10.96.0.0/16", "fd00:10:96::/108")
    with pytest.raises(InputError, match=r"^--service-cidr: kube-proxy v1\.32 does not know it \(v1\.33 is the first"):
        proxies("dns", Family.IPV6, Choice(ProxyMode.NFTABLES, "v1.32"), said)


def test_what_is_said_counts_before_the_topology(given):
    """On every node that is meant."""
    given(TWO_NODES.replace("v1.29", "v1.29, cluster-cidrs: [10.244.0.0/16]"))
    said = from_words({"cluster_cidrs": "10.0.0.0/8", "node_name": "one"})
    [one] = proxies("-", Family.IPV4, Choice(), said)
    assert one.options.cluster_cidrs == ("10.0.0.0/8",)
    given(TWO_NODES)
    _one, two = proxies("-", Family.IPV4, Choice(), said.without("node_name"))
    assert two.options.cluster_cidrs == ("10.0.0.0/8",)


def test_a_nodes_own_range_is_for_one_node(given):
    said = from_words({"detect_local_mode": "NodeCIDR", "node_pod_cidrs": "10.1.0.0/16"})
    given(TWO_NODES)
    with pytest.raises(InputError, match=r"^--node-pod-cidr: the topology pair has several nodes \(write each host's"):
        proxies("-", Family.IPV4, Choice(), said)
    given(TWO_NODES)
    [one] = proxies("-", Family.IPV4, Choice(), said + from_words({"node_name": "one"}))
    assert one.options.pods_match == ("-s", "10.1.0.0/16")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("v1.29", None),
        ("v1.33.6", None),
        ("1.33", r"v1\.33 stands for its newest patch: it has filters-after-dnat \(v1\.33\.6\), interface-by-name"),
        ("v1.37", r"What kube-proxy v1\.37 writes is not known; these are the rules of v1\.36"),
    ],
)
def test_what_a_versions_name_leaves_open_is_said(objects, version, words):
    [proxy] = proxies(str(objects), Family.IPV4, Choice(ProxyMode.NFTABLES, version), node_in("zone"))
    assert re.search(words, " ".join(proxy.notes)) if words else not proxy.notes


def test_a_patch_of_the_other_mode_is_not_said(objects):
    [proxy] = proxies(str(objects), Family.IPV4, Choice(version="v1.33"), node_in("zone"))
    assert proxy.notes == ()


def test_hints_that_are_not_used_are_said(given):
    def notes(version, said):
        given((REAL / "hints-node.yaml").read_text())
        [proxy] = proxies("-", Family.IPV4, Choice(version=version), said)
        return " ".join(proxy.notes)

    assert re.search(r"zones, which are not used: .* \(--node-zone says it\)", notes("v1.31", Settings()))
    assert "for nodes" not in notes("v1.31", Settings())
    assert re.search(r"nodes, which are not used: .* \(--node-name says it\)", notes("v1.34", Settings()))
    assert notes("v1.34", node_in("zone-a")) == ""  # no hint is for it
    assert notes("v1.33.1", node_in("z1")) == ""
    assert re.fullmatch(r"Hints for the zone z1 .* v1\.34 can lose the node's zone .*", notes("v1.34", node_in("z1")))
    assert notes("v1.30", Settings()) == ""  # which would want an annotation


def test_second_addresses_that_an_old_release_does_not_know_are_said(given):
    text = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], ports: [{port: 80}]}\n"
    )
    for version, family, expected in (
        (
            "v1.19",
            Family.IPV6,
            r"^default/web has an address of ipv6 beside a first of the other family: kube-proxy v1\.19",
        ),
        ("v1.19", Family.IPV4, "^$"),
        ("v1.20", Family.IPV6, "^$"),
    ):
        given(text)
        [proxy] = proxies("-", family, Choice(version=version))
        notes = [note for note in proxy.notes if "newest patch" not in note]
        assert re.search(expected, " ".join(notes)), (version, family)
        assert ("fd00::1" in "".join(proxy.render())) == (version == "v1.20")
