# SPDX-License-Identifier: MIT
"""Results in files: written as JSON with a version, read back from every version that there was.

=======  ==============================================================================================================
version  what changed
=======  ==============================================================================================================
(none)   All of it on one line, every packet with it.
2        The version is named. A line a trial. Packets are left out unless they are wanted or a trial was not as
         expected; where they are kept, so are their bytes.
3        A sample's trial is left out where it is the tally's, and of timelines what has its default. What is the same
         in several places of timelines stands once, in ``shared``, and is named there by its number: ``$7``. A text
         that begins with a $ has another one before it.
=======  ==============================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_type_hints

from lab.errors import InputError
from lab.evidence.judgement import Judgement
from lab.evidence.timeline import KINDS as TIMELINES
from lab.evidence.timeline import PacketTimeline, Timeline
from lab.kubeproxy.releases import find_release
from lab.results.matrix import Column, Matrix
from lab.results.result import Report, Result, Tally, Trial
from lab.results.shared import Named, Shared
from lab.results.versioned import versioned

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

#: What a file of results holds.
Found: TypeAlias = Report | Matrix

#: The version that is written; all up to it are read.
VERSION: Final = 3
_NAMED_SINCE: Final = 3

#: What a file may hold, by what its schema is called.
KINDS: Final[dict[str, type[Report] | type[Matrix]]] = {"result": Report, "matrix": Matrix}

# A file may be anybody's: what no lab writes, and what would do something to a terminal or be too large to reckon with.
_SUSPECT: Final = re.compile(r"\\u00[0189][0-9a-fA-F]|\\u007[fF]|\\[bf]|[\x7f-\x9f]|(?<![.\d])\d{20}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NONE: Final = "these are no results of `lab run`, `lab matrix` or `lab reach`"
_MOST: Final = 1 << 64
_REFERRED: Final = re.compile(r"#/\$defs/(\w+)")

#: What the nodes' rules tell of conntrack's judgement (xt_conntrack's ctstate), besides ESTABLISHED.
_STATES: Final = {"ESTABLISHED", *(one.upper() for one in Judgement)}


def to_json(found: Found, *, packets: bool = True) -> bytes:
    """Return results as JSON in UTF-8, a line a trial.

    :param packets: whether all packets are in it, with their bytes; otherwise those of trials that were not as
        expected are.
    """
    from pydantic import TypeAdapter

    lean = found if packets else without_packets(found)
    shared, adapter = Shared(), TypeAdapter(Tally)
    told = [_told(tally, adapter, shared) for report in reports_of(lean) for tally in report.tallies]
    # Line by line, for a guest has little memory.
    lines = (line(shared) for line in told)
    whole = b"".join(_object(lean, lines, b'"version":%d' % VERSION))
    table = ",\n".join(shared.table)
    return b'%s,"shared":[\n%s\n]}\n' % (whole[:-1], table.encode())


def from_json(text: str | bytes) -> Found:
    """Return the results that :func:`to_json` of this version or of an earlier one wrote.

    :raises ValueError: the text holds none; says what is wrong.
    """
    return from_data(*parsed(text))


def parsed(text: str | bytes) -> tuple[dict[str, Any], str]:
    """Return the object that JSON is of, and its text.

    :raises ValueError: it is none; says what is wrong.
    """
    from pydantic_core import from_json as parse

    try:
        text = text if isinstance(text, str) else text.decode()
        data = parse(text)
    except ValueError as error:
        reason = "bytes that are no text" if isinstance(error, UnicodeDecodeError) else f"no JSON, {error}"
        raise ValueError(f"{_NONE}: {reason}" if text.strip() else f"{_NONE}: there is nothing in it") from None
    if not isinstance(data, dict):
        raise ValueError(_NONE)
    return data, text


def from_data(data: dict[str, Any], text: str) -> Found:
    """Return the same from what was read.

    :param text: that it was read of.
    :raises ValueError: it holds no results; says what is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    version = data.pop("version", 1)
    if version not in range(1, VERSION + 1):
        newest = f"this one reads files up to version {VERSION}"
        raise ValueError(f"another lab wrote these results, in version {version!r:.40}: {newest}")
    kind: Any = next((kind for key, kind in (("tallies", Report), ("columns", Matrix)) if key in data), None)
    if kind is None:
        raise ValueError(f"{_NONE}: neither tallies nor columns nor reaches are there")
    try:
        data = harmless(data, text)
        if version >= _NAMED_SINCE:
            _name_all(data)
        found: Found = TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise ValueError(refusal(error)) from None
    _check(found)
    return found


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of what is written: of one of :data:`KINDS`."""
    from pydantic import TypeAdapter

    found = TypeAdapter(KINDS[kind]).json_schema(mode="validation")
    kinds = found["$defs"]
    for of_timeline in TIMELINES.values():  # which of them it is can be told by this alone
        told = kinds[of_timeline.__name__]
        told["properties"]["kind"] = {"const": of_timeline.kind}
        told["required"].append("kind")
    _name_in_schema(kinds, {name for one in TIMELINES.values() for name in _defs_in(kinds, one.__name__)})
    result = kinds[Result.__name__]
    result["required"].remove("trial")
    result["properties"]["trial"]["description"] = "The tally's where it is left out."
    shared = {
        "type": "array",
        "description": "What stands in several places; each may speak of earlier ones.",
    }
    whole = {"properties": {**found["properties"], "shared": shared}, "required": [*found["required"], "shared"]}
    return versioned({**found, **whole}, f"a {kind}", VERSION)


def _defs_in(kinds: dict[str, Any], name: str) -> set[str]:
    """Return which definitions a definition is made of, itself among them."""
    found, left = set(), [name]
    while left:
        if (one := left.pop()) not in found:
            found.add(one)
            left += _REFERRED.findall(str(kinds[one]))
    return found


def _name_in_schema(kinds: dict[str, Any], names: Iterable[str]) -> None:
    """Have what is in these definitions be itself or the name of something shared."""
    kinds["Named"] = {"type": "string", "pattern": r"^\$(\$|\d)", "description": "$7: the eighth of `shared`."}

    def either(one: Any) -> Any:  # noqa: ANN401 - whatever a schema can hold
        if isinstance(one, list):
            return [either(each) for each in one]
        if not isinstance(one, dict):
            return one
        return {
            key: _or_named(either(value)) if key in ("items", "additionalProperties") and value else either(value)
            for key, value in one.items()
        }

    for name in names:
        for key, value in kinds[name].get("properties", {}).items():
            kinds[name]["properties"][key] = _or_named(either(value)) if "const" not in value else value


def _or_named(value: Any) -> Any:  # noqa: ANN401
    return {"anyOf": [value, {"$ref": "#/$defs/Named"}]} if isinstance(value, dict) else value


def reports_of(found: Found) -> list[Report]:
    """Return the reports that results are made of: one, or a kernel's each."""
    return [found] if isinstance(found, Report) else [one.report for one in found.columns if one.report is not None]


