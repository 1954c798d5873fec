# SPDX-License-Identifier: MIT
"""Asking the owner of a lab that stands to change its endpoints: a line of JSON each way over a socket.

The socket lies beside the lab's record, in a directory that only root may enter.
"""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from lab.errors import InputError, LabError
from lab.fabric.endpoints import KnownEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lab.fabric.lab import Lab
    from lab.standing.record import StandingLab

Word: TypeAlias = Literal["add", "remove", "drain"]

_LONGEST = 64 * 1024  # bytes of a question


class Control:
    """The owner's end, for the length of a block in its event loop: one change after the other.

    The servers of the lab answer meanwhile. A change that has begun is finished before the block ends.
    """

    def __init__(self, lab: Lab, path: Path) -> None:
        self._lab = lab
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
                async with self._turn:
                    answer = await asyncio.to_thread(self._obey, question)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()

    def _obey(self, question: dict[str, Any]) -> dict[str, object]:
        try:
            if word := question.get("change"):
                served = self._lab.endpoints
                change = {"add": served.add, "remove": served.remove, "drain": served.drain}[word]
                change(question["service"], question["address"], clean_conntrack=question["clean_conntrack"])
        except LabError as error:
            return {"error": str(error), "input": isinstance(error, InputError)}
        return {"endpoints": [asdict(known) for known in self._lab.endpoints]}


def endpoints(lab: StandingLab) -> tuple[KnownEndpoint, ...]:
    """List the endpoints of a lab that stands.

    :raises LabError: its owner is dead.
    """
    return _ask(lab, {})


def change(
    lab: StandingLab, word: Word, service: str, address: str, *, clean_conntrack: bool = True
) -> tuple[KnownEndpoint, ...]:
    """Add, remove or drain an endpoint, and return those that there are then.

    :raises InputError: there is no such service or endpoint (see :class:`lab.fabric.endpoints.Endpoints`).
    :raises LabError: the kernel refused the change, or the owner of the lab is dead.
    """
    return _ask(lab, {"change": word, "service": service, "address": address, "clean_conntrack": clean_conntrack})


def _ask(lab: StandingLab, question: dict[str, object]) -> tuple[KnownEndpoint, ...]:
    with socket.socket(socket.AF_UNIX) as owner:
        try:
            owner.connect(str(lab.socket))
            owner.sendall(json.dumps(question).encode() + b"\n")
            line = owner.makefile("rb").readline()
        except OSError:
            line = b""
    if not line:
        raise LabError(f"the owner of the lab {lab.name} does not answer: `lab down {lab.name}`, then `lab up` again")
    answer = json.loads(line)
    if error := answer.get("error"):
        raise (InputError if answer["input"] else LabError)(error)
    return tuple(KnownEndpoint(**{**known, "ports": tuple(known["ports"])}) for known in answer["endpoints"])


def lines(found: Sequence[KnownEndpoint]) -> Iterator[str]:
    """Write endpoints as a table, for a terminal."""
    if not found:
        yield "no Service has an endpoint"
        return
    rows = [("SERVICE", "ADDRESS", "PORTS", "STATE", "HOST")]
    rows += [(known.service, known.address, ",".join(known.ports), known.state, known.host) for known in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
