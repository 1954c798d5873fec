"""Services and EndpointSlices as kubectl prints them, and what the API server would refuse, by its path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from lab.errors import InputWarning
from lab.kubernetes.objects import EndpointSlice, Service
from lab.kubernetes.parse import KubernetesObject, ObjectList, parse_objects

PRINTED = """
apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: "{}"
    creationTimestamp: "2024-05-01T10:00:00Z"
    finalizers: [service.kubernetes.io/load-balancer-cleanup]
    labels: {app: web}
    managedFields:
    - apiVersion: v1
      fieldsType: FieldsV1
      fieldsV1: {"f:spec": {"f:ports": {}}}
    name: web
    namespace: shop
    resourceVersion: "12345"
    uid: 6f4a3f3e-1a3c-4b5f-9b8e-0e7d6a5b4c3d
  spec:
    allocateLoadBalancerNodePorts: true
    clusterIP: 10.96.12.7
    clusterIPs:
    - 10.96.12.7
    - fd00:96::7
    externalIPs: [203.0.113.9]
    externalTrafficPolicy: Local
    healthCheckNodePort: 31999
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4, IPv6]
    ipFamilyPolicy: RequireDualStack
    loadBalancerClass: example.com/lb
    loadBalancerIP: 203.0.113.1
    loadBalancerSourceRanges: [" 192.0.2.77/24", "2001:DB8::/32"]
    ports:
    - appProtocol: kubernetes.io/h2c
      name: http
      nodePort: 31080
      port: 80
      protocol: TCP
      targetPort: http-port
    - name: dns
      nodePort: 31053
      port: 53
      protocol: UDP
      targetPort: 5353
    publishNotReadyAddresses: true
    selector: {app: web}
    sessionAffinity: ClientIP
    sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}
    trafficDistribution: PreferClose
    type: LoadBalancer
  status:
    conditions: [{type: LoadBalancerPortsError, status: "False"}]
    loadBalancer:
      ingress:
      - ip: 203.0.113.1
        ipMode: VIP
        ports: [{port: 80, protocol: TCP}]
      - hostname: lb.example.com
- addressType: IPv6
  apiVersion: discovery.k8s.io/v1
  endpoints:
  - addresses: ["fd00:244::7"]
    conditions: {ready: true, serving: true, terminating: false}
    deprecatedTopology: {region: eu}
    hints: {forZones: [{name: a}]}
    hostname: web-0
    nodeName: node-1
    targetRef: {kind: Pod, name: web-0, namespace: shop, uid: abc}
    zone: a
  kind: EndpointSlice
  metadata:
    generateName: web-
    labels: {kubernetes.io/service-name: web}
    name: web-x2x4z
    namespace: shop
    ownerReferences: [{apiVersion: v1, kind: Service, name: web, uid: abc, controller: true}]
  ports:
  - {name: http, port: 8080, protocol: TCP}
- addressType: IPv4
  apiVersion: discovery.k8s.io/v1
  endpoints: null
  kind: EndpointSlice
  metadata: {name: web-empty, namespace: shop, creationTimestamp: null}
  ports: null
kind: List
metadata:
  resourceVersion: ""
