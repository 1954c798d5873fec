"""`lab matrix` on kernels that are really booted, on this machine and on a cluster: only where LAB_BOOT=1 asks for it.

LAB_BOOT_KERNELS names others than 5.10,6.1. Kernels and images are in the user's own cache, and are fetched and made
where they are missing.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from lab.results.differences import differences
from lab.results.saved import from_json

COMMAND = (sys.executable, "-m", "lab", "matrix", "upstream-regression", "in-window", "--fix", "none", "--limit", "300")
KERNELS = os.environ.get("LAB_BOOT_KERNELS", "5.10,6.1")

pytestmark = [
    pytest.mark.skipif("LAB_BOOT" not in os.environ, reason="boots guests, for minutes: set LAB_BOOT=1"),
    pytest.mark.lab_needs_tool("qemu-system-x86_64", "mmdebstrap"),
]


def guests(process):
    """The QEMU processes that a process has started, itself or by others."""
    found, seen = set(), [process]
    while seen:
        one = seen.pop()
        try:
            seen += [
                int(child)
                for path in Path(f"/proc/{one}/task").glob("*/children")
                for child in path.read_text().split()
            ]
            if Path(f"/proc/{one}/exe").readlink().name.startswith("qemu"):
                found.add(one)
        except OSError:  # it has just ended
            continue
    return found


def wait_for(condition, process):
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
    return found


def started(*arguments):
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def check(matrix):
    """What the two kernels are known to do: nothing in it is the lab's own expectation."""
    assert matrix.good
    assert len({column.report.kernel for column in matrix.columns} | {os.uname().release}) == len(matrix.columns) + 1
    assert [column.report.kernel for column in matrix.columns] == [column.release for column in matrix.columns]
    old, new = KERNELS.split(",")
    if (old, new) == ("5.10", "6.1"):
        assert [difference.sentence for difference in differences(matrix)] == [
            (
                "6.1 differs from 5.10: late packets are ignored, those far beyond the window are INVALID"
                " (5.10: every packet out of the window is INVALID)."
            ),
            "6.1 differs from 5.10 in upstream-regression with none: ignored, delivered (5.10: INVALID, reset).",
        ]


class TestThisMachine:
    def test_the_same_trials_on_two_kernels(self, tmp_path):
        path = tmp_path / "matrix.json"
        done = subprocess.run(
            [*COMMAND, "--kernels", KERNELS, "--json", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        check(from_json(path.read_text()))

    def test_what_a_kernel_lacks_is_named_with_the_option_that_brings_it(self, tmp_path):
        """A real kernel, whose modules for iptables-legacy were left out."""
        from lab.kernels import Cache, resolve

        kernel = resolve(KERNELS.split(",")[-1], Cache.default())
        without = shutil.ignore_patterns("ip_tables.ko*", "iptable_*.ko*")
        shutil.copytree(kernel.modules, tmp_path / "modules", ignore=without)
        index = (tmp_path / "modules/modules.dep").read_text()
        (tmp_path / "modules/modules.dep").write_text(re.sub(r".*/ip_?tables?_?\w*\.ko.*\n", "", index))
        path = tmp_path / "matrix.json"
        kernels = f"{kernel.vmlinuz}:{tmp_path / 'modules'}"
        done = subprocess.run(
            [*COMMAND, "--kernels", kernels, "--backend", "legacy", "--json", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [column] = from_json(path.read_text()).columns
        words = "the kernel has no ip_tables: boot one with CONFIG_IP_NF_IPTABLES=y or =m"
        assert {tally.missing for tally in column.report.tallies} == {words}
        assert words in done.stdout
        assert "NOTHING WAS TRIED" in done.stdout

    def test_a_guest_that_panics_is_a_red_column_and_the_others_go_on(self):
        from lab.kernels import run_in_guest
        from lab.kernels.on_kernel import Trials, column
        from lab.kernels.sweep import ThisMachine, run

        async def panic(kernel, image, trials):
            command = ["sh", "-c", "echo c >/proc/sysrq-trigger"]
            found = await run_in_guest(kernel, command, image=image, limit=trials.limit, memory=trials.memory)
            return column(kernel.name, kernel.release, kernel.version, found)

        class Panicking:
            def submit(self, kernel, image, trials):
                return machine.run(partial(panic, kernel, image, trials))

        with ThisMachine(2) as machine:
            trials = Trials(("in-window",), ("--fix=none",), 300, 512)
            found = run([KERNELS.split(",")[-1], "running"], trials, machine, Panicking(), lambda *_words: None)
        [panicked] = [one for one in found.columns if one.report is None]
        [other] = [one for one in found.columns if one.report is not None]
        assert panicked.failure.startswith("panicked: sysrq triggered crash")
        assert any("Kernel panic" in line for line in panicked.console)
        assert other.good
        assert not found.good

    def test_ctrl_c_ends_all_guests(self):
        process = started("--kernels", KERNELS, "--jobs", "2")
        its = wait_for(lambda: found if len(found := guests(process.pid)) == 2 else None, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        assert "Traceback" not in err
        assert not any(Path(f"/proc/{guest}").exists() for guest in its)


class TestCluster:
    @pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
    def test_the_guests_on_the_workers_end_with_the_command(self, cluster, sent, exit_code):
        process = started("--kernels", KERNELS, "--scheduler", cluster.address)
        wait_for(lambda: all(guests(worker.pid) for worker in cluster.workers), process)
        its = [os.pidfd_open(guest) for worker in cluster.workers for guest in guests(worker.pid)]
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (exit_code, "")
        assert "Traceback" not in err
        for guest in its:
            # They would go on for minutes.
            assert select.select([guest], [], [], 60)[0]
            os.close(guest)
        assert not any(guests(worker.pid) for worker in cluster.workers)

    def test_a_lost_workers_guest_is_booted_again(self, cluster, tmp_path):
        path = tmp_path / "matrix.json"
        process = started("--kernels", KERNELS, "--scheduler", cluster.address, "--json", str(path))
        first, second = cluster.workers
        wait_for(lambda: guests(first.pid) and guests(second.pid), process)
        [its] = map(os.pidfd_open, guests(second.pid))
        second.kill()
        assert select.select([its], [], [], 60)[0]
        os.close(its)
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        check(from_json(path.read_text()))


def test_the_files_of_two_matrices_are_the_same_as_long_as_nothing_changed(tmp_path):
    from lab.kernels import Cache, make_image, resolve

    cache = Cache.default()
    kernel = resolve(KERNELS.split(",")[-1], cache)
    first = vars(make_image(kernel, cache))
    times = {path: path.stat().st_ino for path in first.values()}
    assert vars(make_image(kernel, cache)) == first
    assert {path: path.stat().st_ino for path in first.values()} == times


def test_a_changed_checkout_remakes_its_own_layer_alone(tmp_path):
    from lab.kernels import Cache, make_image, resolve

    cache = Cache.default()
    kernel = resolve(KERNELS.split(",")[-1], cache)
    assert make_image(kernel, cache).project.stat().st_size < 3_000_000
    (tmp_path / "pyproject.toml").touch()
    before = vars(make_image(kernel, cache, tmp_path))
    (tmp_path / "new.py").touch()
    after = vars(make_image(kernel, cache, tmp_path))
    assert {layer for layer, path in after.items() if path != before[layer]} == {"project"}
