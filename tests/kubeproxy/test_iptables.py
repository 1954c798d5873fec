"""iptables mode since v1.29, line by line."""

from __future__ import annotations

import dataclasses

import pytest

from lab.kubeproxy import ProxyOptions, iptables
from lab.kubeproxy.services import service_ports
from lab.vocabulary import Family

OPTIONS = ProxyOptions(Family.IPV4, version="v1.29", node_name="node", cluster_cidrs=("10.244.0.0/16",))


def restore(world, **changes):
    options = dataclasses.replace(OPTIONS, family=world.family, **changes)
    return iptables.render(world.services, world.endpoint_slices, options).restore.splitlines()


def rules(lines, start, table="nat"):
    """Return the rules of the chain whose name starts so, without ``-A`` and the name."""
    inside = lines[lines.index(f"*{table}") :]
    inside = inside[: inside.index("COMMIT")]
    return [line.split(" ", 2)[2] for line in inside if line.startswith(f"-A {start}")]


def test_a_cluster_ip_with_three_endpoints(world):
    world.add("web", [1, 2, 3], ports=[{"name": "http", "port": 80}])
    lines = restore(world)
    (entry,) = (rule for rule in rules(lines, "KUBE-SERVICES") if "cluster IP" in rule)
    head, service = entry.rsplit(" ", 1)
    assert head == '-m comment --comment "default/web:http cluster IP" -m tcp -p tcp -d 10.96.0.1 --dport 80 -j'
    *balancing, last = rules(lines, service)
    assert balancing[0] == (
        '-m comment --comment "default/web:http cluster IP" -m tcp -p tcp -d 10.96.0.1 --dport 80'
        " ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ"
    )
    assert [rule.split(" -j ")[0] for rule in balancing[1:]] == [
        (
            '-m comment --comment "default/web:http -> 10.244.0.1:8080"'
            " -m statistic --mode random --probability 0.3333333333"
        ),
        (
            '-m comment --comment "default/web:http -> 10.244.0.2:8080"'
            " -m statistic --mode random --probability 0.5000000000"
        ),
    ]
    comment, endpoint = last.split(" -j ")
    assert comment == '-m comment --comment "default/web:http -> 10.244.0.3:8080"'
    assert rules(lines, endpoint) == [
        "-m comment --comment default/web:http -s 10.244.0.3 -j KUBE-MARK-MASQ",
        "-m comment --comment default/web:http -m tcp -p tcp -j DNAT --to-destination 10.244.0.3:8080",
    ]


def test_the_names_that_every_cluster_has(world):
    world.add("kubernetes", [1], ports=[{"name": "https", "port": 443}])
    dns = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    world.add("kube-dns", [2], ports=dns, namespace="kube-system")
    lines = restore(world)
    assert ":KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]" in lines
    assert ":KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]" in lines


def test_chains_of_its_own_come_first(world):
    lines = restore(world)
    assert lines[:7] == [
        "*filter",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-EXTERNAL-SERVICES - [0:0]",
        ":KUBE-FORWARD - [0:0]",
        ":KUBE-NODEPORTS - [0:0]",
        ":KUBE-PROXY-FIREWALL - [0:0]",
        ":KUBE-FIREWALL - [0:0]",
    ]
    assert rules(lines, "KUBE-POSTROUTING") == [
        "-m mark ! --mark 0x00004000/0x00004000 -j RETURN",
        "-j MARK --xor-mark 0x00004000",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]
    assert rules(lines, "KUBE-MARK-MASQ") == ["-j MARK --or-mark 0x00004000"]


DROP = "-m conntrack --ctstate INVALID -j DROP"


@pytest.mark.parametrize(
    ("version", "liberal", "rule"),
    [
        ("v1.15", False, DROP),
        ("v1.28", True, DROP),
        ("v1.29", False, DROP),
        (
            "v1.31",
            False,
            "-m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP",
        ),
    ],
)
def test_the_invalid_drop_is_forwards_first_rule(world, version, liberal, rule):
    lines = restore(world, version=version, conntrack_tcp_be_liberal=liberal)
    assert rules(lines, "KUBE-FORWARD", "filter")[0] == rule


