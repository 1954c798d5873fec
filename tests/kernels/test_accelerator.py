"""KVM where a guest boots on it: a program in QEMU's place boots one, or does not."""

import asyncio
import os

import pytest

from lab.kernels import Image, accelerator

pytestmark = pytest.mark.lab_needs_tool("setpriv")


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Chooses where /dev/kvm opens and a guest on it says so; returns the choice and how often that was tried."""
    (tmp_path / "images").mkdir()
    image = Image(*(tmp_path / "images" / name for name in Image.__annotations__))
    program = tmp_path / "qemu-system-x86_64"
    access = os.access
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def choose(says, *, opens=True):
        program.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/tries\n{says}\n')
        program.chmod(0o755)
        monkeypatch.setattr(os, "access", lambda path, mode: opens if path == "/dev/kvm" else access(path, mode))
        chosen = asyncio.run(accelerator.choose(image))
        tries = (tmp_path / "tries").read_text().splitlines() if (tmp_path / "tries").exists() else []
        assert all("-accel kvm" in words for words in tries)
        return chosen, len(tries)

    return choose


BOOTS = "echo 'lab: guest: there is no disk root'; exec sleep 1000"


def test_a_guest_that_boots_is_enough_until_the_machine_is_booted_anew(tried):
    assert tried(BOOTS) == ("kvm", 1)
    assert tried(BOOTS) == ("kvm", 1)


@pytest.mark.parametrize("says", ["echo 'Could not access KVM kernel module' >&2; exit 1", "echo 'KVM internal error'"])
def test_a_machine_on_which_none_boots_emulates(tried, says):
    assert tried(says) == ("tcg", 1)
    assert tried(BOOTS) == ("tcg", 1)


def test_a_device_that_does_not_open_is_not_tried(tried):
    assert tried(BOOTS, opens=False) == ("tcg", 0)
