"""A matrix as JUnit XML, which CI systems read: a suite a kernel, a test case a trial."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from lab.matrix import Column, Matrix
from lab.report import cells
from lab.report.cells import Cell, Kind
from lab.report.terminal import timeline_text
from lab.result import Trial

# What XML 1.0 cannot hold at all (its production 2, Char), and a console can.
_NO_CHARACTER: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(matrix: Matrix) -> str:
    """Return the document: what is not as expected is a failure, what could not be run an error."""
    root = ElementTree.Element("testsuites", name="lab")
    rows = list(cells.rows(matrix))
    for index, column in enumerate(matrix.columns):
        root.append(_suite(column, [(trial, row[index]) for trial, row in rows]))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _suite(column: Column, trials: list[tuple[Trial, Cell]]) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=f"Linux {column.label}", time=f"{column.seconds:.3f}")
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="kernel", value=column.release)
    for family, behaviour in (column.report.behaviours if column.report else {}).items():
        ElementTree.SubElement(properties, "property", name=f"behaviour, {family}", value=behaviour)
    if column.report is None:
        # A suite without a single case would pass: the guest itself is the case that went wrong.
        case = ElementTree.SubElement(suite, "testcase", classname="kernel", name=column.kernel, time="0")
        _problem(case, Kind.ERROR, column.failure, "\n".join(column.console))
    else:
        suite.extend(_case(trial, cell) for trial, cell in trials if cell.kind is not Kind.NOTHING)
    for kind, name in ((Kind.FAILURE, "failures"), (Kind.ERROR, "errors"), (Kind.SKIPPED, "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    return suite


def _case(trial: Trial, cell: Cell) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=trial.case, name=f"{trial.case} with {trial.fix}", time="0")
    if cell.result is None:
        _problem(case, cell.kind, *cell.complaints)
    elif cell.complaints:
        _problem(case, cell.kind, f"{cell.word}, {cell.judgement}", *cell.complaints)
    if cell.result is not None:
        ElementTree.SubElement(case, "system-out").text = _clean(timeline_text(cell.result.timeline))
    return case


def _problem(case: ElementTree.Element, kind: Kind, message: str, *details: str) -> None:
    ElementTree.SubElement(case, kind, message=_clean(message), type=kind).text = _clean("\n".join(details))


def _clean(text: str) -> str:
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)
