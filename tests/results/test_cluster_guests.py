"""Guests on a cluster's workers end when nobody waits for them: `lab matrix`, a real scheduler and real workers.

In QEMU's place is a program that boots nothing, lives as a guest does, and never ends by itself; what else there is is
as it always is. tests/results/test_guests.py does the same with guests that are really booted.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.kernels import Image
from tests.support import cover

pytestmark = pytest.mark.lab_needs_tool("setpriv")

BOUND = 120  # seconds; what has not ended by then never does

# A sign of life a second, as a guest's initrd gives it. It does not boot on KVM.
GUEST = """#!/bin/sh
case "$*" in *"-accel kvm"*) exit 1 ;; esac
echo "$$ $PPID" >"$GUESTS"
while printf '\\0'; do sleep 1; done
"""

# The command itself, but for what Debian's archive and a maker of images would bring.
COMMAND = """
import sys
from pathlib import Path
from lab.__main__ import main
from lab.kernels import Image, Kernel, sweep

layers = Path(sys.argv.pop(1))
sweep.resolve = lambda name, cache: Kernel(name, name, name, layers, layers)
sweep.make_image = lambda kernel, cache: Image(**{name: layers / name for name in Image.__annotations__})
main()
"""


class Guests:
    """Hears of each guest that begins, and sees it end."""

    def __init__(self, directory):
        (directory / "bin").mkdir()
        program = directory / "bin/qemu-system-x86_64"
        program.write_text(GUEST)
        program.chmod(0o755)
        os.mkfifo(directory / "guests")
        self._begun = os.open(directory / "guests", os.O_RDWR)
        self._open = [self._begun]
        self.environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "GUESTS": str(directory / "guests")}

    def next(self, of):
        """Wait for a guest of a command to begin; return a descriptor of its process and its worker's number."""
        command = os.pidfd_open(of.pid)
        try:
            begun, _, _ = select.select([self._begun, command], [], [], BOUND)
        finally:
            os.close(command)
        assert self._begun in begun, of.communicate()[1] if begun else "no guest began"
        line = b""
        while not line.endswith(b"\n"):  # two may have begun
            line += os.read(self._begun, 1)
        number, worker = map(int, line.split())
        self._open.append(os.pidfd_open(number))
        return self._open[-1], worker

    def none_began(self):
        return not select.select([self._begun], [], [], 0)[0]

    def close(self):
        for descriptor in self._open:
            os.close(descriptor)


def ended(guest, *, within=BOUND):
    return bool(select.select([guest], [], [], within)[0])


@pytest.fixture(scope="module")
def guests(tmp_path_factory):
    with contextlib.closing(Guests(tmp_path_factory.mktemp("guests"))) as guests:
        yield guests


@pytest.fixture(scope="module")
def cluster(clusters, guests):
    return clusters(**guests.environment)


@pytest.fixture
def layers(tmp_path):
    """What a guest would boot from."""
    for name in Image.__annotations__:
        (tmp_path / name).write_bytes(os.urandom(1000))
    return tmp_path