@pytest.mark.parametrize(("version", "liberal"), [("v1.14", False), ("v1.29", True), ("v1.36", True)])
def test_no_invalid_drop(world, version, liberal):
    lines = restore(world, version=version, conntrack_tcp_be_liberal=liberal)
    assert not any("INVALID" in line for line in lines)
    assert 'kubernetes forwarding rules"' in rules(lines, "KUBE-FORWARD", "filter")[0]


def test_without_nfacct_the_drop_does_not_count(world):
    options = dataclasses.replace(OPTIONS, version="v1.36", nfacct=False)
    assert options.accounts == ()
    assert DROP in rules(restore(world, version="v1.36", nfacct=False), "KUBE-FORWARD", "filter")


def test_accounts_that_have_to_exist():
    accounts = {name: dataclasses.replace(OPTIONS, version=name).accounts for name in ("v1.30", "v1.31")}
    assert accounts == {
        "v1.30": (),
        "v1.31": ("ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"),
    }


def test_masquerade_all(world):
    world.add("web", [1])
    (rule, *_) = rules(restore(world, masquerade_all=True), "KUBE-SVC-")
    assert "-s" not in rule.split()
    assert rule.endswith("--dport 80 -j KUBE-MARK-MASQ")


def test_no_cluster_cidr_masquerades_no_cluster_ip(world):
    world.add("web", [1])
    assert not any("MARK-MASQ" in rule for rule in rules(restore(world, cluster_cidrs=()), "KUBE-SVC-"))


def test_affinity_is_asked_first_and_set_last(world):
    config = {"clientIP": {"timeoutSeconds": 60}}
    world.add("web", [1, 2], sessionAffinity="ClientIP", sessionAffinityConfig=config)
    lines = restore(world, cluster_cidrs=())
    asked, _, balanced, last = rules(lines, "KUBE-SVC-")
    first = balanced.rsplit(" ", 1)[1]
    assert asked == (
        '-m comment --comment "default/web -> 10.244.0.1:8080"'
        f" -m recent --name {first} --rcheck --seconds 60 --reap -j {first}"
    )
    assert last.endswith(f" -j {last.rsplit(' ', 1)[1]}")
    assert rules(lines, first)[1] == (
        f"-m comment --comment default/web -m recent --name {first} --set -m tcp -p tcp"
        " -j DNAT --to-destination 10.244.0.1:8080"
    )


def test_more_than_a_thousand_endpoints_have_no_comments(world):
    world.add("small", range(1, 501)).add("web", range(1, 501))
    assert any("-> 10.244.0.1:8080" in rule for rule in rules(restore(world), "KUBE-SVC-"))
    world.slice("web", [{"n": 600, "conditions": {"ready": False}}])
    lines = restore(world)
    assert not any("->" in rule for rule in rules(lines, "KUBE-SVC-"))
    assert not any("comment" in rule for rule in rules(lines, "KUBE-SEP-"))
    assert any("default/web cluster IP" in rule for rule in rules(lines, "KUBE-SERVICES"))


def test_a_load_balancer_with_source_ranges(world):
    ranges = ["192.0.2.0/24", "198.51.100.0/25"]
    status = [{"ip": "203.0.113.1"}]
    world.add("web", [1], type="LoadBalancer", status=status, loadBalancerSourceRanges=ranges)
    lines = restore(world, node_addresses=("192.0.2.7",))
    *sources, other = rules(lines, "KUBE-FW-")
    assert [rule.split(" -s ")[1].split()[0] for rule in sources] == [*ranges, "203.0.113.1"]
    assert other == '-m comment --comment "other traffic to default/web will be dropped by KUBE-PROXY-FIREWALL"'
    (drop,) = rules(lines, "KUBE-PROXY-FIREWALL", "filter")
    assert drop.endswith("-m tcp -p tcp -d 203.0.113.1 --dport 80 -j DROP")
    lines = restore(world, node_addresses=("192.0.3.7",))
    assert len(rules(lines, "KUBE-FW-")) == 3


def test_external_local_policy(world):
    status = [{"ip": "203.0.113.1"}]
    away = {"n": 2, "nodeName": "other"}
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000}
    world.add("web", [1, away], type="LoadBalancer", status=status, **local)
    lines = restore(world)
    said = [rule.split('"')[1] if '"' in rule else rule.split()[0] for rule in rules(lines, "KUBE-EXT-")]
    assert said == [
        "pod traffic for default/web external destinations",
        "masquerade LOCAL traffic for default/web external destinations",
        "route LOCAL traffic for default/web external destinations",
        "-j",
    ]
    assert "KUBE-SVL-" in rules(lines, "KUBE-EXT-")[3]
    assert len(rules(lines, "KUBE-SVL-")) == 1
    (accept,) = rules(lines, "KUBE-NODEPORTS", "filter")
    assert accept.endswith("-m tcp -p tcp --dport 32000 -j ACCEPT")


