"""`lab services` and `lab kube-proxy` on a lab that stands: what its nodes' rules follow, and when."""

from __future__ import annotations

import json
import socket

import pytest

from lab.conntrack.flows import Flows, chosen
from lab.netns import Namespace
from lab.standing import commands, names
from lab.standing.up import up
from lab.topology.reader import load, parse, shipped
from lab.topology.with_settings import with_proxy
from lab.vocabulary import ProxyMode
from tests.support.command import lab as lab_command

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once

OTHER = """
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {clusterIP: 192.168.0.7, ports: [{port: 8080, targetPort: 9000, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other-1, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
endpoints: [{addresses: [10.0.2.2], conditions: {ready: true}}]
ports: [{port: 9000, protocol: TCP}]
"""


def who_answers(vip="192.168.0.2", port=80):
    namespace = Namespace.open(names.DIRECTORY / "endpoints-client")
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        namespace.close()
        client.settimeout(PATIENCE)
        client.connect((vip, port))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return client.recv(4096).decode().split("\r\n\r\n")[1].split()[0]


def answering():
    return {who_answers() for _ in range(64)}


def done(*arguments, **settings):
    ran = lab_command(*arguments, **settings)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(params=ProxyMode)
def lab(own_run, request):
    return up(with_proxy(load("endpoints"), request.param, None, None))


def test_a_stopped_kube_proxy_lags_until_it_is_started(lab):
    assert answering() == {"server-1", "server-2", "server-3"}
    assert done("kube-proxy", "stop", "node").stdout == "The kube-proxy of node is stopped.\n"
    ran = done("endpoints", "remove", "web", "10.0.1.2")
    cure = "`lab kube-proxy start node --lab endpoints`"
    lag = f"the kube-proxy of node is stopped, so its rules follow no change until {cure}"
    assert ran.stderr == f"lab: {lag}\n"
    assert "10.0.1.2" not in ran.stdout
    assert answering() == {"server-1", "server-2", "server-3"}
    assert f"  {lag}" in done("status").stdout.splitlines()
    assert json.loads(done("status", "--json").stdout)["labs"][0]["kube_proxies"] == {"node": "stopped"}
    ran = done("kube-proxy", "start", "node")
    assert (ran.stdout, ran.stderr) == ("The kube-proxy of node runs: it deleted 0 conntrack entries of UDP.\n", "")
    assert answering() == {"server-2", "server-3"}
    assert list(commands.lag(lab)) == []
    assert json.loads(done("status", "--json").stdout)["labs"][0]["kube_proxies"] == {"node": "running"}


def test_services_come_are_changed_and_go(lab, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(OTHER)
    assert done("services", "add", file).stdout.splitlines()[-1] == (
        "default/other  ClusterIP  192.168.0.7                  8080/TCP"
    )
    assert who_answers("192.168.0.7", 8080) == "server-2"  # at a port that nothing had before
    file.write_text(OTHER.replace("10.0.2.2", "10.0.3.2").replace("8080", "8081"))
    done("services", "apply", file)
    assert who_answers("192.168.0.7", 8081) == "server-3"
    assert answering() == {"server-1", "server-2", "server-3"}
    done("services", "remove", "other", "--keep-conntrack")
    [other] = json.loads(done("services", "list", "--json").stdout)["services"]
    assert other["service"] == "default/web"
    rules = done("exec", "node", "--", "sh", "-c", "iptables-nft-save; nft list ruleset").stdout
    assert "192.168.0.2" in rules
    assert "192.168.0.7" not in rules
    done("services", "add", "-", given=OTHER)
    done("services", "remove", file)
    assert done("services", "remove", "default/web").stdout == "there is no Service\n"
    assert done("endpoints", "list").stdout == "no Service has an endpoint\n"


def test_what_is_refused_is_said_in_a_line_and_changes_nothing(own_run, tmp_path):
    up(load("endpoints"))
    file = tmp_path / "other.yaml"
    for text, says in (
        (OTHER.replace("10.0.2.2", "10.9.9.9"), "no host has the address 10.9.9.9"),
        (OTHER.replace("clusterIP: 192.168.0.7, ", ""), f"lab: {file}:5: spec: must be written down"),
        (OTHER.replace("{name: other}", "{name: web}"), ": there is a Service default/web already (apply"),
        (OTHER.replace("port: 8080", "port: 0"), f"lab: {file}:5: spec.ports"),
        (OTHER.replace("192.168.0.7", "192.168.0.2").replace("8080", "80"), "both claim 192.168.0.2 80/tcp"),
        ("topology: x\nhosts: {a: {}}", f"lab: {file}: is a topology"),
        ("", f"lab: {file}: empty"),
        (
            OTHER + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: other}\n",
            f"lab: {file}:15: kind: a Deployment: the lab has the hosts that it was built with (for pods, write an",
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}", f"lab: {file}:2: kind: must be Service or"),
    ):
        file.write_text(text)
        ran = lab_command("services", "add", file)
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran.stderr
        assert says in ran.stderr
    for arguments, says in (
        (("services", "remove", "nope"), "lab: there is no Service 'nope' (known: default/web)\n"),
        (("kube-proxy", "stop", "nod"), "lab: there is no node 'nod' (did you mean 'node'?)\n"),
        (("kube-proxy", "start", "node"), "lab: the kube-proxy of node is running (restart it, or stop it first)\n"),
    ):
        ran = lab_command(*arguments)
        assert (ran.returncode, ran.stderr) == (2, says)
    assert answering() == {"server-1", "server-2", "server-3"}
    assert [one["service"] for one in json.loads(done("services", "list", "--json").stdout)["services"]] == [
        "default/web"
    ]


