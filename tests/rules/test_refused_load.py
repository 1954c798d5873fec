"""What is refused leaves the rules as they were."""

from __future__ import annotations

import re

import pytest

from lab.errors import InputError, LabError
from lab.netns import Namespace, Nft, Xtables
from lab.rules.source import Choice
from lab.vocabulary import Backend, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel

CHOICES = {
    "nft": Choice(ProxyMode.IPTABLES, "v1.29", Backend.NFT),
    "legacy": Choice(ProxyMode.IPTABLES, "v1.29", Backend.LEGACY),
    "nftables": Choice(ProxyMode.NFTABLES, "v1.36"),
}


class Node:
    """A namespace with a kube-proxy's rules."""

    def __init__(self, namespace, proxy):
        self.proxy = proxy
        self._version = proxy.options.family.version
        self._nft = Nft(namespace)
        self._xtables = Xtables(namespace, proxy.backend)

    def load(self, *texts):
        for text in texts:
            if self.proxy.mode is ProxyMode.NFTABLES:
                self._nft.run(text)
            else:
                self._xtables.start_restore(self._version, text).finish()

    def save(self, table=None):
        if self.proxy.mode is ProxyMode.NFTABLES:
            return self._nft.run("list ruleset")
        return re.sub(r"^#.*\n", "", self._xtables.save(self._version, table), flags=re.MULTILINE)

    def close(self):
        self._nft.close()
        self._xtables.close()


@pytest.fixture
def make_node(make_proxy):
    made = []

    def make(choice, family):
        namespace = Namespace.create()
        node = Node(namespace, make_proxy(choice, family))
        made.extend((node, namespace))
        node.load(*node.proxy.render())
        return node

    yield make
    for one in made:
        one.close()


MALFORMED = {
    "port": ("port: 8080", "port: 80800"),
    "address": ("- 10.244.1.2", "- 10.244.1.256"),
    "cluster IP": ("clusterIP: 10.96.0.2", "clusterIP: 10.96.0.2.1"),
    "protocol": ("protocol: UDP", "protocol: ICMP"),
    "kind": ("kind: EndpointSlice", "kind: Endpoints"),
    "the same VIP twice": ("10.96.0.2", "10.96.0.1"),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize(("right", "wrong"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_objects_load_nothing(make_node, make_proxy, objects, tmp_path, choice, right, wrong):
    node = make_node(choice, Family.IPV4)
    before = node.save()
    text = objects.read_text()
    assert right in text
    bad = tmp_path / "bad.yaml"
    bad.write_text(text.replace(right, wrong))
    with pytest.raises(InputError):
        node.load(*make_proxy(choice, Family.IPV4, bad).render())
    assert node.save() == before


def garbage(proxy, table):
    """Write other rules than those that are loaded, with one among them that no kernel takes."""
    text = proxy.render()[0]
    if proxy.mode is ProxyMode.NFTABLES:
        address = "ip" if proxy.options.family is Family.IPV4 else "ip6"
        return (
            f"{text}add rule {address} kube-proxy services drop\nadd rule {address} kube-proxy services jump nowhere\n"
        )
    text = text.replace("COMMIT", "-A KUBE-SERVICES -j RETURN\nCOMMIT")
    end = re.search(rf"\*{table}\n.*?(?=COMMIT)", text, re.DOTALL).end()
    return text[:end] + "-A KUBE-SERVICES -j NOWHERE-AT-ALL\n" + text[end:]


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_rules_that_the_kernel_refuses_change_nothing(make_node, choice, family):
    node = make_node(choice, family)
    before = node.save()
    with pytest.raises(LabError, match=r"NOWHERE-AT-ALL|line \d+ failed|No such file|exit code"):
        node.load(garbage(node.proxy, "filter"))
    assert node.save() == before


@pytest.mark.parametrize("choice", [CHOICES["nft"], CHOICES["legacy"]], ids=["nft", "legacy"])
def test_iptables_restore_takes_one_table_at_a_time(make_node, choice, family):
    """As on a node with kube-proxy: where the second table is refused, the first one is loaded already."""
    node = make_node(choice, family)
    before = {table: node.save(table) for table in ("filter", "nat")}
    with pytest.raises(LabError, match="exit code"):
        node.load(garbage(node.proxy, "nat"))
    assert node.save("nat") == before["nat"]
    assert node.save("filter") != before["filter"]
