"""The names in lab/__init__.py: all there, cheap until asked for, typed, and on the page that is made of them."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lab

CHECKOUT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")])),
    "PYTHONDONTWRITEBYTECODE": "1",
}

#: A case, a fix and a trial of somebody's own, as a type checker sees them.
EXAMPLE = """
from lab import Case, ConnectionScenario, Expectation, Family, Fix, Judgement, Lab, NodeChange, Outcome, Protection
from lab import Result, Setting, ask_kernel, load_topology, on_every_kernel, row, run_trial


async def steps(scenario: ConnectionScenario) -> None:
    await scenario.establish()
    await scenario.inject(scenario.from_server(2**29, b"far", flags="PA"))
    if scenario.judgement() is Judgement.ACCEPTED:
        scenario.expect_entry(state="ESTABLISHED")
    await scenario.go_on()


RESET = Expectation(Judgement.INVALID, Outcome.RESET)
CASE = Case("own", "title", "story", (), ConnectionScenario, steps, on_every_kernel(row(RESET, RESET, RESET)))
FIX = Fix("own", "summary", NodeChange(sysctls={"net/ipv4/tcp_sack": "0"}), Protection.NOTHING)


async def trial() -> bool:
    topology = load_topology("kube-proxy")
    setting = Setting(CASE, FIX, topology, Family.IPV4)
    result: Result = await run_trial(setting, await ask_kernel(Family.IPV4))
    with Lab(topology) as running:
        reveal_type(running)
    return result.as_expected
"""


def python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", lab.__all__)
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(lab, name)
    assert found.__doc__
    assert name in dir(lab)


def test_a_type_checker_and_python_find_the_same() -> None:
    tree = ast.parse(Path(lab.__file__).read_text())
    imports = {
        one.asname or one.name: (node.module, one.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lab.")
        for one in node.names
    }
    assert set(imports) == set(lab.__all__) - {"__version__"}
    for name, (module, there) in imports.items():
        assert getattr(lab, name) is getattr(importlib.import_module(str(module)), there)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Scene'"):
        getattr(lab, "Scene")  # noqa: B009 - what is not there has no type


def test_it_costs_nothing_until_a_name_is_asked_for() -> None:
    measure = (
        "import __future__, sys, time; before = {*sys.modules}; start = time.perf_counter(); import lab; "
        "took = time.perf_counter() - start; print(took, *{*sys.modules} - before)"
    )
    runs = [python("-c", measure).split() for _ in range(5)]
    assert all(modules == ["lab"] for _, *modules in runs)
    assert min(float(took) for took, *_ in runs) < 0.005


def test_words_of_a_fix_load_no_kernel_room() -> None:
    loaded = python(
        "-c", "import sys; from lab import Fix, NodeChange, Judgement, Family, Expectation; print(*sys.modules)"
    )
    assert "lab.fixes" in loaded.split()
    assert not {"lab.netns", "lab.wire", "lab.fabric", "asyncio", "scapy", "pyroute2"} & set(loaded.split())


def test_the_page_is_made_of_it() -> None:
    made = python("docs/make/api.py")
    assert made == (CHECKOUT / "docs" / "api.md").read_text(), "make it anew: python docs/make/api.py > docs/api.md"
    assert "(docs/api.md)" in (CHECKOUT / "README.md").read_text()


@pytest.mark.lab_kernel
def test_the_page_has_a_script_that_works(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(import asyncio.*?)```", (CHECKOUT / "docs" / "api.md").read_text(), re.DOTALL)
    (tmp_path / "script.py").write_text(script)
    assert python(str(tmp_path / "script.py")).startswith("reset; ")


def test_a_type_checker_knows_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install --group dev")
    wrong = "\nfrom lab import Scene, ScriptedScenario\nFix(1)\nreveal_type(Case)\n"
    wrong += 'Case("", "", "", (), ScriptedScenario, steps, CASE.expectations)\n'
    checked = []
    for name, text in (("right", EXAMPLE), ("wrong", EXAMPLE + wrong)):
        file = tmp_path / f"{name}.py"
        file.write_text(textwrap.dedent(text))
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            "pyproject.toml",
            "--cache-dir",
            str(tmp_path),
            str(file),
        ]
        done = subprocess.run(command, env=ENVIRONMENT, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        checked.append(done)
    right, wrongly = checked
    assert right.returncode == 0, right.stdout
    assert 'Revealed type is "lab.fabric.lab.Lab"' in right.stdout
    assert wrongly.returncode == 1
    assert 'Module "lab" has no attribute "Scene"' in wrongly.stdout
    assert 'Value of type variable "S" of "Case"' in wrongly.stdout or 'Argument 6 to "Case"' in wrongly.stdout
    assert 'Argument 1 to "Fix" has incompatible type "int"' in wrongly.stdout
