"""A system that is made up for `bootstrap`: its own /usr, and a Python that notes what it is asked."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Makes an environment of one link, leaves pip to the log, and lets the real Python answer everything else.
PYTHON = """#!/bin/sh
case $* in
"-I -m venv "*)
    echo venv >>"$LOG"
    [ ! -p "$GATE" ] || read -r _ <"$GATE"
    mkdir -p "$4/bin" && ln -s {self} "$4/bin/python"
    ;;
"-I -m pip "*)
    echo pip >>"$LOG"
    case $* in *" ${{PIP_FAILS_AT:-no such word}} "*) exit 1 ;; esac
    ;;
*"import ensurepip"*) exit "${{UNFIT:-0}}" ;;
*) exec {real} "$@" ;;
esac
"""

# What bootstrap brings for the cases of load, with their packages.
PROGRAMS_OF_LOAD = {"nginx": "nginx", "curl": "curl", "tc": "iproute2"}

# What the script itself calls, found on the machine that runs the tests.
BORROWED = [
    "cat",
    "chmod",
    "cksum",
    "env",
    "ln",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sed",
    "sh",
    "sort",
    "tail",
    "tr",
    "true",
    "uname",
]


@dataclass
class System:
    """A system under ``root`` with a checkout, as `bootstrap` sees it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.root / "a checkout"

    @property
    def stamp(self) -> Path:
        return self.checkout / ".venv/stamp"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def program(self, name: str, text: str) -> Path:
        path = self.root / "usr/bin" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def command(self, *arguments: str, checkout: Path | None = None) -> list[str]:
        return [str((checkout or self.checkout) / "bootstrap"), *arguments]

    def variables(self) -> dict[str, str]:
        usual = {"LOG": str(self.log), "GATE": str(self.root / "gate"), "HOME": str(self.root / "home")}
        return {"PATH": str(self.root / "usr/bin"), **usual, **self.environ}

    def run(self, *arguments: str, checkout: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Calls bootstrap and forgets what earlier calls wrote to the log."""
        self.log.write_text("")
        return subprocess.run(
            self.command(*arguments, checkout=checkout),
            env=self.variables(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()
