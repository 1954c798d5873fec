"""`bootstrap install`: a `lab` on PATH that calls the checkout, and `bootstrap uninstall`, on a made-up system."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.made_up_system import System

# What the environment's lab is told, and where.
LAB = '#!/bin/sh\nprintf "<%s>" "$@" "$PWD" "${_LAB_COMPLETE-}"\n'


def given_a_lab(system: System) -> None:
    """Make the environment, with a command in it that says what it was given."""
    system.run("true")
    lab = system.checkout / ".venv/bin/lab"
    lab.write_text(LAB)
    lab.chmod(0o755)


@pytest.fixture
def as_root(system: System) -> System:
    """A system whose caller is root."""
    system.program("id", "#!/bin/sh\necho 0\n")
    system.program("stat", "#!/bin/sh\necho 0\n")
    (system.root / "usr/local/bin").mkdir(parents=True)
    system.environ["PATH"] = f"{system.root}/usr/local/bin:{system.root}/usr/bin"
    given_a_lab(system)
    return system


def call(launcher: Path, system: System, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**system.variables(), **environ}
    return subprocess.run(
        [launcher, *arguments], env=environment, cwd="/proc", capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["a checkout", "it's $HOME's"])
def test_it_calls_the_checkout_from_anywhere(as_root: System, name: str) -> None:
    """With the caller's arguments, directory and variables, such as those of a shell that completes."""
    moved = as_root.root / name
    as_root.checkout.rename(moved)
    (moved / ".venv/stamp").write_text("stale\n")
    done = as_root.run("install", checkout=moved)
    launcher = as_root.root / "usr/local/bin/lab"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"bootstrap: {launcher} calls {moved}/bootstrap lab")
    (moved / ".venv/bin/lab").write_text(LAB)
    (moved / ".venv/bin/lab").chmod(0o755)
    done = call(launcher, as_root, "two words", "", _LAB_COMPLETE="complete_bash")
    assert (done.stdout, done.stderr) == ("<two words><></proc><complete_bash>", "")


def test_it_never_comes_back_to_itself(as_root: System) -> None:
    as_root.run("install")
    (as_root.checkout / ".venv/bin/lab").unlink()
    done = call(as_root.root / "usr/local/bin/lab", as_root)
    assert done.returncode == 2
    assert f"there is no {as_root.checkout}/.venv/bin/lab: remove" in done.stderr


def test_it_says_where_the_checkout_is_gone(as_root: System) -> None:
    as_root.run("install")
    as_root.checkout.rename(as_root.root / "elsewhere")
    done = call(as_root.root / "usr/local/bin/lab", as_root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lab: {as_root.checkout}/bootstrap is gone, or not for you to read: ")


def test_another_user_is_served_by_roots_checkout(
    system: System, ordinary_user: Callable[..., subprocess.CompletedProcess[str]], as_root: System
) -> None:
    as_root.run("install")
    system.program("id", "#!/bin/sh\necho 1000\n")
    done = ordinary_user("sh", "-c", f"cd / && exec {system.root}/usr/local/bin/lab run")
    assert (done.stdout, done.stderr) == ("<run></><>", "")


def test_an_ordinary_user_has_his_own_and_is_told_what_it_is_worth(system: System) -> None:
    given_a_lab(system)
    bin_ = system.root / "home/.local/bin"
    done = system.run("install")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"bootstrap: {bin_}/lab calls {system.checkout}/bootstrap lab",
        f"bootstrap: `sudo lab` does not look there: for that, sudo {system.checkout}/bootstrap install",
        f"bootstrap: but {bin_} is not on PATH here: add it (sudo's own is secure_path in sudoers(5))",
    ]
    assert call(bin_ / "lab", system, "run").stdout == "<run></proc><>"
    system.environ["PATH"] = f"{system.root}/usr/bin:{bin_}"
    assert len(system.run("install").stderr.splitlines()) == 2
    other = system.program("lab", "#!/bin/sh\n")
    assert system.run("install").stderr.splitlines()[-1] == f"bootstrap: but on PATH another comes first: {other}"


@pytest.mark.parametrize("kind", ["a file", "a link to nothing"])
def test_what_is_not_ours_stays(as_root: System, kind: str) -> None:
    foreign = as_root.root / "usr/local/bin/lab"
    if kind == "a file":
        foreign.write_text("#!/bin/sh\necho another lab\n")
    else:
        foreign.symlink_to("/opt/pipx/venvs/kube-proxy-lab/bin/lab")
    before = foreign.lstat()
    for word in ("install", "uninstall"):
        done = as_root.run(word)
        assert done.returncode == 2
        assert f"bootstrap: {foreign} is something else, and stays" in done.stderr
    assert foreign.lstat().st_ino == before.st_ino
    assert [path.name for path in foreign.parent.iterdir()] == ["lab"]


def test_uninstall_takes_away_what_install_put_there(as_root: System) -> None:
    launcher = as_root.root / "usr/local/bin/lab"
    as_root.run("install")
    other = as_root.root / "another"
    shutil.copytree(as_root.checkout, other, symlinks=True)
    refused = as_root.run("uninstall", checkout=other)
    assert refused.returncode == 2
    assert f"{launcher} calls another checkout: {as_root.checkout}/bootstrap uninstall" in refused.stderr
    assert as_root.run("uninstall").returncode == 0
    assert not launcher.exists()
    assert as_root.run("uninstall").stderr == f"bootstrap: there is no {launcher}\n"
    as_root.run("install")
    assert f"and no longer {as_root.checkout}/bootstrap" in as_root.run("install", checkout=other).stderr
    shutil.rmtree(other)  # whoever made it is gone, so anybody may
    assert as_root.run("uninstall").returncode == 0
    assert not launcher.exists()


def test_arguments_are_refused(system: System) -> None:
    done = system.run("install", "somewhere")
    assert (done.returncode, done.stderr) == (2, "bootstrap: install takes no arguments\n")
    assert system.asked() == []
