"""Which UDP flows kube-proxy takes for stale, by version: nothing here touches a kernel."""

from __future__ import annotations

import pytest

from lab.kubeproxy import ProxyOptions, changes, find_release
from lab.kubeproxy.services import service_ports
from lab.kubeproxy.stale_flows import NOTHING, flows_to_opened_ports, stale_flows
from lab.vocabulary import Family
from tests.support.objects import endpoint_slice, service

VIP, OUTSIDE, BALANCER = "10.96.0.1", "203.0.113.1", "203.0.113.2"
NODE, FOREIGN = ("192.0.2.7", 30053), ("198.51.100.9", 30053)
# A release for each patch from which something else is deleted, and those before it.
VERSIONS = [
    *("v1.14.0", "v1.19.10", "v1.20.0", "v1.20.4", "v1.20.5", "v1.20.10", "v1.20.11", "v1.21.0", "v1.21.4", "v1.21.5"),
    *("v1.22.0", "v1.22.1", "v1.22.3", "v1.22.4", "v1.23.0", "v1.28.15", "v1.29.0", "v1.29.9", "v1.29.10"),
    *("v1.30.0", "v1.30.5", "v1.30.6", "v1.31.0", "v1.31.1", "v1.31.2", "v1.32.0", "v1.32.2", "v1.32.3"),
    *("v1.33.0", "v1.34.0", "v1.36.3"),
]
EVENTS = VERSIONS[: VERSIONS.index("v1.32.0")]


def between(version, first, end):
    """Whether a release is ``first`` or later, and before ``end``."""
    number, low, high = ([int(part) for part in name[1:].split(".")] for name in (version, first, end))
    return low <= number < high


def cleans_by_serving_alone(version):
    return any(
        between(version, f"v1.{minor}.0", f"v1.{minor}.{patch}") for minor, patch in ((29, 10), (30, 6), (31, 2))
    )


every_version = pytest.mark.parametrize("version", VERSIONS)


def state(endpoints, options, *, protocol="UDP", port=8080, services=1, slices=1, **spec):
    """One service with endpoints by their last byte; a text after it is their state."""
    kept = {"ready": (True, True, False), "draining": (False, True, True), "failing": (False, False, False)}
    ports = [{"port": 53, "protocol": protocol, **spec.pop("ports", {})}]
    objects = [service("dns", ports=ports, **{"clusterIP": VIP, **spec})][:services]
    made = []
    for number, condition in endpoints.items():
        ready, serving, terminating = kept[condition]
        conditions = {"ready": ready, "serving": serving, "terminating": terminating}
        made.append({"addresses": [f"10.244.0.{number}"], "conditions": conditions})
    pieces = [endpoint_slice("dns", made, Family.IPV4, target=port, ports=[{"protocol": protocol}])][:slices]
    return service_ports(objects, pieces, options), pieces


def judge(version, before, after, **change):
    """Return the judge of flows, given endpoints before and after."""
    options = ProxyOptions(Family.IPV4, version=version)
    flows = change.pop("flows", stale_flows)
    common = {key: value for key, value in change.items() if not key.startswith("then_")}
    then = common | {key.removeprefix("then_"): value for key, value in change.items() if key.startswith("then_")}
    found = flows(state(before, options, **common), state(after, options, **then), options)
    if found is None:
        return lambda *_, **__: False
    return lambda number, port=8080, to=(VIP, 53): found(to, (f"10.244.0.{number}", port))


R1, R12, R2 = {1: "ready"}, {1: "ready", 2: "ready"}, {2: "ready"}
D12, F1, F12 = {1: "draining", 2: "ready"}, {1: "failing"}, {1: "failing", 2: "ready"}
PORTS = {"type": "NodePort", "ports": {"nodePort": 30053}}
ALL = {
    "type": "LoadBalancer",
    "ports": {"nodePort": 30053},
    "externalIPs": [OUTSIDE],
    "ingress": [{"ip": BALANCER}],
}


# --- An endpoint's end -----------------------------------------------------------------------------------


@every_version
def test_flows_to_an_endpoint_that_is_gone(version):
    is_stale = judge(version, R12, R2)
    assert is_stale(1)
    assert not is_stale(2)
    assert not is_stale(1, to=("10.96.0.9", 53))


