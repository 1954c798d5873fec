"""Every sort of service, in every shape of the rules, into this kernel and back."""

from __future__ import annotations

import re

import pytest

from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.vocabulary import Family

pytestmark = pytest.mark.lab_kernel


def options(family, version):
    cidrs = ("10.244.0.0/16", "fd00:244::/64")
    service_cidrs = ("10.96.0.0/16", "fd00:96::/112")
    addresses = ("192.0.2.9", "fd00:1::9")
    return ProxyOptions(
        family,
        version=version,
        cluster_cidrs=cidrs,
        service_cidrs=service_cidrs,
        node_name="node",
        node_addresses=addresses,
        nfacct=False,
    )


@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize("version", ["v1.14", "v1.19", "v1.23", "v1.24", "v1.29", "v1.36"])
def test_iptables(everything, in_namespace, family, version, backend):
    rules = iptables.render(everything.services, everything.endpoint_slices, options(family, version))
    program = f"ip{'6' if family is Family.IPV6 else ''}tables-{backend}"
    load = f"{program}-restore --noflush --counters"
    # Another's rule and chain, and a second sync: none is lost, none doubled.
    other = "*filter\n:OTHER - [0:0]\n-A OTHER -j ACCEPT\n-A FORWARD -j OTHER\nCOMMIT\n"
    script = f"{load} <other; {load} <kubelet; {load} <restore; {load} <jumps; {load} <restore; {program}-save"
    saved = in_namespace(script, kubelet=rules.kubelet, restore=rules.restore, jumps=rules.jumps, other=other)
    sent = re.findall(r"^-[AI] (\S+)", rules.kubelet + rules.restore + rules.jumps + other, re.MULTILINE)
    assert sorted(re.findall(r"^-A (\S+)", saved, re.MULTILINE)) == sorted(sent)


@pytest.mark.parametrize("version", ["v1.31", "v1.35", "v1.36"])
def test_nft(everything, in_namespace, family, version):
    script = nftables.render(everything.services, everything.endpoint_slices, options(family, version))
    listing = in_namespace("nft -f rules; nft -f rules; nft list ruleset", rules=script)
    sent = re.findall(r"^add (?:chain|set|map) ip6? kube-proxy (\S+)", script, re.MULTILINE)
    assert set(re.findall(r"^\t(?:chain|set|map) (\S+) \{", listing, re.MULTILINE)) == set(sent)
    # Two lines a base chain and one a container are not rules.
    bodies = re.findall(r"^\tchain \S+ \{\n(.*?)^\t\}", listing, re.DOTALL | re.MULTILINE)
    heads = ("type ", 'comment "helper')
    listed = [line for body in bodies for line in body.split("\n") if line and not line.strip().startswith(heads)]
    assert len(listed) == script.count("\nadd rule ")
