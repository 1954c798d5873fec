"""nftables mode: both shapes, line by line."""

from __future__ import annotations

import dataclasses

import pytest

from lab.errors import InputError
from lab.kubeproxy import ProxyOptions, nftables, nftables_names
from lab.kubeproxy.services import service_ports
from lab.vocabulary import Family

OPTIONS = ProxyOptions(
    Family.IPV4,
    version="v1.35",
    node_name="node",
    cluster_cidrs=("10.0.0.0/8",),
    node_addresses=("192.168.0.2",),
)
SHAPES = pytest.mark.parametrize("version", ["v1.31", "v1.35", "v1.36"])


def lines(world, **changes):
    options = dataclasses.replace(OPTIONS, **{"family": world.family, **changes})
    return nftables.render(world.services, world.endpoint_slices, options).splitlines()


def rules(text, chain):
    start = f"add rule ip kube-proxy {chain} "
    return [line.removeprefix(start) for line in text if line.startswith(start)]


def elements(text, container):
    start = f"add element ip kube-proxy {container} {{ "
    return [line.removeprefix(start).removesuffix(" }") for line in text if line.startswith(start)]


# The names and lines of kube-proxy's own test of v1.35 (TestOverallNFTablesRules).
def test_a_cluster_ip_up_to_v1_35(world):
    port = [{"name": "p80", "port": 80}]
    world.add("svc1", [1], ports=port, namespace="ns1", clusterIP="172.30.0.41")
    text = [line.replace("10.244.0.1", "10.180.0.1") for line in lines(world)]
    assert rules(text, "service-ULMVA6XW-ns1/svc1/tcp/p80")[0] == (
        "ip daddr 172.30.0.41 ip saddr != 10.0.0.0/8 jump mark-for-masquerade"
    )
    assert "172.30.0.41 . tcp . 80 : goto service-ULMVA6XW-ns1/svc1/tcp/p80" in elements(text, "service-ips")
    assert elements(text, "cluster-ips") == ["172.30.0.41"]


def test_names_of_endpoints(make_world):
    assert nftables_names.named("ns1/svc1/tcp/p80__10.180.0.1/80") == "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
    assert nftables_names.named("ns5/svc5/tcp/p80__10.180.0.3/80") == "GTK6MW7G-ns5/svc5/tcp/p80__10.180.0.3/80"
    assert nftables_names.named("x" * 300).endswith("x...")
    assert len(nftables_names.named("x" * 300)) == 240
    world = make_world(Family.IPV6)
    world.add("web", [1])
    (chain,) = (line.split()[-1] for line in lines(world) if line.startswith("add chain ip6 kube-proxy endpoint-"))
    assert chain.endswith("-default/web/tcp/__fd00.244..1/8080")


def test_an_endpoint_up_to_v1_35(world):
    world.add("web", [1, 2], sessionAffinity="ClientIP")
    text = lines(world)
    service = elements(text, "service-ips")[0].split("goto ")[1]
    *asked, choice = rules(text, service)[1:]
    first, second = (rule.split("goto ")[1] for rule in asked)
    assert [rule.split(" goto ")[0] for rule in asked] == [
        f"ip saddr @{name.replace('endpoint-', 'affinity-')}" for name in (first, second)
    ]
    assert choice == f"numgen random mod 2 vmap {{ 0 : goto {first} , 1 : goto {second} }}"
    affinity = first.replace("endpoint-", "affinity-")
    assert rules(text, first) == [
        "ip saddr 10.244.0.1 jump mark-for-masquerade",
        f"update @{affinity} {{ ip saddr }}",
        "meta l4proto tcp dnat to 10.244.0.1:8080",
    ]
    contents = "{ type ipv4_addr ; flags dynamic,timeout ; timeout 10800s ; }"
    assert f"add set ip kube-proxy {affinity} {contents}" in text


def test_a_cluster_ip_from_v1_36(world):
    world.add("web", [1, {"n": 2, "nodeName": "other"}])
    text = lines(world, version="v1.36")
    chain = elements(text, "service-ips")[0].split("goto ")[1]
    assert rules(text, chain) == [
        (
            "meta l4proto tcp dnat ip addr . port to numgen random mod 2"
            " map { 0 : 10.244.0.1 . 8080 , 1 : 10.244.0.2 . 8080 }"
        )
    ]
    assert elements(text, "hairpin-connections") == ["10.244.0.1 . 10.244.0.1 . tcp . 8080"]
    assert rules(text, "services")[0] == (
        "ip daddr @cluster-ips ip saddr != 10.0.0.0/8 mark set mark or 0x00004000"
        ' comment "masquerade clusterIP traffic from outside cluster"'
    )
    assert rules(text, "masquerading") == [
        "mark and 0x00004000 != 0 mark set mark xor 0x00004000 masquerade fully-random",
        ("ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random"),
    ]
    assert not any("mark-for-masquerade" in line or " endpoint-" in line for line in text)


