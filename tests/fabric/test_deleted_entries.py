"""Which entries of UDP flows are gone after a change, by release: real flows by every way to a Service.

From v1.32 on as they were seen with real programs of v1.33.13 and v1.36.3; before, as the calls of conntrack were that
real programs of these minors made.
"""

from __future__ import annotations

import re

import pytest

from lab.conntrack.netlink import ConntrackTable
from lab.evidence.packet import UDP, SocketAddress
from lab.fabric.lab import Lab
from lab.kubeproxy.sysctls import CLOSE_WAIT
from lab.topology.reader import parse, shipped
from lab.topology.routes import node_address
from lab.topology.with_settings import with_proxy
from lab.traffic.tcp import datagram_socket
from lab.vocabulary import Family, ProxyMode

from .conftest import ADDRESSES

pytestmark = pytest.mark.lab_kernel

NODE_PORT = 30053
EXTERNAL = {Family.IPV4: "203.0.113.1", Family.IPV6: "2001:db8:203::1"}
FOREIGN = {Family.IPV4: "198.51.100.9", Family.IPV6: "2001:db8:198::9"}
CLIENT = {Family.IPV4: "10.0.0.2", Family.IPV6: "fd00:10::2"}


def topology():
    text = dict(shipped())["endpoints"].read_text().replace("protocol: TCP", "protocol: UDP")
    # Where ServiceCIDRs are known, what comes before a Service leaves no entry (service_cidr_late).
    text = re.sub("service-cidrs: .*\n", "", text)
    # What is not for the node itself goes out by the link of server-3, as on nodes that have a default route.
    uplink = 'node: {forwarding: true, routes: [{to: default, via: 10.0.3.2}, {to: default, via: "fd00:10:0:3::2"}],'
    text = text.replace("node: {forwarding: true,", uplink)
    text = text.replace("type: ClusterIP", f"type: NodePort\n  externalIPs: [{', '.join(EXTERNAL.values())}]")
    return parse(text.replace("port: 80, targetPort: 80", f"port: 80, targetPort: 80, nodePort: {NODE_PORT}"))


TOPOLOGY = topology()


class Flows:
    """A client that sends by the VIP (V), an external IP (E), the node port (N), and to somebody else's port of that
    number (F)."""

    def __init__(self, mode, version, family):
        self.family = family
        self.first, self.second, _third = ADDRESSES[family].pods
        self.lab = Lab(with_proxy(TOPOLOGY, mode, version, None), family=family)
        self.services, self.all_slices = self.lab.services, self.lab.endpoint_slices
        self.table = self.lab.keep(ConntrackTable(self.lab.hosts["node"].namespace))
        node = str(node_address(self.lab.topology, "node", family))
        targets = [(ADDRESSES[family].vip, 80), (EXTERNAL[family], 80), (node, NODE_PORT), (FOREIGN[family], NODE_PORT)]
        self.ends = {
            letter: (SocketAddress(CLIENT[family], 5000 + number), SocketAddress(*target))
            for number, (letter, target) in enumerate(zip("VENF", targets, strict=True))
        }

    def send(self, translated):
        """Make an entry by each way; those to the Service are translated where it has its endpoint."""
        namespace = self.lab.hosts["client"].namespace
        for letter, ends in self.ends.items():
            self.lab.keep(datagram_socket(namespace, *ends)).send(b"?")
            entry = self.table.entry(UDP, *ends)
            leads = self.first if translated and letter != "F" else ends[1].address
            assert (entry and entry.reply[0].address) == leads, letter

    def deleted(self):
        return "".join(letter for letter, ends in self.ends.items() if self.table.entry(UDP, *ends) is None)

    def slices(self, *endpoints, port=80):
        """The slices with these endpoints alone: each an address, or one with its conditions."""
        found = []
        for piece in self.all_slices:
            ports = tuple(one.model_copy(update={"port": port}) for one in piece.ports)
            kept = [
                endpoint.model_copy(update={"conditions": endpoint.conditions.model_copy(update=conditions)})
                for endpoint in piece.endpoints
                for address, conditions in endpoints
                if address in endpoint.addresses
            ]
            found.append(piece.model_copy(update={"endpoints": tuple(kept), "ports": ports}))
        return tuple(found)

    def sync(self, *endpoints, port=80, services=True):
        self.lab.sync(self.services if services else (), self.slices(*endpoints, port=port))


READY = {"ready": True, "serving": True, "terminating": False}
DRAINING = {"ready": False, "serving": True, "terminating": True}
FAILING = {"ready": False, "serving": False, "terminating": False}


def port_changed(flows):
    flows.sync((flows.first, READY), port=81)


def gone(flows):
    flows.sync((flows.second, READY))


def draining(flows):
    flows.sync((flows.first, DRAINING), (flows.second, READY))


def failing(flows):
    flows.sync((flows.first, FAILING), (flows.second, READY))


def failing_then_gone(flows):
    failing(flows)
    gone(flows)


def last_gone(flows):
    flows.sync()


def service_gone(flows):
    flows.lab.sync((), ())


def restarted(flows):
    flows.lab.restart_kube_proxies()


def first(flows):
    flows.sync((flows.first, READY))


def service_after_slice(flows):
    flows.sync((flows.first, READY))


# What there is before the flows: a Service with its endpoint, nothing, or the endpoint alone.
SERVED, EMPTY, ALONE = "served", "empty", "alone"