def without_packets(found: Found) -> Found:
    """Return results whose packets are left out, but for those of trials that were not as expected."""
    return _each(found, _lean)


def _each(found: Found, change: Callable[[Report], Report]) -> Found:
    if isinstance(found, Report):
        return change(found)
    columns = (replace(one, report=one.report and change(one.report)) for one in found.columns)
    return replace(found, columns=tuple(columns))


def _lean(report: Report) -> Report:
    return replace(report, tallies=tuple(map(_lean_tally, report.tallies)))


def _lean_tally(tally: Tally) -> Tally:
    sample = tally.sample
    if sample is None or not sample.as_expected or tally.failure:
        return tally
    return replace(tally, sample=replace(sample, timeline=_lean_timeline(sample)))


def _lean_timeline(result: Result) -> Timeline:
    timeline = result.timeline
    if not timeline.sightings:
        return timeline  # of many downloads, what was judged is all that there is
    injected = timeline.injected if isinstance(timeline, PacketTimeline) else None
    judged = [one for one in timeline.judged if injected and one.packet.likeness == injected.packet.likeness]
    left_out = len(timeline.sightings)
    return replace(timeline, sightings=(), judged=tuple(judged), entry_events=(), left_out=left_out)


def _told(tally: Tally, adapter: TypeAdapter[Tally], shared: Shared) -> Callable[[Shared], bytes]:
    """Take a trial, and return what tells it as JSON once all are taken."""
    from json import dumps

    data = adapter.dump_python(tally, mode="json", exclude={"sample": {"timeline"}})
    sample = data.pop("sample")
    if tally.sample is None:
        return lambda _shared: dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    lean = adapter.dump_python(tally, mode="json", include={"sample": {"timeline"}}, exclude_defaults=True)
    timeline = shared.take(lean["sample"]["timeline"] | {"kind": tally.sample.timeline.kind})
    if tally.sample.trial == tally.trial:
        del sample["trial"]
    head = dumps(data | {"sample": sample}, ensure_ascii=False, separators=(",", ":"))[:-2]
    return lambda shared: f'{head},"timeline":{shared.text(timeline)}}}}}'.encode()