"""

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
}
SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.244.0.1"]}],
    "ports": [{"port": 8080}],
}
NODE_PORT = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000}]}


def service(**spec):
    document: dict[str, Any] = copy.deepcopy(SERVICE)
    document["spec"].update(spec)
    return document


def endpoint_slice(**parts):
    return {**copy.deepcopy(SLICE), **parts}


def refusals(document):
    """The paths and messages of everything wrong."""
    with pytest.raises(ValidationError) as caught:
        parse_objects(document)
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_all_that_kubectl_prints():
    web, filled, empty = parse_objects(yaml.safe_load(PRINTED))
    assert isinstance(web, Service)
    assert web.key == "shop/web"
    assert web.spec.all_cluster_ips == ("10.96.12.7", "fd00:96::7")
    assert web.spec.affinity_seconds == 600
    assert web.spec.load_balancer_source_ranges == (" 192.0.2.0/24", "2001:db8::/32")
    assert [port.target_port for port in web.spec.ports] == ["http-port", 5353]
    assert [one.ip for one in web.status.load_balancer.ingress] == ["203.0.113.1", None]
    assert isinstance(filled, EndpointSlice)
    assert filled.service_key == "shop/web"
    assert filled.endpoints[0].node_name == "node-1"
    assert (empty.endpoints, empty.ports, empty.service_key) == ((), (), None)


def test_defaults_are_kubernetes_own():
    (web,) = parse_objects(service(sessionAffinity="ClientIP"))
    assert (web.spec.type, web.spec.internal_traffic_policy, web.spec.affinity_seconds) == (
        "ClusterIP",
        "Cluster",
        10800,
    )
    assert (web.spec.ports[0].protocol, web.metadata.namespace) == ("TCP", "default")
    (piece,) = parse_objects(SLICE)
    assert (piece.endpoints[0].ready, piece.endpoints[0].serving, piece.endpoints[0].terminating) == (
        True,
        True,
        False,
    )


def test_an_unknown_field_is_left_out_and_warned_of():
    document = service(foo=1, ports=[{"port": 80, "bar": None, "baz": {"deep": 1}}])
    with pytest.warns(InputWarning) as warned:
        (web,) = parse_objects(document)
    assert sorted(str(one.message) for one in warned) == [
        "spec.foo: unknown field, left out",
        "spec.ports[0].baz: unknown field, left out",
    ]
    assert web == parse_objects(service(ports=[{"port": 80}]))[0]
    assert document["spec"]["foo"] == 1  # what was given stays what it was


def test_addresses_are_brought_to_their_usual_form():
    (web,) = parse_objects(service(clusterIP="FD00:96:0::1", externalIPs=["2001:DB8::00ff"]))
    assert (web.spec.cluster_ip, web.spec.external_ips) == ("fd00:96::1", ("2001:db8::ff",))


SPEC_REFUSALS = [
    ({"ports": []}, ("ports",), "at least one"),
    ({"ports": [{"port": 0}]}, ("ports", 0, "port"), "greater than or equal to 1"),
    ({"ports": [{"port": 65536}]}, ("ports", 0, "port"), "less than or equal to 65535"),
    ({"ports": [{"port": "80"}]}, ("ports", 0, "port"), "valid integer"),
    ({"ports": [{"port": True}]}, ("ports", 0, "port"), "valid integer"),
    ({"ports": [{"port": 80, "protocol": "tcp"}]}, ("ports", 0, "protocol"), "'TCP', 'UDP' or 'SCTP'"),
    ({"ports": [{"port": 80, "targetPort": 0}]}, ("ports", 0, "targetPort"), "between 1 and 65535"),
    ({"ports": [{"port": 80, "targetPort": "--"}]}, ("ports", 0, "targetPort"), "a port number, or a name"),
    ({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}, ("ports", 0, "name"), "needs a name"),
    (
        {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]},
        ("ports", 1, "name"),
        "duplicate name",
    ),
    ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, ("ports", 1, "port"), "80/TCP"),
    ({"ports": [{"port": 80, "nodePort": 30000}]}, ("ports", 0, "nodePort"), "type ClusterIP"),
    ({"type": "NodePort"}, ("ports", 0, "nodePort"), "must be written down"),
    (
        {
            "type": "NodePort",
            "ports": [
                {"port": 80, "name": "a", "nodePort": 30000},
                {"port": 81, "name": "b", "nodePort": 30000},
            ],
        },
        ("ports", 1, "nodePort"),
        "duplicate node port 30000/TCP",
    ),
    ({"clusterIP": "10.96.0.256"}, ("clusterIP",), "must be an IP address"),
    ({"clusterIP": "010.96.0.1"}, ("clusterIP",), "must be an IP address"),
    ({"clusterIP": ""}, ("clusterIP",), "must be written down"),
    ({"clusterIP": "::ffff:10.96.0.1"}, ("clusterIP",), "IPv4 as IPv4"),
    ({"clusterIP": "None", **NODE_PORT}, ("clusterIP",), "may not be None for type NodePort"),
    ({"clusterIPs": ["10.96.0.2"]}, ("clusterIPs", 0), "the same as clusterIP"),
    ({"clusterIPs": ["10.96.0.1", "10.96.0.2"]}, ("clusterIPs", 1), "other IP family"),
    ({"clusterIPs": ["10.96.0.1", "fd00::1", "fd00::2"]}, ("clusterIPs",), "at most 2"),
    ({"ipFamilies": ["IPv6"]}, ("clusterIP",), "must be an IPv6 address"),
    ({"clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv6"]}, ("clusterIPs", 0), "must be an IPv6 address"),
    ({"ipFamilies": ["IPv4", "IPv4"]}, ("ipFamilies", 1), "duplicate"),
    ({"ipFamilies": ["IPv4", "IPv6"]}, ("ipFamilies",), "more families"),
    ({"externalIPs": ["127.0.0.1"]}, ("externalIPs", 0), "loopback"),
    ({"externalIPs": ["fe80::1"]}, ("externalIPs", 0), "link-local"),
    ({"externalTrafficPolicy": "Local"}, ("externalTrafficPolicy",), "NodePort or LoadBalancer"),
    ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, ("loadBalancerSourceRanges",), "type LoadBalancer"),
    (
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]},
        ("loadBalancerSourceRanges", 0),
        "CIDR",
    ),
    ({"type": "LoadBalancer", "healthCheckNodePort": 30000}, ("healthCheckNodePort",), "Policy Local"),
    ({"sessionAffinityConfig": {}}, ("sessionAffinityConfig",), "sessionAffinity is None"),
    (
        {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
        ("sessionAffinityConfig", "clientIP", "timeoutSeconds"),
        "less than or equal to 86400",
    ),
    ({"type": "ExternalName", "externalName": "a.example"}, ("clusterIP",), "ExternalName"),
    ({"type": "ExternalName", "clusterIP": "", "externalName": "a b"}, ("externalName",), "DNS name"),
    ({"type": "Mystery"}, ("type",), "'ClusterIP', 'NodePort', 'LoadBalancer' or 'ExternalName'"),
]


@pytest.mark.parametrize(("spec", "path", "message"), SPEC_REFUSALS, ids=[str(case[0]) for case in SPEC_REFUSALS])
def test_a_spec_is_refused_by_path(spec, path, message):
    found = refusals(service(**spec))
    assert list(found) == [("spec", *path)]
    assert message in found["spec", *path]


SLICE_REFUSALS = [
    ({"addressType": "IPv6"}, ("endpoints", 0, "addresses", 0), "must be an IPv6 address"),
    (
        {"endpoints": [{"addresses": ["10.244.0.300"]}]},
        ("endpoints", 0, "addresses", 0),
        "must be an IP address",
    ),
    ({"endpoints": [{"addresses": ["169.254.0.1"]}]}, ("endpoints", 0, "addresses", 0), "link-local"),
    ({"endpoints": [{"addresses": []}]}, ("endpoints", 0, "addresses"), "at least 1"),
    ({"endpoints": [{}]}, ("endpoints", 0, "addresses"), "required"),
    ({"endpoints": [{"addresses": ["10.0.0.1"]}] * 1001}, ("endpoints",), "at most 1000"),
    ({"ports": [{"port": 1}, {"port": 2}]}, ("ports", 1, "name"), "duplicate name ''"),
    ({"ports": [{"port": 70000}]}, ("ports", 0, "port"), "65535"),
    ({"apiVersion": "discovery.k8s.io/v1beta1"}, ("apiVersion",), "discovery.k8s.io/v1"),
]


@pytest.mark.parametrize(("parts", "path", "message"), SLICE_REFUSALS)
def test_an_endpoint_slice_is_refused_by_path(parts, path, message):
    found = refusals(endpoint_slice(**parts))
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize("name", ["Web", "1web", "web.a", "web-", "", "a" * 64])
def test_a_services_name_is_a_dns_label(name):
    assert list(refusals({**SERVICE, "metadata": {"name": name}})) == [("metadata", "name")]


@pytest.mark.parametrize("document", [None, 3, "text", [SERVICE]])
def test_what_is_no_object_is_refused(document):
    assert refusals(document) == {(): "must be a Kubernetes object (a mapping)"}


def test_other_kinds_are_refused_by_kind():
    assert refusals({"apiVersion": "v1", "kind": "Pod"}) == {("kind",): "must be Service or EndpointSlice"}
    assert list(refusals({"kind": ["Service"]})) == [("kind",)]


def test_everything_wrong_in_a_list_is_found_with_its_index():
    items = [SERVICE, service(ports=[{"port": 0}]), {"kind": "Pod"}, endpoint_slice(addressType="IPv6")]
    assert list(refusals({"apiVersion": "v1", "kind": "List", "items": items})) == [
        ("items", 1, "spec", "ports", 0, "port"),
        ("items", 2, "kind"),
        ("items", 3, "endpoints", 0, "addresses", 0),
    ]


def test_a_field_of_either_kind_keeps_the_plain_path():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[KubernetesObject]).validate_python([SLICE, service(ports=[])])
    assert [error["loc"] for error in caught.value.errors()] == [(1, "spec", "ports")]


def test_the_schema_knows_kubernetes_names():
    schema = ObjectList.model_json_schema()
    assert "clusterIPs" in schema["$defs"]["ServiceSpec"]["properties"]
    assert "addressType" in schema["$defs"]["EndpointSlice"]["properties"]


def test_models_are_frozen():
    (web,) = parse_objects(SERVICE)
    with pytest.raises(ValidationError):
        web.spec.type = "NodePort"