def test_affinity_from_v1_36_keeps_chains_of_endpoints(world):
    world.add("web", [1], sessionAffinity="ClientIP")
    text = lines(world, version="v1.36")
    (endpoint,) = (line.split()[4] for line in text if line.startswith("add chain ip kube-proxy endpoint-"))
    affinity = endpoint.replace("endpoint-", "affinity-")
    assert rules(text, endpoint) == [
        f"update @{affinity} {{ ip saddr }}",
        "meta l4proto tcp dnat to 10.244.0.1:8080",
    ]


@SHAPES
def test_no_endpoints_is_rejected_and_no_local_ones_dropped(world, version):
    ports = [{"port": 80, "nodePort": 30001}]
    away = [{"n": 2, "nodeName": "other"}]
    world.add("none", type="NodePort", ports=[{"port": 80, "nodePort": 30000}])
    world.add("away", away, type="NodePort", ports=ports, externalTrafficPolicy="Local")
    world.add("internal", away, internalTrafficPolicy="Local")
    text = lines(world, version=version)
    assert elements(text, "no-endpoint-services") == [
        '10.96.0.1 . tcp . 80 comment "default/none" : goto reject-chain',
        '10.96.0.3 . tcp . 80 comment "default/internal" : drop',
    ]
    assert elements(text, "no-endpoint-nodeports") == [
        'tcp . 30000 comment "default/none" : goto reject-chain',
        'tcp . 30001 comment "default/away" : drop',
    ]
    assert [element.split(" : ")[0] for element in elements(text, "service-nodeports")] == ["tcp . 30001"]


@SHAPES
def test_undefined_ports_and_unused_addresses(world, version):
    ranges = ("10.96.0.0/16", "fd00:96::/112")
    reject = 'ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"'
    drop = 'ip daddr { 10.96.0.0/16 } drop comment "Drop traffic to unallocated ClusterIPs"'
    wanted = [reject] if version == "v1.31" else [reject, drop]
    assert rules(lines(world, version=version, service_cidrs=ranges), "cluster-ips-check") == wanted
    assert len(rules(lines(world, version=version), "cluster-ips-check")) == 1


@SHAPES
def test_node_ports_on_the_primary_address_alone(world, version):
    text = lines(world, version=version, node_addresses=("192.168.0.2", "192.168.1.2"))
    assert elements(text, "nodeport-ips") == ["192.168.0.2"]
    assert rules(text, "services")[-1] == "ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports"
    text = lines(world, version=version, node_port_addresses=("0.0.0.0/0",))
    assert rules(text, "services")[-1] == (
        "fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports"
    )
    assert "delete set ip kube-proxy nodeport-ips" in text


@SHAPES
def test_source_ranges(world, version):
    status = [{"ip": "203.0.113.1"}]
    ranges = ["192.0.2.0/24", "192.168.0.0/24"]
    world.add("web", [1], type="LoadBalancer", status=status, loadBalancerSourceRanges=ranges)
    text = lines(world, version=version)
    (element,) = elements(text, "firewall-ips")
    assert rules(text, element.split("goto ")[1]) == [
        "ip saddr != { 192.0.2.0/24 , 192.168.0.0/24 , 203.0.113.1 } drop"
    ]


@SHAPES
def test_external_local_policy(world, version):
    ports = [{"port": 80, "nodePort": 30000}]
    world.add("web", [1, {"n": 2, "nodeName": "other"}], type="NodePort", ports=ports, externalTrafficPolicy="Local")
    text = lines(world, version=version)
    chain = elements(text, "service-nodeports")[0].split("goto ")[1]
    name = chain.removeprefix("external-")
    mark = "mark set mark or 0x00004000" if version == "v1.36" else "jump mark-for-masquerade"
    assert rules(text, chain) == [
        f'ip saddr 10.0.0.0/8 goto service-{name} comment "short-circuit pod traffic"',
        f'fib saddr type local {mark} comment "masquerade local traffic"',
        f'fib saddr type local goto service-{name} comment "short-circuit local traffic"',
        f"goto local-{name}",
    ]


