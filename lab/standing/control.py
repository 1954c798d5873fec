# SPDX-License-Identifier: MIT
"""Asking the owner of a lab that stands to change it: a line of JSON each way over a socket.

The socket lies beside the lab's record, in a directory that only root may enter.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar

from lab import __version__
from lab.errors import InputError, LabError
from lab.fabric.endpoints import KnownEndpoint
from lab.fabric.services import KnownService
from lab.kubernetes.parse import parse_objects
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lab.fabric.lab import Lab
    from lab.kubernetes.objects import EndpointSlice, Service
    from lab.results.reach import Reaches
    from lab.results.result import Report
    from lab.scenario.own_packet import TracedPacket
    from lab.standing.handshakes import Handshakes
    from lab.standing.record import StandingLab
    from lab.standing.servers import Servers
    from lab.standing.tracing import Asked
    from lab.trial.reach import Chosen

#: What is done with an endpoint, with Services, with a node's kube-proxy.
Word: TypeAlias = Literal["add", "remove", "drain"]
ServiceWord: TypeAlias = Literal["add", "apply"]
ProxyWord: TypeAlias = Literal["stop", "start", "restart"]

T = TypeVar("T")

_LONGEST: Final = 4 * 1024 * 1024  # bytes of a question: the largest file of objects, with room


class Control:
    """The owner's end, for the length of a block in its event loop: one change after the other.

    The servers of the lab answer meanwhile. A change that has begun is finished before the block ends.

    :param fix: that its nodes have, by its name.
    :param servers: follow the changes.
    :param handshakes: those of everybody's connections.
    """

    def __init__(self, lab: Lab, fix: str, servers: Servers, handshakes: Handshakes, path: Path) -> None:
        self._lab, self._fix = lab, fix
        self._servers, self._handshakes = servers, handshakes
        self._path = path
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Accept requests from here on."""
        self._server = await asyncio.start_unix_server(self._answer, self._path, limit=_LONGEST)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Accept no more."""
        self._server.close()
        await self._turn.acquire()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, ValueError):  # whoever asked is gone, or was no program of the lab's
                question = json.loads(await reader.readline())
                gone = asyncio.ensure_future(reader.read())  # whoever asked says no more until it is answered
                try:
                    async with self._turn:
                        answer = await self._obey(question, gone)
                finally:
                    gone.cancel()
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()

    async def _obey(self, question: dict[str, Any], gone: asyncio.Future[bytes]) -> dict[str, object]:
        try:
            if case := question.get("inject"):
                return await self._inject(case, question)
            if chosen := question.get("reach"):
                return await self._reach(chosen, question, gone)
            if packet := question.get("trace"):
                from lab.standing.tracing import trace

                return {"traced": await trace(self._lab, packet)}
            deleted = await asyncio.to_thread(self._change, question)
            await self._servers.follow()
        except LabError as error:
            return {"error": str(error), "input": isinstance(error, InputError)}
        nodes = (node.name for node in self._lab.topology.nodes)
        return {
            "endpoints": [asdict(known) for known in self._lab.endpoints],
            "services": [asdict(known) for known in self._lab.served],
            "deleted": deleted,
            "kube_proxies": {node: "stopped" if node in self._lab.stopped else "running" for node in nodes},
        }

    async def _inject(self, case: str, question: dict[str, Any]) -> dict[str, object]:
        from lab.results.saved import to_json  # these take a quarter of a second to import
        from lab.standing.inject import inject, inject_into

        if connection := question["connection"]:
            found = await inject_into(self._lab, self._fix, case, connection, self._handshakes)
        else:
            family = question["family"]
            asked = Family(family) if family else None
            found = await inject(self._lab, self._fix, case, asked, question["service"])
        return {"report": to_json(found.report).decode(), "remarks": found.remarks}

    async def _reach(
        self, chosen: dict[str, Any], question: dict[str, Any], gone: asyncio.Future[bytes]
    ) -> dict[str, object]:
        from lab.standing.reaching import reach

        # In a thread of its own, for the servers answer by this one.
        asked = partial(reach, self._lab, question["family"], chosen, gone, traced=question["traced"])
        return {"reaches": await asyncio.to_thread(asked)}

    def _change(self, question: dict[str, Any]) -> int | None:
        """Do what is asked; of a kube-proxy that starts return how many conntrack entries it has deleted."""
        lab, clean = self._lab, question.get("clean_conntrack", True)
        if word := question.get("change"):
            served = lab.endpoints
            change = {"add": served.add, "remove": served.remove, "drain": served.drain}[word]
            change(question["service"], question["address"], clean_conntrack=clean)
        elif word := question.get("services"):
            objects = [parsed for document in question["objects"] for parsed in parse_objects(document)]
            put = {"add": lab.served.add, "apply": lab.served.apply}[word]
            put(objects, clean_conntrack=clean)
        elif names := question.get("remove_services"):
            lab.served.remove(*names, clean_conntrack=clean)
        elif word := question.get("kube_proxy"):
            node = question["node"]
            if word == "stop":
                lab.stop_kube_proxy(node)
            else:
                return (lab.start_kube_proxy if word == "start" else lab.restart_kube_proxy)(node)
        elif question:
            raise LabError(
                "the lab was made by another version, which knows nothing of this: take it down and up again"
            )
        return None


def endpoints(lab: StandingLab) -> tuple[KnownEndpoint, ...]:
    """List the endpoints of a lab that stands.

    :raises LabError: its owner is dead.
    """
    return _ask(lab, {}, _endpoints)


def change(
    lab: StandingLab, word: Word, service: str, address: str, *, clean_conntrack: bool = True
) -> tuple[KnownEndpoint, ...]:
    """Add, remove or drain an endpoint, and return those that there are then.

    :raises InputError: there is no such service or endpoint (see :class:`lab.fabric.endpoints.Endpoints`).
    :raises LabError: the kernel refused the change, or the owner of the lab is dead.
    """
    question = {"change": word, "service": service, "address": address, "clean_conntrack": clean_conntrack}
    return _ask(lab, question, _endpoints)


def services(lab: StandingLab) -> tuple[KnownService, ...]:
    """List the Services of a lab that stands.

    :raises LabError: its owner is dead.
    """
    return _ask(lab, {}, _services)


def put_services(
    lab: StandingLab, word: ServiceWord, objects: Sequence[Service | EndpointSlice], *, clean_conntrack: bool = True
) -> tuple[KnownService, ...]:
    """Add Services and EndpointSlices, or have them in the place of others, and return the Services that are then.

    :raises InputError: the lab cannot have them (see :class:`lab.fabric.services.Services`).
    :raises LabError: the kernel refused the change, or the owner of the lab is dead.
    """
    documents = [one.model_dump(mode="json", by_alias=True, exclude_unset=True) for one in objects]
    question = {"services": word, "objects": documents, "clean_conntrack": clean_conntrack}
    return _ask(lab, question, _services)


def remove_services(
    lab: StandingLab, names: Sequence[str], *, clean_conntrack: bool = True
) -> tuple[KnownService, ...]:
    """Remove Services with their EndpointSlices, and return the Services that are left.

    :raises InputError: there is no such Service.
    :raises LabError: the kernel refused the change, or the owner of the lab is dead.
    """
    return _ask(lab, {"remove_services": list(names), "clean_conntrack": clean_conntrack}, _services)


def kube_proxies(lab: StandingLab) -> dict[str, str]:
    """Return the state of each node's kube-proxy, by the node: ``running`` or ``stopped``.

    :raises LabError: the owner of the lab is dead.
    """
    return _ask(lab, {}, lambda answer: dict(answer["kube_proxies"]))


def change_kube_proxy(lab: StandingLab, word: ProxyWord, node: str) -> int | None:
    """Stop, start or restart a node's kube-proxy, and return how many conntrack entries it deleted when it started.

    None where it did not start, or is a program, which does not say.

    :raises InputError: there is no such node, or it is so already.
    :raises LabError: the kernel refused the change, or the owner of the lab is dead.
    """

    def deleted(answer: dict[str, Any]) -> int | None:
        number: int | None = answer["deleted"]
        return number

    return _ask(lab, {"kube_proxy": word, "node": node}, deleted)


def inject(
    lab: StandingLab, case: str, family: Family | None, service: str | None, connection: str | None
) -> tuple[Report, tuple[str, ...]]:
    """Try a case in a lab that stands (see :mod:`lab.standing.inject`); return what came of it, and remarks.

    :param connection: somebody's own, on which it is tried.

    :raises InputError: the case cannot run there; says why.
    :raises LabError: the lab cannot hold it, or its owner is dead.
    """
    from lab.results.result import Report
    from lab.results.saved import from_json

    def read(answer: dict[str, Any]) -> tuple[Report, tuple[str, ...]]:
        report = from_json(answer["report"])
        assert isinstance(report, Report)
        return report, tuple(answer["remarks"])

    return _ask(lab, {"inject": case, "family": family, "service": service, "connection": connection}, read)


def reach(lab: StandingLab, family: Family | None, chosen: Chosen, *, traced: bool = False) -> Reaches:
    """Ask the Services of a lab that stands (see :mod:`lab.standing.reaching`), and return what came of it.

    :param traced: have the kernel tell which rule decided.
    :raises InputError: nothing of the kind can be asked there.
    :raises LabError: an instrument failed, or the owner of the lab is dead.
    """
    from lab.standing.reaching import from_json

    question = {"reach": asdict(chosen), "family": family, "traced": traced}
    return _ask(lab, question, lambda answer: from_json(answer["reaches"]))


def trace(lab: StandingLab, asked: Asked) -> TracedPacket:
    """Have one packet sent in a lab that stands (see :mod:`lab.standing.tracing`), and return what became of it.

    :raises InputError: it cannot be sent.
    :raises LabError: an instrument failed, or the owner of the lab is dead.
    """
    from lab.standing.tracing import from_json

    return _ask(lab, {"trace": asdict(asked)}, lambda answer: from_json(answer["traced"]))


def _ask(lab: StandingLab, question: Mapping[str, object], read: Callable[[dict[str, Any]], T]) -> T:
    """Ask the owner of a lab, and return what its answer is read as.

    :raises InputError: what was asked for cannot be.
    :raises LabError: it went wrong, the owner does not answer, or it is another version's.
    """
    lab.check()
    if lab.is_foreign:
        raise _foreign(lab)
    with socket.socket(socket.AF_UNIX) as owner:
        try:
            owner.connect(str(lab.socket))
            owner.sendall(json.dumps(question).encode() + b"\n")
            line = owner.makefile("rb").readline()
        except OSError:
            line = b""
    if not line:
        raise LabError(f"the owner of the lab {lab.name} does not answer: `lab down {lab.name}`, then `lab up` again")
    answer: dict[str, Any] = json.loads(line)
    if error := answer.get("error"):
        raise (InputError if answer["input"] else LabError)(error)
    try:
        return read(answer)
    except (KeyError, TypeError, ValueError) as error:  # of a working copy that has changed since, with its number
        raise _foreign(lab) from error


def _foreign(lab: StandingLab) -> LabError:
    its = f" ({lab.version}, and this is {__version__})" if lab.version not in ("", __version__) else ""
    return LabError(f"the lab {lab.name} was made by another version{its}: `lab down {lab.name}`, then `lab up` again")


def _endpoints(answer: dict[str, Any]) -> tuple[KnownEndpoint, ...]:
    return tuple(KnownEndpoint(**{**known, "ports": tuple(known["ports"])}) for known in answer["endpoints"])


def _services(answer: dict[str, Any]) -> tuple[KnownService, ...]:
    return tuple(
        KnownService(known["service"], known["type"], tuple(known["addresses"]), tuple(known["ports"]))
        for known in answer["services"]
    )


def lines(found: Sequence[KnownEndpoint]) -> Iterator[str]:
    """Write endpoints as a table, for a terminal."""
    if not found:
        yield "no Service has an endpoint"
        return
    rows = [("SERVICE", "ADDRESS", "PORTS", "STATE", "HOST")]
    rows += [(known.service, known.address, ",".join(known.ports), known.state, known.host) for known in found]
    yield from _table(rows)


def service_lines(found: Sequence[KnownService]) -> Iterator[str]:
    """Write Services as a table, for a terminal."""
    if not found:
        yield "there is no Service"
        return
    rows = [("SERVICE", "TYPE", "CLUSTER-IPS", "PORTS")]
    rows += [(known.service, known.type, ",".join(known.addresses), ",".join(known.ports)) for known in found]
    yield from _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