def test_node_ports_are_caught_last_by_every_local_address(world):
    world.add("web", [1], type="NodePort", ports=[{"port": 80, "nodePort": 30000}])
    lines = restore(world)
    assert rules(lines, "KUBE-SERVICES")[-1].endswith("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    lines = restore(world, localhost_node_ports=False)
    assert rules(lines, "KUBE-SERVICES")[-1].endswith("! -d 127.0.0.0/8 -j KUBE-NODEPORTS")
    assert not any("KUBE-FIREWALL" in line for line in lines)
    chosen = {"node_port_addresses": ("192.168.0.0/16",), "node_addresses": ("10.0.0.1", "192.168.0.1")}
    (rule,) = (rule for rule in rules(restore(world, **chosen), "KUBE-SERVICES") if rule.endswith("NODEPORTS"))
    assert rule.endswith(" -d 192.168.0.1 -j KUBE-NODEPORTS")


def test_counted_localhost_node_ports(world):
    world.add("web", [1], type="NodePort", ports=[{"port": 80, "nodePort": 30000}])
    counted, plain = rules(restore(world, version="v1.32"), "KUBE-NODEPORTS")
    assert " -d 127.0.0.0/8 --dport 30000 -m nfacct --nfacct-name localhost_nps_accepted_pkts -j KUBE-EXT-" in counted
    assert "nfacct" not in plain


def test_ipv6_brackets_its_endpoints(make_world):
    world = make_world(Family.IPV6)
    world.add("web", [1], type="NodePort", ports=[{"port": 80, "nodePort": 30000}])
    lines = restore(world)
    assert rules(lines, "KUBE-SEP-")[1].endswith("--to-destination [fd00:244::1]:8080")
    assert rules(lines, "KUBE-SERVICES")[-1].endswith("! -d ::1/128 -j KUBE-NODEPORTS")
    assert "-A KUBE-FIREWALL" not in "\n".join(lines)


def test_jumps_stand_in_kube_proxys_order(world):
    jumps = iptables.render([], [], OPTIONS).jumps.splitlines()
    forward = [line.rsplit(" ", 1)[1] for line in jumps if line.startswith("-I FORWARD ")]
    assert forward[::-1] == ["KUBE-PROXY-FIREWALL", "KUBE-FORWARD", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"]
    assert [line for line in jumps if line.startswith("*")] == ["*mangle", "*nat", "*filter"]
    assert jumps.count(":KUBE-PROXY-CANARY - [0:0]") == 3


def test_a_sync_writes_the_chains_of_changed_services_alone(world):
    world.add("same", [1]).add("less", [1, 2]).add("gone", [3])
    before = service_ports(world.services, world.endpoint_slices, OPTIONS)
    kept = [piece for piece in world.endpoint_slices if piece.service_key == "default/same"]
    world.endpoint_slices = kept
    world.slice("less", [1])
    after = service_ports(world.services[:2], world.endpoint_slices, OPTIONS)
    text = iptables.sync(before, after, OPTIONS).splitlines()
    deleted = [line.split()[1] for line in text if line.startswith("-X ")]
    assert [name[:8] for name in deleted] == ["KUBE-SEP", "KUBE-SVC", "KUBE-SEP"]
    assert all(f":{name} - [0:0]" in text for name in deleted)
    written = {line.split()[1] for line in text if line.startswith("-A KUBE-S")} - {"KUBE-SERVICES"}
    assert len(written) == 2
    assert not any("default/same" in line and "cluster IP" not in line for line in text)
    assert sum("cluster IP" in line for line in rules(text, "KUBE-SERVICES")) == 2


def test_a_sync_of_nothing_writes_no_chain_of_a_service(world):
    world.add("web", [1])
    ports = service_ports(world.services, world.endpoint_slices, OPTIONS)
    text = iptables.sync(ports, ports, OPTIONS)
    assert "-A KUBE-SERVICES" in text
    assert ":KUBE-SVC" not in text
