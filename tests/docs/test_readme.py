"""What the README shows must work as it stands there."""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lab.cases import CASES
from lab.fixes import FIXES, NONE
from lab.topology.reader import parse
from lab.vocabulary import Behaviour
from tests.support.command import lab, python, run_pytest

CHECKOUT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("catalogue", CHECKOUT / "docs" / "make" / "catalogue.py")
catalogue = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(catalogue)
README = (CHECKOUT / "README.md").read_text()


def block(language):
    [text] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return text


def test_the_topology_is_one():
    assert [host.name for host in parse(block("yaml")).clients] == ["client"]


@pytest.mark.lab_kernel
def test_the_example_test_passes(pytester):
    pytester.makepyfile(block("python"))
    run_pytest(pytester.path).assert_outcomes(passed=3)


@pytest.mark.lab_kernel
def test_the_topology_can_be_run_as_it_says(tmp_path):
    (tmp_path / "mine.yaml").write_text(block("yaml"))
    done = lab("run", "--topology", "mine.yaml", "--fix", "drop-forward", "--no-timeline", directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def shown_commands(text):
    """Each command of a page, as its words."""
    for line in re.findall(r"^    ((?:sudo |\./bootstrap )?lab [^#\n]*?)(?: >.*?)? *(?:#.*)?$", text, re.MULTILINE):
        words = shlex.split(line)
        yield words[words.index("lab") + 1 :]


PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_is_one(page):
    """With its options and their values, as far as they can be told without being run."""
    from typer.main import get_command

    from lab.cli import app

    shown = [words for words in shown_commands(page.read_text()) if words]
    for words in shown:
        command, context = get_command(app), None
        while hasattr(command, "commands"):
            context = command.make_context("lab", list(words), parent=context)
            name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        given = command.make_context(name, list(words), parent=context).params
        if name in ("run", "matrix") and "cases" in given:
            assert set(given["cases"] or ()) <= {*CASES, "fin-beyond-window"}, words
        if isinstance(given.get("fix"), list):
            assert set(given["fix"]) <= set(FIXES), words
        if name == "show":
            assert given["case"] in {*CASES, "fin-beyond-window"}
    if page.name == "README.md":
        told = {words[0] for words in shown}
        assert told >= {
            "run",
            "list",
            "show",
            "matrix",
            "rules",
            "doctor",
            "up",
            "exec",
            "shell",
            "endpoints",
            "status",
        }
        assert told >= {"down", "kernels", "topology"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_spoken_of_is_there(page):
    text = page.read_text()
    linked = set(re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text))
    assert all((page.parent / path).exists() for path in linked), linked
    named = set(re.findall(r"`((?:docs|lab|tests|topologies|vagrant)/[\w./-]*)`", text))
    assert {path for path in named if not (CHECKOUT / path).exists()} <= {"lab/cases/fin_beyond_window.py"}


def test_the_catalogues_table_is_what_is_expected():
    section = README.split("## The catalogue")[1].split("\n## ")[0]
    assert "\n".join(catalogue.table()) in section, "python docs/make/catalogue.py"


def test_the_fixes_that_the_table_leaves_out_do_what_another_does():
    for one, other in catalogue.ALIKE:
        for case in CASES.values():
            assert catalogue.expected(case, one) == catalogue.expected(case, other), (case.name, one.name)


def test_what_each_fix_was_worth_is_what_came_of_the_catalogue():
    section = README.split("### What each fix is worth")[1].split("\n## ")[0]
    assert "\n".join(catalogue.worth()) in section, "python docs/make/catalogue.py"


def test_every_fix_is_weighed():
    section = README.split("### What each fix is worth")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| ([a-z-]*[a-z]) \|", section, re.MULTILINE)) - {"fix"} == set(FIXES) - {"none"}


@pytest.mark.lab_kernel
def test_what_lab_run_prints_is_what_is_shown():
    shown = README.split("    $ lab run\n")[1].split("\n\nThe numbers in brackets")[0]
    verdict = textwrap.dedent("    Linux" + shown.rpartition("\n    Linux")[2])
    width = max(len(line) for line in verdict.splitlines() if line.startswith("│"))
    done = lab("run", "--no-timeline", COLUMNS=str(width))
    if "from 6.1 on" not in done.stdout:
        pytest.skip("the README's kernel ignores late packets, this one does not")
    assert done.stdout.replace(platform.release(), "6.18.44") == f"{verdict}\n"


def test_what_linux_up_to_6_0_does_otherwise_is_as_told():
    [sentences] = re.findall(r"^Linux up to 6\.0 differs where the word is \*ignored\*, (.*)$", README, re.MULTILINE)
    as_well, as_ever = (
        {name for name in CASES if re.search(rf"(?<![\w-]){name}(?![\w-])", sentence)}
        for sentence in sentences.split(". ")
    )
    differ, same = set(), set()
    for case in CASES.values():
        old, new = (
            case.expected(kind, NONE.protection).judgement for kind in (Behaviour.STRICT, Behaviour.IGNORES_LATE)
        )
        if old != new:
            assert old == "INVALID", case.name
            differ.add((case.name, new))
        elif new == "ignored":
            same.add(case.name)
    assert {name for name, word in differ if word != "ignored"} == as_well
    assert same == as_ever


def rows(text):
    """The rows of a table of many kernels: its kernels' names, and each trial's cells."""
    [lines] = re.findall(r"^(\| case \| fix \|.*\n(?:\|.*\n)+)", text, re.MULTILINE)
    table = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in lines.splitlines()]
    (_case, _fix, *kernels), _rule, *trials = table
    case = ""
    for name, fix, *cells in trials:
        case = name or case
        yield case, fix, dict(zip(kernels, cells, strict=True))


