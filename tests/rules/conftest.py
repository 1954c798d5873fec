"""Objects of every sort that dumps differ in, and dumps of them made by this kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.kubeproxy.changes import DROPS_UNALLOCATED
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.said import from_words
from lab.rules.scratch import saved
from lab.rules.source import Choice, proxies
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.command import lab
from tests.support.documents import check

OBJECTS = Path(__file__).with_name("objects.yaml")
NODE = from_words(
    {
        "node_name": "worker-1",
        "node_addresses": ["192.0.2.9", "2001:db8:1::9"],
        "cluster_cidrs": ["10.244.0.0/16", "fd00:244::/64"],
    }
)
RANGES = from_words({"service_cidrs": ["10.96.0.0/16", "fd00:96::/112"]})
IPTABLES = {
    f"{version}-{backend}": Choice(ProxyMode.IPTABLES, version, backend)
    for version in ("v1.23", "v1.29", "v1.32")
    for backend in Backend
}
SHAPES = {
    **IPTABLES,
    **{version: Choice(ProxyMode.NFTABLES, version) for version in ("v1.31", "v1.34", "v1.36")},
}


@pytest.fixture
def objects():
    return OBJECTS


@pytest.fixture
def make_proxy():
    def make(choice, family=Family.IPV4, reference=OBJECTS, node=NODE):
        if node is NODE and choice.mode is ProxyMode.NFTABLES and DROPS_UNALLOCATED in find_release(choice.version):
            node += RANGES
        [proxy] = proxies(str(reference), family, choice, node)
        return proxy

    return make


@pytest.fixture(params=list(SHAPES.values()), ids=list(SHAPES))
def choice(request):
    return request.param


@pytest.fixture(params=list(IPTABLES.values()), ids=list(IPTABLES))
def iptables_choice(request):
    return request.param


@pytest.fixture(params=list(Family), ids=str)
def family(request):
    return request.param


@pytest.fixture
def proxy(make_proxy, choice, family):
    return make_proxy(choice, family)


@pytest.fixture
def own_save(proxy):
    """What this kernel gives back of the rules, as text."""
    return saved(proxy)


@pytest.fixture
def lab_rules():
    """Run `lab rules` as people do."""

    def run(*arguments, given="", code):
        done: Any = lab("rules", *arguments, given=given)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        done.json = lambda: _nodes(
            done.stdout, next(one for one in ("diff", "since", "sysctls") if f"--{one}" in arguments)
        )
        return done

    return run


def _nodes(printed, kind):
    """Return what is told of each node, which fits its schema."""
    told = json.loads(printed)
    check(f"rules-{kind}", told)
    return told["nodes"]
