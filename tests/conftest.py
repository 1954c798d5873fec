"""What the tests are run with: the project's own plugin, and pytest's for testing plugins."""

from __future__ import annotations

from importlib.metadata import entry_points

pytest_plugins = ["pytester"]
if not entry_points(group="pytest11", name="lab"):  # a checkout that nobody installed
    pytest_plugins.append("lab.pytest_plugin")