@pytest.mark.parametrize("page", ["README.md", "docs/kernels.md"])
def test_the_table_of_many_kernels_is_what_is_expected_of_each(page):
    """And its last sentences count what is in it."""
    text = (CHECKOUT / page).read_text()
    trials = list(rows(text))
    for case, fix, cells in trials:
        before = None
        for kernel, cell in cells.items():
            mark, words = re.fullmatch(r"(≠ )?(.*)", cell).groups()
            if words.strip("*") == "not here":
                continue
            kind = Behaviour.STRICT if kernel == "5.10" else Behaviour.IGNORES_LATE
            want = CASES[case].expected(kind, FIXES[fix].protection)
            outcome, *judgement = words.replace("*", "").split(", ")
            assert outcome == want.outcome, (case, fix, kernel)
            assert not judgement or want.judgement in (judgement[0], None), (case, fix, kernel)
            if before is not None and not mark:
                assert words == before, (case, fix, kernel)
            before = words
    ran = [cell for _case, _fix, cells in trials for cell in cells.values() if cell.strip("≠* ") != "not here"]
    assert f"{len(ran)} of {len(ran)} trials gave what their kernel is expected to give." in text
    assert f"of {len(trials)} trials gave the same on all 5 kernels." in text


def test_every_program_that_guests_need_is_in_the_line_that_installs_them():
    """Debian's util-linux, dpkg, apt and mount are on every machine (priority required or essential)."""
    from lab.kernels.programs import ALL
    from lab.netns.program import PACKAGES

    [line] = re.findall(r"`apt-get install --no-install-recommends (qemu[^`]*)`", README)
    wanted = {PACKAGES.get(name, name) for name in ALL} - {"util-linux", "dpkg", "apt", "mount"}
    assert set(line.split()) == wanted


def test_the_kernels_that_a_matrix_has_by_itself_are_those_that_are_told():
    from lab.cli.matrix import _KERNELS

    [told] = re.findall(r"^    lab matrix +# the bug and its controls on (.*?) and the newest$", README, re.MULTILINE)
    assert [*told.split(", "), "newest"] == _KERNELS.split(",")


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
    done = lab("run", "beyond-window", "--no-timeline", directory=tmp_path / "here", **environment)
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
        [program, "-c", f"{command}; exit $?"],
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


def test_the_plugins_marks_and_options_are_those_that_are_told(pytester):
    marks = set(re.findall(r"`(\w+)(?:\(\.\.\.\))?`", re.findall(r"^The marks (.*) skip a test", README, re.M)[0]))
    assert marks == {"lab_needs_root", "lab_needs_tool", "lab_kernel_feature"}
    known = run_pytest(pytester.path, "--markers").outlines
    assert marks <= set(re.findall(r"^@pytest\.mark\.(\w+)", "\n".join(known), re.M))
    options = set(re.findall(r"`(--lab-[a-z-]+)`", README))
    assert options == {"--lab-keep", "--lab-shell-on-failure", "--lab-proxy-mode"}
    helped = "\n".join(run_pytest(pytester.path, "--help").outlines)
    assert options <= set(re.findall(r"--lab-[a-z-]+", helped))


def test_every_benchmark_is_named():
    section = README.split("## How fast it is")[1]
    told = set(re.findall(r"`(?:[\w./ ]*/)?(\w+\.py)`", section))
    there = {path.name: path.read_text() for path in (CHECKOUT / "tests/benchmarks").glob("*.py")}
    assert told == {name for name, text in there.items() if "__main__" in text}


@pytest.mark.lab_kernel
def test_doctor_asks_for_each_thing_that_is_needed():
    [needs] = re.findall(r"^## What it needs of the kernel\n\n(.*?);", README, re.MULTILINE)
    asked = {
        "Network namespaces": "network namespaces",
        "veth": "veth",
        "nf_tables": "libnftables, nf_tables",
        "conntrack with netlink": "ctnetlink",
        "`NETFILTER_NETLINK_LOG`": "nfnetlink_log",
        "AF_PACKET": "AF_PACKET",
        "iptables-nft": "iptables-nft, ipv4",
        "iptables-legacy": "iptables-legacy, ipv4",
    }
    assert all(need in needs for need in asked)
    told = [
        re.split(r"  +", line)[1] for line in lab("doctor", "--all").stdout.splitlines() if re.match(r"\w+  +\S", line)
    ]
    assert set(asked.values()) <= set(told)
