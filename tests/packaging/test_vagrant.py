"""Vagrant itself reads the Vagrantfile, each provider's block by that provider's own rules."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

VAGRANTFILE = Path(__file__).resolve().parents[2] / "vagrant/Vagrantfile"


def validate(tmp_path: Path, provider: str, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("vagrant") is None:
        pytest.skip("Vagrant is not installed: apt-get install --no-install-recommends vagrant vagrant-libvirt")
    # Vagrant loads VirtualBox's rules where this program tells a version it knows; validating asks no more.
    (tmp_path / "VBoxManage").write_text("#!/bin/sh\necho 7.0.20r163906\n")
    (tmp_path / "VBoxManage").chmod(0o755)
    (tmp_path / "Vagrantfile").write_text(text)
    return subprocess.run(
        ["vagrant", "validate"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_DEFAULT_PROVIDER": provider,
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_provider_accepts_its_block(tmp_path: Path, provider: str) -> None:
    done = validate(tmp_path, provider, VAGRANTFILE.read_text(), LAB_BOX="some/box", LAB_MEMORY="4096", LAB_CPUS="4")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_provider_rejects_a_key_it_does_not_know(tmp_path: Path, provider: str) -> None:
    """Else the test above would say nothing."""
    good = VAGRANTFILE.read_text()
    wrong = good.replace(f"{provider}.cpus", f"{provider}.cpuz")
    assert wrong != good
    done = validate(tmp_path, provider, wrong)
    assert done.returncode == 1
    assert "cpuz" in done.stdout + done.stderr
