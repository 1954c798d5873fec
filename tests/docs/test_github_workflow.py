"""The workflow that others copy is one to GitHub, and what it calls exists."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import python

CHECKOUT = Path(__file__).resolve().parents[2]
WORKFLOW = CHECKOUT / "docs" / "github-workflow.yml"
OWN = CHECKOUT / ".github" / "workflows" / "ci.yml"
NIGHTLY = OWN.with_name("nightly.yml")


def lint(path):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed: pip install --group dev")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def job(name="matrix"):
    return yaml.safe_load(WORKFLOW.read_text())["jobs"][name]


def script(name, of="matrix"):
    return next(step["run"] for step in job(of)["steps"] if step.get("name", "").startswith(name))


@pytest.mark.parametrize("workflow", [WORKFLOW, OWN, NIGHTLY], ids=["others", "own", "nightly"])
def test_it_fits_githubs_schema(workflow):
    done = lint(workflow)
    assert done.returncode == 0, done.stdout


def test_the_projects_own_does_what_anybody_can_do():
    [job] = yaml.safe_load(OWN.read_text())["jobs"].values()
    command = job["steps"][-1]["run"].split()[-1]
    assert command == ".ci/run"
    assert os.access(CHECKOUT / command, os.X_OK)
    oldest = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={job['strategy']['matrix']['python'][0]}" == oldest


def test_pre_commit_calls_what_ci_calls():
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    said = (CHECKOUT / ".ci" / "run").read_text()
    assert [hook["entry"].split()[1] for hook in hooks] == ["ruff", "ruff", "mypy"]
    assert all(" ".join(hook["entry"].split()[:3]).removesuffix(" --force-exclude") in said for hook in hooks)


def test_the_linter_finds_a_wrong_key(tmp_path):
    wrong = tmp_path / "workflow.yml"
    wrong.write_text(WORKFLOW.read_text().replace("runs-on:", "runs_on:"))
    assert "runs_on" in lint(wrong).stdout


def test_the_command_takes_what_it_is_given():
    from typer.main import get_command

    from lab.cli import app
    from lab.cli.kernels import kernel_names

    group: Any = get_command(app)
    command = group.commands["matrix"]
    choices = job()["strategy"]["matrix"]
    for values in itertools.product(*choices.values()):
        given = dict(zip(choices, values, strict=True))
        text = script("Run the trials")
        for name, value in given.items():
            text = text.replace(f"${{{{ matrix.{name} }}}}", value)
        words = shlex.split(text)
        context = command.make_context("matrix", words[words.index("matrix") + 1 :])
        assert context.params["proxy_mode"] == given["proxy-mode"]
        assert context.params["family"] == given["family"]
        assert set(context.params["kernels"].split(",")) <= set(kernel_names())


def test_it_installs_what_guests_need():
    from lab.kernels.programs import ALL
    from lab.netns import packages

    always_there = {"apt", "dpkg", "util-linux"}
    needed = {packages.package(program) for program in ALL} - always_there
    assert needed | {"debian-archive-keyring"} == set(script("Install").split("--no-install-recommends")[1].split())


def collect(words, *more):
    """Collect what a step's words run, as `sudo VARIABLE=value ./bootstrap pytest ...` would."""
    name, value = words[1].split("=")
    done = python("-m", *words[3:], "--collect-only", "-n0", *more, directory=CHECKOUT, **{name: value})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("workflow", [WORKFLOW, NIGHTLY], ids=["others", "own"])
def test_the_nightly_run_leaves_nothing_to_a_seed(workflow):
    said = yaml.safe_load(workflow.read_text())
    assert said[True]["schedule"]  # YAML 1.1 takes "on" for a truth value
    words = shlex.split(said["jobs"]["full"]["steps"][-1]["run"], comments=True)
    assert words[:2] == ["sudo", "LAB_FULL=1"]
    assert words[-3:] == ["./bootstrap", "pytest", "-q"]
    assert ("LAB_SLOW=1" in words) == (workflow == NIGHTLY)


def test_a_full_run_leaves_nothing_out():
    words = ["sudo", "LAB_FULL=1", "./bootstrap", "pytest"]
    done = collect(words, "tests/trial/test_trial.py", "-k", "(every_fix or everywhere) and beyond-window-none")
    for name in ("every_case_with_every_fix", "so_does_every_default_trial"):
        for place in ("iptables-legacy-ipv6", "nftables-ipv4"):
            assert re.search(rf"{name}\w*\[beyond-window-none-{place}\]", done.stdout)


def test_the_nightly_run_tries_every_case_everywhere():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    [schedule] = workflow[True]["schedule"]
    assert schedule["cron"].endswith(" * * *")
    for name in ("everywhere", "full"):
        assert job(name)["if"] == "github.event_name == 'schedule'"
    families = job("everywhere")["strategy"]["matrix"]["family"]
    assert families == ["ipv4", "ipv6"]
    words = shlex.split(script("Try every case", of="everywhere").replace("${{ matrix.family }}", "ipv6"))
    assert words[:3] == ["sudo", "LAB_EVERYWHERE=1", "./bootstrap"]
    done = collect(words)
    assert "test_a_case_is_right_wherever_it_may_be_tried[reset-exact-uplink-ipv6]" in done.stdout
    assert "ipv4" not in done.stdout
