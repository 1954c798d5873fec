"""What is wrong with a command's words, or with what they name: one line with its cure, and nothing is done."""

import pytest
from typer.main import get_command

from lab.cli import app
from tests.support.command import lab, python

EMPTY = "'' names nothing (is a variable of the shell empty?)"
NOT_TWICE = "(give one of them as a file)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--json", "x.json"), "there is no place for 'x.json' (to write one: --json=x.json)"),
        (("trace", "in-window", "--json", "out"), "there is no place for 'out' (to write one: --json=out)"),
        (("show", "in-window", "--json", "x.json"), "x.json: there is no such file (to write one: --json=x.json)"),
        (("run", "--family", "ipv4", "--family=ipv6"), "--family is given 2 times, and one counts (give it once)"),
        (("run", "--jobs", "1", "-j2"), "--jobs is given 2 times, and one counts"),
        (("run", "--timeline", "--no-timeline"), "--timeline is given 2 times, and one counts"),
        (("rules", "--masquerade-all", "--masquerade-all=false"), "--masquerade-all is given 2 times"),
        (("status", "--json=a", "--json"), "--json is given 2 times, and one counts"),
        (("run", "--node", ""), f"--node: {EMPTY}"),
        (("explain", "a", ""), f"FILE: {EMPTY}"),
        (("collect", ""), f"FILE: {EMPTY}"),
        (("list", "--json="), f"--json: {EMPTY}"),
        (("down", ""), f"NAME: {EMPTY}"),
        (("run", "--node", "-", "--fix", "-"), f"standard input twice, by --node and --fix {NOT_TWICE}"),
        (("report", "-", "-"), f"standard input twice, by RESULT and RESULT {NOT_TWICE}"),
        (("reach", "-", "--nodes", "-"), f"standard input twice, by --nodes and TOPOLOGY {NOT_TWICE}"),
        (("run", "in-window", "--json", "\udcff.json"), "--json: \\xff.json is no UTF-8, as results are (give it"),
        (("run", "in-window", "--fix", "./\udcff"), "--fix: ./\\xff is no UTF-8"),
        (("topology", "from", "/dev/null"), "/dev/null: there is no Service in it"),
        (("collect", "--here", "/"), "cannot write /: Is a directory"),
        (("run", "--kube-proxy", __file__), f"{__file__} cannot be executed (`chmod +x {__file__}`"),
        (("explain", "/proc/self/mem"), "/proc/self/mem: cannot be read: Input/output error"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_words_that_would_not_count_are_refused(arguments, words):
    done = lab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.startswith("lab: ")
    assert done.stderr.count("\n") == 1


def test_what_may_be_said_again_still_may():
    assert lab("list", "--md", "--md").returncode == 0
    assert lab("show", "in-window", "in-window").returncode == 0
    assert lab("rules", "--node-zone", "").returncode == 0  # as kube-proxy takes it


def test_a_closed_input_is_named_as_every_file_is():
    code = "import sys; sys.argv = ['lab', 'explain', '-']\nfrom lab.__main__ import main; main()"
    done = python("-c", f"import os; os.close(0)\n{code}")
    assert (done.returncode, done.stderr) == (2, "lab: <stdin>: cannot be read: Bad file descriptor\n")


def _commands(group=None, path=()):
    for name, command in (group or get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


#: What people hand over by mistake, by what it holds.
WRONG = {
    "empty": b"",
    "binary": bytes(range(256)),
    "utf-16": "topology: x".encode("utf-16"),
    "list.yaml": b"- a\n- b\n",
    "broken.yaml": b"topology: x\nhosts: {a: [}\n",
    "misspelt.yaml": b"topology: x\nhsots: {}\n",
    "cut.json": b'{"a": ',
    "cut.gz": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc",
}
READ = {"FILE", "TOPOLOGY", "RESULT", "SOURCE"}
NOT_READ = {"collect", "capture", "add", "apply"}  # they write, or need a lab that stands
OTHERS = {"html", "junit", "md", "pcapng", "save", "prometheus"} | {
    "objects",
    "nodes",
}  # the last, of what else is given
BESIDE = {"trace": ["in-window"], "up": ["kube-proxy"]}  # without it they say first that it is missing


def _readers():
    for path, command in _commands():
        for one in command.params:
            if one.metavar in READ and path[-1] not in NOT_READ and one.name not in OTHERS:
                named = [] if one.param_type_name == "argument" else [*BESIDE.get(path[-1], ()), one.opts[0]]
                yield " ".join((*path, *named))


@pytest.mark.parametrize("command", sorted(set(_readers())))
@pytest.mark.parametrize("name", [*WRONG, "directory", "loop", "missing", "empty/below"])
def test_a_file_that_is_of_no_use_is_one_error_that_names_it(command, name, tmp_path):
    for other, content in WRONG.items():
        (tmp_path / other).write_bytes(content)
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    done = lab(*command.split(), tmp_path / name)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert str(tmp_path / name) in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
