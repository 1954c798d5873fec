"""A machine that runs out of something, or keeps something from the lab: one line says so, and it is no answer.

The exit codes 0 and 1 are answers: every trial as expected, and not. Neither may come of a full disk, a closed
output, too few descriptors or a read-only /proc/sys.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support import cover

TRIAL = ("run", "in-window", "--fix", "none", "--no-timeline")
PRINTING = (
    ("--help",),
    ("run", "--help"),
    ("list",),
    ("list", "--json"),
    ("show", "beyond-window"),
    ("show", "beyond-window", "--json"),
    ("rules",),
    ("topology", "schema"),
)
FULL = "No space left on device (make room there, or have it written elsewhere)"
FORMS = ("json", "html", "junit", "md", "pcapng")
kernel = pytest.mark.lab_kernel
needs_root = pytest.mark.lab_needs_root


def by_shell(script):
    """A prefix: a shell that does something to itself before it becomes the command."""
    return ("sh", "-c", f'{script}; exec "$@"', "sh")


def with_limit(name, value):
    return ("prlimit", f"--{name}={value}:{value}")


def in_mounts(script):
    return ("unshare", "--mount", *by_shell(script))


@pytest.fixture
def refused(run_lab):
    """Runs the command, which is expected to say one line and to have no answer."""

    def run(*arguments, **more):
        code, printed, errors = run_lab(*arguments, **more)
        assert (code, printed) == (2, ""), errors
        assert errors.startswith("lab: ")
        assert len(errors.splitlines()) == 1, errors
        return errors

    return run


# --- where it prints ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cover.sample(PRINTING, 2), ids=" ".join)
class TestWhatPrints:
    def test_on_a_full_disk(self, refused, command):
        with open("/dev/full", "w") as full:
            errors = refused(*command, stdout=full)
        assert errors == f"lab: cannot write standard output: {FULL}\n"

    def test_with_a_closed_output(self, refused, command):
        assert "standard output is closed" in refused(*command, prefix=by_shell("exec >&-"))

    def test_for_a_reader_that_has_gone(self, start_lab, command):
        ours, its = os.pipe()
        os.close(ours)
        process = start_lab(*command, stdout=its)
        os.close(its)
        _output, errors = process.communicate()
        assert (process.returncode, errors) == (128 + signal.SIGPIPE, "")

    def test_in_ascii(self, start_lab, command):
        process = start_lab(*command, prefix=("env", "PYTHONIOENCODING=ascii", "LC_ALL=POSIX"))
        output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        assert output.isascii()


@kernel
class TestOutputOfTrials:
    def test_a_reader_that_has_enough_is_no_failed_trial(self, environment):
        script = f"{sys.executable} -P -m lab run | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == "beyond-window, fix none: reset\n141\n"
        assert done.stderr == ""

    def test_a_full_disk(self, refused):
        with open("/dev/full", "w") as full:
            assert "standard output: No space left" in refused(*TRIAL, stdout=full)

    def test_errors_that_nobody_can_read_change_no_answer(self, run_lab):
        for where in ("2>&-", "2>/dev/full"):
            code, output, _errors = run_lab(*TRIAL, prefix=by_shell(f"exec {where}"))
            assert code == 0
            assert "delivered" in output
            code, output, _errors = run_lab("run", "nonsense", prefix=by_shell(f"exec {where}"))
            assert (code, output) == (2, "")

    def test_descriptors_of_closed_streams_are_not_given_to_others(self, run_lab):
        code, output, errors = run_lab(*TRIAL, "--json", "-", prefix=by_shell("exec <&- 2>&-"))
        assert (code, errors) == (0, "")
        assert json.loads(output)["tallies"][0]["runs"] == 1


def test_a_closed_input_is_named(refused):
    for command in (("run", "--topology", "-"), ("rules", "-"), ("rules", "--diff", "-")):
        assert "standard input cannot be read" in refused(*command, prefix=by_shell("exec <&-"))


# --- files of results -----------------------------------------------------------------------------


@kernel
class TestResults:
    @pytest.fixture
    def old(self, tmp_path):
        path = tmp_path / "results"
        path.write_text("an earlier result\n")
        path.chmod(0o640)
        return path

    @pytest.mark.parametrize("form", FORMS)
    def test_on_a_full_device_the_rest_is_printed_all_the_same(self, run_lab, form):
        code, output, errors = run_lab(*TRIAL, f"--{form}", "/dev/full")
        assert (code, errors) == (2, f"lab: cannot write /dev/full: {FULL}\n")
        assert "delivered" in output

    @needs_root
    def test_on_a_full_disk_an_earlier_one_stays(self, run_lab, tmp_path):
        place = tmp_path / "disk"
        place.mkdir()
        setup = (
            f"mount -t tmpfs -o size=8k none {place}; echo earlier >{place}/x.json; "
            f"""trap 'cat {place}/x.json; ls -A {place}' EXIT; "$@"; exit $?"""
        )
        code, output, errors = run_lab(
            *TRIAL, "--packets", "--json", f"{place}/x.json", prefix=("unshare", "--mount", "sh", "-c", setup, "sh")
        )
        assert (code, errors) == (2, f"lab: cannot write {place}/x.json: {FULL}\n")
        assert output.splitlines()[-2:] == ["earlier", "x.json"]

    def test_where_files_may_not_be_that_large_an_earlier_one_stays(self, run_lab, old, tmp_path):
        directory = tmp_path / "place"
        directory.mkdir()
        places = [word for form in FORMS for word in (f"--{form}", str(directory / form))]
        prefix = ("env", f"XDG_STATE_HOME={tmp_path / 'state'}", *with_limit("fsize", 4096))
        (directory / "html").hardlink_to(old)
        code, output, errors = run_lab(*TRIAL, "--packets", *places, prefix=prefix)
        assert (code, "delivered" in output) == (2, True)
        why = "File too large (this process may write 4096 bytes to a file: `ulimit -f` raises it)"
        failed = {form for form in FORMS if form == "html" or not (directory / form).exists()}
        assert failed >= {"json", "html"}
        assert set(errors.splitlines()) == {f"lab: cannot write {directory}/{form}: {why}" for form in failed}
        assert old.read_text() == (directory / "html").read_text() == "an earlier result\n"
        assert {path.name for path in directory.iterdir()} == set(FORMS) - failed | {"html"}
        assert (directory / "md").read_text().endswith("\n")

    def test_the_new_one_takes_the_place_of_the_old_one(self, run_lab, old, tmp_path):
        link = tmp_path / "link"
        link.symlink_to(old)
        before = sorted(path.name for path in tmp_path.iterdir())
        assert run_lab(*TRIAL, "--json", str(link))[0] == 0
        assert json.loads(old.read_text())["tallies"]
        assert link.is_symlink()
        assert old.stat().st_mode & 0o777 == 0o640
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    def test_a_run_that_is_refused_leaves_the_old_one(self, refused, old):
        refused("run", "in-window", "--topology", "nowhere", "--json", str(old))
        assert old.read_text() == "an earlier result\n"

    @needs_root
    def test_a_file_that_nothing_can_be_put_in_the_place_of_is_overwritten(self, run_lab, old):
        long = f"printf '%0100000d' 0 >{old}; mount --bind {old} {old}"
        code, _output, errors = run_lab(*TRIAL, "--json", str(old), prefix=in_mounts(long))
        assert (code, errors) == (0, "")
        assert json.loads(old.read_text())["tallies"]

    def test_pipes_devices_and_names_of_standard_output(self, run_lab, tmp_path):
        for name in ("-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1"):
            code, output, _errors = run_lab(*TRIAL, "--json", name)
            assert (code, json.loads(output)["tallies"][0]["runs"]) == (0, 1)
        beside = tmp_path / "beside"
        code, output, _errors = run_lab(*TRIAL, "--json", "/dev/fd/3", prefix=by_shell(f"exec 3>{beside}"))
        assert code == 0
        assert "delivered" in output
        assert json.loads(beside.read_text())["tallies"]

    def test_a_fifo(self, start_lab, tmp_path):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        process = start_lab(*TRIAL, "--json", str(fifo))
        assert json.loads(fifo.read_text())["tallies"]
        process.communicate()
        assert process.returncode == 0

    def test_two_in_one_place_are_refused(self, refused, old):
        assert "--json and --md both to" in refused(*TRIAL, "--json", str(old), "--md", f"{old.parent}/./{old.name}")
        assert "--json and --html both to standard output" in refused(*TRIAL, "--json", "-", "--html", "/dev/stdout")
        assert old.read_text() == "an earlier result\n"

    def test_a_name_of_nothing_costs_no_trial(self, refused):
        assert refused(*TRIAL, "--repeat", "1000000", "--json", "").startswith("lab: --json: '' names nothing")

    @pytest.mark.parametrize("path", ["/", ".", "/no/such/x", "/dev/null/x", "/proc/x"])
    def test_what_cannot_be_written_costs_no_trial(self, refused, path):
        assert refused(*TRIAL, "--repeat", "1000000", "--json", path).startswith(f"lab: cannot write {path}: ")


@kernel
class TestRemembered:
    """What cannot be kept for `lab show` is said, and is no failure."""

    def run(self, run_lab, **more):
        code, output, errors = run_lab(*TRIAL, **more)
        assert code == 0, errors
        assert "delivered" in output
        assert errors.startswith("lab: not kept for `lab show`: ")
        assert len(errors.splitlines()) == 1
        return errors

    def test_without_a_place(self, run_lab, environment):
        self.run(run_lab, XDG_STATE_HOME="/dev/null")
        self.run(run_lab, XDG_STATE_HOME=None, HOME="/proc")

    @needs_root
    def test_on_a_full_disk(self, run_lab, tmp_path):
        place = tmp_path / "state"
        place.mkdir()
        setup = f"mount -t tmpfs -o size=4k none {place}; mkdir {place}/kube-proxy-lab; export XDG_STATE_HOME={place}"
        assert "No space left" in self.run(run_lab, prefix=in_mounts(f"{setup}; echo >{place}/full"))


# --- what a lab needs -----------------------------------------------------------------------------


@kernel
class TestDescriptors:
    @pytest.mark.parametrize("limit", cover.sample([5, 8, 10, 12, 16, 19, *range(22, 29), 64], 2))
    def test_one_line_or_the_right_answer(self, run_lab, limit):
        code, output, errors = run_lab(*TRIAL, prefix=with_limit("nofile", limit))
        if code == 0:
            assert limit > 24
            assert "│ delivered" in output
            assert errors == ""
        else:
            assert (code, output) == (2, "")
            assert limit < 48
            assert errors.endswith(f"(this process may have {limit} files open, and needs more: `ulimit -n 1024`)\n")
            assert len(errors.splitlines()) == 1

    @pytest.mark.parametrize("command", [("rules", "--saved"), ("doctor",), ("matrix", "--kernels", "running")])
    def test_other_commands(self, refused, command):
        assert "ulimit -n 1024" in refused(*command, prefix=with_limit("nofile", 9))

    @pytest.mark.parametrize("limit", cover.sample([*range(9, 29), 64], 2))
    def test_the_doctor_puts_no_limit_down_as_a_lack_of_the_machine(self, run_lab, limit):
        code, output, errors = run_lab("doctor", prefix=with_limit("nofile", limit))
        if code == 0:
            assert limit > 20
            assert "A lab can run here: " in output
            assert "Too many" not in output
        else:
            assert (code, output) == (2, "")
            assert limit < 48
            assert errors.endswith(f"(this process may have {limit} files open, and needs more: `ulimit -n 1024`)\n")
            assert len(errors.splitlines()) == 1

    def test_in_the_middle_of_a_trial(self, environment):
        """The last ones are taken when the scenario stands: none is left for a connection, or for a barrier."""
        code = (
            "import sys, os, resource, lab.scenario.barrier as barrier, lab.scenario.connection as connection\n"
            "def hold_all():\n"
            "    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))), 4096))\n"
            "real = getattr({0}, '{1}')\n"
            "def without(self, *rest):\n"
            "    if self.lab.topology.name != 'behaviour': hold_all()\n"
            "    return real(self, *rest)\n"
            "setattr({0}, '{1}', without)\n"
            "sys.argv = ['lab', 'run', 'in-window', '--fix', 'none']\n"
            "from lab.__main__ import main; main()"
        )
        for where in (("barrier.Barrier", "_echo"), ("connection.ConnectionScenario", "_handshake")):
            done = subprocess.run(
                [sys.executable, "-P", "-c", code.replace("{0}", where[0]).replace("{1}", where[1])],
                env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert "Too many open files" in done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr


@kernel
@needs_root
class TestWhatIsKeptFromIt:
    def test_a_read_only_proc_sys(self, refused, run_lab):
        read_only = in_mounts("mount -o bind,ro /proc/sys /proc/sys")
        for command in cover.sample([TRIAL, ("run", "--all"), ("up", "kube-proxy")], 1):
            assert "/proc/sys/net/ipv4/conf/all/rp_filter: Read-only file system (in a container: " in refused(
                *command, prefix=read_only
            )
        code, output, _errors = run_lab("doctor", prefix=read_only)
        assert code == 1
        assert "A lab cannot run here" in output
        assert "modprobe nfnetlink_log" not in output

    def test_no_proc(self, refused):
        errors = refused(*TRIAL, prefix=in_mounts("mount -t tmpfs none /proc"))
        assert (
            errors
            == "lab: /proc/thread-self/status: No such file or directory (is /proc mounted, for this process too?)\n"
        )

    def test_what_no_trial_needs(self, run_lab):
        script = "for each in /sys /dev/shm; do mount -t tmpfs -o ro none $each; done; mount -o bind,ro /tmp /tmp"
        code, output, errors = run_lab(*TRIAL, prefix=in_mounts(script))
        assert code == 0, errors
        assert "delivered" in output

    def test_no_more_namespaces(self, refused):
        script = 'echo 2 >/proc/sys/user/max_net_namespaces; exec "$@"'
        nested = ("unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh")
        assert "raise the sysctl user.max_net_namespaces" in refused(*TRIAL, prefix=nested)

    def test_a_lab_that_stays_has_no_room_for_its_record(self, refused):
        full = "mount -t tmpfs -o size=4k none /run; echo >/run/full"
        assert refused("up", "kube-proxy", prefix=in_mounts(full)).startswith("lab: /run/lab")


@kernel
def test_little_memory(run_lab):
    code, output, errors = run_lab(*TRIAL, prefix=with_limit("as", 150 << 20))
    assert (code, output) == (2, "")
    assert errors.startswith("lab: ")
    assert "memory" in errors
    assert len(errors.splitlines()) == 1


@kernel
def test_small_files(refused, tmp_path):
    assert "`ulimit -f`" in refused(*TRIAL, prefix=with_limit("fsize", 1024))
    path = tmp_path / "place" / "list.json"
    path.parent.mkdir()
    errors = refused("list", f"--json={path}", prefix=with_limit("fsize", 1024))
    assert errors.startswith(f"lab: cannot write {path}: File too large (this process may write 1024 bytes to a file: ")
    assert list(path.parent.iterdir()) == []


# --- little room ----------------------------------------------------------------------------------


@kernel
class TestColumns:
    @pytest.mark.parametrize("columns", [1, 20])
    def test_trials_are_told_line_by_line(self, run_lab, columns):
        code, output, _errors = run_lab("run", "beyond-window", "--no-timeline", COLUMNS=str(columns))
        assert code == 0
        lines = output.splitlines()
        assert "beyond-window" in lines
        assert "  fix: none: reset, INVALID, leaked, RST, ECONNRESET" in lines
        assert "  fix: be-liberal: delivered, accepted, came from 192.168.0.2" in lines

    def test_many_fixes(self, run_lab):
        fixes = [f"--fix={fix}" for fix in ("none", "drop-forward", "be-liberal", "drop-input", "notrack")]
        _code, output, _errors = run_lab("run", "beyond-window", *fixes, COLUMNS="20")
        lines = output.splitlines()
        assert lines[lines.index("beyond-window") + 1 :][:2] == [
            "  judged by conntrack: INVALID",
            "  none, drop-input: reset",
        ]

    def test_a_matrix(self, run_lab):
        _code, output, _errors = run_lab("matrix", "in-window", "--kernels", "running", "--fix=none", COLUMNS="20")
        lines = output.splitlines()
        second, third = lines[lines.index("in-window") + 1 :][:2]
        assert second == "  fix: none"
        assert third.endswith("(running): delivered, accepted")

    def test_where_there_is_room_there_is_a_table(self, run_lab):
        _code, output, _errors = run_lab("run", "in-window", "--no-timeline", COLUMNS="80")
        assert "│ in-window │" in output


@pytest.mark.parametrize("columns", [1, 20])
def test_stories_are_read_in_few_columns(run_lab, columns):
    code, output, _errors = run_lab("show", "beyond-window", COLUMNS=str(columns))
    assert code == 0
    assert "  kernel: strict: INVALID, reset" in output.splitlines()
    assert "acknowledging" in output.split()  # words are not broken
