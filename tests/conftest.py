"""What the tests are run with: the project's own plugin, and pytest's for testing plugins."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]
if not entry_points(group="pytest11", name="lab"):  # a checkout that nobody installed
    pytest_plugins.append("lab.pytest_plugin")


@pytest.fixture(autouse=True, scope="session")
def memory_of_its_own(tmp_path_factory):
    """What `lab run` keeps for `lab show` stays the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
