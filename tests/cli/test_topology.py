"""`lab topology from`, and `lab reach` of a cluster's objects, as people call them."""

from __future__ import annotations

import json
import re

import pytest

from lab.topology.reader import load
from tests.support.command import lab
from tests.support.pages import DOCS, code

SHOP, NODES = code(DOCS / "reach.md", "yaml")
HEADLESS = "apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {clusterIP: None}\n"


@pytest.fixture
def place(tmp_path):
    (tmp_path / "shop.yaml").write_text(SHOP)
    (tmp_path / "nodes.yaml").write_text(NODES)
    return tmp_path


def test_what_it_prints_is_a_topology_file_and_what_was_given_is_said(place):
    done = lab("topology", "from", "shop.yaml", "--nodes", "nodes.yaml", directory=place)
    assert done.returncode == 0
    assert "lab: the Service web has no cluster IP: the lab gives 10.96.0.10" in done.stderr.splitlines()
    (place / "mine.yaml").write_text(done.stdout)
    topology = load(place / "mine.yaml")
    assert [host.name for host in topology.nodes] == ["worker-1", "worker-2"]
    assert {host.proxy_version for host in topology.nodes} == {"v1.33.5"}
    assert done.stdout.startswith("# Made by `lab topology from` of shop.yaml.\n#   the Service web has no cluster IP")


def test_objects_come_by_stdin_as_well(place):
    by_file = lab("topology", "from", "shop.yaml", directory=place)
    by_stdin = lab("topology", "from", "-", given=SHOP)
    assert by_stdin.returncode == 0
    assert by_stdin.stdout.replace("<stdin>", "shop.yaml") == by_file.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("topology", "from", "nodes.yaml"), "lab: nodes.yaml: there is no Service in it (give what `kubectl get"),
        (("topology", "from", "shop.yaml", "shop.yaml"), "lab: shop.yaml: given twice (give it once)"),
        (
            ("topology", "from", "shop.yaml", "--nodes", "none.yaml"),
            "lab: none.yaml: there is no Node in it (give what",
        ),
        (("topology", "from", "lost.yaml"), "lab: lost.yaml: there is no such file"),
        (("topology", "from", "mine.yaml"), "lab: mine.yaml: is a topology already (use it as it is"),
        (
            ("topology", "from", "shop.yaml", "--service", "wep"),
            "lab: --service: there is no Service wep (did",
        ),
        (
            ("topology", "from", "none.yaml", "--service", "none"),
            "lab: --service: default/none has no cluster IP: ",
        ),
        (("topology", "from", "none.yaml"), "lab: no Service has a cluster IP and is kube-proxy's own (give one that"),
        (("reach", "mine.yaml", "shop.yaml"), "lab: mine.yaml: a topology among several files (give it alone)"),
        (("reach", "mine.yaml", "--nodes", "nodes.yaml"), "lab: mine.yaml: a topology, and --nodes (--nodes is for"),
        (("reach", "--node", "x.txt", "--nodes", "nodes.yaml"), "lab: --nodes with a node's own rules (leave one of"),
        (("reach", "shop.yaml", "--nodes", "shop.yaml"), "lab: shop.yaml: given twice (give it once)"),
    ],
)
def test_a_mistake_is_one_line(place, words, told):
    (place / "none.yaml").write_text(HEADLESS)
    (place / "mine.yaml").write_text(code(DOCS / "topology.md", "yaml")[0])
    done = lab(*words, directory=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


@pytest.mark.lab_kernel
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_objects_are_asked_and_do_as_documented(place, mode):
    words = ("reach", "shop.yaml", "--nodes", "nodes.yaml", "--proxy-mode", mode, "--json")
    done = lab(*words, directory=place)
    assert done.returncode == 0, done.stdout
    [found] = json.loads(done.stdout)["reaches"]
    assert found["proxies"].startswith(f"{mode} v1.33.5")
    assert {cell["client"]["host"] for cell in found["cells"]} == {
        *("client-worker-1", "client-worker-2", "worker-1", "worker-2", "web-0", "web-1", "outside")
    }
    asked = [cell["asked"] for cell in found["cells"]]
    assert {one["address"]["address"] for one in asked if one["target"] == "nodeport"} == {
        "192.168.50.11",
        "192.168.50.12",
    }
    assert sum(cell["expected"] is not None for cell in found["cells"]) == 37


@pytest.mark.lab_kernel
def test_who_gets_in_by_a_node_port_under_policy_local(place):
    """A node without an endpoint of its own drops what comes from outside."""
    (place / "one.yaml").write_text(SHOP.replace("replicas: 2", "replicas: 1"))
    done = lab("reach", "one.yaml", "--nodes", "nodes.yaml", "--from", "outside", "--to", "nodeport", directory=place)
    assert done.returncode == 0, done.stdout
    assert "web-0, as 203.0.113.2" in done.stdout
    assert "times out at worker-2" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 cells: 2 of 2 as Kubernetes documents it"


@pytest.mark.lab_kernel
def test_an_endpoint_that_is_a_node_itself_is_asked_as_any_other(place):
    """As kube-apiserver is: what the node asks of itself goes by the loopback, masqueraded to any of its addresses."""
    service = "kind: Service\napiVersion: v1\nmetadata: {name: api}\nspec: {ports: [{port: 443, targetPort: 6443}]}\n"
    endpoints = "kind: Endpoints\napiVersion: v1\nmetadata: {name: api}\nsubsets: [{addresses: [{ip: 192.168.50.11}],"
    (place / "api.yaml").write_text(f"{service}---\n{endpoints} ports: [{{port: 6443}}]}}]\n")
    done = lab("reach", "api.yaml", "--nodes", "nodes.yaml", "--to", "vip", directory=place)
    assert done.returncode == 0, done.stdout
    assert re.search(r"│ worker-1 +│ worker-1, as 10\.50\.1\.\d+ ", done.stdout), done.stdout
    assert re.search(r"│ worker-2 +│ worker-1, as 192\.168\.50\.12 ", done.stdout), done.stdout
    assert done.stdout.splitlines()[-1] == "5 cells: 5 of 5 as Kubernetes documents it"
