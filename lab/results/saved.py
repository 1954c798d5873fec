# SPDX-License-Identifier: MIT
"""Results in files: written as JSON with a version, read back from every version that there was.

=======  ==============================================================================================================
version  what changed
=======  ==============================================================================================================
(none)   All of it on one line, every packet with it.
2        The version is named. A line a trial. Packets are left out unless they are wanted or a trial was not as
         expected; where they are kept, so are their bytes.
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

if TYPE_CHECKING:
    from pydantic import ValidationError

#: What a file of results holds.
Found: TypeAlias = Report | Matrix

#: The version that is written; all up to it are read.
VERSION: Final = 2

#: What a file may hold, by what its schema is called.
KINDS: Final[dict[str, type[Report] | type[Matrix]]] = {"result": Report, "matrix": Matrix}

# A file may be anybody's: what no lab writes, and what would do something to a terminal or be too large to reckon with.
_SUSPECT: Final = re.compile(r"\\u00[0189][0-9a-fA-F]|\\u007[fF]|\\[bf]|[\x7f-\x9f]|(?<![.\d])\d{20}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NONE: Final = "these are no results of `lab run`, `lab matrix` or `lab reach`"
_MOST: Final = 1 << 64

#: What the nodes' rules tell of conntrack's judgement (xt_conntrack's ctstate), besides ESTABLISHED.
_STATES: Final = {"ESTABLISHED", *(one.upper() for one in Judgement)}


def to_json(found: Found, *, packets: bool = True) -> bytes:
    """Return results as JSON in UTF-8, a line a trial.

    :param packets: whether all packets are in it, with their bytes; otherwise those of trials that were not as
        expected are.
    """
    # Line by line, for a guest has little memory.
    return b"".join((*_object(found if packets else without_packets(found), b'"version":%d' % VERSION), b"\n"))


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
        found: Found = TypeAdapter(kind).validate_python(harmless(data, text))
    except ValidationError as error:
        raise ValueError(refusal(error)) from None
    _check(found)
    return found


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of what is written: of one of :data:`KINDS`."""
    from pydantic import TypeAdapter

    found = TypeAdapter(KINDS[kind]).json_schema(mode="serialization")
    for of_timeline in TIMELINES.values():  # which of them it is can be told by this alone
        found["$defs"][of_timeline.__name__]["properties"]["kind"] = {"const": of_timeline.kind}
    version = {"const": VERSION, "description": "Of the file's form; it changes where a program would notice."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": f"kube-proxy-lab: a {kind}",
        "properties": {"version": version, **found["properties"]},
        "required": ["version", *found["required"]],
    }


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


def _object(one: Found | Column, *more: bytes) -> Iterator[bytes]:
    """Yield an object of JSON whose lists of kernels and trials have a line for each.

    :param more: its first members, as JSON.
    """
    from pydantic import TypeAdapter

    yield b"{%s" % b"".join(b"%s," % member for member in more)
    types = get_type_hints(type(one), include_extras=True)
    for number, field in enumerate(fields(one)):
        value = getattr(one, field.name)
        yield b'%s"%s":' % (b"," if number else b"", field.name.encode())
        if field.name == "tallies":
            tally = TypeAdapter(Tally)
            yield from _lines((tally.dump_json(each),) for each in value)
        elif field.name == "columns":
            yield from _lines(_object(column) for column in value)
        elif field.name == "report" and value is not None:
            yield from _object(value)
        else:
            yield TypeAdapter(types[field.name]).dump_json(value)
    yield b"}"


def _lines(members: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    yield b"["
    for number, member in enumerate(members):
        yield b",\n" if number else b"\n"
        yield from member
    yield b"\n]"


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