def test_filters_moved_behind_dnat_in_v1_34(world):
    def bases(version):
        found = [line.split() for line in lines(world, version=version) if " hook " in line]
        return {words[4]: int(words[words.index("priority") + 1]) for words in found if words[4].startswith("filter")}

    assert bases("v1.33.5") == {
        "filter-prerouting": -110,
        "filter-input": -110,
        "filter-forward": -110,
        "filter-output": -110,
        "filter-output-post-dnat": -90,
    }
    assert bases("v1.34") == {
        "filter-prerouting-pre-dnat": -110,
        "filter-output-pre-dnat": -110,
        "filter-input": 0,
        "filter-forward": 0,
        "filter-output": 0,
    }


def test_masquerade_all(world):
    world.add("web", [1])
    (rule,) = (line for line in lines(world, version="v1.33", masquerade_all=True) if "daddr 10.96.0.1" in line)
    assert rule.endswith("ip daddr 10.96.0.1 tcp dport 80 jump mark-for-masquerade")
    assert rules(lines(world, version="v1.36", masquerade_all=True), "services")[0].startswith(
        "ip daddr @cluster-ips mark set mark or 0x00004000"
    )


@SHAPES
def test_no_invalid_drop_whatever_the_sysctl(world, version):
    assert not any("invalid" in line and "drop" in line for line in lines(world, version=version))


def test_no_element_twice(world):
    world.add("web", [1], ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81}])
    text = lines(world, version="v1.36")
    assert elements(text, "cluster-ips") == ["10.96.0.1"]


def test_a_version_without_nftables_mode(world):
    with pytest.raises(InputError, match=r"v1.28 has no nftables mode.*v1.29 or later"):
        lines(world, version="v1.28")


def test_a_sync_writes_what_differs_alone(world):
    options = dataclasses.replace(OPTIONS, version="v1.36")
    world.add("same", [1]).add("less", [1, 2])
    before = service_ports(world.services, world.endpoint_slices, options)
    world.endpoint_slices = [piece for piece in world.endpoint_slices if piece.service_key == "default/same"]
    world.slice("less", [1])
    after = service_ports(world.services, world.endpoint_slices, options)
    change = nftables.sync(before, after, options)
    add, flush, rule, delete, end = change.script.split("\n")
    assert add.startswith("add chain ip kube-proxy service-")
    assert flush == add.replace("add", "flush", 1)
    assert rule.endswith("mod 1 map { 0 : 10.244.0.1 . 8080 }")
    # The endpoint that both services have stays in the set.
    hairpin = "10.244.0.2 . 10.244.0.2 . tcp . 8080"
    assert delete == f"delete element ip kube-proxy hairpin-connections {{ {hairpin} }}"
    assert (end, change.afterwards) == ("", "")


@SHAPES
def test_a_sync_empties_stale_chains_and_deletes_them_later(world, version):
    options = dataclasses.replace(OPTIONS, version=version)
    world.add("web", [1], sessionAffinity="ClientIP")
    before = service_ports(world.services, world.endpoint_slices, options)
    change = nftables.sync(before, [], options)
    stale = [line.split()[-1] for line in change.afterwards.splitlines()]
    assert [name.split("-")[0] for name in stale] == ["endpoint", "service"]
    assert change.script.splitlines()[:2] == [f"flush chain ip kube-proxy {name}" for name in stale]
    assert "delete set ip kube-proxy affinity-" in change.script
    assert "delete element ip kube-proxy cluster-ips { 10.96.0.1 }" in change.script


@SHAPES
def test_a_sync_replaces_a_verdict(world, version):
    options = dataclasses.replace(OPTIONS, version=version)
    world.add("web", internalTrafficPolicy="Local")
    before = service_ports(world.services, world.endpoint_slices, options)
    world.slice("web", [{"n": 1, "nodeName": "other"}])
    after = service_ports(world.services, world.endpoint_slices, options)
    key = "10.96.0.1 . tcp . 80"
    assert nftables.sync(before, after, options).script.splitlines() == [
        f"delete element ip kube-proxy no-endpoint-services {{ {key} }}",
        f'add element ip kube-proxy no-endpoint-services {{ {key} comment "default/web" : drop }}',
    ]
