"""Systems that are made up for `bootstrap`, complete and bare."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.made_up_system import BORROWED, PROGRAMS_OF_LOAD, PYTHON, System

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A complete system: packages installed, no environment yet, the caller is no root."""
    system = System(tmp_path)
    programs = tmp_path / "usr/bin"
    programs.mkdir(parents=True)
    for name in BORROWED:
        found = shutil.which(name)
        assert found, f"the tests of bootstrap need {name} on PATH"
        (programs / name).symlink_to(found)
    system.program("python3", PYTHON.format(self=programs / "python3", real=sys.executable))
    system.program("id", "#!/bin/sh\necho 1000\n")
    system.program("stat", "#!/bin/sh\necho 1000\n")
    for name in ("iptables-nft-restore", *PROGRAMS_OF_LOAD):
        system.program(name, "#!/bin/sh\n")
    library = tmp_path / "usr/lib/triplet/libnftables.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    system.checkout.mkdir()
    shutil.copy(CHECKOUT / "pyproject.toml", system.checkout)
    # All places that the script names outright move into the made-up root.
    text = (CHECKOUT / "bootstrap").read_text().replace(":/sbin", "")
    moved = re.sub(r"(?<![\w./])/(usr|etc|run)/", rf"{tmp_path}/\1/", text)
    (system.checkout / "bootstrap").write_text(moved)
    (system.checkout / "bootstrap").chmod(0o755)
    return system


@pytest.fixture
def ordinary_user(system: System) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Gives a call of bootstrap by a user who may read the system and write a home and the log alone."""
    # The real Python may lie in root's home: what it would be asked for is no matter here.
    system.program("python3", PYTHON.format(self=system.root / "usr/bin/python3", real="true"))
    (system.root / "home").mkdir()
    system.log.touch()
    drop: list[str] = []
    if os.geteuid() == 0:
        # An earlier test may have made this process root of a user namespace, which knows no other user.
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            pytest.skip("in a user namespace there is no other user: run it by itself, or with sudo")
        drop = [shutil.which("setpriv") or "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(system.root / "home", 65534, 65534)
        system.log.chmod(0o666)
        for directory in (
            system.root,
            *system.root.parents[:-2],
        ):  # pytest keeps its directories for their owner
            directory.chmod(directory.stat().st_mode | 0o111)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        system.log.write_text("")
        command = [*drop, *system.command(*arguments)]
        return subprocess.run(command, env=system.variables(), capture_output=True, text=True, check=False)

    return call
