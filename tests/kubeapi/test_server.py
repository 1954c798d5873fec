"""The API server, asked by the official client for Python."""

import contextlib
import http.client
import json
import threading

import pytest

from lab.kubeapi.objects import changing, lasting
from lab.kubeapi.server import ApiServer
from lab.kubeapi.store import Store
from lab.netns import Namespace, RouteSocket
from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up
from lab.topology.reader import load
from lab.vocabulary import Family
from tests.support.objects import endpoint_slice, service

kubernetes = pytest.importorskip("kubernetes", reason="the official client is not installed: pip install kubernetes")
pytestmark = pytest.mark.lab_kernel

WEB = service("web", clusterIP="10.96.0.1")
HEADLESS = service("headless", clusterIP="None")
SLICE = endpoint_slice(
    "web",
    [
        {"addresses": ["10.0.1.2"], "nodeName": "n1", "zone": "z"},
        {"addresses": ["10.0.1.3"], "conditions": {"ready": False}},
    ],
    Family.IPV4,
    target=80,
)


@pytest.fixture
def namespace():
    with contextlib.closing(Namespace.create()) as made, contextlib.closing(RouteSocket(made)) as routes:
        routes.apply([link_up(LOOPBACK_INDEX, "lo")])
        yield made


@pytest.fixture
def server(namespace):
    store = Store()
    topology = load("kube-proxy")
    store.put({**changing([WEB, HEADLESS], [SLICE]), **lasting(topology, tuple(Family), ())})
    with contextlib.closing(ApiServer(namespace, store, "v1.33.1")) as made:
        yield made


@pytest.fixture
def client(namespace, server):
    """A client whose connections are made in the namespace: each request of it runs there."""
    configuration = kubernetes.client.Configuration(host=server.url)
    configuration.proxy = None
    with namespace.entered():
        yield kubernetes.client.ApiClient(configuration)


def watched(listing, **options):
    return [
        (event["type"], event["object"].metadata.name)
        for event in kubernetes.watch.Watch().stream(listing, timeout_seconds=1, **options)
    ]


def test_lists(client):
    core = kubernetes.client.CoreV1Api(client)
    services = core.list_service_for_all_namespaces(limit=500)
    assert [one.metadata.name for one in services.items] == ["web", "headless"]
    web = services.items[0].spec
    assert (web.cluster_ip, web.ip_families, web.ports[0].protocol) == ("10.96.0.1", ["IPv4"], "TCP")
    chosen = core.list_service_for_all_namespaces(field_selector="spec.clusterIP!=None")
    assert [one.metadata.name for one in chosen.items] == ["web"]
    [subset] = core.read_namespaced_endpoints("web", "default").subsets
    assert [one.ip for one in subset.addresses] == ["10.0.1.2"]
    assert [one.ip for one in subset.not_ready_addresses] == ["10.0.1.3"]
    assert core.list_namespaced_service("other").items == []


def test_nodes(client):
    core = kubernetes.client.CoreV1Api(client)
    [node] = core.list_node(field_selector="metadata.name=node").items
    addresses = [one.address for one in node.status.addresses if one.type == "InternalIP"]
    assert addresses == ["10.0.0.1", "fd00:10::1"]
    assert core.read_node("node").metadata.uid == node.metadata.uid
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.read_node("other")
    assert refused.value.status == 404