@every_version
def test_by_every_address_but_up_to_v1_19_not_by_the_cluster_ip_beside_a_node_port(version):  # kubernetes #71573
    is_stale = judge(version, R12, R2, **ALL)
    for to in ((OUTSIDE, 53), (BALANCER, 53), NODE):
        assert is_stale(1, to=to)
        assert not is_stale(2, to=to)
    assert is_stale(1) is between(version, "v1.20.0", "v1.99.0")


@every_version
def test_a_flow_that_is_not_translated_is_only_laid_beside_endpoints(version):
    """To the endpoint itself, by a port with the node port's number: conntrack --dst-nat does not find it."""
    is_stale = judge(version, R12, R2, **PORTS)
    assert is_stale(1, port=30053, to=("10.244.0.1", 30053)) is (version not in EVENTS)


@every_version
def test_an_endpoint_that_drains(version):  # kubernetes #106163, #119394
    once_not_ready = between(version, "v1.14.0", "v1.21.0") or between(version, "v1.22.4", "v1.29.0")
    is_stale = judge(version, R12, D12, **PORTS)
    assert is_stale(1, to=NODE) is once_not_ready
    assert is_stale(99, to=FOREIGN) is (version not in EVENTS)
    if between(version, "v1.19.0", "v1.99.0"):  # where endpoints come from slices, and not from Endpoints
        # Of it no flow is thought to be left, but where it is looked for, or where unready ones count.
        assert judge(version, D12, R2)(1) is not once_not_ready


@every_version
def test_an_endpoint_that_no_longer_serves(version):  # kubernetes #106163, #127780
    by_slices = between(version, "v1.21.0", "v1.22.4")
    assert judge(version, R12, F12)(1) is not (by_slices or cleans_by_serving_alone(version))
    assert judge(version, F12, R2)(1) is (by_slices or version not in EVENTS)


@every_version
def test_what_v1_29_leaves_for_good(version):
    """One that stops serving and is gone afterwards: neither change deletes its entries."""
    left = not judge(version, R12, F12)(1) and not judge(version, F12, R2)(1)
    assert left is cleans_by_serving_alone(version)
    if between(version, "v1.29.0", "v1.99.0"):
        assert left is (changes.ENTRIES_OF_STOPPED not in find_release(version))


@every_version
def test_an_endpoint_that_changes_its_port(version):  # kubernetes #130542
    is_stale = judge(version, R1, R1, then_port=9090, **PORTS)
    by_address = between(version, "v1.32.0", "v1.34.0")
    assert is_stale(1, to=NODE) is not by_address
    assert is_stale(1) is (not by_address and between(version, "v1.20.0", "v1.99.0"))
    # What leads to the new port already: up to v1.31 the endpoint's address tells.
    assert is_stale(1, port=9090, to=NODE) is (version in EVENTS)
    # A foreign flow with the node port's number: from v1.32 on, as it leads to none of the endpoints.
    assert is_stale(99, to=FOREIGN) is (version not in EVENTS)


@every_version
def test_the_last_endpoint_is_only_missed_by_event(version):  # kubernetes #139628
    assert judge(version, R1, {})(1) is (version in EVENTS)
    assert not judge(version, R1, {}, **ALL)(99, to=FOREIGN)


# --- The first endpoint -----------------------------------------------------------------------------------


@every_version
def test_the_first_endpoint(version):  # kubernetes #98305, #104009
    is_stale = judge(version, {}, R1, **ALL)
    for to in ((VIP, 53), (OUTSIDE, 53)):
        assert is_stale(99, to=to)
    minor = int(version.split(".")[1])
    with_balancer = {20: "v1.20.11", 21: "v1.21.5", 22: "v1.22.1"}.get(minor, "v1.23.0")
    assert is_stale(99, to=(BALANCER, 53)) is between(version, with_balancer, "v1.99.0")
    after_rules = between(version, "v1.20.5", "v1.99.0")
    assert is_stale(99, to=NODE) is is_stale(99, to=FOREIGN) is after_rules
    assert not is_stale(99, to=("8.8.8.8", 53))
    # Up to v1.31 flows of the address to any port.
    assert is_stale(99, to=(VIP, 54)) is between(version, "v1.14.0", "v1.32.3")


@every_version
def test_an_unready_endpoint_is_the_first_one_where_slices_alone_count(version):
    assert judge(version, F1, R1)(99) is not between(version, "v1.21.0", "v1.22.4")
    assert judge(version, {}, F1)(99) is between(version, "v1.21.0", "v1.22.4")


