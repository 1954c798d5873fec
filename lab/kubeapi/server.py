# SPDX-License-Identifier: MIT
"""The server: HTTP/1.1 without TLS on a namespace's loopback, in threads of its own.

The rules of lists and watches are those of https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from lab.kubeapi import selectors
from lab.kubeapi.resources import EVENTS, RESOURCES, Object, Resource
from lab.kubeapi.store import Change, ClosedError, Store

if TYPE_CHECKING:
    from lab.netns import Namespace

LOOPBACK: Final = "127.0.0.1"

_LONGEST_WATCH: Final = 1800.0  # seconds, where nobody says; kube-proxy asks for 5 to 10 minutes
_AFTER_INITIAL: Final = "k8s.io/initial-events-end"  # k8s.io/apimachinery/pkg/apis/meta/v1/types.go
_PATH: Final = re.compile(
    r"(?P<root>/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)


class ApiServer:
    """Serves a store's objects in a namespace from when it is made until :meth:`close`.

    Its loopback must be up before anybody asks.

    :param version: of Kubernetes, which it says it is.
    :raises OSError: the socket was refused.
    """

    def __init__(self, namespace: Namespace, store: Store, version: str) -> None:
        self.store = store
        self._listener = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setblocking(True)
        # An orphaned connection would hold the namespace; those that are accepted inherit this.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._listener.bind((LOOPBACK, 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self.version = version
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._serve, name="kubeapi", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is, for who is in the namespace."""
        return f"http://{LOOPBACK}:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                connection, client = self._listener.accept()
            except OSError:  # by close()
                return
            self._connections.add(connection)
            threading.Thread(target=self._talk, args=(connection, client), name="kubeapi", daemon=True).start()

    def _talk(self, connection: socket.socket, client: object) -> None:
        try:
            _Handler(connection, client, self)  # type: ignore[arg-type] # it asks nothing of a socketserver
        except OSError:  # a client that has gone is nobody's error
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    def close(self) -> None:
        """End it, and every watch."""
        self.store.close()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in tuple(self._connections):  # their threads end by it
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Asked(NamedTuple):
    """A request for objects.

    :param options: the query, the last of each word.
    """

    resource: Resource
    namespace: str | None
    name: str | None
    options: Mapping[str, str]

    @property
    def selects(self) -> selectors.Selects:
        """Tells whether an object is meant.

        :raises SelectorError: a selector cannot be understood.
        """
        has_labels = selectors.labels(self.options.get("labelSelector", ""))
        has_fields = selectors.fields(self.options.get("fieldSelector", ""))
        namespace, name = self.namespace, self.name

        def selected(one: Object) -> bool:
            metadata = one["metadata"]
            inside = namespace in (None, metadata.get("namespace"))
            return inside and name in (None, metadata["name"]) and has_labels(one) and has_fields(one)

        return selected


