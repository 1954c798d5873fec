"""Kills runs of the lab at random moments and tells what is left of them.

Start it as root of a user namespace, with a network and a mount namespace of its own:

    unshare --user --map-root-user --net --mount python tests/safety/killer.py SEED COUNT DIRECTORY

It prints one JSON object a kill. How many network namespaces are left is asked of the kernel itself: with
``user.max_net_namespaces`` of this user namespace at one more than its own namespace, making another succeeds
exactly when every other one is gone. Processes whose parent is killed become children of this one
(PR_SET_CHILD_SUBREAPER), so none can hide.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from lab.errors import MachineError
from lab.netns import Namespace

LIMIT = Path("/proc/sys/user/max_net_namespaces")
OWN = 1  # the one that this process lives in
FULL = 20
PLENTY = 10_000
BOUND = 30  # seconds; what is not gone by then never goes
LONGEST = 0.3  # seconds from the first namespace, or from data in flight, to the latest kill: a dozen trials
PRIVATE = ("/run", "/dev/shm", "/var/tmp")

LAB = (sys.executable, "-P", "-m", "lab", "run", "beyond-window")
RUNS = (
    (*LAB, "--repeat", "1000"),
    (*LAB, "--repeat", "1000", "--backend", "legacy"),
    (*LAB, "--repeat", "1000", "--proxy-mode", "nftables", "--family", "ipv6"),
)
IN_FLIGHT = (sys.executable, "-P", str(Path(__file__).with_name("undeliverable.py")))
NEXT = (*LAB, "--fix", "none", "--no-timeline")


def can_make_namespace(made: list[Namespace]) -> bool:
    try:
        made.append(Namespace.create())
    except MachineError:
        return False
    return True


def seconds_until(condition: Callable[[], bool]) -> float:
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > BOUND:
            break
        time.sleep(0.001)
    return time.monotonic() - begun


def others_are_gone() -> bool:
    LIMIT.write_text(str(OWN + 1))
    made: list[Namespace] = []
    try:
        return can_make_namespace(made)
    finally:
        LIMIT.write_text(str(PLENTY))
        for namespace in made:
            namespace.close()


def no_child_is_left() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def holds_a_namespace(process: subprocess.Popen[str]) -> bool:
    own = os.readlink("/proc/self/ns/net")
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{process.pid}/fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("net:") and target != own:
                    return True
    return process.poll() is not None


def files_in(directories: list[str]) -> list[str]:
    return [
        str(Path(place, name))
        for directory in directories
        for place, below, names in os.walk(directory)
        for name in (*below, *names)
    ]


def kill_one(command: tuple[str, ...], moment: float, directories: list[str]) -> dict[str, object]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        if command == IN_FLIGHT:
            assert process.stdout.readline() == "in flight\n"
        else:
            seconds_until(lambda: holds_a_namespace(process))
        time.sleep(moment)  # the moment is the experiment
        assert process.poll() is None
        process.kill()
        killed = time.monotonic()
        process.wait()
        held = not others_are_gone()
        seconds_until(no_child_is_left)
        processes = time.monotonic() - killed
        seconds_until(others_are_gone)
        namespaces = time.monotonic() - killed
    files = files_in(directories)
    following = subprocess.run(NEXT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return {
        "command": " ".join(command[2:]),
        "moment": moment,
        "held_namespaces": held,
        "processes_gone_after": processes,
        "namespaces_gone_after": namespaces,
        "files": files,
        "next_run": following.returncode,
        "next_output": following.stdout + following.stderr,
    }


def kills(seed: int, count: int, directory: str) -> Iterator[dict[str, object]]:
    chance = random.Random(seed)
    directories = [*PRIVATE, directory]
    assert not files_in(directories), "not empty to begin with"
    for number in range(count):
        command = IN_FLIGHT if number % 2 else RUNS[number // 2 % len(RUNS)]
        yield kill_one(command, chance.uniform(0, LONGEST), directories)


def limit_holds() -> bool:
    """Make as many namespaces as are allowed, ask for one more, and give them back."""
    LIMIT.write_text(str(OWN + FULL))
    made = []
    try:
        while len(made) < FULL and can_make_namespace(made):
            pass
        return len(made) == FULL and not can_make_namespace([])
    finally:
        LIMIT.write_text(str(PLENTY))
        for namespace in made:
            namespace.close()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    for place in PRIVATE:
        subprocess.run(["mount", "--no-mtab", "-t", "tmpfs", "tmpfs", place], check=True)
    assert limit_holds(), "the kernel does not count network namespaces"
    for outcome in kills(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]):
        print(json.dumps(outcome), flush=True)
    assert seconds_until(limit_holds) < BOUND, "not all namespaces can be made again"
