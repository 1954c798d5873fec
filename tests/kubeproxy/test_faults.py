"""What real kube-proxies fail with is refused by name, by those that do alone."""

from __future__ import annotations

import pytest

from lab.errors import InputError
from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.kubeproxy.options import DetectLocalMode
from lab.vocabulary import Family


def rendered(world, version, mode, **changes):
    options = ProxyOptions(Family.IPV4, version, node_name="node", **changes)
    return mode.render(world.services, world.endpoint_slices, options)


LONG = "a" * 63
BALANCED = {"type": "LoadBalancer", "status": [{"ip": "203.0.113.1"}]}


def blank(world):
    world.add("web", [1], **BALANCED, loadBalancerSourceRanges=[" 10.0.0.0/8"])


def other_balancer(world):
    world.add("web", [1], type="LoadBalancer", status=[{"ip": "2001:db8::1"}])


def long_name(world):
    world.add(LONG, ports=[{"name": "http", "port": 80}], namespace="n" * 63)


def overlap(world):
    world.add("web", [1], **BALANCED, loadBalancerSourceRanges=["10.0.0.0/8", "10.1.0.0/16"])


@pytest.mark.parametrize(
    ("objects", "mode", "bad", "good", "words"),
    [
        (blank, iptables, "v1.16", "v1.17.14", "ends, again and again: Service default/web"),
        (blank, iptables, "v1.19.3", "v1.19.4", "after a blank"),
        (other_balancer, iptables, "v1.17.2", "v1.17.4", "no rule at all: Service default/web"),
        (long_name, nftables, "v1.36", None, "no ipv4 rule at all while n+/a+:http has no endpoints"),
        (overlap, nftables, "v1.29", "v1.30", "10.0.0.0/8 and 10.1.0.0/16 of default/web"),
    ],
)
def test_a_fault(world, objects, mode, bad, good, words):
    objects(world)
    with pytest.raises(InputError, match=words):
        rendered(world, bad, mode)
    if good:
        assert rendered(world, good, mode)


@pytest.mark.parametrize(("bad", "good"), [("v1.31", "v1.35"), ("v1.33.5", "v1.33.6"), ("v1.34.1", "v1.34.2")])
def test_an_interface_prefix_never_loads(world, bad, good):
    world.add("web", [1])
    prefix = {"detect_local_mode": DetectLocalMode.INTERFACE_PREFIX, "pod_interface_name_prefix": "veth"}
    with pytest.raises(InputError, match="Interface does not exist"):
        rendered(world, bad, nftables, **prefix)
    assert 'iifname != "veth*"' in rendered(world, good, nftables, **prefix)
    assert "! -i veth+ -j KUBE-MARK-MASQ" in rendered(world, bad, iptables, **prefix).restore