def _object(one: Found | Column, tallies: Iterator[bytes], *more: bytes) -> Iterator[bytes]:
    """Yield an object of JSON whose lists of kernels and trials have a line for each.

    :param tallies: those of all its reports, in order.
    :param more: its first members, as JSON.
    """
    from pydantic import TypeAdapter

    yield b"{%s" % b"".join(b"%s," % member for member in more)
    types = get_type_hints(type(one), include_extras=True)
    for number, field in enumerate(fields(one)):
        value = getattr(one, field.name)
        yield b'%s"%s":' % (b"," if number else b"", field.name.encode())
        if field.name == "tallies":
            yield from _lines((next(tallies),) for _each in value)
        elif field.name == "columns":
            yield from _lines(_object(column, tallies) for column in value)
        elif field.name == "report" and value is not None:
            yield from _object(value, tallies)
        else:
            yield TypeAdapter(types[field.name]).dump_json(value)
    yield b"}"


def _lines(members: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    yield b"["
    for number, member in enumerate(members):
        yield b",\n" if number else b"\n"
        yield from member
    yield b"\n]"


def _name_all(data: Any) -> None:  # noqa: ANN401 - whatever was read
    """Put what is named by a number where it is named, and what stands once where it is left out.

    :raises ValueError: nothing has that number.
    """
    table = data.pop("shared", None)
    if not isinstance(table, list):
        raise ValueError("shared: it is not there, and timelines speak of it")
    named = Named(table)
    columns = data.get("columns")
    reports = [data] if columns is None else [one.get("report") for one in _objects(columns)]
    for tally in (tally for report in _objects(reports) for tally in _objects(report.get("tallies"))):
        for sample in _objects([tally.get("sample")]):
            sample.setdefault("trial", tally.get("trial"))
            sample["timeline"] = named.whole(sample.get("timeline"))


def _objects(values: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - whatever was read
    """Yield the objects of a list; what is none is found out later."""
    return (one for one in values if isinstance(one, dict)) if isinstance(values, list) else iter(())


def refusal(error: ValidationError) -> str:
    """Return where what was read does not fit, and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place[:200]}: {first['msg']}"


def harmless(data: dict[str, Any], text: str) -> dict[str, Any]:
    """Return what was read without the characters that a terminal obeys.

    :param text: that it was read of.
    :raises ValueError: a number is larger than any that a lab writes.
    """
    return {key: _harmless(one) for key, one in data.items()} if _SUSPECT.search(text) else data


def _harmless(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return what was read without the characters that a terminal obeys.

    :raises ValueError: a number is larger than any that a lab writes.
    """
    if isinstance(value, dict):
        return {_harmless(key): _harmless(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_harmless(one) for one in value]
    if isinstance(value, str):
        return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, int) and not -_MOST < value < _MOST:
        raise ValueError("a number is larger than any that a lab writes")
    return value


def _check(found: Found) -> None:
    """Refuse what fits the form and comes from no trial.

    :raises ValueError: says what.
    """
    for tally in (tally for report in reports_of(found) for tally in report.tallies):
        _check_trial(tally.trial)
        if tally.sample is not None:
            _check_trial(tally.sample.trial)
            _check_timeline(tally.sample.timeline)


def _check_trial(trial: Trial) -> None:
    try:
        find_release(trial.proxy_version)
    except InputError as error:
        if not trial.given:
            raise ValueError(str(error)) from None


def _check_timeline(timeline: Timeline) -> None:
    for judged in timeline.judged:
        if judged.state.upper() not in _STATES:
            raise ValueError(f"conntrack makes nothing {judged.state!r:.40} of a packet")
    for tcp in (sighting.packet.tcp for sighting in timeline.sightings):
        if tcp is not None and not 0 <= (tcp.window_scale or 0) <= 255:
            raise ValueError(f"a window scale of {tcp.window_scale} fits into no packet")
