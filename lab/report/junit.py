# SPDX-License-Identifier: MIT
"""A matrix as JUnit XML, which CI systems read: a suite a kernel, a test case a trial."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final
from xml.etree import ElementTree

from lab.report import cells
from lab.report.affected import answers
from lab.report.cells import Cell, Kind
from lab.report.timeline import timeline_text
from lab.results.matrix import Column, Matrix
from lab.results.places import place, tried
from lab.results.result import Trial

# What XML 1.0 cannot hold at all (its production 2, Char), and a console can.
_NO_CHARACTER: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(matrix: Matrix) -> str:
    """Return the document: what is not as expected is a failure, what could not be run an error."""
    root = ElementTree.Element("testsuites", name="lab")
    rows = list(cells.rows(matrix))
    for index, column in enumerate(matrix.columns):
        suite = _suite(column, [(trial, name, row[index]) for trial, name, row in rows])
        for answer in answers(replace(matrix, columns=(column,))):
            _property(suite, "answer", answer.text)
        root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _suite(column: Column, trials: list[tuple[Trial, str, Cell]]) -> ElementTree.Element:
    suite = ElementTree.Element(
        "testsuite", name=column.label if column.program else f"Linux {column.label}", time=f"{column.seconds:.3f}"
    )
    ElementTree.SubElement(suite, "properties")
    _property(suite, "kernel", column.release)
    for family, behaviour in (column.report.behaviours if column.report else {}).items():
        _property(suite, f"behaviour, {family}", behaviour)
    had = [(trial, name, cell) for trial, name, cell in trials if cell.kind is not Kind.NOTHING]
    for words in tried(trial for trial, _name, _cell in had) if column.report else ():
        _property(suite, "judged", words)
    if column.report is None:
        # A suite without a single case would pass: the guest itself is the case that went wrong.
        case = ElementTree.SubElement(suite, "testcase", classname="kernel", name=column.kernel, time="0")
        _problem(case, Kind.ERROR, column.failure, "\n".join(column.console))
    else:
        suite.extend(_case(*one) for one in had)
    for kind, name in ((Kind.FAILURE, "failures"), (Kind.ERROR, "errors"), (Kind.SKIPPED, "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    return suite


def _property(suite: ElementTree.Element, name: str, value: str) -> None:
    properties = suite.find("properties")
    assert properties is not None
    ElementTree.SubElement(properties, "property", name=name, value=_clean(value))


def _case(trial: Trial, name: str, cell: Cell) -> ElementTree.Element:
    time = f"{cell.seconds:.6f}"
    case = ElementTree.Element("testcase", classname=trial.case, name=f"{name} with {trial.fix}", time=time)
    if cell.result is None:
        _problem(case, cell.kind, *cell.complaints)
    elif cell.complaints:
        _problem(case, cell.kind, f"{cell.word}, {cell.judgement}", *cell.complaints)
    if cell.result is not None:
        output = (place(trial), *filter(None, (cell.runs,)), timeline_text(cell.result.timeline))
        ElementTree.SubElement(case, "system-out").text = _clean("\n".join(output))
    return case


def _problem(case: ElementTree.Element, kind: Kind, message: str, *details: str) -> None:
    ElementTree.SubElement(case, kind, message=_clean(message), type=kind).text = _clean("\n".join(details))


def _clean(text: str) -> str:
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)
