"""`lab report`: saved results told again, and compared."""

import json
from pathlib import Path

import jsonschema
import pytest

from lab.results.saved import VERSION
from tests.support.command import lab

HERE = Path(__file__).parents[1]
OLD, NEW = HERE / "report" / "results.json", HERE / "results" / "version-2.json"


def changed(tmp_path, name, change):
    data = json.loads(OLD.read_text())
    change(data)
    path = tmp_path / name
    path.write_text(json.dumps(data))
    return path


def test_one_file_is_told_as_lab_run_tells_it():
    done = lab("report", OLD)
    assert done.returncode == 0
    assert done.stdout.startswith("beyond-window, fix none: reset\n   0.000 ms  client eth0 > node client ")
    assert "OOPS: from the pod's address" in done.stdout
    assert "trials gave what this kernel is expected to give." in done.stdout


def test_every_form_at_once(tmp_path):
    names = {form: tmp_path / f"x.{form}" for form in ("html", "md", "junit", "json", "pcapng")}
    done = lab("report", OLD, *(word for form, path in names.items() for word in (f"--{form}", path)))
    assert done.returncode == 0
    assert done.stdout == lab("report", OLD).stdout
    assert "come without packets" in done.stderr  # the old file had no bytes
    assert all(path.stat().st_size for path in names.values())
    assert json.loads(names["json"].read_text())["version"] == VERSION


def test_several_kernels_are_one_table(tmp_path):
    older = changed(tmp_path, "older.json", lambda data: data.update(kernel="5.10.1-x"))
    done = lab("report", OLD, older)
    assert done.returncode == 0
    heading = next(line for line in done.stdout.splitlines() if "case" in line and "fix" in line)
    assert "5.10.1" in heading
    assert heading.index("5.10.1") < heading.index("6.18")


def test_the_same_trials_on_one_kernel_have_a_column_each(tmp_path):
    again = changed(tmp_path, "again.json", lambda _data: None)
    done = lab("report", OLD, again)
    assert "(results)" in done.stdout
    assert "(again)" in done.stdout


def test_parts_of_one_kernel_are_one_report(tmp_path):
    def half(which):
        return lambda data: data.update(tallies=data["tallies"][which])

    first, second = changed(tmp_path, "a.json", half(slice(2))), changed(tmp_path, "b.json", half(slice(2, None)))
    both, whole = lab("report", first, second, "--md", "-"), lab("report", OLD, "--md", "-")
    assert both.stdout == whole.stdout


def test_from_standard_input():
    assert lab("report", "-", "--md", "-", given=OLD.read_text()).stdout == lab("report", OLD, "--md", "-").stdout


def test_compare_says_what_changed(tmp_path):
    same = lab("report", "--compare", OLD, OLD)
    assert (same.returncode, same.stdout) == (
        0,
        f"{len(json.loads(OLD.read_text())['tallies'])} trials came out the same.\n",
    )

    def worse(data):
        data["tallies"][0]["sample"]["verdict"]["outcome"] = "stalled"
        data["tallies"][0]["outcomes"] = [["stalled", 1]]
        del data["tallies"][1]

    other = changed(tmp_path, "other.json", worse)
    done = lab("report", "--compare", OLD, other)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "beyond-window with none: was INVALID, reset, is INVALID, stalled"
    assert lines[1].startswith(f"only in {OLD}: ")
    assert len(lines) == 3
    kernel = changed(tmp_path, "kernel.json", lambda data: data.update(behaviours={"ipv4": "strict"}))
    assert "ipv4: was: late packets are ignored" in lab("report", "--compare", OLD, kernel).stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--compare", OLD), "--compare takes two files, not 1"),
        (("--compare", OLD, OLD, "--md", "x"), "--compare, and files of results"),
        ((OLD, "--packets"), "--packets, and no JSON"),
        (("/no/such.json",), "/no/such.json: cannot be read: No such file"),
        (("/",), "/: cannot be read: Is a directory"),
        (
            (HERE / "results" / "junit.xsd",),
            "junit.xsd: these are no results of `lab run`, `lab matrix` or `lab reach`: no JSON, ",
        ),
        (
            ("/dev/null",),
            "/dev/null: these are no results of `lab run`, `lab matrix` or `lab reach`: there is nothing in it",
        ),
    ],
)
def test_mistakes(words, complaint):
    done = lab("report", *words)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert complaint in line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"tallies": [], "columns": []}',
        '{"hosts": [], "new": 1}',
        '{"beyond-window": {"none": {"when": 1}}}',
        '{"lab": "x", "kernel": "\\ud800", "behaviours": {}, "tallies": []}',
        "\x00\x01",
    ],
)
def test_what_is_no_file_of_results_is_one_error(tmp_path, text):
    path = tmp_path / "hostile.json"
    path.write_text(text)
    done = lab("report", path)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"lab: {path}: ")


def test_bytes_that_are_no_text_are_one_error(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe{}")
    done = lab("report", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no results of `lab run`, `lab matrix` or `lab reach`: bytes that are no text" in done.stderr


def test_schemas_are_printed_and_hold():
    for kind in ("result", "matrix"):
        done = lab("schema", kind)
        jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))
    newest = HERE / "results" / f"version-{VERSION}.json"
    jsonschema.validate(json.loads(newest.read_text()), json.loads(lab("schema", "result").stdout))
    assert lab("schema", "resul").stderr == "lab: there is no schema 'resul' (did you mean 'result'?)\n"
