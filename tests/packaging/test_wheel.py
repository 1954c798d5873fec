"""What `pip install kube-proxy-lab` brings along."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TOPOLOGIES = sorted(path.name for path in (CHECKOUT / "topologies").glob("*.yaml"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with a wheel and a source distribution, made by the build backend in the environment."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install --group dev")
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture
def wheel(built: Path) -> Iterator[zipfile.ZipFile]:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        yield wheel


def test_wheel_is_the_package_and_the_topologies(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"lab"}
    assert TOPOLOGIES
    assert {f"lab/topologies/{name}" for name in TOPOLOGIES} <= names
    assert "lab/py.typed" in names
    sources = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "lab").rglob("*.py")}
    assert sources == {name for name in names if name.endswith(".py")}


def test_wheel_brings_the_command_and_the_plugin(wheel: zipfile.ZipFile) -> None:
    points = ConfigParser()
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    points.read_string(wheel.read(path).decode())
    assert dict(points["console_scripts"]) == {"lab": "lab.__main__:main"}
    assert dict(points["pytest11"]) == {"lab": "lab.plugin.hooks"}


def test_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    said = Parser().parsestr(wheel.read(path).decode())
    assert (said["License-Expression"], said["License-File"]) == ("MIT", "LICENSE")
    assert path.replace("METADATA", "licenses/LICENSE") in wheel.namelist()
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert len(said.get_all("Project-URL", [])) > 1


def test_source_distribution_can_be_built_and_tested_from(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "bootstrap",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "lab/py.typed",
        "tests/packaging/test_wheel.py",
    }
    assert wanted <= names
    assert {f"topologies/{name}" for name in TOPOLOGIES} <= names
    assert not {name for name in names if name.startswith((".venv", ".git/"))}
