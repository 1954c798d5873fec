"""What the tests are run with: the project's own plugin, and pytest's for testing plugins."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

NETWORK = "/proc/thread-self/ns/net"
pytest_plugins = ["pytester"]
if not entry_points(group="pytest11", name="lab"):  # a checkout that nobody installed
    pytest_plugins.append("lab.pytest_plugin")


@pytest.fixture(autouse=True, scope="session")
def memory_of_its_own(tmp_path_factory):
    """What `lab run` keeps for `lab show` stays the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def stays_where_it_is():
    """A test that leaves root's pytest in another namespace would have every later one run there."""
    before = os.stat(NETWORK).st_ino
    yield
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"] or os.geteuid():
        assert os.stat(NETWORK).st_ino == before
