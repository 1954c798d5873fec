"""`pytest --lab-kernels`, as far as it goes without a guest."""

import pytest

from lab.kernels import suite
from lab.kernels.guest import GuestRun
from lab.kernels.kernel import Kernel
from lab.kernels.suite import passed_on
from tests.support.command import run_pytest


def test_what_is_passed_on():
    ours = ["--lab-kernels", "5.10,6.1", "--lab-kernels-limit=60", "--junitxml=out.xml"]
    given = ["-q", *ours, "tests/a.py::b[c]", "-k", "x y"]
    assert passed_on(given) == ["-q", "tests/a.py::b[c]", "-k", "x y"]
    assert passed_on(["--lab-kernels=6.1", "--junit-xml", "out.xml", "--maxfail=1"]) == ["--maxfail=1"]


@pytest.fixture
def guests(monkeypatch, pytester):
    """Runs the guests' pytest right here, each in a process, in place of guests; gives the commands."""
    commands = []
    fates = {}

    async def run_in_guest(kernel, command, *, image, limit, **_rest):
        place = command[command.index("sh", 1) + 1]
        commands.append(command)
        results = pytester.path / f"results-{kernel.name}"
        results.mkdir()
        monkeypatch.setenv("LAB_RESULTS", str(results))
        assert place.startswith("/mnt/lab/project")
        words = command[command.index("pytest") + 1 :]
        done = run_pytest(pytester.path, *[word.replace("/mnt/lab/project", str(pytester.path)) for word in words])
        files = {path.name: path.read_bytes() for path in results.iterdir()}
        failure = fates.get(kernel.name, "")
        return GuestRun(
            None if failure else int(done.ret), {} if failure else files, "the output", "the console", failure, 1.0
        )

    def resolve(name, cache):
        return Kernel(name, f"{name}.0", f"{name}.9", pytester.path, pytester.path)

    monkeypatch.setattr(suite, "run_in_guest", run_in_guest)
    monkeypatch.setattr(suite, "resolve", resolve)
    monkeypatch.setattr(suite, "make_image", lambda *_: None)
    return commands, fates


TESTS = """
import pytest

@pytest.mark.parametrize("one", [1, 2])
def test_good(one): pass

def test_bad(): assert 1 == 2, "two"

@pytest.mark.skip(reason="not now")
def test_skipped(): pass

@pytest.mark.xfail(reason="known")
def test_known(): assert False

@pytest.fixture
def broken(): raise RuntimeError("broken")

def test_error(broken): pass
"""


def test_each_kernels_tests_are_reported_by_its_name(guests, pytester):
    pytester.makepyfile(test_a=TESTS)
    done = pytester.runpytest_inprocess("--lab-kernels", "5.10,6.1", "test_a.py", "--junitxml=out.xml")
    done.assert_outcomes(passed=4, failed=2, skipped=2, xfailed=2, errors=2)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        ["*ERROR at setup of test_error[[]5.10[]]*", "*RuntimeError: broken", "*_ test_bad[[]6.1[]] _*", "*two*"]
    )
    done.stdout.fnmatch_lines(["5.10: Linux 5.10.9 (5.10.0), 1 s"])
    text = (pytester.path / "out.xml").read_text()
    assert 'tests="12"' in text
    assert 'name="test_good[2][6.1]"' in text


def test_all_good(guests, pytester):
    pytester.makepyfile(test_a="def test_good(): pass")
    done = pytester.runpytest_inprocess("--lab-kernels=5.10")
    done.assert_outcomes(passed=1)
    assert done.ret == pytest.ExitCode.OK


def test_no_tests_there(guests, pytester):
    pytester.makepyfile(test_a="def test_good(): pass")
    done = pytester.runpytest_inprocess("--lab-kernels=5.10", "-k", "nothing")
    assert done.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_module_that_cannot_be_imported_there(guests, pytester):
    pytester.makepyfile(test_a="import nowhere_to_be_found")
    done = pytester.runpytest_inprocess("--lab-kernels=5.10")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*No module named 'nowhere_to_be_found'"])
    assert done.ret == pytest.ExitCode.TESTS_FAILED


def test_a_guest_that_failed_is_an_error_with_its_last_words(guests, pytester):
    _commands, fates = guests
    fates["5.10"] = "panicked: sysrq triggered crash"
    pytester.makepyfile(test_a="def test_good(): pass")
    done = pytester.runpytest_inprocess("--lab-kernels=5.10,6.1")
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["the guest with Linux 5.10.9: panicked: sysrq triggered crash", "the console"])
    assert done.ret == pytest.ExitCode.TESTS_FAILED


def test_a_pytest_that_did_not_start_there_is_an_error(guests, pytester):
    pytester.makepyfile(test_a="def test_good(): pass")
    done = pytester.runpytest_inprocess("--lab-kernels=5.10", "-p", "no_such_plugin_there")
    assert done.ret != pytest.ExitCode.OK


def test_it_runs_from_where_it_was_called(guests, pytester, monkeypatch):
    commands, _fates = guests
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\n")
    pytester.mkdir("sub")
    pytester.makepyfile(**{"sub/test_a": "def test_good(): pass"})
    monkeypatch.chdir(pytester.path / "sub")
    pytester.runpytest_inprocess("--lab-kernels=5.10", str(pytester.path / "sub/test_a.py"))
    [command] = commands
    assert command[4] == "/mnt/lab/project/sub"
    assert command[-1] == "/mnt/lab/project/sub/test_a.py"


@pytest.mark.parametrize("option", ["--lab-keep", "--lab-shell-on-failure", "-n2"])
def test_what_cannot_be_had_elsewhere(guests, pytester, option):
    done = pytester.runpytest_inprocess("--lab-kernels=5.10", option)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--lab-kernels runs the tests elsewhere*"])


def test_a_kernel_that_is_none(pytester):
    done = pytester.runpytest_inprocess("--lab-kernels=old")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*'old' is no kernel*"])
