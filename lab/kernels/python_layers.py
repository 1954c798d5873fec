# SPDX-License-Identifier: MIT
"""What the guests' Python runs: the lab's dependencies, and the project that commands are run from."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata, util
from pathlib import Path
from typing import Final

from lab.errors import InputError, MissingError
from lab.kernels.cache import Cache, say
from lab.kernels.distribution import compile_all, run_python
from lab.kernels.layer import digest_of, squash

_HERE: Final = Path(__file__).parent
_DISTRIBUTION: Final = "kube-proxy-lab"

#: What the lab's own tests import beyond the lab's dependencies (pyproject.toml, dependency group `dev`).
TEST_REQUIREMENTS: Final = ("hypothesis>=6", "jsonschema>=4", "pytest-xdist>=3", "xmlschema>=3")

_NO_PART_OF_A_PROJECT: Final = {"__pycache__", "node_modules", ".git", ".hypothesis", ".vagrant"}
_LARGEST_PROJECT: Final = 256 << 20  # bytes
_FORGOTTEN_AFTER: Final = 24 * 3600.0


def requirements() -> list[str]:
    """List what the guest's Python needs to run the lab and its tests."""
    try:
        own = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise MissingError("the lab is not installed, so its dependencies are not known", "pip install .") from None
    return sorted({*(line for line in own if ";" not in line), *TEST_REQUIREMENTS})


def dependencies_layer(interpreter: Path, cache: Cache) -> Path:
    """Return the Python packages of the lab and its tests."""
    wanted = requirements()

    def make(path: Path) -> None:
        say("fetching the guests' Python packages (once)")
        pip = util.find_spec("pip")
        if pip is None or pip.origin is None:
            raise MissingError("pip is not installed beside the lab", f"{sys.executable} -m ensurepip")
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            tree = Path(directory)
            # By the guest's own Python, so that versions, markers and wheels are the guest's and not the machine's.
            run_python(
                interpreter,
                [Path(pip.origin).parent, "install", "--quiet", "--only-binary=:all:", "--no-compile", "--target",
                 tree, *wanted],
                "fetch the guests' Python packages",
            )  # fmt: skip
            shutil.rmtree(tree / "bin", ignore_errors=True)
            compile_all(interpreter, tree, "/mnt/dependencies")
            squash(tree, path)

    return cache.make(f"images/dependencies-{digest_of(interpreter.name, *wanted)}.squashfs", make)


def project_layer(project: Path | None, interpreter: Path, cache: Cache) -> Path:
    """Return a project's tree and the lab.

    :raises InputError: the tree is too large.
    """
    package = _HERE.parent
    checkout = package.parent if (package.parent / "pyproject.toml").exists() else None
    tree = project or checkout
    if tree is not None:
        tree = tree.resolve()
    trees = {"project": tree} if tree else {}
    if tree is None or tree != checkout:
        trees["site/lab"] = package
        if checkout is not None:
            trees["site/topologies"] = checkout / "topologies"
    files = {
        f"{place}/{path.relative_to(top)}": path for place, top in trees.items() for path in _small(top, _files(top))
    }
    identity = digest_of(
        interpreter.name,
        *(part for place, path in files.items() for part in (place, str(path.stat().st_mode), path.read_bytes())),
    )

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            _lay_out(Path(directory), files, own="site" if "site/lab" in trees else "project")
            compile_all(interpreter, Path(directory), "/mnt/lab")
            squash(Path(directory), path, level=3)

    made = cache.make(f"images/project-{identity}.squashfs", make)
    os.utime(made)
    for other in made.parent.glob("project-*.squashfs"):
        with suppress(OSError):  # another process may be doing the same
            if other.stat().st_mtime < time.time() - _FORGOTTEN_AFTER:
                other.unlink()
    return made


def _small(top: Path, files: Iterable[Path]) -> Iterator[Path]:
    """Pass files on for as long as they fit: without a pyproject.toml pytest may take /tmp for a project."""
    size = 0
    for path in files:
        size += path.stat().st_size
        if size > _LARGEST_PROJECT:
            raise InputError(
                f"more than {_LARGEST_PROJECT >> 20} MiB, which is too much to be copied into a guest",
                source=top,
                cure="a pyproject.toml or pytest.ini nearer to the tests makes a smaller project",
            )
        yield path


def _files(top: Path) -> Iterator[Path]:
    """List a tree's files; without what tools have put there, and without environments."""
    for directory, directories, names in os.walk(top):
        directories[:] = sorted(
            name
            for name in directories
            if name not in _NO_PART_OF_A_PROJECT
            and not name.endswith(("_cache", ".egg-info"))
            and not (Path(directory) / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = Path(directory) / name
            if path.is_file() and name != ".git":  # which is a file in a work tree
                yield path


def _lay_out(tree: Path, files: dict[str, Path], *, own: str) -> None:
    tree.chmod(0o755)
    for place, path in files.items():
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tree / "project").mkdir(exist_ok=True)
    distribution = metadata.distribution(_DISTRIBUTION)
    described = tree / "site" / f"kube_proxy_lab-{distribution.version}.dist-info"
    described.mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        (described / name).write_text(distribution.read_text(name) or "", encoding="utf-8")
    (tree / "environment").write_text(
        f"export PYTHONPATH={':'.join(dict.fromkeys((f'/mnt/lab/{own}', '/mnt/lab/site', '/mnt/dependencies')))}\n"
    )
    (tree / "bin").mkdir()
    for name, module in (("lab", "lab"), ("pytest", "pytest")):
        (tree / "bin" / name).write_text(f'#!/bin/sh\nexec python3 -m {module} "$@"\n')
        (tree / "bin" / name).chmod(0o755)
