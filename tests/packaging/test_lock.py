"""The lock file is of the dependencies that pyproject.toml has now, and pip can hold to it."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = (CHECKOUT / "requirements.txt").read_text()
DIRECT = [
    Requirement(line)
    for line in tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
]  # fmt: skip
MADE_BY = LOCK.splitlines()[1].removeprefix("#").strip()


def entries():
    """Return each pinned requirement with the lines that belong to it: its hashes, and who asked for it."""
    for entry in re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]:
        line, *rest = entry.splitlines()
        yield Requirement(line.rstrip(" \\")), rest


def test_it_is_not_stale():
    """.ci/release compares it with what uv makes of pyproject.toml; this needs no network."""
    pinned = {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one, _rest in entries()}
    ours = {
        canonicalize_name(one.name)
        for one, rest in entries()
        if any(line.strip("# ").removeprefix("via ") == "kube-proxy-lab (pyproject.toml)" for line in rest)
    }
    assert ours == {canonicalize_name(one.name) for one in DIRECT}, MADE_BY
    assert all(one.specifier.contains(pinned[canonicalize_name(one.name)]) for one in DIRECT), MADE_BY


def test_every_file_has_its_hash():
    for requirement, rest in entries():
        assert [one.operator for one in requirement.specifier] == ["=="], requirement
        assert any(re.match(r" +--hash=sha256:[0-9a-f]{64}", line) for line in rest), requirement


def test_what_makes_it_is_what_the_release_compares_it_with():
    command, _, _output = MADE_BY.partition(" -o ")
    assert command.startswith("uv pip compile ")
    release = (CHECKOUT / ".ci/release").read_text()
    assert command.replace("compile", "compile --quiet") in release
    assert MADE_BY in (CHECKOUT / "docs/install.md").read_text()
