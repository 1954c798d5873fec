# SPDX-License-Identifier: MIT
"""Topology files: a YAML stream of the topology and, after it, Kubernetes objects as kubectl prints them."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from lab.errors import InputError, UnknownNameError, misspelt, warn
from lab.kubeproxy.gates import warn_of_gates
from lab.kubernetes import manifest
from lab.kubernetes.errors import Path, TopologyError, cure_of_key, first_error, found, keys, spell
from lab.kubernetes.objects import EndpointSlice, Service
from lab.kubernetes.parse import ObjectList, parse_objects
from lab.topology.keys import refused
from lab.topology.model import End, Host, HostOptions, Link, Topology
from lab.topology.names import NAME
from lab.topology.values import FileNetwork, IPNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAX_BYTES = 256 << 20  # ten times 10,000 services with 10 endpoints each
_MAX_TOPOLOGY = 1 << 20  # characters of the first document, some 4,000 hosts: any error there comes soon
_MAX_ENDS = 100  # each is every other's neighbour
_MAX_RANGES = 100  # each is held against every link and every Service
_KUBERNETES_KEYS = {"apiVersion", "kind", "metadata", "items", "spec"}


def _some_ends(ends: tuple[End, ...]) -> tuple[End, ...]:
    if len(ends) < 2:
        message = f"a link has two ends or more, not {len(ends)}"
        raise refused(message, "write it as two items, each with host, interface and addresses")
    if len(ends) > _MAX_ENDS:
        raise refused(f"{len(ends)} ends are too many", f"keep {_MAX_ENDS} at most")
    return ends


def _few_ranges(ranges: tuple[IPNetwork, ...]) -> tuple[IPNetwork, ...]:
    if len(ranges) > _MAX_RANGES:
        raise refused(f"{len(ranges)} ranges are too many", f"keep {_MAX_RANGES} at most")
    return ranges


FileLink = Annotated[
    tuple[End, ...],
    FailFast(),
    AfterValidator(_some_ends),
    Field(json_schema_extra={"minItems": 2, "maxItems": _MAX_ENDS}),
]


@dataclass(frozen=True)
class TopologyDocument:
    """The first document of a topology file."""

    __pydantic_config__ = ConfigDict(extra="forbid", title="Topology")

    topology: Annotated[str, Field(description="Its name.", json_schema_extra={"pattern": NAME})]
    hosts: Annotated[
        dict[str, HostOptions | None],
        Field(description="The network namespaces by their names: pods, nodes, routers."),
    ]
    description: Annotated[str, Field(description="What it shows, in a sentence.")] = ""
    links: Annotated[
        tuple[FileLink, ...],
        FailFast(),
        Field(
            description="What joins the hosts, each as its ends: of two a veth pair, of more a segment that they share."
        ),
    ] = ()
    service_cidrs: Annotated[
        tuple[FileNetwork, ...],
        FailFast(),
        AfterValidator(_few_ranges),
        Field(
            alias="service-cidrs",
            description="The cluster's ServiceCIDRs, from which cluster IPs are taken. In nftables mode kube-proxy"
            " drops what goes to one that no Service has, from v1.33 on.",
            json_schema_extra={"maxItems": _MAX_RANGES},
        ),
    ] = ()


_TOPOLOGY = TypeAdapter(TopologyDocument)
_OBJECTS: TypeAdapter[Any] = TypeAdapter(Service | EndpointSlice | ObjectList)

#: What ``kubectl get`` prints beside Services and EndpointSlices where people ask for all that is about them.
OTHERS: Final = frozenset({"ConfigMap", "Endpoints", "Namespace", "Node", "Pod", "ServiceCIDR"})


@dataclass(frozen=True)
class Objects:
    """The Kubernetes objects of a stream, in its order."""

    services: tuple[Service, ...]
    endpoint_slices: tuple[EndpointSlice, ...]


def load(reference: str | FilePath) -> Topology:
    """Read a topology.

    :param reference: a shipped topology's name such as ``kube-proxy``, a path, or ``-`` for standard input.
    :raises InputError: with file, line and cure, for the first thing wrong.
    """
    return parse(*read(reference))


def parse(text: str, source: str = "<inline>") -> Topology:
    """Read a topology from a YAML text.

    :param source: what to call the text in errors.
    :raises InputError: with line and cure, for the first thing wrong.
    """
    file = _File(text, source)
    documents = enumerate(manifest.documents(text, source, _first_keys(text, source)))
    _, first = next(documents, (0, None))
    if first is None:
        cure = "begin with 'topology: NAME'"
        raise InputError("empty: there is no topology in it", source=source, cure=cure)
    document = file.topology(first)
    services, slices = file.objects(documents)
    for name, options in document.hosts.items():
        if options is not None and options.feature_gates:
            path = ("hosts", name, "feature-gates")
            warn_of_gates(options.feature_gates, f"{source}:{manifest.line_of(text, 0, path)}: {spell(path)}")
    try:
        return Topology(
            name=document.topology,
            hosts=tuple(Host(name, **vars(options or HostOptions())) for name, options in document.hosts.items()),
            links=tuple(map(Link, document.links)),
            services=tuple(service for service, _ in services),
            endpoint_slices=tuple(piece for piece, _ in slices),
            description=document.description,
            service_cidrs=document.service_cidrs,
        )
    except TopologyError as error:
        match error.path:
            case ("services", int(index), *rest):
                place = services[index][1]
            case ("endpoint_slices", int(index), *rest):
                place = slices[index][1]
            case rest:
                place = Place(0, ())
        raise file.refusal(error, place.document, (*place.path, *rest)) from None


def load_either(reference: str | FilePath) -> Topology | Objects:
    """Read a topology where the first document says ``topology:``, else a stream of Kubernetes objects alone.

    :param reference: as for :func:`load`.
    :raises InputError: with file, line and cure, for the first thing wrong.
    """
    return either_of(*read(reference))


def either_of(text: str, source: str) -> Topology | Objects:
    """Return what :func:`load_either` does, of a text.

    :param source: what to call it in errors.
    :raises InputError: with line and cure, for the first thing wrong.
    """
    documents = manifest.documents(text, source)
    first = next(documents, None)
    if first is None:
        cure = "write a topology, or what 'kubectl get services,endpointslices -o yaml' prints"
        raise InputError("empty: there are no objects in it", source=source, cure=cure)
    if "topology" in first:
        return parse(text, source)
    services, slices = _File(text, source).objects(enumerate(chain([first], documents)))
    return Objects(tuple(service for service, _ in services), tuple(piece for piece, _ in slices))


def objects_of(text: str, source: str) -> Objects:
    """Read a stream of Kubernetes objects, in which others than kube-proxy's stand as well.

    :param source: what to call the text in errors.
    :raises InputError: with line and cure, for the first thing wrong.
    """
    file = _File(text, source, others=OTHERS)
    services, slices = file.objects(enumerate(manifest.documents(text, source)))
    return Objects(tuple(service for service, _ in services), tuple(piece for piece, _ in slices))


class Place(NamedTuple):
    """Where an object stands: in which document, and by which path in it."""

    document: int
    path: Path


def placed(
    documents: Iterable[tuple[int, dict[str, Any]]], text: str, source: str, others: frozenset[str]
) -> tuple[list[tuple[Service, Place]], list[tuple[EndpointSlice, Place]]]:
    """Validate numbered documents of a text as Kubernetes objects, and tell where each one stands.

    :param others: the kinds of objects that are left out.
    :raises InputError: with line and cure, for the first thing wrong.
    """
    return _File(text, source, others=others).objects(documents)


def shipped() -> tuple[tuple[str, FilePath], ...]:
    """List the topologies that come with the lab, by name.

    They lie beside ``lab/`` in a checkout, and inside it when installed.
    """
    package = FilePath(__file__).parents[1]
    for directory in (package / "topologies", package.parent / "topologies"):
        if directory.is_dir():
            return tuple((path.stem, path) for path in sorted(directory.glob("*.yaml")))
    return ()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of each document of a topology file: a topology, or a Kubernetes object."""
    places, definitions = TypeAdapter.json_schemas(
        [
            ("topology", "validation", _TOPOLOGY),
            ("objects", "validation", _OBJECTS),
        ]
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A document of a topology file",
        "if": {"required": ["apiVersion"]},
        "then": places["objects", "validation"],
        "else": places["topology", "validation"],
        "$defs": definitions["$defs"],
    }