def test_slices_of_both_versions(client):
    [piece] = kubernetes.client.DiscoveryV1Api(client).list_endpoint_slice_for_all_namespaces().items
    assert [(one.node_name, one.zone) for one in piece.endpoints] == [("n1", "z"), (None, None)]
    custom = kubernetes.client.CustomObjectsApi(client)
    [beta] = custom.list_cluster_custom_object("discovery.k8s.io", "v1beta1", "endpointslices")["items"]
    assert beta["apiVersion"] == "discovery.k8s.io/v1beta1"
    topology = {"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "z"}
    assert beta["endpoints"][0]["topology"] == topology
    assert "zone" not in beta["endpoints"][0]


def test_a_watch_from_a_list_on_sees_every_change_once(client, server):
    core = kubernetes.client.CoreV1Api(client)
    before = core.list_service_for_all_namespaces().metadata.resource_version
    other = service("other", clusterIP="10.96.0.2")
    assert server.store.put(changing([other, HEADLESS], [SLICE])) == {"services": 2}
    more = service("web", clusterIP="10.96.0.1", ports=[{"port": 81}])
    server.store.put(changing([other, HEADLESS, more], [SLICE]))
    server.store.put(changing([other, HEADLESS, WEB], [SLICE]))
    assert server.store.put(changing([other, HEADLESS, WEB], [SLICE])) == {}
    found = watched(core.list_service_for_all_namespaces, resource_version=before)
    assert found == [("ADDED", "other"), ("DELETED", "web"), ("ADDED", "web"), ("MODIFIED", "web")]


def test_a_watch_hears_of_a_change_when_it_comes(client, server):
    heard = kubernetes.watch.Watch()
    events = heard.stream(
        kubernetes.client.DiscoveryV1Api(client).list_endpoint_slice_for_all_namespaces, timeout_seconds=60
    )
    assert next(events)["type"] == "ADDED"
    threading.Thread(target=server.store.put, args=(changing([WEB], []),)).start()
    gone = next(events)
    assert (gone["type"], gone["object"].metadata.name) == ("DELETED", "web")
    heard.stop()


def test_what_a_selector_selects_no_more_is_gone_to_its_watch(client, server):
    core = kubernetes.client.CoreV1Api(client)
    before = core.list_service_for_all_namespaces().metadata.resource_version
    server.store.put(changing([service("web", clusterIP="None"), service("headless", clusterIP="10.96.0.3")], [SLICE]))
    options = {"resource_version": before, "field_selector": "spec.clusterIP!=None"}
    assert watched(core.list_service_for_all_namespaces, **options) == [("DELETED", "web"), ("ADDED", "headless")]


def test_initial_events_end_in_a_bookmark(client):
    core = kubernetes.client.CoreV1Api(client)
    options = {"send_initial_events": True, "resource_version_match": "NotOlderThan", "allow_watch_bookmarks": True}
    response = core.list_service_for_all_namespaces(watch=True, timeout_seconds=1, _preload_content=False, **options)
    events = [json.loads(line) for line in response.read().splitlines()]
    assert [one["type"] for one in events] == ["ADDED", "ADDED", "BOOKMARK"]
    assert events[-1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.list_service_for_all_namespaces(watch=True, send_initial_events=True)
    assert refused.value.status == 422


def test_service_cidrs(client, server):
    import ipaddress

    server.store.put(lasting(load("kube-proxy"), (Family.IPV4,), [ipaddress.ip_network("10.96.0.0/16")]))
    found = kubernetes.client.NetworkingV1Api(client).list_service_cidr().items
    assert [one.spec.cidrs for one in found] == [["10.96.0.0/16"]]


def test_events_are_taken_and_nothing_else_is(client):
    core = kubernetes.client.CoreV1Api(client)
    about = {"kind": "Node", "name": "node"}
    body = {"metadata": {"name": "event"}, "involvedObject": about, "reason": "Starting"}
    assert core.create_namespaced_event("default", body).reason == "Starting"
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.create_namespaced_service("default", {"metadata": {"name": "new"}})
    assert refused.value.status == 405


def test_version_and_discovery(client):
    assert kubernetes.client.VersionApi(client).get_code().git_version == "v1.33.1"
    groups = kubernetes.client.ApisApi(client).get_api_versions().groups
    assert {one.name for one in groups} == {"discovery.k8s.io", "networking.k8s.io"}
    names = [one.name for one in kubernetes.client.CoreV1Api(client).get_api_resources().resources]
    assert names == ["services", "endpoints", "nodes"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/pods", 404),
        ("/api/v1/namespaces/default/nodes", 404),
        ("/apis/discovery.k8s.io/v1/services", 404),
        ("/api/v1/services?labelSelector=a%20b", 400),
        ("/api/v1/services?watch=1&resourceVersion=x", 400),
    ],
)
def test_what_is_not_served_is_refused_in_the_form_that_clients_read(namespace, server, path, status):
    with namespace.entered():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == status
    body = json.loads(response.read())
    connection.close()
    assert (body["kind"], body["code"]) == ("Status", status)


def test_the_end_of_the_server_ends_its_watches(namespace):
    server = ApiServer(namespace, Store(), "v1.20.2")
    with namespace.entered():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("GET", "/api/v1/services?watch=1")
    response = connection.getresponse()
    server.close()
    with contextlib.suppress(ConnectionError, http.client.IncompleteRead):
        assert response.read() == b""
    connection.close()
