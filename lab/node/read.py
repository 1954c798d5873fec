# SPDX-License-Identifier: MIT
"""Reads what is given of a node: what each part is, is seen in what it says, not in what it is called.

The names that `lab collect` gives matter for two things alone: its notes, and what a bundle may have besides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, Final

from lab.errors import InputError
from lab.kubernetes import manifest
from lab.node import sources as given
from lab.node.bundle import Bundle, Saved
from lab.node.interfaces import Links
from lab.node.printed import Printed
from lab.node.saved import once, saved
from lab.rules.pieces import cut, text_of
from lab.topology.reader import Objects, objects_of

NOTES: Final = "notes.txt"
"""What the collecting script could not read, a line each."""

_BESIDES: Final = re.compile(r"\.DS_Store|\._.*|.*\.(?:sh|md|pcap|png)|README.*|conntrack-L\.txt|ipset.*\.txt")
_JSON: Final = re.compile(r"\s*(?:\[\s*[\[{\]]|\{(?!\s*\"nftables\"))")
_YAML: Final = re.compile(r"^(?:apiVersion|kind|items|topology):", re.MULTILINE)
_TOPOLOGY: Final = re.compile(r"^topology:", re.MULTILINE)
_COMMAND: Final = re.compile(r"(?:\S*/)?kube-proxy(?:[\0\s]+--?[a-z].*|[\0\n]*)", re.DOTALL)
_HOST_NAME: Final = "--hostname-override"
_CONFIGURATION: Final = "KubeProxyConfiguration"


def read(sources: Sequence[str], objects: Sequence[str] = ()) -> Bundle:
    """Return what is given of a node.

    :param sources: files, directories and archives, parts of one node; ``-`` is standard input.
    :param objects: files of Kubernetes objects.
    :raises InputError: with file, line and cure, for the first thing that cannot be read or is nothing of a node.
    """
    reader = _Reader()
    for part in given.parts([*sources, *objects]):
        reader.part(part)
    if objects and reader.objects is None:
        raise InputError("there are no Services in it", source=objects[0], cure="give what kubectl get -o yaml prints")
    return reader.bundle()


class _Reader:
    """Takes one part after the other."""

    def __init__(self) -> None:
        self.objects: list[Objects] | None = None
        self._rules: list[Saved] = []
        self._printed, self._links = Printed(), Links()
        self._command: tuple[str, ...] = ()
        self._config: dict[str, Any] = {}
        self._notes: list[str] = []

    def part(self, part: given.Part) -> None:
        """Read a part.

        :raises InputError: it is nothing of a node.
        """
        if part.bundled and _BESIDES.fullmatch(part.file):
            return
        command = part.data.replace(b"\0", b"\n")
        if command.startswith((b"kube-proxy", b"/")) and _COMMAND.fullmatch(text := text_of(command, part.name)):
            self._command = tuple(text.split("\n") if "\n" in text.strip() else text.split())
            self._command = tuple(word for word in self._command if word)
            return
        text = text_of(part.data, part.name)
        if not text.strip():
            if not part.bundled:
                raise InputError("empty: there is nothing in it", source=part.name)
        elif part.bundled and part.file == NOTES:
            self._notes += [line.strip() for line in text.splitlines() if line.strip()]
        elif _JSON.match(text):
            self._json(text, part.name)
        elif _YAML.search(text):
            self._yaml(text, part.name)
        else:
            self._printed_by_programs(text, part)

    def _printed_by_programs(self, text: str, part: given.Part) -> None:
        pieces, others = cut(text, part.name)
        self._rules += [saved(piece, part.name, part.file) for piece in pieces]
        for other in others:
            self._printed.read(other, part.name, other.line)

    def _json(self, text: str, name: str) -> None:
        try:
            for document in _documents(text):
                if isinstance(document, dict):
                    self._yaml(text, name)
                    return
                if not self._links.read(document):
                    raise InputError("JSON, but nothing that is known of a node", source=name, cure="give ip -j's")
        except json.JSONDecodeError as error:
            raise InputError(f"no JSON: {error.msg}", source=name, line=error.lineno, cure="was it cut off?") from None
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(f"JSON, but none of ip: {error}", source=name, cure="give what ip -j prints") from None

    def _yaml(self, text: str, name: str) -> None:
        if found := _TOPOLOGY.search(text):
            line = text.count("\n", 0, found.start()) + 1
            raise InputError("a topology, and nothing of a node", source=name, line=line, cure="give it by --topology")
        if _CONFIGURATION not in text:
            if "Endpoints" in text and "EndpointSlice" not in text:
                self._notes.append(f"{name}: Endpoints are not looked at: kubectl get endpointslices has them too.")
            self.objects = [*(self.objects or []), objects_of(text, name)]
            return
        [first, *more] = manifest.documents(text, name)
        if first.get("kind") == "ConfigMap":
            inner = next((one for one in first.get("data", {}).values() if _CONFIGURATION in str(one)), "")
            [first, *more] = manifest.documents(str(inner), f"{name}: config.conf")
        if first.get("kind") != _CONFIGURATION or more:
            raise InputError(
                "more than kube-proxy's configuration in it", source=name, cure="give it a file of its own"
            )
        self._config = first

    def bundle(self) -> Bundle:
        """Return what was read.

        :raises InputError: two parts contradict each other.
        """
        printed, links = self._printed, self._links
        services = endpoint_slices = None
        if self.objects is not None:
            services = tuple(service for one in self.objects for service in one.services)
            endpoint_slices = tuple(piece for one in self.objects for piece in one.endpoint_slices)
        return Bundle(
            rules=once(self._rules),
            sysctls=MappingProxyType(printed.sysctls),
            interfaces=tuple(links.interfaces.values()),
            routes=tuple(links.routes),
            kernel=printed.kernel,
            kernel_config=MappingProxyType(printed.kernel_config),
            conntrack=MappingProxyType(dict(printed.counts)),
            programs=MappingProxyType(printed.programs),
            command_line=self._command,
            config=MappingProxyType(self._config),
            name=self._name(),
            log=tuple(printed.log),
            services=services,
            endpoint_slices=endpoint_slices,
            notes=(*self._notes, *printed.notes, *links.notes),
        )

    def _name(self) -> str:
        words = iter(self._command)
        for word in words:
            if word == _HOST_NAME:
                return next(words, "")
            if word.startswith(f"{_HOST_NAME}="):
                return word.partition("=")[2]
        return str(self._config.get("hostnameOverride") or "") or self._printed.host.lower()


def _documents(text: str) -> Iterator[Any]:
    """Return JSON documents that follow each other, as several calls of a program print them."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        if text[place].isspace():
            place += 1
        else:
            value, place = decoder.raw_decode(text, place)
            yield value
