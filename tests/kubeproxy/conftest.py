"""Services for kube-proxy's rules, and a namespace to load them into."""

from __future__ import annotations

import os
import subprocess

import pytest

from lab.vocabulary import Family
from tests.support.objects import endpoint_slice, service


class World:
    """Objects of one address family; pods, VIPs and addresses outside are numbers."""

    def __init__(self, family=Family.IPV4):
        self.family = family
        self.services = []
        self.endpoint_slices = []

    def _address(self, ipv4, ipv6, number):
        return f"{ipv4}.{number // 256}.{number % 256}" if self.family is Family.IPV4 else f"{ipv6}::{number:x}"

    def vip(self, number):
        return self._address("10.96", "fd00:96", number)

    def pod(self, number):
        return self._address("10.244", "fd00:244", number)

    def outside(self, number):
        return self._address("203.0", "2001:db8:203", number)

    def target(self, number, port=8080):
        pod = self.pod(number)
        return f"{pod}:{port}" if self.family is Family.IPV4 else f"[{pod}]:{port}"

    def add(self, name, endpoints=(), *, ports=None, status=(), namespace="default", **spec):
        """Add a service; an endpoint is its number, or a mapping with ``n`` and parts of an Endpoint."""
        number = len(self.services) + 1
        ports = ports or [{"port": 80}]
        spec = {"clusterIP": self.vip(number), **spec}
        self.services.append(service(name, namespace=namespace, ports=ports, ingress=status, **spec))
        if endpoints:
            self.slice(name, endpoints, ports=ports, namespace=namespace)
        return self

    def slice(self, name, endpoints, *, ports=({"port": 80},), namespace="default"):
        made = []
        for endpoint in endpoints:
            parts = endpoint if isinstance(endpoint, dict) else {"n": endpoint}
            rest = {key: value for key, value in parts.items() if key != "n"}
            made.append({"addresses": [self.pod(parts["n"])], "nodeName": "node", **rest})
        number = len(self.endpoint_slices)
        options = {"name": f"{name}-{number}", "namespace": namespace, "ports": ports}
        self.endpoint_slices.append(endpoint_slice(name, made, self.family, target=8080, **options))


@pytest.fixture
def world():
    return World()


@pytest.fixture(params=list(Family), ids=str)
def family(request):
    return request.param


@pytest.fixture(scope="session")
def make_world():
    return World


@pytest.fixture
def everything(family):
    """One service of every sort that kube-proxy treats differently, in one family."""
    world = World(family)
    ranges = ["192.0.2.0/24", "198.51.100.0/25"] if family is Family.IPV4 else ["fd00:1::/64", "fd00:2::/64"]
    away = {"n": 2, "nodeName": "other"}
    several = [{"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}]
    several.append({"name": "c", "port": 99, "protocol": "SCTP"})

    def node_port(number):
        return [{"port": 80, "nodePort": 30000 + number}]

    world.add("one", [1]).add("three", [1, 2, {"n": 3, "nodeName": "other"}]).add("none")
    world.add("several", [1, 2], ports=several)
    world.add("sticky", [1, 2], sessionAffinity="ClientIP")
    world.add("port", [1], type="NodePort", ports=node_port(1))
    local = {"externalTrafficPolicy": "Local"}
    world.add("port-local", [1, away], type="NodePort", ports=node_port(2), sessionAffinity="ClientIP", **local)
    world.add("port-away", [away], type="NodePort", ports=node_port(3), **local)
    world.add("port-none", type="NodePort", ports=node_port(4))
    balancer = {"type": "LoadBalancer"}
    ingress = [{"ip": world.outside(1)}, {"hostname": "name"}, {"ip": world.outside(99), "ipMode": "Proxy"}]
    world.add("balanced", [1], ports=node_port(5), status=ingress, **balancer)
    status = [{"ip": world.outside(2)}]
    world.add("ranges", [1], ports=node_port(6), status=status, loadBalancerSourceRanges=ranges, **balancer)
    status = [{"ip": world.outside(3)}]
    world.add("balanced-local", [1, away], status=status, healthCheckNodePort=32000, **balancer, **local)
    world.add("balanced-away", [away], status=[{"ip": world.outside(4)}], **balancer, **local)
    world.add("balanced-none", status=[{"ip": world.outside(5)}], **balancer)
    world.add("external", [1], externalIPs=[world.outside(6)])
    world.add("external-local", [1, away], externalIPs=[world.outside(7)], **local)
    world.add("internal", [1, away], internalTrafficPolicy="Local")
    world.add("internal-away", [away], internalTrafficPolicy="Local")
    leaving = {"n": 1, "conditions": {"ready": False, "serving": True, "terminating": True}}
    world.add("leaving", [leaving, {"n": 2, "conditions": {"ready": False}}])
    world.add("unready", [{"n": 1, "conditions": {"ready": False}}])
    world.add("headless", [1], clusterIP="None")
    world.add("elsewhere", clusterIP="", type="ExternalName", externalName="a.example", ports=[])
    return world


@pytest.fixture(scope="session")
def in_namespace(tmp_path_factory):
    """Run a shell script in a fresh network namespace; its words, or a failure with them."""
    if os.geteuid() != 0:
        pytest.skip("making a network namespace needs root")
    place = tmp_path_factory.mktemp("rules")

    def run(script, **files):
        for name, text in files.items():
            (place / name).write_text(text)
        path = f"{os.environ['PATH']}:/usr/sbin"
        environment = {**os.environ, "XTABLES_LOCKFILE": str(place / "lock"), "PATH": path}
        done = subprocess.run(
            ["unshare", "-n", "sh", "-ec", script],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
