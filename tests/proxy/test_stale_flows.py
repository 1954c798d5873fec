"""Which UDP flows kube-proxy takes for stale, by version: nothing here touches a kernel."""

from __future__ import annotations

import pytest

from lab.kubeproxy import ProxyOptions
from lab.kubeproxy.conntrack import stale_flows
from lab.kubeproxy.services import service_ports
from lab.topology.kubernetes import parse_objects
from lab.words import Family

VIP, OUTSIDE = "10.96.0.1", "203.0.113.1"
VERSIONS = ["v1.14", "v1.28", "v1.29", "v1.31", "v1.32", "v1.34", "v1.36"]
EVENTS = VERSIONS[:4]


def state(endpoints, options, *, protocol="UDP", port=8080, services=1, **spec):
    """One service with endpoints by their last byte; a text after it is their state."""
    kept = {"ready": (True, True, False), "draining": (False, True, True), "failing": (False, False, False)}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dns"},
        "spec": {"clusterIP": VIP, "ports": [{"port": 53, "protocol": protocol, **spec.pop("ports", {})}], **spec},
    }
    made = []
    for number, condition in endpoints.items():
        ready, serving, terminating = kept[condition]
        conditions = {"ready": ready, "serving": serving, "terminating": terminating}
        made.append({"addresses": [f"10.244.0.{number}"], "conditions": conditions})
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "dns-1", "labels": {"kubernetes.io/service-name": "dns"}},
        "addressType": "IPv4",
        "endpoints": made,
        "ports": [{"protocol": protocol, "port": port}],
    }
    objects = parse_objects(service)[:services]
    slices = parse_objects(piece)
    return service_ports(objects, slices, options), slices


def judge(version, before, after, **change):
    """Return the judge of flows, given endpoints before and after."""
    options = ProxyOptions(Family.IPV4, version=version)
    common = {key: value for key, value in change.items() if not key.startswith("then_")}
    then = common | {key.removeprefix("then_"): value for key, value in change.items() if key.startswith("then_")}
    found = stale_flows(state(before, options, **common), state(after, options, **then), options)
    if found is None:
        return None
    return lambda number, port=8080, to=(VIP, 53): found(to, (f"10.244.0.{number}", port))


R1, R12, R2 = {1: "ready"}, {1: "ready", 2: "ready"}, {2: "ready"}


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_to_an_endpoint_that_is_gone(version):
    is_stale = judge(version, R12, R2)
    assert is_stale(1)
    assert not is_stale(2)
    assert not is_stale(1, to=("10.96.0.9", 53))


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_that_were_not_translated_when_there_was_no_endpoint(version):
    options = ProxyOptions(Family.IPV4, version=version)
    is_stale = stale_flows(state({}, options), state(R1, options), options)
    assert is_stale((VIP, 53), (VIP, 53))
    assert not is_stale(("8.8.8.8", 53), ("8.8.8.8", 53))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_endpoint_among_others_makes_nothing_stale(version):
    assert not judge(version, R1, R12)(1)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_last_endpoint_is_only_missed_by_event(version):  # kubernetes #139628
    assert judge(version, R1, {})(1) is (version in EVENTS)


@pytest.mark.parametrize("version", VERSIONS)
def test_draining_keeps_flows_from_v1_29_on(version):  # kubernetes #119394
    is_stale = judge(version, R12, {1: "draining", 2: "ready"})
    assert is_stale(1) is (version in {"v1.14", "v1.28"})


@pytest.mark.parametrize("version", VERSIONS)
def test_an_endpoint_that_no_longer_serves_is_gone(version):
    assert judge(version, R12, {1: "failing", 2: "ready"})(1)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_endpoints_port_counts_from_v1_34_on_or_when_it_changes(version):  # kubernetes #130542
    is_stale = judge(version, R1, R1, then_port=9090)
    assert is_stale(1) is (version not in {"v1.32"})
    assert is_stale(1, port=9090) is (version in EVENTS)  # by address alone


@pytest.mark.parametrize("version", VERSIONS)
def test_every_address_of_a_service_and_its_node_port(version):
    is_stale = judge(version, R12, R2, type="NodePort", externalIPs=[OUTSIDE], ports={"nodePort": 30053})
    assert is_stale(1, to=(OUTSIDE, 53))
    assert is_stale(1, to=("192.0.2.7", 30053))
    assert not is_stale(2, to=("192.0.2.7", 30053))


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_to_a_service_that_is_gone(version):  # kubernetes #141371
    assert judge(version, R1, R1, then_services=0)(1) is (version in EVENTS)


@pytest.mark.parametrize("version", VERSIONS)
def test_tcp_is_left_alone(version):
    assert judge(version, R12, R2, protocol="TCP") is None


def test_no_change_no_work():
    assert judge("v1.36", R1, R1) is None
