"""Reading: references, the shipped topologies, the schema, and properties of any file."""

from __future__ import annotations

import io
import sys
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.errors import InputError
from lab.kubernetes import manifest
from lab.topology.model import End, Host, Link, Topology
from lab.topology.reader import json_schema, load, load_either, parse, shipped
from lab.topology.route_keys import Route
from lab.vocabulary import Backend, ProxyMode

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = dict(shipped())


def test_the_figure() -> None:
    topology = load("kube-proxy")
    assert topology.addresses("client")[0] == ip_address("10.0.0.2")
    assert topology.addresses("server")[0] == ip_address("10.0.1.2")
    node = topology.host("node")
    assert (node.proxy_mode, node.proxy_version, node.backend) == (ProxyMode.IPTABLES, "v1.14", Backend.NFT)
    (service,) = topology.services
    assert (service.key, service.spec.cluster_ips) == ("default/web", ("192.168.0.2", "fd00:192:168::2"))
    assert {piece.service_key for piece in topology.endpoint_slices} == {"default/web"}
    assert {piece.address_type for piece in topology.endpoint_slices} == {"IPv4", "IPv6"}


@pytest.mark.parametrize("version", ["v1.33", "1.33", "1.33.6", "v1.33.6-gke.1", "v1.33.6+k3s1", "v1.20.0-rc.0"])
def test_a_version_as_people_write_it(version: str) -> None:
    text = SHIPPED["kube-proxy"].read_text().replace("proxy-version: v1.14", f"proxy-version: {version}")
    assert parse(text).host("node").proxy_version == version
    jsonschema.validate(next(yaml.safe_load_all(text.replace(version, f"'{version}'"))), json_schema())


def test_three_endpoints_a_family() -> None:
    topology = load("endpoints")
    assert [len(piece.endpoints) for piece in topology.endpoint_slices] == [3, 3]
    assert [host.name for host in topology.servers] == ["server-1", "server-2", "server-3"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_topologies_are_named_as_their_file_and_described(name: str) -> None:
    topology = load(name)
    assert topology.name == name
    assert topology.description
    assert SHIPPED[name].read_text().startswith("# ")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_topologies_have_a_range_of_cluster_ips_a_family(name: str) -> None:
    topology = load(name)
    ranges = {cidr.version: cidr for cidr in topology.service_cidrs}
    assert len(ranges) == len(topology.service_cidrs) == 2
    addresses = [ip_address(one) for service in topology.services for one in service.spec.all_cluster_ips]
    assert addresses
    assert all(one in ranges[one.version] for one in addresses)


def test_a_headless_service_and_a_family_without_a_range_are_in_no_range() -> None:
    text = SHIPPED["kube-proxy"].read_text().replace(', "fd00:192:168::/112"]', "]")
    headless = "apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {clusterIP: None}\n"
    topology = parse(f"{text}---\n{headless}")
    assert topology.service_cidrs == (ip_network("192.168.0.0/16"),)
    assert len(topology.services) == 2


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_topologies_fit_their_schema(name: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    documents = list(manifest.documents(SHIPPED[name].read_text(), name))
    for document in documents:
        validator.validate(document)
    documents[0]["hosts"]["client"]["forwardin"] = True
    assert not validator.is_valid(documents[0])
    documents[1]["spec"]["ports"] = 80
    assert not validator.is_valid(documents[1])


def test_the_schema_is_one_and_describes_every_key_of_a_host() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    definitions = schema["$defs"]
    for key, place in definitions["HostOptions"]["properties"].items():
        described = definitions[place["$ref"].rpartition("/")[2]] if "$ref" in place else place
        assert described["description"], key


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    text = SHIPPED["kube-proxy"].read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert load("-") == load("kube-proxy")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"topology: x\nhosts: 1\n")))
    with pytest.raises(InputError, match=r"^<stdin>:2: hosts: must be a mapping, not the number 1"):
        load("-")


def test_inline_text_is_called_so() -> None:
    with pytest.raises(InputError, match=r"^<inline>:1: "):
        parse("nonsense: 1")


def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SHIPPED["kube-proxy"].read_bytes().replace(b"\n", b"\r\n"))
    assert load(path) == load("kube-proxy")


def test_json_is_yaml() -> None:
    assert parse('{"topology": "x", "hosts": {"a": {"forwarding": true}}}').host("a").forwarding


def test_a_host_without_options_may_be_left_empty() -> None:
    assert parse("topology: x\nhosts:\n  a:\n  b: {}\n").hosts == (Host("a"), Host("b"))


def test_what_kubectl_prints_can_be_pasted() -> None:
    pair = SHIPPED["kube-proxy"].read_text().split("\n---\n")[0].replace("192.168.0.0/16", "10.96.0.0/12")
    topology = parse(f"{pair}\n---\n{KUBECTL}---\n")
    assert [service.key for service in topology.services] == ["default/kubernetes"]
    assert [host.name for host in topology.servers] == ["server"]