@every_version
def test_a_node_port_that_is_opened(version):
    """Up to v1.20.4 its number is cleaned once, before the rules are there, and whether there are endpoints or not."""
    opening = between(version, "v1.14.0", "v1.20.5")
    given = {"flows": flows_to_opened_ports, "services": 0, "then_services": 1, **PORTS}
    for endpoints in ({}, R1):
        is_stale = judge(version, endpoints, endpoints, **given)
        assert is_stale(99, to=NODE) is is_stale(99, to=FOREIGN) is opening
        assert not is_stale(99)
    assert not judge(version, {}, R1, flows=flows_to_opened_ports, **PORTS)(99, to=NODE)


@every_version
def test_a_new_endpoint_among_others_makes_nothing_stale(version):
    assert not judge(version, R1, R12)(1)


# --- Services ----------------------------------------------------------------------------------------------


@every_version
def test_a_service_that_comes_after_its_slice_cleans_nothing(version):
    assert not judge(version, R1, R1, services=0, then_services=1)(99)
    assert judge(version, {}, R1, services=0, then_services=1, slices=0, then_slices=1)(99)


@every_version
def test_a_service_that_is_gone_is_cleaned_by_its_cluster_ip_alone(version):  # kubernetes #141371
    for after in (R1, {}):
        is_stale = judge(version, R1, after, then_services=0, **ALL)
        assert is_stale(1) is (version in EVENTS)
        assert not any(is_stale(1, to=to) for to in ((OUTSIDE, 53), (BALANCER, 53), NODE, FOREIGN))


@every_version
def test_a_service_alone_that_changes_cleans_nothing(version):
    assert not judge(version, R1, R1, then_externalIPs=[OUTSIDE])(99, to=(OUTSIDE, 53))


@every_version
def test_only_slices_with_a_udp_port_have_entries_looked_at(version):
    """From v1.32 on they are laid beside all endpoints; a change of others is none."""
    assert not judge(version, R12, R2, protocol="TCP")(99)
    assert not judge(version, R1, R1)(99)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_ports_of_an_address_up_to_v1_32_2(version):  # kubernetes #130484
    """Up to v1.31 the entries of an endpoint that is gone, then all that lead to no endpoint."""
    is_stale = judge(version, R12, R2)
    assert is_stale(1, to=(VIP, 54)) is between(version, "v1.14.0", "v1.32.3")
    assert is_stale(99, to=(VIP, 54)) is between(version, "v1.32.0", "v1.32.3")


@every_version
def test_slices_that_kube_proxy_does_not_see(version):
    label = "service.kubernetes.io/headless"
    options = ProxyOptions(Family.IPV4, version=version)
    ports, (piece,) = state(R1, options)
    metadata = piece.metadata.model_copy(update={"labels": {**piece.metadata.labels, label: ""}})
    hidden = piece.model_copy(update={"metadata": metadata})
    found = stale_flows((ports, ()), (ports, (hidden,)), options)
    sees = between(version, "v1.14.0", "v1.19.0")  # in Endpoints, which have no such label
    assert (found is not None and found((VIP, 53), ("10.244.0.99", 53))) is sees


# --- A restart ---------------------------------------------------------------------------------------------


@every_version
def test_a_restart_ends_all_flows_of_udp_services_up_to_v1_31(version):  # kubernetes #122740
    options = ProxyOptions(Family.IPV4, version=version)
    after = state(R12, options, **ALL)
    is_stale = stale_flows(NOTHING, after, options)
    assert is_stale is not None
    for to in ((VIP, 53), (OUTSIDE, 53)):
        assert is_stale(to, ("10.244.0.1", 8080)) is (version in EVENTS)
        assert is_stale(to, ("10.244.0.99", 8080))
    opened = flows_to_opened_ports(NOTHING, after, options)
    by_number = [found for found in (is_stale, opened) if found is not None]
    assert any(found(NODE, ("10.244.0.1", 8080)) for found in by_number) is (version in EVENTS)


@every_version
def test_tcp_is_left_alone(version):
    assert not judge(version, R12, R2, protocol="TCP")(1)


def test_no_change_no_work():
    options = ProxyOptions(Family.IPV4, version="v1.36")
    assert stale_flows(state(R1, options), state(R1, options), options) is None
