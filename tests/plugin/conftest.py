"""Somebody else's project, where this distribution is installed: every run is a pytest of its own, as a user's is."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support.command import run_pytest
from tests.support.standing import own_run

__all__ = ["own_run", "project", "start"]

CHECKOUT = Path(__file__).resolve().parents[2]


class Project:
    """A project of somebody's; what is not here is pytester's.

    :cvar ORDINARY: makes the caller an ordinary user without any right, whose files are still his own.
    :cvar FORBIDDEN: a user namespace in which no further one may be made, and nobody has any right.
    :cvar STAYS: a file of tests that has to stay in the network that it was started in.
    """

    ORDINARY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    FORBIDDEN = (
        *("unshare", "--user", "--map-root-user", "sh", "-c"),
        *('echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"', "sh"),
    )
    STAYS = """
    import os
    HOME = os.readlink("/proc/self/ns/net")
    def test_stays_in_the_network():
        assert os.readlink("/proc/self/ns/net") == HOME
"""

    def __init__(self, pytester):
        self._pytester = pytester

    def __getattr__(self, name):
        return getattr(self._pytester, name)

    @staticmethod
    def command(*arguments, start=()):
        """Give the command of a run in which every warning is an error."""
        return (*start, sys.executable, "-mpytest", "-pno:cacheprovider", "-Werror", *arguments)

    def run_pytest(self, *arguments, start=(), **more):
        if start or more:
            return self.run(*self.command(*arguments, start=start), **more)
        return run_pytest(self.path, "-Werror", *arguments)


@pytest.fixture
def project(pytester, monkeypatch):
    """A project of somebody's, in an environment where this distribution is installed."""
    if not entry_points(group="pytest11", name="lab"):
        pytester.mkdir("kube_proxy_lab-0.dist-info")
        for name, text in (
            ("METADATA", "Metadata-Version: 2.1\nName: kube-proxy-lab\nVersion: 0\n"),
            ("entry_points.txt", "[pytest11]\nlab = lab.plugin.hooks\n"),
        ):
            (pytester.path / "kube_proxy_lab-0.dist-info" / name).write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
        pytester.syspathinsert()
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(pytester.path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)


@pytest.fixture(params=[(), Project.ORDINARY], ids=["privileged", "ordinary"])
def start(request):
    """How pytest is started: as it is, and by an ordinary user."""
    return request.param
