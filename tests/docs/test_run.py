"""docs/run.md: what a run leaves behind, and completion in the shells."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.support.command import lab, python


@pytest.mark.lab_kernel
@pytest.mark.parametrize("state", ["state", None])
def test_a_run_leaves_its_last_results_and_nothing_else(tmp_path, state):
    """ "... keeps what came of each case in ..., and nothing else anywhere": anywhere where a program keeps things."""
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp", "XDG_RUNTIME_DIR": tmp_path / "run"}
    for place in (*places.values(), tmp_path / "here"):
        place.mkdir()
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("XDG_")}
    environment |= {name: str(place) for name, place in places.items()} | {"PYTHONDONTWRITEBYTECODE": "1"}
    if state:
        environment["XDG_STATE_HOME"] = str(tmp_path / state)
    done = lab("run", "beyond-window", "--no-timeline", given="", directory=tmp_path / "here", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    kept = tmp_path / state if state else tmp_path / "home/.local/state"
    assert file == kept / "kube-proxy-lab/last.json"


NAMED_LAB = "import sys; sys.argv[0] = 'lab'; from lab.__main__ import main; main()"


def completed(line, shell="bash"):
    """What a shell is told that could stand in the place of the line's last word."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    place = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    place |= {"_LAB_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return python("-c", NAMED_LAB, **place).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("lab ma", "matrix"),
        ("lab kernels fe", "fetch"),
        ("lab run beyond-window-w", "beyond-window-without-data"),
        ("lab show ack-abo", "ack-above"),
        ("lab run --fix drop-f", "drop-forward"),
        ("lab run --topology kube-", "kube-proxy"),
        ("lab up kube-", "kube-proxy"),
    ],
)
def test_completion_knows_commands_cases_fixes_and_topologies(shell, line, word):
    assert word in re.split(r"[\s\"':]+", completed(line, shell))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_the_shell(shell, tmp_path):
    """Typer asks which program called it; so a shell calls it."""
    if not (program := shutil.which(shell)):
        pytest.skip(f"there is no {shell} here")
    command = shlex.join([sys.executable, "-P", "-c", NAMED_LAB, "--install-completion"])
    done = subprocess.run(
        [program, "-c", f"{command}; exit {'$status' if shell == 'fish' else '$?'}"],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "ZDOTDIR": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any("_LAB_COMPLETE" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
