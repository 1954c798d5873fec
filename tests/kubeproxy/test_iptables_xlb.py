"""iptables mode of v1.14 to v1.23."""

from __future__ import annotations

import pytest

from lab.kubeproxy import ProxyOptions, iptables
from lab.vocabulary import Family


def rules(world, chain, **changes):
    options = ProxyOptions(world.family, **{"version": "v1.14", "node_name": "node", **changes})
    lines = iptables.render(world.services, world.endpoint_slices, options).restore.splitlines()
    return [line.removeprefix("-A ") for line in lines if line.startswith(f"-A {chain}")]


def test_the_whole_input_for_one_service(world):
    world.add("web", [1])
    rendered = iptables.render(world.services, world.endpoint_slices, ProxyOptions(Family.IPV4))
    lines = rendered.restore.splitlines()
    service, endpoint = (line[1:26] for line in lines if line.startswith((":KUBE-SVC", ":KUBE-SEP")))
    mark = "0x00004000/0x00004000"
    assert lines == [
        "*filter",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-EXTERNAL-SERVICES - [0:0]",
        ":KUBE-FORWARD - [0:0]",
        f'-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark {mark} -j ACCEPT',
        "COMMIT",
        "*nat",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-NODEPORTS - [0:0]",
        ":KUBE-POSTROUTING - [0:0]",
        ":KUBE-MARK-MASQ - [0:0]",
        f":{service} - [0:0]",
        f":{endpoint} - [0:0]",
        (
            '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
            f" -m mark --mark {mark} -j MASQUERADE"
        ),
        f"-A KUBE-MARK-MASQ -j MARK --set-xmark {mark}",
        (
            '-A KUBE-SERVICES -m comment --comment "default/web: cluster IP" -m tcp -p tcp -d 10.96.0.1/32'
            f" --dport 80 -j {service}"
        ),
        f"-A {service} -j {endpoint}",
        f"-A {endpoint} -s 10.244.0.1/32 -j KUBE-MARK-MASQ",
        f"-A {endpoint} -m tcp -p tcp -j DNAT --to-destination 10.244.0.1:8080",
        (
            '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last'
            ' rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS'
        ),
        "COMMIT",
    ]
    assert "CANARY" not in rendered.jumps


def test_invalid_drop_is_v1_15s_only_news(world):
    world.add("web", [1, 2])
    old, new = (
        iptables.render(world.services, world.endpoint_slices, ProxyOptions(Family.IPV4, version=version))
        for version in ("v1.14", "v1.15")
    )
    assert new.jumps == old.jumps
    assert set(new.restore.splitlines()) - set(old.restore.splitlines()) == {
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    }
    forward = [line for line in new.restore.splitlines() if line.startswith("-A KUBE-FORWARD")]
    assert "INVALID" in forward[0]


def test_the_kubelet_of_the_time_drops_what_is_marked(world):
    chains = {
        version: [
            line.split()[1]
            for line in iptables.render([], [], ProxyOptions(Family.IPV4, version)).kubelet.splitlines()
            if line.startswith("-A")
        ]
        for version in ("v1.14", "v1.18", "v1.26", "v1.27")
    }
    marked, guarded = ["KUBE-FIREWALL"], ["KUBE-FIREWALL", "KUBE-FIREWALL"]
    assert chains == {
        "v1.14": [*marked, "KUBE-MARK-DROP"],
        "v1.18": [*guarded, "KUBE-MARK-DROP"],
        "v1.26": [*guarded, "KUBE-MARK-DROP"],
        "v1.27": [],
    }


def test_probabilities_have_five_decimals(world):
    world.add("web", [1, 2, 3])
    assert [rule.split()[6] for rule in rules(world, "KUBE-SVC-")[:2]] == ["0.33333", "0.50000"]


def test_a_cluster_cidr_masquerades_and_forwards(world):
    world.add("web", [1])
    cidr = {"cluster_cidrs": ("10.244.0.0/16",)}
    assert rules(world, "KUBE-SERVICES", **cidr)[0].endswith("--dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ")
    assert len(rules(world, "KUBE-FORWARD", **cidr)) == 3


@pytest.mark.parametrize(
    ("node", "last"), [("node", '"Balancing rule 0 for default/web:"'), ("other", "KUBE-MARK-DROP")]
)
def test_local_policy(world, node, last):
    ports = [{"port": 80, "nodePort": 30000}]
    endpoint = {"n": 1, "nodeName": node}
    world.add("web", [endpoint], type="NodePort", ports=ports, externalTrafficPolicy="Local")
    assert last in rules(world, "KUBE-XLB-")[-1]


def test_internal_policy_was_not_known(world):
    world.add("web", [{"n": 1, "nodeName": "other"}], internalTrafficPolicy="Local")
    assert rules(world, "KUBE-SEP-")
    assert not any("no local endpoints" in rule for rule in rules(world, "KUBE"))