def test_a_service_without_endpoints_and_endpoints_without_a_service_are_valid() -> None:
    documents = SHIPPED["kube-proxy"].read_text().split("\n---\n")
    assert len(parse("\n---\n".join(documents[:2])).services) == 1
    assert len(parse("\n---\n".join([documents[0], *documents[2:]])).endpoint_slices) == 2


def test_objects_alone(tmp_path: Path) -> None:
    path = tmp_path / "objects.yaml"
    path.write_text(KUBECTL)
    objects = load_either(path)
    assert (len(objects.services), len(objects.endpoint_slices)) == (1, 1)
    assert load_either("kube-proxy") == load("kube-proxy")
    path.write_text(KUBECTL.replace("port: 443", "port: 99999"))
    with pytest.raises(InputError, match=rf"^{path}:14: items\[0\]\.spec\.ports\[0\]\.port: "):
        load_either(path)
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match="empty: there are no objects in it"):
        load_either(path)


def test_values_stay_what_was_written() -> None:
    text = "{a: 1.14, b: 0x10, c: 1:30, d: 2024-01-01, e: yes, f: ~, g: 012, h: -7, on: 1, 5: '6'}"
    (document,) = manifest.documents(text, "x")
    expected = {
        "a": "1.14",
        "b": "0x10",
        "c": "1:30",
        "d": "2024-01-01",
        "e": True,
        "f": None,
        "g": "012",
        "h": -7,
    }
    assert document == {**expected, "on": 1, "5": "6"}


KUBECTL = """\
apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    creationTimestamp: "2024-05-01T10:00:00Z"
    managedFields: [{manager: kube-apiserver, fieldsV1: {"f:spec": {".": {}}}}]
    name: kubernetes
    uid: 3b2a
  spec:
    clusterIP: 10.96.0.1
    clusterIPs: [10.96.0.1]
    ports:
    - {name: https, port: 443, protocol: TCP, targetPort: 6443}
    type: ClusterIP
  status:
    loadBalancer: {}
- addressType: IPv4
  apiVersion: discovery.k8s.io/v1
  endpoints:
  - addresses: [10.0.1.2]
    conditions: {ready: true}
  kind: EndpointSlice
  metadata: {name: kubernetes, labels: {kubernetes.io/service-name: kubernetes}}
  ports: [{name: https, port: 6443, protocol: TCP}]
kind: List
metadata:
  resourceVersion: ""
"""

