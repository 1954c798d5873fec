# SPDX-License-Identifier: MIT
"""A cluster's objects, read as ``kubectl get -A -o yaml`` prints them or as people write them down.

What the API server would give, cluster IPs and node ports, the lab gives where a Service has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from lab.errors import InputError
from lab.kubernetes import manifest
from lab.kubernetes.cluster import BESIDE, Endpoints, Node, Pod, Workload
from lab.kubernetes.errors import Path, first_error, spell
from lab.kubernetes.objects import EndpointSlice, Service
from lab.kubernetes.parse import validated
from lab.topology.backing import mirrored
from lab.topology.reader import placed

Kind = TypeVar("Kind")

_READ: Final = ("Service", "EndpointSlice")
#: From which cluster IPs and node ports are given: kubeadm's range, and kube-apiserver's --service-node-port-range.
_CLUSTER_IPS: Final = {"IPv4": ip_network("10.96.0.0/12"), "IPv6": ip_network("fd00:10:96::/112")}
_NODE_PORTS: Final = range(30000, 32768)


@dataclass(frozen=True)
class Where:
    """Where an object stands: in which text, in which of its documents, and by which path."""

    text: str = field(repr=False)
    source: str
    document: int
    path: Path

    def refusal(self, problem: str, cure: str | None = None, within: Path = ()) -> InputError:
        """Return the error for what is wrong with the object."""
        path = (*self.path, *within)
        line = manifest.line_of(self.text, self.document, path)
        message = f"{spell(path)}: {problem}" if path else problem
        return InputError(message, source=self.source, line=line, cure=cure)


@dataclass(frozen=True)
class Found(Generic[Kind]):
    """An object and where it stands."""

    value: Kind
    where: Where


@dataclass(frozen=True)
class Cluster:
    """The objects of a cluster, in the order in which they were given.

    :param notes: in sentences, what the lab has given, and what is not looked at.
    """

    services: tuple[Found[Service], ...]
    slices: tuple[Found[EndpointSlice], ...]
    endpoints: tuple[Found[Endpoints], ...]
    nodes: tuple[Found[Node], ...]
    pods: tuple[Found[Pod], ...]
    workloads: tuple[Found[Workload], ...]
    notes: tuple[str, ...]


def is_topology(text: str, source: str) -> bool:
    """Check whether a text is a topology file's, by its first document; what is no YAML counts as one."""
    try:
        first = next(manifest.documents(text, source), {})
    except InputError:
        return True
    return not {"kind", "apiVersion", "items"} & set(first)


def is_called_topology(text: str, source: str) -> bool:
    """Check whether a text calls itself a topology file's, by its first document.

    :raises InputError: it is no YAML.
    """
    return not {"topology", "hosts"}.isdisjoint(next(manifest.documents(text, source), {}))


def read_cluster(texts: Sequence[tuple[str, str]]) -> Cluster:
    """Read the objects of several texts.

    :param texts: each with what to call it in errors.
    :raises InputError: with file, line and cure, for the first thing wrong.
    """
    files = [(text, source, list(manifest.documents(text, source, what="a list of objects"))) for text, source in texts]
    raw = [one for text, source, documents in files for one in _items(text, source, documents)]
    kinds = dict.fromkeys(value["kind"] for value, _where in raw)
    notes = list(_complete([(value, where) for value, where in raw if value.get("kind") == "Service"]))
    if unread := [kind for kind in kinds if kind not in (*_READ, *BESIDE)]:
        notes.append(f"not looked at: {', '.join(sorted(unread))}")
    services: list[Found[Service]] = []
    slices: list[Found[EndpointSlice]] = []
    for text, source, documents in files:
        others = frozenset(kind for kind in kinds if kind not in _READ)
        its_services, its_slices = placed(enumerate(documents), text, source, others)
        services += [Found(one, Where(text, source, *place)) for one, place in its_services]
        slices += [Found(one, Where(text, source, *place)) for one, place in its_slices]
    beside = [_beside(value, where) for value, where in raw if value.get("kind") in BESIDE]
    _once([*services, *slices, *beside])
    return Cluster(
        tuple(services),
        tuple(slices),
        _of(Endpoints, beside),
        _of(Node, beside),
        _of(Pod, beside),
        _of(Workload, beside),
        tuple(notes),
    )


def read_services(text: str, source: str) -> list[Service | EndpointSlice]:
    """Read what kube-proxy reads: Services and EndpointSlices, of an Endpoints those that a cluster makes of it.

    Where a Service has EndpointSlices as well, its Endpoints says the same once more and is left out.

    :param source: what to call the text in errors.
    :raises InputError: with line and cure, for the first thing wrong; what makes pods is nothing for a lab that stands.
    """
    documents = list(manifest.documents(text, source, what="a list of objects"))
    raw = list(_items(text, source, documents))
    for value, where in raw:
        if (kind := value["kind"]) in BESIDE and kind != "Endpoints":
            cure = (
                "for pods, write an EndpointSlice or Endpoints with addresses of them; `lab topology from` makes a lab"
            )
            raise where.refusal(f"a {kind}: the lab has the hosts that it was built with", cure, ("kind",))
    services, slices = placed(enumerate(documents), text, source, frozenset({"Endpoints"}))
    pieces = [one for one, _place in slices]
    told = {one.service_key for one in pieces}
    given = [_beside(value, where).value for value, where in raw if value["kind"] == "Endpoints"]
    made = [piece for one in given for piece in mirrored(one) if piece.service_key not in told]
    return [*(one for one, _place in services), *pieces, *made]