@pytest.mark.parametrize(("version", "kept"), [("v1.31.14", False), ("v1.36.3", True)])
@pytest.mark.parametrize("words", [("restart",), ("stop", "start")])
def test_a_restart_deletes_udp_entries_as_its_release_does(own_run, version, kept, words):
    text = dict(shipped())["endpoints"].read_text().replace("protocol: TCP", "protocol: UDP")
    up(with_proxy(parse(text), None, version, None))
    client_side, node = (Namespace.open(names.DIRECTORY / f"endpoints-{name}") for name in ("client", "node"))
    with client_side.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("192.168.0.2", 80))
        client.send(b"hello")
        assert client.recv(100) == b"hello"
    assert len(chosen(Flows(node), "udp")) == 1
    said = [done("kube-proxy", word, "node").stdout for word in words]
    count = "0 conntrack entries" if kept else "1 conntrack entry"
    assert said[-1] == f"The kube-proxy of node runs: it deleted {count} of UDP.\n"
    assert len(chosen(Flows(node), "udp")) == kept
    client_side.close()
    node.close()


def test_a_bad_object_is_told_by_its_file_and_name_and_nothing_is_asked_where_no_service_is(own_run, tmp_path):
    up(load("endpoints"))
    gate = tmp_path / "gate.yaml"
    gate.write_text(
        "{apiVersion: v1, kind: Service, metadata: {name: gate}, spec: {clusterIP: 10.0.1.2, ports: [{port: 80}]}}\n"
    )
    ran = lab_command("services", "apply", gate)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"lab: {gate}: Service default/gate: spec.clusterIP: 10.0.1.2 is outside of")
    done("services", "remove", "web")
    ran = lab_command("reach", "--lab", "endpoints")
    assert (ran.returncode, ran.stderr) == (2, "lab: endpoints: there is no Service to ask (add one)\n")


def test_endpoints_are_taken_as_the_slices_that_a_cluster_makes_of_them(lab, tmp_path):
    file = tmp_path / "other.yaml"
    service = OTHER.partition("---")[0]
    endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: other}\n"
    subset = "subsets: [{addresses: [{ip: ADDRESS}], ports: [{port: 9000, protocol: TCP}]}]\n"
    file.write_text(f"{service}---\n{endpoints}{subset.replace('ADDRESS', '10.0.2.2')}")
    done("services", "add", file)
    assert who_answers("192.168.0.7", 8080) == "server-2"
    file.write_text(f"{endpoints}{subset.replace('ADDRESS', '10.0.3.2')}")  # of a Service that is there
    done("services", "apply", file)
    assert who_answers("192.168.0.7", 8080) == "server-3"
    file.write_text(f"{OTHER}---\n{endpoints}{subset.replace('ADDRESS', '10.0.3.2')}")  # told by a slice already
    done("services", "remove", "other")
    done("services", "add", file)
    assert who_answers("192.168.0.7", 8080) == "server-2"