@pytest.fixture
def matrix(layers):
    """Starts `lab matrix` on a scheduler's workers."""
    with contextlib.ExitStack() as stack:

        def start(scheduler, *kernels, cases=("in-window",)):
            process = stack.enter_context(
                subprocess.Popen(
                    [
                        *(sys.executable, "-c", COMMAND, str(layers), "matrix", *cases, "--fix", "none"),
                        *("--kernels", ",".join(kernels), "--scheduler", scheduler),
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize(
    ("sent", "exit_code"), cover.some([(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)], of="guests")
)
def test_they_end_with_the_command(cluster, guests, matrix, sent, exit_code):
    process = matrix(cluster.address, "5.10", "6.1")
    (one, first), (other, second) = guests.next(process), guests.next(process)
    assert {first, second} == {worker.pid for worker in cluster.workers}
    assert not ended(one, within=0)
    assert not ended(other, within=0)
    process.send_signal(sent)
    out, err = process.communicate(timeout=BOUND)
    assert (process.returncode, out) == (exit_code, "")
    assert "Traceback" not in err
    assert ended(one)
    assert ended(other)


def test_workers_that_no_kernel_needs_share_its_trials(cluster, guests, matrix):
    process = matrix(cluster.address, "6.1", cases=("in-window", "beyond-window", "without-nat"))
    (one, first), (other, second) = guests.next(process), guests.next(process)
    assert {first, second} == {worker.pid for worker in cluster.workers}
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=BOUND)
    assert ended(one)
    assert ended(other)
    assert guests.none_began()


def test_another_command_leaves_them_alone(cluster, guests, matrix, wait_for):
    process = matrix(cluster.address, "5.10", "6.1")
    own = [guests.next(process)[0], guests.next(process)[0]]
    another = matrix(cluster.address, "6.12", "6.18")
    wait_for(another, "6.18: Linux 6.18 is ready to boot")  # so it has been to each worker
    another.send_signal(signal.SIGINT)
    another.communicate(timeout=BOUND)
    assert not any(ended(guest, within=0) for guest in own)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=BOUND)
    assert all(map(ended, own))
    assert guests.none_began()


def test_one_that_nobody_waits_for_any_more_does_not_begin(clusters, guests, matrix, layers, wait_for):
    """The command is killed while its workers fetch the files: here, while another holds a lock that they need."""
    from distributed import Client

    async def has(states, dask_worker):
        async with asyncio.timeout(BOUND):
            while [task.state for task in dask_worker.state.tasks.values()] != states:
                await asyncio.sleep(0)

    cluster = clusters(**guests.environment)
    with contextlib.ExitStack() as stack:
        digest = hashlib.sha256((layers / "vmlinuz").read_bytes()).hexdigest()
        for name in ("first", "second"):
            locks = cluster.directory / name / "cache/locks"
            locks.mkdir(parents=True)
            lock = stack.enter_context((locks / f"artifacts-{digest}").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        process = matrix(cluster.address, "5.10", "6.1")
        for worker in cluster.workers:
            wait_for(worker, "waiting for another process that is busy with artifacts/")
        process.kill()
        with Client(cluster.address, set_as_default=False) as client:
            client.run(has, ["cancelled"])
            stack.close()
            client.run(has, [])
    assert guests.none_began()


def test_a_lost_workers_guest_begins_elsewhere(cluster, guests, matrix):
    process = matrix(cluster.address, "5.10", "6.1")
    own = {worker: guest for guest, worker in (guests.next(process), guests.next(process))}
    first, second = cluster.workers
    second.kill()
    assert ended(own[second.pid])
    assert not ended(own[first.pid], within=0)
    # As docs/cluster.md has it: a nanny's child, with room for two. Who comes late is watched as well.
    third = cluster.add_worker("third", "--nthreads", "2")
    one, worker = guests.next(process)
    assert worker in children(third.pid)
    first.kill()
    assert ended(own[first.pid])
    other, same = guests.next(process)
    assert same == worker
    assert not ended(one, within=0)
    process.kill()
    assert ended(one)
    assert ended(other)


def children(process):
    tasks = Path(f"/proc/{process}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


# A worker in a process that goes on without it.
WORKER = """
import asyncio, sys
from distributed import Worker

async def main():
    async with Worker(sys.argv[1], nthreads=1) as worker:
        print("here", flush=True)
        await worker.finished()
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_they_end_when_the_scheduler_goes(clusters, guests, matrix, tmp_path):
    cluster = clusters(**guests.environment)
    for worker in cluster.workers:
        worker.kill()
        worker.wait()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, cluster.address],
        env={**os.environ, **guests.environment, "TMPDIR": str(tmp_path), "LAB_KERNELS_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
    ) as worker:
        try:
            assert worker.stdout.readline() == b"here\n"
            process = matrix(cluster.address, "6.1")
            guest, where = guests.next(process)
            assert where == worker.pid
            cluster.scheduler.kill()
            assert ended(guest)
            assert worker.poll() is None
            _out, err = process.communicate(timeout=BOUND)
        finally:
            worker.kill()
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert f"the Dask scheduler at {cluster.address} was lost" in err
