"""The same words from a user's test, by the fixture ``lab_running``."""

from __future__ import annotations

import pytest

from lab.vocabulary import ProxyMode


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.lab_topology("endpoints", proxy_mode=mode)) for mode in ProxyMode]
)
def test_a_test_changes_endpoints_by_the_fixture(lab_running, mode):
    assert "10.0.1.2" in lab_running.ruleset()
    lab_running.endpoints.remove("web", "10.0.1.2")
    assert "10.0.1.2" not in lab_running.ruleset()
    assert next(known.address for known in lab_running.endpoints) == "10.0.2.2"
