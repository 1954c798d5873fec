"""What is told to programs of a lab that stands: each kind by its schema, whatever is in it."""

import json

import pytest

from lab.standing.up import up
from lab.topology.reader import load
from tests.support.command import lab as lab_command
from tests.support.documents import check

pytestmark = pytest.mark.lab_needs_root

#: The words, and the member that has the list.
LISTS = {
    "status": ("status",),
    "endpoints": ("endpoints", "list"),
    "services": ("services", "list"),
    "conntrack": ("conntrack", "list", "node"),
}


def told(name):
    done = lab_command(*LISTS[name], "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    check(name, data)
    [listed] = [value for key, value in data.items() if key != "version"]
    return listed


def test_lists_of_a_lab_that_stands_fit_their_schemas(own_run):
    assert told("status") == []
    up(load("endpoints"))
    assert lab_command("endpoints", "drain", "web", "10.0.1.2").returncode == 0
    flow = ("--source", "10.0.0.2:5000", "--destination", "192.168.0.2:80")
    assert lab_command("conntrack", "create", "node", "--protocol", "tcp", *flow, "--assured").returncode == 0
    assert lab_command("conntrack", "create", "node", "--protocol", "udp", *flow).returncode == 0
    [lab] = told("status")
    assert (lab["name"], lab["kube_proxies"]) == ("endpoints", {"node": "running"})
    assert {one["state"] for one in told("endpoints")} == {"ready", "draining"}
    assert [one["type"] for one in told("services")] == ["ClusterIP"]
    assert {one["protocol"] for one in told("conntrack")} >= {"tcp", "udp"}