def _of(kind: type[Kind], every: Iterable[Found[Any]]) -> tuple[Found[Kind], ...]:
    return tuple(one for one in every if isinstance(one.value, kind))


def _items(text: str, source: str, documents: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Where]]:
    """Yield each object, also those of Lists; what is none is left to whoever validates it."""
    waiting: list[tuple[Any, Where]] = [(one, Where(text, source, number, ())) for number, one in enumerate(documents)]
    while waiting:
        value, where = waiting.pop(0)
        if not isinstance(value, dict):
            continue
        if "topology" in value and "kind" not in value:
            raise where.refusal("a topology among Kubernetes objects", "give it alone", ("topology",))
        items = value.get("items")
        if value.get("kind") == "List":
            its = enumerate(items if isinstance(items, list) else ())
            path = (*where.path, "items")
            waiting[:0] = [(one, Where(text, source, where.document, (*path, number))) for number, one in its]
        elif not isinstance(value.get("kind"), str):
            raise where.refusal("'kind' is missing", "it is what kubectl prints: Service, Node, Pod")
        else:
            yield value, where


def _beside(value: dict[str, Any], where: Where) -> Found[Any]:
    """Validate an object that kube-proxy does not read."""
    kind = BESIDE[value["kind"]]
    try:
        return Found(validated(kind, value, lambda _path: None), where)
    except ValidationError as invalid:
        error = first_error(invalid, value, kind.model_json_schema())
        raise where.refusal(error.problem, error.cure, error.path) from None


def _once(every: Iterable[Found[Any]]) -> None:
    """Refuse an object that stands twice."""
    seen: dict[tuple[str, str, str], Where] = {}
    for one in every:
        metadata = one.value.metadata
        key = (one.value.kind, metadata.namespace, metadata.name)
        if first := seen.get(key):
            line = manifest.line_of(first.text, first.document, first.path)
            name = f"{metadata.namespace}/{metadata.name}" if one.value.kind != "Node" else metadata.name
            raise one.where.refusal(f"a second {key[0]} {name}", f"it is in {first.source}:{line}: keep one")
        seen[key] = one.where


# --- what the API server would give -------------------------------------------------------------------------


def _complete(services: Sequence[tuple[dict[str, Any], Where]]) -> Iterator[str]:
    """Give each Service that has none a cluster IP and node ports, in place, and tell of it."""
    specs = [(value, spec) for value, _where in services if isinstance(spec := value.get("spec"), dict)]
    taken = {str(ip) for _, spec in specs for ip in (spec.get("clusterIP"), *_list(spec.get("clusterIPs")))}
    ports = {port.get("nodePort") for _, spec in specs for port in _dicts(spec.get("ports"))}
    for value, spec in specs:
        name = (value.get("metadata") or {}).get("name")
        if spec.get("type") != "ExternalName" and not (spec.get("clusterIP") or spec.get("clusterIPs")):
            addresses = [_free(family, taken) for family in _families(spec)]
            spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses
            yield f"the Service {name} has no cluster IP: the lab gives {' and '.join(addresses)}"
        elif not spec.get("clusterIP") and _list(spec.get("clusterIPs")):
            spec["clusterIP"] = spec["clusterIPs"][0]
        wants = spec.get("type") == "NodePort" or (
            spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
        )
        for port in _dicts(spec.get("ports")) if wants else ():
            if not port.get("nodePort"):
                port["nodePort"] = next(number for number in _NODE_PORTS if number not in ports)
                ports.add(port["nodePort"])
                yield f"the port {port.get('port')} of {name} has no node port: the lab gives {port['nodePort']}"


def _families(spec: dict[str, Any]) -> list[str]:
    asked = [one for one in _list(spec.get("ipFamilies")) if one in _CLUSTER_IPS] or ["IPv4"]
    if spec.get("ipFamilyPolicy") == "RequireDualStack":
        asked += [one for one in _CLUSTER_IPS if one not in asked]
    return list(dict.fromkeys(asked))


def _free(family: str, taken: set[str]) -> str:
    """Return the next cluster IP; the first ten are those that clusters give to their own, such as DNS."""
    network, number = _CLUSTER_IPS[family], 10
    while (address := str(ip_address(int(network.network_address) + number))) in taken:
        number += 1
    taken.add(address)
    return address


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - anything may stand in a file
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return [one for one in _list(value) if isinstance(one, dict)]
