"""Guests that are really booted: minutes by emulation, so only where LAB_BOOT=1 asks for it.

LAB_BOOT_KERNEL names another kernel than 6.1. Kernels and images are in
the user's own cache, and are fetched and made where they are missing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL = os.environ.get("LAB_BOOT_KERNEL", "6.1")
# Seconds: a busy machine boots by emulation in half a minute.
LIMIT = 240

pytestmark = [
    pytest.mark.skipif("LAB_BOOT" not in os.environ, reason="boots guests, for minutes: set LAB_BOOT=1"),
    pytest.mark.lab_needs_tool("qemu-system-x86_64", "mmdebstrap"),
]


def kernels_run(*command, limit=LIMIT, options=(), kernel=KERNEL):
    return subprocess.run(
        [sys.executable, "-m", "lab", "kernels", "run", *options, "--limit", str(limit), kernel, "--", *command],
        capture_output=True, text=True, cwd=CHECKOUT, check=False,
    )  # fmt: skip


def test_a_command_runs_as_root_from_the_checkout_and_its_results_come_back(tmp_path):
    script = (
        "uname -r; id -u; ls pyproject.toml; ls /sys/class/net; sed -n 's/MemTotal: *//p' /proc/meminfo; "
        'mkdir $LAB_RESULTS/a; echo b >$LAB_RESULTS/a/c; echo "d e" >&2; exit 7'
    )
    done = kernels_run("sh", "-c", script, options=["--results", str(tmp_path / "out")])
    assert done.returncode == 7, done.stderr
    release, user, file, network, memory, *rest = done.stdout.splitlines()
    assert release.startswith(KERNEL)
    assert (user, file, network, rest) == ("0", "pyproject.toml", "lo", ["d e"])
    assert 400 << 10 < int(memory.split()[0]) < 512 << 10  # KiB; the kernel has taken its own part
    assert (tmp_path / "out/a/c").read_text() == "b\n"


def test_the_lab_judges_that_kernel(tmp_path):
    script = "lab run beyond-window --json $LAB_RESULTS/result.json --no-timeline"
    done = kernels_run("sh", "-c", script, options=["--results", str(tmp_path)])
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kernel"].startswith(KERNEL)
    assert os.uname().release != result["kernel"]
    assert f"AFFECTED: on Linux {result['kernel']}" in " ".join(done.stdout.split())


def test_a_kernel_without_the_fix_lets_a_wild_reset_close_the_entry(tmp_path):
    """CVE-2026-63913: 6.18 has it cured from 6.18.35 on (bed6e04be8e6), and Debian's backports had 6.18.15."""
    script = "lab run reset-after-syn --fix none --json $LAB_RESULTS/result.json --no-timeline"
    done = kernels_run("sh", "-c", script, options=["--results", str(tmp_path)], kernel="6.18")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    patch = int(re.match(r"6\.18\.(\d+)", result["kernel"])[1])
    became = "INVALID: ESTABLISHED" if patch >= 35 else "accepted: CLOSE"
    assert f"a RST that acknowledges its own side's SYN is {became}" in (tmp_path / "result.json").read_text()


@pytest.mark.parametrize("what", [("bridge",), ("vxlan",), ("services", "--from", "outside")], ids=" ".join)
def test_services_are_reached_there_as_documented(what):
    """A bridge wants br_netfilter of the guest, and a tunnel its own module."""
    done = kernels_run("lab", "reach", *what, "--proxy-version", "v1.20,v1.36", "--proxy-mode", "both")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    _cells, good, of = re.fullmatch(r"(\d+) cells with 3 kube-proxies: (\d+) of (\d+) as .*", summary).groups()
    assert int(good) == int(of) > 0


def test_it_needs_no_root():
    """A user without any right, whose files are still his own."""
    ordinary = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    done = subprocess.run(
        [*ordinary, sys.executable, "-m", "lab", "kernels", "run", "--limit", str(LIMIT), KERNEL, "--", "id", "-u"],
        capture_output=True, text=True, cwd=CHECKOUT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.parametrize(
    ("script", "limit", "failure"),
    [
        ("echo c >/proc/sysrq-trigger", LIMIT, "panicked: sysrq triggered crash"),
        ("python3 -c 'x = [bytearray(2**20) for _ in range(4000)]'", LIMIT, "out of memory: Killed process"),
        ("echo begun; exec sleep 10000", 60, "out of time: not finished after 60 s; --limit gives it more"),
    ],
)
def test_guests_that_fail_say_how(script, limit, failure):
    done = kernels_run("sh", "-c", script, limit=limit)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].partition(": ")[2].partition(": ")[2].startswith(failure)


@pytest.mark.skipif(KERNEL != "6.1", reason="newer schedulers serve everybody: this hangs up to 6.7")
def test_a_guest_that_hangs():
    """A process of real-time priority that never rests, on the only processor, and no throttling (sched(7))."""
    script = "sysctl -qw kernel.sched_rt_runtime_us=-1; exec chrt -f 99 sh -c 'while :; do :; done'"
    done = kernels_run("sh", "-c", script, limit=600)
    assert done.returncode == 2
    assert "hung: no sign of life for 60 s" in done.stderr.splitlines()[-1]


def guests():
    found = subprocess.run(
        ["pgrep", "-f", "qemu-system-x86_64 .*/images/initrd-"], capture_output=True, text=True, check=False
    )
    return set(map(int, found.stdout.split()))


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_guest_ends_with_the_command(sent, exit_code):
    kernels_run("true")  # so that there is nothing left to make
    before = guests()
    command = subprocess.Popen(
        [sys.executable, "-m", "lab", "kernels", "run", KERNEL, "--", "sleep", "1000"], cwd=CHECKOUT
    )
    deadline = time.monotonic() + 60
    while not (own := guests() - before):
        assert time.monotonic() < deadline
    command.send_signal(sent)
    assert command.wait(60) == exit_code
    while guests() & own:
        assert time.monotonic() < deadline


def test_nothing_is_made_twice(tmp_path):
    for _ in range(2):
        done = kernels_run("true")
        assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_pytest_runs_there_and_reports_here(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "test_there.py").write_text(
        "import os, pytest\n"
        "def test_kernel(): assert os.uname().release.startswith(os.environ.get('K', '6.1'))\n"
        "def test_wrong(): assert os.getpid() == 0, 'as it should'\n"
        "@pytest.mark.skip(reason='no need')\n"
        "def test_skipped(): pass\n"
        "def test_trial(lab_trial): assert lab_trial('beyond-window').verdict.outcome == 'reset'\n"
        "def test_left_out(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--lab-kernels", KERNEL, "-k", "not left_out", "--junitxml", "out.xml", "-rs"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"test_wrong[{KERNEL}]" in done.stdout
    assert "as it should" in done.stdout
    assert "1 failed, 2 passed, 1 skipped" in done.stdout
    assert f'name="test_trial[{KERNEL}]"' in (tmp_path / "out.xml").read_text()
