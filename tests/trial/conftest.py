"""What real kube-proxies wrote, for the tests of nodes whose rules are given."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def dump(dumps) -> Callable[[str], str]:
    """The text of a release's file."""
    return lambda file: dumps.text(file.removesuffix(".txt"))