CHANGES = {
    port_changed: SERVED,
    gone: SERVED,
    draining: SERVED,
    failing: SERVED,
    failing_then_gone: SERVED,
    last_gone: SERVED,
    service_gone: SERVED,
    restarted: SERVED,
    first: EMPTY,
    service_after_slice: ALONE,
}

# By release: after the port changed, the endpoint is gone and another serves, drains, no longer serves, and is gone
# then; after the last is gone, the Service is gone, a restart, the first endpoint, the Service that comes last.
DELETED = {
    "v1.14.0": "EN    EN   EN   EN   EN   EN  V VENF VENF NF",
    "v1.19.10": "EN   EN   EN   EN   EN   EN  V VENF VENF NF",
    "v1.20.4": "VEN   VEN  VEN  VEN  VEN  VEN V VENF VENF NF",
    "v1.20.5": "VEN   VEN  VEN  VEN  VEN  VEN V VENF VENF -",
    "v1.21.1": "VEN   VEN  -    -    VEN  VEN V VENF VENF -",
    "v1.22.0": "VEN   VEN  -    -    VEN  VEN V VENF VENF -",
    "v1.22.17": "VEN  VEN  VEN  VEN  VEN  VEN V VENF VENF -",
    "v1.28.3": "VEN   VEN  VEN  VEN  VEN  VEN V VENF VENF -",
    "v1.29.1": "VEN   VEN  -    -    -    VEN V VENF VENF -",
    "v1.30.3": "VEN   VEN  -    -    -    VEN V VENF VENF -",
    "v1.31.14": "VEN  VEN  -    VEN  VEN  VEN V VENF VENF -",
    "v1.32.13": "F    VENF F    VENF VENF -   - F    VENF -",
    "v1.33.13": "F    VENF F    VENF VENF -   - F    VENF -",
    "v1.34.9": "VENF  VENF F    VENF VENF -   - F    VENF -",
    "v1.36.3": "VENF  VENF F    VENF VENF -   - F    VENF -",
}
RUNS = [
    *((ProxyMode.IPTABLES, version, Family.IPV4) for version in DELETED),
    *((ProxyMode.NFTABLES, version, Family.IPV4) for version in ("v1.29.1", "v1.31.14", "v1.33.13", "v1.36.3")),
    *((ProxyMode.IPTABLES, version, Family.IPV6) for version in ("v1.22.17", "v1.36.3")),
]


@pytest.fixture
def flows(run):
    made = Flows(*run)
    yield made
    made.lab.close()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run)))
def test_what_a_change_deletes(flows, run, change):
    before = CHANGES[change]
    if before is EMPTY:
        flows.lab.sync((), ())
    else:
        flows.sync((flows.first, READY), services=before is SERVED)
    flows.send(translated=before is SERVED)
    assert flows.deleted() == ""
    change(flows)
    expected = dict(zip(CHANGES, DELETED[run[1]].split(), strict=True))[change]
    assert flows.deleted() == expected.strip("-")


def test_a_change_of_one_family_leaves_the_other_ones_flows():
    """A node port's number is the same in both: each family's proxier looks at its own entries."""
    lab = Lab(with_proxy(TOPOLOGY, None, "v1.36.3", None))
    with lab:
        sock = datagram_socket(
            lab.hosts["client"].namespace,
            SocketAddress(CLIENT[Family.IPV6], 5000),
            SocketAddress(FOREIGN[Family.IPV6], NODE_PORT),
        )
        ends = SocketAddress(CLIENT[Family.IPV6], 5000), SocketAddress(FOREIGN[Family.IPV6], NODE_PORT)
        lab.keep(sock).send(b"?")
        table = lab.keep(ConntrackTable(lab.hosts["node"].namespace))
        assert table.entry(UDP, *ends) is not None
        lab.endpoints.remove("web", ADDRESSES[Family.IPV4].pods[0])
        assert table.entry(UDP, *ends) is not None
        lab.endpoints.remove("web", ADDRESSES[Family.IPV6].pods[0])
        assert table.entry(UDP, *ends) is None


@pytest.mark.parametrize(
    ("version", "deleted"),
    [("v1.19.10", "EN"), ("v1.22.0", ""), ("v1.28.3", "VEN"), ("v1.31.14", ""), ("v1.36.3", "F")],
)
def test_an_endpoint_that_is_drained_by_its_word(version, deleted):
    flows = Flows(ProxyMode.IPTABLES, version, Family.IPV4)
    with flows.lab:
        flows.sync((flows.first, READY))
        flows.send(translated=True)
        flows.lab.endpoints.add("web", flows.second)
        before = flows.deleted()
        flows.lab.endpoints.drain("web", flows.first)
        assert flows.deleted() == deleted
        # Beside a second endpoint, what leads to none of them is found already.
        assert before == ("F" if version == "v1.36.3" else "")


def test_without_cleaning_nothing_is_deleted(addresses):
    flows = Flows(ProxyMode.IPTABLES, "v1.20.4", addresses.family)
    with flows.lab:
        flows.lab.sync((), ())
        flows.send(translated=False)
        flows.lab.sync(flows.services, flows.slices((flows.first, READY)), clean_conntrack=False)
        assert flows.deleted() == ""


def test_a_restart_sets_the_sysctls_again():
    with Lab(with_proxy(TOPOLOGY, None, "v1.36.3", None), family=Family.IPV4) as lab:
        namespace = lab.hosts["node"].namespace
        namespace.set_sysctls({CLOSE_WAIT: 7})
        lab.restart_kube_proxies()
        assert namespace.sysctl(CLOSE_WAIT) == "3600"