names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
interfaces = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", fullmatch=True).filter(
    lambda name: name not in {"lo", "all", "default"}
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any hosts, linked at random by subnets of their own, with routes by their neighbours."""
    hosts = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    count = draw(st.integers(0, 6))
    interface = iter(draw(st.lists(interfaces, min_size=2 * count, max_size=2 * count, unique=True)))
    links = []
    for number in range(count):
        pair = draw(st.lists(st.sampled_from(hosts), min_size=2, max_size=2, unique=True))
        addresses: tuple[list[Any], list[Any]] = ([], [])
        subnets: list[IPv4Network | IPv6Network] = [
            ip_network((0x0A000000 + (number << 12), draw(st.integers(20, 31)))),
            ip_network(((0xFD00 << 112) + (number << 64), draw(st.integers(64, 127)))),
        ]
        for subnet in draw(st.lists(st.sampled_from(subnets), max_size=2, unique=True)):
            few = subnet.num_addresses == 2
            for side, mine in enumerate(addresses):
                mine.append(ip_interface(f"{subnet[side if few else side + 1]}/{subnet.prefixlen}"))
        first, second = (End(host, next(interface), tuple(own)) for host, own in zip(pair, addresses, strict=True))
        links.append(Link((first, second)))
    made = []
    for host in hosts:
        gateways = [
            address.ip
            for link in links
            for end, peer in (link.ends, link.ends[::-1])
            if end.host == host
            for address in peer.addresses
        ]
        routes: list[Route] = []
        for gateway in draw(st.lists(st.sampled_from(gateways), max_size=3)) if gateways else ():
            far = ip_network(f"172.16.{len(routes)}.0/24" if gateway.version == 4 else f"fc00:{len(routes)}::/32")
            taken = {route.network.version for route in routes if route.to == "default"}
            use_default = gateway.version not in taken and draw(st.booleans())
            routes.append(Route("default" if use_default else far, gateway))
        mode = draw(st.sampled_from([None, *ProxyMode]))
        made.append(
            Host(
                host,
                routes=tuple(routes),
                forwarding=draw(st.booleans()),
                proxy_mode=mode,
                proxy_version=f"v1.{draw(st.integers(14, 99))}" if mode and draw(st.booleans()) else None,
                backend=draw(st.sampled_from(Backend)) if mode is ProxyMode.IPTABLES else Backend.NFT,
                cluster_cidrs=(ip_network("10.0.0.0/8"),) if mode and draw(st.booleans()) else (),
                masquerade_all=mode is not None and draw(st.booleans()),
                node_port_addresses=("10.0.0.0/8", "::/0") if mode and draw(st.booleans()) else (),
                feature_gates=(("AllowServiceExternalIPs", True),) if mode and draw(st.booleans()) else (),
                node_zone="zone-a" if mode and draw(st.booleans()) else "",
            )
        )
    description = draw(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20))
    ranges = [ip_network("172.20.0.0/16"), ip_network("fc00:1:2::/112"), ip_network("172.20.0.0/24")]
    cidrs = draw(st.lists(st.sampled_from(ranges), max_size=4))
    return Topology(draw(names), tuple(made), tuple(links), description=description, service_cidrs=tuple(cidrs))


def written(topology: Topology) -> str:
    """Write a topology as its file, every key given."""

    def host(one: Host) -> dict[str, Any]:
        keys = {
            "routes": [{"to": str(route.to), "via": str(route.via)} for route in one.routes],
            "forwarding": one.forwarding,
            "proxy-mode": one.proxy_mode and one.proxy_mode.value,
            "proxy-version": one.proxy_version,
            "backend": one.backend.value,
            "cluster-cidrs": [str(cidr) for cidr in one.cluster_cidrs],
            "masquerade-all": one.masquerade_all,
            "nodeport-addresses": list(one.node_port_addresses),
            "feature-gates": dict(one.feature_gates),
            "node-zone": one.node_zone,
        }
        return {key: value for key, value in keys.items() if value is not None}

    def end(one: End) -> dict[str, Any]:
        return {
            "host": one.host,
            "interface": one.interface,
            "addresses": [str(own) for own in one.addresses],
        }

    document = {
        "topology": topology.name,
        "description": topology.description,
        "service-cidrs": [str(cidr) for cidr in topology.service_cidrs],
        "hosts": {one.name: host(one) for one in topology.hosts},
        "links": [[end(one) for one in link.ends] for link in topology.links],
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


@settings(max_examples=100, deadline=None)
@given(topologies())
def test_a_written_topology_reads_back_to_itself(topology: Topology) -> None:
    assert parse(written(topology)) == topology


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xff")
@example("topology: x\x85 \u2028:".encode())
def test_random_bytes_are_never_worse_than_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        parse(manifest.text_of(data, "x"))


TEXT = SHIPPED["kube-proxy"].read_text().partition("\ntopology:")
PIECES = [
    "\n",
    "  ",
    "- ",
    ": ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    '"',
    "&a ",
    "*a",
    "!!x ",
    "|",
    "---\n",
    "\t",
    "#",
    "? ",
    "~",
    "10.0.0.1",
    "::",
]


def refusal(text: str) -> InputError | None:
    try:
        parse(text, "x")
    except InputError as error:
        return error
    return None


@pytest.mark.filterwarnings("ignore::lab.errors.InputWarning")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_never_worse_than_an_input_error(data: st.DataObject) -> None:
    text = TEXT[1] + TEXT[2]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 20))
        text = text[:start] + data.draw(st.sampled_from(PIECES) | st.text(max_size=3)) + text[end:]
    error = refusal(text)
    if error is not None:
        assert str(error).startswith("x:")
        assert error.line is None or 1 <= error.line <= len(text.splitlines()) + 1


def test_a_strange_key_is_quoted_in_the_path() -> None:
    assert str(refusal('topology: x\nhosts: {"\\e[2J": {}}')).startswith("x:2: hosts['\\x1b[2J']: ")
    assert len(str(refusal(f'topology: x\nhosts: {{"{"a" * 100_000}": {{}}}}'))) < 400


@pytest.mark.filterwarnings("ignore::lab.errors.InputWarning")
@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    st.data(),
)
def test_any_value_at_any_place_is_never_worse_than_an_input_error(value: Any, data: st.DataObject) -> None:
    documents = [dict(document) for document in manifest.documents(TEXT[1] + TEXT[2], "x")]
    place: Any = documents
    while True:
        key = data.draw(st.sampled_from(sorted(place, key=str) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    text = yaml.safe_dump_all(documents, sort_keys=False)
    error = refusal(text)
    if error is not None:
        assert str(error).isprintable()


def test_lines_are_those_of_the_values() -> None:
    text = SHIPPED["kube-proxy"].read_text()
    lines = text.splitlines()
    for number, path, begins in [
        (0, ("topology",), "topology: kube-proxy"),
        (0, ("hosts", "server", "routes", 1, "via"), '      - {to: default, via: "fd00:10:0:1::1"}'),
        (0, ("links", 1, 1, "addresses", 1), "    - {host: server"),
        (0, ("hosts", "server", "nothing"), "  server:"),
        (1, ("spec", "ports", 0, "port"), "    - {name: http"),
        (3, ("endpoints", 0), '  - {addresses: ["fd00:10:0:1::2"]'),
        (3, (), "apiVersion: discovery.k8s.io/v1"),
    ]:
        assert lines[manifest.line_of(text, number, path) - 1].startswith(begins), path


def test_empty_documents_are_not_counted() -> None:
    text = "# first\n---\n---\na: 1\n---\n~\n---\nb: 2\n"
    assert list(manifest.documents(text, "x")) == [{"a": 1}, {"b": 2}]
    assert [manifest.line_of(text, 0, ("a",)), manifest.line_of(text, 1, ("b",))] == [4, 8]
