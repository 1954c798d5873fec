"""The walls of the house, read in its imports and its lines: who may ask whom, and how long anything may be."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parents[1]
LAB = HERE / "lab"

#: From the ground up. A room imports from the floors below its own: not from above, and not from its own floor.
FLOORS = (
    "vocabulary errors tones",
    "kubernetes",
    "kubeproxy",
    "topology",
    "rules",
    "node",
    "evidence",
    "verdict reasons",
    "results capture",
    "report observed",
    "netns",
    "wire conntrack traffic kubeapi",
    "fabric",
    "scenario",
    "fixes",
    "cases",
    "trial",
    "standing kernels",
    "doctor watch",
    "cli plugin",
    "__main__",
)
LEVEL = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}

#: Plain data in, plain data or text out.
PURE = {room for room, floor in LEVEL.items() if floor <= LEVEL["report"]}

#: The pure rooms' only door to a kernel: a scratch namespace in which rules are loaded to see what comes of them.
DOORS = {
    ("lab.rules.scratch", "lab.netns"),
    ("lab.rules.scratch", "lab.netns.nfacct"),
    ("lab.rules.scratch", "lab.netns.userns"),
}

#: What only a kernel's rooms have a use for.
OF_KERNELS = {"asyncio", "ctypes", "nftables", "pyroute2", "scapy", "select", "subprocess"}

LONGEST_FILE, LONGEST_CLASS, LONGEST_FUNCTION = 399, 250, 50

#: What is longer, and how long it is today. Nothing is added, and what has become shorter is written down so.
TOO_LONG: dict[str, int] = {}


class Import(NamedTuple):
    """A module asks another.

    :param typing: for the type checker alone.
    """

    module: str
    asked: str
    line: int
    typing: bool


def name_of(file: Path) -> str:
    parts = file.relative_to(HERE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    return {name_of(file): ast.parse(file.read_text()) for file in sorted(LAB.rglob("*.py"))}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "lab"


@cache
def imports() -> tuple[Import, ...]:
    """Return every import, also those inside of functions, by the module whose text is wanted."""
    found = []
    for module, tree in modules().items():
        typing = set(_for_the_checker(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno}: a relative import"
                of = node.module or ""
                names = {f"{of}.{one.name}" if f"{of}.{one.name}" in modules() else of for one in node.names}
            elif isinstance(node, ast.Import):
                names = {one.name for one in node.names}
            else:
                continue
            found += [Import(module, name, node.lineno, node in typing) for name in sorted(names)]
    assert len(found) > 1000  # they were read
    return tuple(found)


def _for_the_checker(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                yield from ast.walk(statement)


def own_imports() -> Iterator[Import]:
    return (one for one in imports() if one.asked.split(".")[0] == "lab")


def test_every_room_has_its_floor():
    assert {room(module) for module in modules()} - {"lab"} == set(LEVEL)


def test_at_the_top_is_only_what_every_room_may_know():
    loose = {path.name for path in LAB.iterdir() if path.is_file() and path.suffix == ".py"}
    assert loose == {"__init__.py", "__main__.py", "errors.py", "fixes.py", "tones.py", "vocabulary.py"}


def test_nothing_is_imported_from_above_or_beside():
    wrong = [
        f"{one.module}:{one.line} asks {one.asked}"
        for one in own_imports()
        if room(one.module) != room(one.asked)
        and "lab" not in (room(one.module), room(one.asked))
        and LEVEL[room(one.asked)] >= LEVEL[room(one.module)]
        and (one.module, one.asked) not in DOORS
    ]
    assert not wrong


def test_no_door_is_open_for_nothing():
    assert {(one.module, one.asked) for one in own_imports()} >= DOORS


def test_pure_rooms_know_no_library_of_kernels():
    wrong = [
        f"{one.module}:{one.line} asks {one.asked}"
        for one in imports()
        if room(one.module) in PURE and one.asked.split(".")[0] in OF_KERNELS and not one.typing
    ]
    assert not wrong


def test_modules_do_not_ask_each_other_in_a_circle():
    """Not by way of others either, nor late, inside of a function: what is for the type checker alone is none."""
    asked: dict[str, set[str]] = {}
    for one in own_imports():
        if not one.typing and one.module != one.asked:
            asked.setdefault(one.module, set()).add(one.asked)
    try:
        TopologicalSorter(asked).prepare()
    except CycleError as error:
        pytest.fail(" asks ".join(reversed(error.args[1])))


def lengths() -> Iterator[tuple[str, int, int]]:
    """Return every file, class and function, its length in lines, and how long it may be."""
    for module, tree in modules().items():
        file = LAB.parent / Path(*module.split("."))
        text = (file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text()
        yield module, len(text.splitlines()), LONGEST_FILE
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield f"{module}.{node.name}", _lines(node.body, node), LONGEST_CLASS
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # A command's signature is the table of its options: what counts is what is done.
                body = node.body[1:] if ast.get_docstring(node) else node.body
                yield f"{module}.{node.name}", _lines(body, node), LONGEST_FUNCTION


def _lines(body: list[ast.stmt], node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.lineno if isinstance(node, ast.ClassDef) or not body else body[0].lineno
    return (node.end_lineno or 0) - first + 1


def test_nothing_is_longer_than_can_be_read():
    found: dict[str, int] = {}
    for name, length, most in lengths():
        if length > most:
            found[name] = max(length, found.get(name, 0))
    assert {name: length for name, length in found.items() if length > TOO_LONG.get(name, 0)} == {}
    assert set(TOO_LONG) <= set(found), "not too long any more: take it off the list"


def test_every_file_names_its_licence() -> None:
    line = "# SPDX-License-Identifier: MIT\n"
    assert not [str(file) for file in sorted(LAB.rglob("*.py")) if not file.read_text().startswith(line)]
    others = (*LAB.rglob("*.sh"), HERE / ".ci" / "run", HERE / "bootstrap", HERE / "vagrant" / "Vagrantfile")
    assert len(others) > 4
    assert not [str(file) for file in others if line not in file.read_text().splitlines(keepends=True)[:2]]
