"""What the command costs: wall time and peak memory of ``lab run``, wall time of ``lab --help``.

python tests/benchmarks/command.py [ROUNDS]
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from functools import partial

from measure import interleaved, machine, milliseconds, told

COMMANDS = {
    "lab run (bar 2,000 ms, 150 MiB)": ("run",),
    "lab --help (bar 100 ms)": ("--help",),
    "python itself": None,
}


def once(arguments: tuple[str, ...] | None, peaks: list[int]) -> float:
    program = ("-c", "pass") if arguments is None else ("-m", "lab", *arguments)

    def run() -> None:
        process = subprocess.Popen([sys.executable, *program], stdout=subprocess.DEVNULL)
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss)

    return milliseconds(run)


def main(rounds: int) -> None:
    print(machine())
    peaks: dict[str, list[int]] = {title: [] for title in COMMANDS}
    candidates = {title: partial(once, arguments, peaks[title]) for title, arguments in COMMANDS.items()}
    for title, times in interleaved(rounds, candidates).items():
        print(f"  {title:32} {told(times)}   peak {max(peaks[title]) / 1024:.0f} MiB")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"  the largest process of them all, programs that the lab starts included: {children:.0f} MiB")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]) if sys.argv[1:] else 10)
