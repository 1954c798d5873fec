# SPDX-License-Identifier: MIT
"""What commands tell programs: JSON with a version, each kind by a schema of its own; and where it goes.

The rule of ``--json``: alone it prints on standard output in the text's place, and ``--json=FILE`` writes a file
beside the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lab.cli.report_files import Output


@dataclass(frozen=True)
class Document:
    """One kind of JSON.

    :param command: that tells it.
    :param version: of its form; it changes where a program would notice. None where whoever writes it knows.
    :param schema: returns its JSON Schema, of the members beside the version.
    """

    command: str
    version: int | None
    schema: Callable[[], dict[str, Any]]


class JsonPlace:
    """Where the JSON of a command goes. It is looked at now, so that a mistyped path costs no work.

    :param place: - for standard output, None where nobody wants it.
    :raises InputError: nothing can be written there.
    """

    def __init__(self, place: str | None) -> None:
        self._output: Output | None = None
        if place is not None:
            from lab.cli.report_files import open_output

            self._output = open_output("json", place)

    @property
    def on_stdout(self) -> bool:
        """Whether standard output is taken, so that nothing else may be printed there."""
        return self._output is not None and self._output.on_stdout

    def write(self, name: str, make: Callable[[], Mapping[str, object]]) -> None:
        """Write a document where it is wanted.

        :param name: of :data:`DOCUMENTS`.
        :param make: returns its members; where nobody wants it, it is not made.
        :raises OutputError: it cannot be written.
        """
        if self._output is not None:
            from json import dumps

            members = make()
            assert "version" not in members
            data = {"version": DOCUMENTS[name].version, **members}
            self._output.write(f"{dumps(data, indent=1, ensure_ascii=False)}\n".encode())


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a document of :data:`DOCUMENTS`."""
    from lab.results.versioned import versioned

    document = DOCUMENTS[name]
    found = document.schema()
    return found if document.version is None else versioned(found, f"`{document.command}`", document.version)


# --- the kinds -----------------------------------------------------------------------------------------------
# Each imports what it is about, for importing all of them costs time.


def _saved(kind: str) -> Callable[[], dict[str, Any]]:
    def schema() -> dict[str, Any]:
        from lab.results import saved

        return saved.schema(kind)

    return schema


def _reach() -> dict[str, Any]:
    from lab.results import reach_saved

    return reach_saved.schema()


def _of(place: str) -> Callable[[], dict[str, Any]]:
    """Return what makes the schema of a dataclass, by its module and its name."""

    def schema() -> dict[str, Any]:
        from importlib import import_module

        from lab.results.versioned import schema_of_type

        module, _, name = place.rpartition(".")
        return schema_of_type(getattr(import_module(module), name))

    return schema


def _list(member: str, place: str) -> Callable[[], dict[str, Any]]:
    """Return what makes the schema of an object with one member, a list of dataclasses."""

    def schema() -> dict[str, Any]:
        found = _of(place)()
        kinds = found.pop("$defs", {})
        name = found["title"]
        items = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}
        return {"type": "object", "$defs": {**kinds, name: found}, "properties": {member: items}, "required": [member]}

    return schema


def _explain() -> dict[str, Any]:
    """Return the schema of an explanation, to which --replay adds what it told."""
    from lab.capture.replayed import Replayed, Said
    from lab.results.versioned import schema_of_type

    found = _of("lab.capture.explanation.Explanation")()
    again = schema_of_type(Replayed)
    kinds = {**found.get("$defs", {}), **again.pop("$defs")}
    differs = {"type": "boolean", "description": "Whether conntrack and the model disagree."}
    again["properties"]["differs"] = differs
    again["required"].append("differs")
    assert Said.__name__ in kinds
    found["$defs"] = {**kinds, Replayed.__name__: again}
    found["properties"]["replayed"] = {
        "type": "array",
        "items": {"$ref": f"#/$defs/{Replayed.__name__}"},
        "description": "Where --replay was given.",
    }
    return found


def _doctor() -> dict[str, Any]:
    found = _of("lab.doctor.machine.Diagnosis")()
    ready = {"type": "boolean", "description": "Whether a lab can run here."}
    return {**found, "properties": {"ready": ready, **found["properties"]}, "required": ["ready", *found["required"]]}


def _watch() -> dict[str, Any]:
    from lab.results.versioned import DIALECT

    found = _of("lab.observed.told.Line")()
    return {"$schema": DIALECT, "title": "kube-proxy-lab: a line of `lab watch --json`", **found}


#: By the name that `lab schema` knows it by.
DOCUMENTS: Final[Mapping[str, Document]] = {
    "result": Document("lab run --json", None, _saved("result")),
    "matrix": Document("lab matrix --json", None, _saved("matrix")),
    "reach": Document("lab reach --json", None, _reach),
    "trace": Document("lab trace CASE --json", 1, _of("lab.cli.traced.TracedTrial")),
    "trace-packet": Document("lab trace --to ADDRESS --json", 1, _of("lab.scenario.own_packet.TracedPacket")),
    "explain": Document("lab explain --json", 1, _explain),
    "watch": Document("lab watch --json", None, _watch),
    "conntrack": Document("lab conntrack list --json", 1, _list("entries", "lab.conntrack.flows.Flow")),
    "list": Document("lab list --json", 1, _of("lab.cli.listed.Catalogue")),
    "show": Document("lab show CASE --json", 1, _list("cases", "lab.cli.catalogue.Shown")),
    "reasons": Document("lab show --reasons --json", 1, _list("reasons", "lab.report.reasons.Row")),
    "status": Document("lab status --json", 1, _list("labs", "lab.standing.commands.LabStatus")),
    "endpoints": Document("lab endpoints list --json", 1, _list("endpoints", "lab.fabric.endpoints.KnownEndpoint")),
    "services": Document("lab services list --json", 1, _list("services", "lab.fabric.services.KnownService")),
    "doctor": Document("lab doctor --json", 1, _doctor),
    "kernels": Document("lab kernels list --json", 1, _of("lab.kernels.stock.Stock")),
    "rules-diff": Document("lab rules --diff FILE --json", 1, _list("nodes", "lab.rules.told.Compared")),
    "rules-since": Document("lab rules --since VERSION --json", 1, _list("nodes", "lab.rules.told.Upgraded")),
    "rules-sysctls": Document("lab rules --sysctls --json", 1, _list("nodes", "lab.rules.told.SysctlsOfNode")),
}
