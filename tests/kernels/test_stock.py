"""`lab kernels list`: the newest of each series in the archive, what is in the cache, and the kernel that runs."""

import json
import os

import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.kernels import find

pytestmark = [pytest.mark.lab_needs_tool("apt-get", "dpkg-deb", "depmod", "gpg")]


def kernels_list(*arguments):
    done = CliRunner().invoke(app, ["kernels", "list", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_list(repository, cache):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    find.fetch(["6.1"], cache)
    repository.add("6.1.0-10-cloud-amd64", "6.1.10-1")
    repository.add("7.3.4+deb13-cloud-amd64", "7.3.4-1")
    told = json.loads(kernels_list("--cache", cache.directory, "--json"))
    assert [(one["series"], one["version"], one["cached"]) for one in told["known"]] == [
        ("7.3", "7.3.4", False),
        ("6.1", "6.1.10", False),
        ("6.1", "6.1.9", True),
    ]
    assert told["running"] == os.uname().release
    lines = kernels_list("--cache", cache.directory).splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["7.3", "7.3.4"], ["6.1", "6.1.10"], ["6.1", "6.1.9"]]
    assert [line.endswith("in the cache") for line in lines[:3]] == [False, False, True]
    assert lines[3:] == [f"running: {os.uname().release}", f"cache: {cache.directory}"]


def test_the_cache_is_where_the_option_or_the_environment_says(repository, tmp_path, monkeypatch):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    monkeypatch.setenv("LAB_KERNELS_CACHE", str(tmp_path / "named"))
    for place, options in (("named", ()), ("given", ("--cache", tmp_path / "given"))):
        assert f"cache: {tmp_path / place}" in kernels_list(*options).splitlines()
        done = CliRunner().invoke(app, ["kernels", "fetch", "6.1", *map(str, options)])
        assert done.stdout == "6.1: Linux 6.1.9, 6.1.0-9-cloud-amd64\n"
        assert (tmp_path / place / "kernels/6.1.0-9-cloud-amd64_6.1.9-1/kernel.json").exists()
