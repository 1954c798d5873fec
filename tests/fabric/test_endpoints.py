"""The words: which endpoints there are, and what is refused."""

from __future__ import annotations

import re

import pytest

from lab.errors import InputError, LabError
from lab.fabric.endpoints import KnownEndpoint, endpoint_ports
from lab.fabric.lab import Lab
from lab.topology.reader import load, parse, shipped
from lab.vocabulary import Family
from tests.support.objects import service

from .conftest import rules

SHIPPED = dict(shipped())


@pytest.fixture
def lab():
    with Lab(load("endpoints")) as running:
        yield running


def listed(lab):
    return [(known.address, known.state) for known in lab.endpoints]


@pytest.mark.lab_kernel
def test_listing_follows_every_change(lab):
    everything = list(lab.endpoints)
    assert everything[0] == KnownEndpoint("default/web", "10.0.1.2", ("80/TCP",), "ready", "server-1")
    assert len(everything) == 6
    lab.endpoints.remove("default/web", "10.0.1.2")
    assert ("10.0.1.2", "ready") not in listed(lab)
    lab.endpoints.drain("web", "10.0.2.2")
    assert ("10.0.2.2", "draining") in listed(lab)
    lab.endpoints.add("web", "10.0.2.2")
    lab.endpoints.add("web", "10.0.1.2")
    assert sorted(listed(lab)) == sorted((known.address, "ready") for known in everything)


@pytest.mark.lab_kernel
@pytest.mark.parametrize(
    ("word", "service", "address", "says"),
    [
        ("add", "nope", "10.0.1.2", "there is no Service 'nope' (known: default/web)"),
        ("add", "web", "server-1", "'server-1' is no IP address (write it as 10.0.0.1 or fd00::1)"),
        ("add", "web", "10.9.9.9", "no host has the address 10.9.9.9"),
        ("add", "web", "10.0.1.2", "10.0.1.2 is a ready endpoint of default/web already"),
        ("remove", "web", "10.0.0.2", "10.0.0.2 is no endpoint of default/web (its endpoints: 10.0.1.2, "),
        ("drain", "web", "10.0.0.2", "10.0.0.2 is no endpoint of default/web"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(lab, word, service, address, says):
    before = rules(lab), listed(lab)
    with pytest.raises(InputError, match=re.escape(says)):
        getattr(lab.endpoints, word)(service, address)
    assert (rules(lab), listed(lab)) == before


@pytest.mark.lab_kernel
def test_draining_twice_and_a_family_that_was_not_built_are_refused():
    with Lab(load("endpoints"), family=Family.IPV6) as lab:
        lab.endpoints.drain("web", "fd00:10:0:1:0::2")  # in whatever form
        with pytest.raises(InputError, match="fd00:10:0:1::2 of default/web is draining"):
            lab.endpoints.drain("web", "fd00:10:0:1::2")
        with pytest.raises(InputError, match=r"10\.0\.1\.2: this lab was built without ipv4"):
            lab.endpoints.remove("web", "10.0.1.2")


@pytest.mark.lab_kernel
def test_services_that_claim_the_same_are_refused_before_any_rule_is_touched(lab):
    before = rules(lab)
    other = service("other", clusterIP="192.168.0.2")
    with pytest.raises(InputError, match=r"both claim 192\.168\.0\.2 80/tcp"):
        lab.sync((*lab.services, other), ())
    assert rules(lab) == before
    assert len(lab.services) == 1
    assert len(listed(lab)) == 6


@pytest.mark.lab_kernel
def test_the_first_endpoint_of_a_service_without_slices_gets_one():
    head, web, *_slices = SHIPPED["endpoints"].read_text().split("---\n")
    with Lab(parse(f"{head}---\n{web}"), family=Family.IPV4) as lab:
        assert "has no endpoints" in rules(lab)
        lab.endpoints.add("web", "10.0.3.2")
        assert list(lab.endpoints) == [KnownEndpoint("default/web", "10.0.3.2", ("80/TCP",), "ready", "server-3")]
        assert "--to-destination 10.0.3.2:80" in rules(lab)
        assert "has no endpoints" not in rules(lab)


@pytest.mark.lab_kernel
def test_an_added_endpoint_is_on_the_node_that_it_is_linked_to_where_others_name_theirs():
    local = SHIPPED["endpoints"].read_text().replace("{addresses: [10.0.1.2]", "{nodeName: node, addresses: [10.0.1.2]")
    with Lab(parse(local), family=Family.IPV4) as lab:
        lab.endpoints.remove("web", "10.0.1.2")
        lab.endpoints.remove("web", "10.0.2.2")
        for address in ("10.0.0.2", "10.0.1.2", "10.0.2.2"):
            lab.endpoints.add("web", address)
        names = {one.addresses[0]: one.node_name for piece in lab.endpoint_slices for one in piece.endpoints}
        # As the topology says where it does, else by the link.
        assert (names["10.0.1.2"], names["10.0.2.2"], names["10.0.0.2"]) == ("node", None, "node")


def test_a_named_target_port_is_a_number_that_nothing_tells():
    web = service("web", clusterIP="10.96.0.1", ports=[{"port": 80, "targetPort": "http"}])
    with pytest.raises(InputError, match="default/web: nothing tells which port of a pod is named 'http'"):
        endpoint_ports(web, ())


SECOND_NODE = """  second: {forwarding: true, proxy-mode: iptables, proxy-version: v1.29}
  server-1:
"""
SECOND_LINK = """links:
  - - {host: second, interface: eth0, addresses: [10.0.9.1/24]}
    - {host: client, interface: eth9, addresses: [10.0.9.2/24]}
"""


@pytest.mark.lab_kernel
def test_what_one_node_refuses_is_taken_back_on_the_others():
    text = SHIPPED["endpoints"].read_text().replace("  server-1:\n", SECOND_NODE)
    text = re.sub("links:.*\n", SECOND_LINK, text)
    with Lab(parse(text), family=Family.IPV4) as lab:
        nodes = [node.name for node in lab.topology.nodes]
        assert nodes == ["node", "second"]
        for pod in ("10.0.1.2", "10.0.2.2"):
            lab.endpoints.remove("web", pod)
        (chain,) = set(re.findall(r"KUBE-SEP-\w+", rules(lab, "second")))
        lab.hosts["second"].xtables.start_restore(4, f"*nat\n-A OUTPUT -j {chain}\nCOMMIT\n").finish()
        before = [sorted(rules(lab, node).splitlines()) for node in nodes]
        with pytest.raises(LabError):
            lab.endpoints.remove("web", "10.0.3.2")
        assert [sorted(rules(lab, node).splitlines()) for node in nodes] == before