@dataclass(frozen=True)
class _RefusedError(Exception):
    code: HTTPStatus
    reason: str
    message: str


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ApiServer  # type: ignore[assignment]
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Write nothing: there is no log."""

    def do_GET(self) -> None:
        """Answer a list, a watch, a question for one object, or one of what there is."""
        parts = urlsplit(self.path)
        options = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            if (known := self._about(parts.path)) is not None:
                self._send(HTTPStatus.OK, known)
                return
            self._answer(_asked(unquote(parts.path), options))
        except _RefusedError as refused:
            self._refuse(refused)
        except selectors.SelectorError as error:
            self._refuse(_RefusedError(HTTPStatus.BAD_REQUEST, "BadRequest", str(error)))

    def do_POST(self) -> None:
        """Take an event, and forget it."""
        self._swallow()

    def do_PATCH(self) -> None:
        """Take an event's series, and forget it."""
        self._swallow()

    def do_PUT(self) -> None:
        """Refuse: nothing is written here."""
        self._swallow()

    def do_DELETE(self) -> None:
        """Refuse likewise."""
        self._swallow()

    def _swallow(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        is_event = path.startswith(tuple(f"{root}/namespaces/" for root in EVENTS)) and "/events" in path
        if self.command not in {"POST", "PATCH"} or not is_event:
            message = f"this server only reads: no {self.command} of {path}"
            self._refuse(_RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
            return
        try:
            taken = json.loads(body)
        except ValueError:  # a client may write protobuf, and reads what it is given
            root = next(root for root in EVENTS if path.startswith(f"{root}/"))
            taken = {"apiVersion": root.partition("/api")[2].lstrip("s/"), "kind": "Event", "metadata": {}}
        self._send(HTTPStatus.CREATED if self.command == "POST" else HTTPStatus.OK, taken)

    def _about(self, path: str) -> Object | None:
        """Return what is known of the server itself: its health, its version, what it serves."""
        if path in {"/healthz", "/livez", "/readyz"}:
            return {"status": "ok"}
        return _discovery(path.rstrip("/"), self.server.version)

    def _answer(self, asked: _Asked) -> None:
        store, resource = self.server.store, asked.resource
        if asked.options.get("watch", "") in {"1", "true"}:
            self._stream(_watch(store, asked))
            return
        revision, objects = store.all_of(resource.plural)
        chosen = [resource.shown(one) for one in filter(asked.selects, objects)]
        if asked.name is None:
            metadata = {"resourceVersion": str(revision)}
            kind = f"{resource.kind}List" if resource.plural != "endpoints" else "EndpointsList"
            items = {"apiVersion": resource.api_version, "kind": kind, "metadata": metadata, "items": chosen}
            self._send(HTTPStatus.OK, items)
        elif chosen:
            self._send(HTTPStatus.OK, chosen[0])
        else:
            message = f'{resource.plural} "{asked.name}" not found'
            self._refuse(_RefusedError(HTTPStatus.NOT_FOUND, "NotFound", message))

    def _refuse(self, refused: _RefusedError) -> None:
        status = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
        more = {"message": refused.message, "reason": refused.reason, "code": int(refused.code)}
        self._send(refused.code, {**status, **more})

    def _send(self, code: HTTPStatus, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[Object]) -> None:
        """Send each event as it comes, a line each."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.write(b"0\r\n\r\n")
        except ClosedError:
            self.close_connection = True


def _asked(path: str, options: Mapping[str, str]) -> _Asked:
    found = _PATH.fullmatch(path)
    if found:
        for resource in RESOURCES:
            scoped = found["namespace"] is None or resource.namespaced
            named = found["name"] is None or found["namespace"] is not None or not resource.namespaced
            if (resource.root, resource.plural) == (found["root"], found["plural"]) and scoped and named:
                return _Asked(resource, found["namespace"], found["name"], options)
    raise _RefusedError(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource")


def _number(options: Mapping[str, str], word: str) -> int:
    text = options.get(word) or "0"
    if not text.isdecimal():
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "BadRequest", f"invalid {word}: {text!r}")
    return int(text)


def _watch(store: Store, asked: _Asked) -> Iterator[Object]:
    """Return the events of a watch; what cannot be watched is refused before the first.

    :raises SelectorError: a selector cannot be understood.
    """
    since, selects = _number(asked.options, "resourceVersion"), asked.selects
    seconds = float(_number(asked.options, "timeoutSeconds") or _LONGEST_WATCH)
    initial = asked.options.get("sendInitialEvents") == "true"
    if initial and asked.options.get("resourceVersionMatch") != "NotOlderThan":
        message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise _RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message)
    return _events(store, asked.resource, selects, since, seconds, initial=initial)


def _events(
    store: Store, resource: Resource, selects: selectors.Selects, since: int, seconds: float, *, initial: bool
) -> Iterator[Object]:
    if initial or not since:
        since, objects = store.all_of(resource.plural)
        yield from ({"type": "ADDED", "object": resource.shown(one)} for one in filter(selects, objects))
    if initial:
        metadata = {"resourceVersion": str(since), "annotations": {_AFTER_INITIAL: "true"}}
        mark = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        yield {"type": "BOOKMARK", "object": mark}
    for change in store.changes(resource.plural, since, seconds):
        if event := _event(change, selects):
            kind, one = event
            yield {"type": kind, "object": resource.shown(one)}


def _event(change: Change, selects: selectors.Selects) -> tuple[str, Object] | None:
    """Return what a change is to a watch: what a selector selects no more is gone."""
    was = change.before is not None and selects(change.before)
    if change.after is not None and selects(change.after):
        return ("MODIFIED" if was else "ADDED"), change.after
    return ("DELETED", change.after or change.before or {}) if was else None


def _discovery(path: str, version: str) -> Object | None:
    """Return what is served below a path; None where that is no question of what there is."""
    if path == "/version":
        major, minor = (*version.lstrip("v").split("."), "0")[:2]
        others = dict.fromkeys(("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion"), "")
        return {"major": major, "minor": minor, "gitVersion": version, "platform": "linux", **others}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    groups: dict[str, list[str]] = {}
    for resource in RESOURCES:
        if resource.group and resource.version not in groups.setdefault(resource.group, []):
            groups[resource.group].append(resource.version)
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*one) for one in groups.items()]}
    its = [one for one in RESOURCES if one.root == path]
    return _resources(its) if its else None


def _group(name: str, versions: list[str]) -> Object:
    known = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": known, "preferredVersion": known[0]}


def _resources(its: list[Resource]) -> Object:
    rows = [
        {
            "name": one.plural,
            "singularName": one.kind.lower(),
            "kind": one.kind,
            "namespaced": one.namespaced,
            "verbs": ["get", "list", "watch"],
        }
        for one in its
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": its[0].api_version, "resources": rows}
