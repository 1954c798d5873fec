"""Who wrote a rule: by its chain, its target, its comment, its table."""

from __future__ import annotations

import pytest

from lab.rules.owners import of_chain, of_nft, of_rule

CHAINS = {
    "KUBE-SVC-ABCDEFGHABCDEFGH": "kube-proxy",
    "KUBE-FORWARD": "kube-proxy",
    "KUBE-KUBELET-CANARY": "kubelet",
    "KUBE-FIREWALL": "kubelet",
    "KUBE-ROUTER-FORWARD": "kube-router",
    "KUBE-NWPLCY-ABC": "kube-router",
    "KUBE-POD-FW-ABC": "kube-router",
    "cali-FORWARD": "Calico",
    "CILIUM_FORWARD": "Cilium",
    "FLANNEL-FWD": "Flannel",
    "WEAVE-NPC": "Weave",
    "CNI-HOSTPORT-DNAT": "CNI plug-ins",
    "DOCKER-USER": "Docker",
    "DOCKER": "Docker",
    "ufw-before-input": "ufw",
    "ISTIO_OUTPUT": "Istio",
    "LIBVIRT_FWO": "libvirt",
    "NETAVARK_FORWARD": "netavark (Podman)",
    "INPUT_direct": "firewalld",
    "IN_public_allow": "firewalld",
    "AWS-SNAT-CHAIN-0": "AWS VPC CNI",
    "MY-RULES": "unknown",
    "INPUT": "unknown",
}


@pytest.mark.parametrize(("chain", "owner"), CHAINS.items())
def test_chains(chain, owner):
    assert of_chain(chain) == owner
    assert of_rule(chain, "-j ACCEPT") == owner
    assert of_rule("FORWARD", f'-m comment --comment "goes -j DOCKER" -j {chain}') == owner


def test_rules_in_built_in_chains():
    assert of_rule("FORWARD", '-m comment --comment "cali:abc" -j ACCEPT') == "Calico"
    assert of_rule("POSTROUTING", '-m comment --comment "flanneld masq" -j MASQUERADE') == "Flannel"
    assert of_rule("FORWARD", "-j ACCEPT") == "unknown"


def test_tables_of_nft():
    assert of_nft("ip kube-proxy", "services") == "kube-proxy"
    assert of_nft("inet firewalld", "filter_FORWARD") == "firewalld"
    assert of_nft("ip filter", "FORWARD", "counter packets 0 bytes 0 jump cali-FORWARD") == "Calico"
    assert of_nft("ip filter", "FORWARD", 'counter packets 0 bytes 0 accept comment "cali:abc"') == "Calico"
    assert of_nft("inet mine", "in", "drop") == "unknown"
