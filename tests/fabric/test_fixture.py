"""The same words from a user's test, by the fixture ``lab``."""

from __future__ import annotations

import pytest

from lab.vocabulary import ProxyMode


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.topology("endpoints", proxy_mode=mode)) for mode in ProxyMode]
)
def test_a_test_changes_endpoints_by_the_fixture(lab, mode):
    assert "10.0.1.2" in lab.rules()
    lab.endpoints.remove("web", "10.0.1.2")
    assert "10.0.1.2" not in lab.rules()
    assert next(known.address for known in lab.endpoints) == "10.0.2.2"