def read(reference: str | FilePath) -> tuple[str, str]:
    """Read the text that a reference means, and name it for errors.

    :raises InputError: there is no such file, or it cannot be read.
    """
    if reference == "-":
        return manifest.text_of(sys.stdin.buffer.read(_MAX_BYTES), "<stdin>"), "<stdin>"
    names = dict(shipped())
    path = names.get(str(reference), FilePath(reference)) if isinstance(reference, str) else reference
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        message = "there is no such file or topology"
        if re.fullmatch(NAME, str(reference)):
            raise UnknownNameError("topology", str(reference), names, message=message, source=path) from None
        raise InputError(message, source=path) from None
    except IsADirectoryError:
        source = path if str(reference) else repr("")
        raise InputError("is a directory", source=source, cure="name a file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source=repr(str(path))) from None
    if len(data) == _MAX_BYTES:
        raise InputError(f"is larger than {_MAX_BYTES >> 20} MiB", source=path)
    return manifest.text_of(data, str(path)), str(path)


@cache
def _schema() -> dict[str, Any]:
    """Return the first document's schema, made once: it takes longer than reading a topology."""
    return _TOPOLOGY.json_schema()


def _first_keys(text: str, source: str) -> manifest.CheckKey:
    """Refuse a first document by its first wrong key, however much follows."""
    schema = _schema()
    known = keys(schema, ())

    def check(key: str, line: int) -> None:
        if key in _KUBERNETES_KEYS:
            cure = "put the topology before it, and '---' between them"
            raise InputError("the first document must be the topology", source=source, line=line, cure=cure)
        if key not in known:
            raise InputError(f"unknown key {found(key)}", source=source, line=line, cure=cure_of_key(key, (), schema))
        end = text.find("\n---")
        if (len(text) if end < 0 else end) > _MAX_TOPOLOGY:
            cure = "put '---' between it and the Kubernetes objects"
            raise InputError("the topology is larger than 1 MiB", source=source, line=line, cure=cure)

    return check


@dataclass(frozen=True)
class _File:
    """Validates the documents of a text, and gives errors their lines in it.

    :param others: the kinds of objects that are left out.
    """

    text: str
    source: str
    others: frozenset[str] = frozenset()

    def topology(self, value: Any) -> TopologyDocument:  # noqa: ANN401 - anything may stand in a file
        try:
            return _TOPOLOGY.validate_python(value)
        except ValidationError as invalid:
            error = first_error(invalid, value, _schema())
            raise self.refusal(error, 0, error.path) from None

    def objects(
        self, documents: Iterable[tuple[int, dict[str, Any]]]
    ) -> tuple[list[tuple[Service, Place]], list[tuple[EndpointSlice, Place]]]:
        """Validate numbered documents as Kubernetes objects, and remember where each one stands."""
        services: list[tuple[Service, Place]] = []
        slices: list[tuple[EndpointSlice, Place]] = []
        unknown = _UnknownFields(self)
        try:
            for number, document in documents:
                if "topology" in document:
                    line, cure = manifest.line_of(self.text, number, ("topology",)), "give it a file of its own"
                    raise InputError("a second topology", source=self.source, line=line, cure=cure)
                for item, path in self._flatten(document, number, (), unknown):
                    if isinstance(item, Service):
                        services.append((item, Place(number, path)))
                    else:
                        slices.append((item, Place(number, path)))
        finally:
            unknown.warn()  # also before an error: a misspelt field is often why another is missing
        return services, slices

    def _flatten(
        self,
        value: Any,  # noqa: ANN401
        number: int,
        path: Path,
        unknown: _UnknownFields,
    ) -> Iterator[tuple[Service | EndpointSlice, Path]]:
        """Validate an object, or a List's objects one by one, so that the first wrong one ends it."""
        if isinstance(value, dict) and str(value.get("kind")) in self.others:
            return
        items = value.get("items") if isinstance(value, dict) and value.get("kind") == "List" else None
        shell = value if not isinstance(items, list) else {**value, "items": []}
        try:
            yield from ((item, path) for item in parse_objects(shell, partial(unknown.add, Place(number, path))))
        except ValidationError as invalid:
            error = first_error(invalid, value, _OBJECTS.json_schema())
            raise self.refusal(error, number, (*path, *error.path)) from None
        if isinstance(items, list):
            for index, item in enumerate(items):
                yield from self._flatten(item, number, (*path, "items", index), unknown)

    def refusal(self, error: TopologyError, document: int, path: Path) -> InputError:
        """Give an error its place: the path in one of the file's documents."""
        message = f"{spell(path)}: {error.problem}" if path else error.problem
        line = manifest.line_of(self.text, document, path)
        return InputError(message, source=self.source, line=line, cure=error.cure)


class _UnknownFields:
    """The fields of a file's objects that are not known: each is warned of once, where it stands first."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._first: dict[Path, tuple[Place, Path]] = {}
        self._counts: Counter[Path] = Counter()

    def add(self, place: Place, path: Path) -> None:
        """Take note of a field of the object at a place."""
        name = tuple(part for part in path if isinstance(part, str))
        self._counts[name] += 1
        self._first.setdefault(name, (place, path))

    def warn(self) -> None:
        """Warn of each, with file and line."""
        known = _OBJECTS.json_schema() if self._first else {}
        for name, (place, within) in self._first.items():
            path = (*place.path, *within)
            line = manifest.line_of(self._file.text, place.document, path)
            hint = misspelt(str(within[-1]), keys(known, within[:-1]))
            more = f"; {self._counts[name] - 1:,} more like it" if self._counts[name] > 1 else ""
            words = f"unknown field, left out{f' ({hint})' if hint else ''}{more}"
            warn(f"{self._file.source}:{line}: {spell(path)}: {words}")
