"""Real kube-proxy programs to test with: those that LAB_KUBE_PROXY names, with colons between them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

VARIABLE: Final = "LAB_KUBE_PROXY"
PROGRAMS: Final = [path for path in os.environ.get(VARIABLE, "").split(":") if path]

#: A parameter ``program`` for each of them; without one the test is skipped.
each_program = pytest.mark.parametrize(
    "program",
    [pytest.param(path, id=Path(path).name) for path in PROGRAMS]
    or [pytest.param("", marks=pytest.mark.skip(reason=f"needs a real kube-proxy: {VARIABLE}=PATH[:PATH...]"))],
)


def pretended(directory: Path, *, says: str = "Kubernetes v1.33.1", does: str = "exit 1") -> str:
    """Write a program that says it is a kube-proxy, and return its path.

    :param does: what it does when it is asked for something else than its version; a shell script.
    """
    path = directory / "kube-proxy"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{says}"; exit; fi\n{does}\n')
    path.chmod(0o755)
    return str(path)
