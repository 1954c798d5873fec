# SPDX-License-Identifier: MIT
"""The guests' root file system, and its Python, which the machine runs as well."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.errors import LabError, MissingError
from lab.kernels.archive import keyring, mirrors
from lab.kernels.cache import Cache, say
from lab.kernels.layer import digest_of
from lab.kernels.programs import call, last_words, require
from lab.netns.program import find

#: The guest's distribution, whatever the machine's is.
SUITE: Final = "bookworm"
PACKAGES: Final = (
    "conntrack", "curl", "ethtool", "iproute2", "iptables", "kmod", "nftables", "nginx-light", "procps", "python3",
)  # fmt: skip
_WITHOUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")


def root_layer(cache: Cache) -> Path:
    """Return the guests' root file system, made where it is not in the cache."""
    recipe = digest_of(SUITE, *PACKAGES, *_WITHOUT)
    return cache.make(f"images/root-{SUITE}-{recipe}.squashfs", _make_root)


def _make_root(path: Path) -> None:
    if os.geteuid() != 0:
        _require_numbers()
    say(f"making the guests' root file system, Debian {SUITE} (once; a minute or so)")
    mirror, security = mirrors()
    sources = (
        f"deb [signed-by={keyring()}] {mirror} {SUITE} main",
        f"deb [signed-by={keyring()}] {security} {SUITE}-security main",
    )
    builder = [
        find("mmdebstrap"), "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _WITHOUT), SUITE, "-", *sources,
    ]  # fmt: skip
    compressor = [find("sqfstar"), "-comp", "zstd", "-no-progress", str(path)]
    with tempfile.TemporaryFile() as words:
        built = subprocess.Popen(builder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words)
        assert built.stdout is not None
        try:
            packed = subprocess.run(compressor, stdin=built.stdout, capture_output=True, check=False)
        finally:
            built.stdout.close()
            built.wait()
        words.seek(0)
        for name, code, said in (
            ("mmdebstrap", built.returncode, words.read()),
            ("sqfstar", packed.returncode, packed.stderr),
        ):
            if code != 0:
                told = last_words(said.decode(errors="replace"))
                raise LabError(f"cannot make the guests' root file system: {name}: {told}")


def _require_numbers() -> None:
    """Check that a user who is not root may have users of his own, whom the root file system's files belong to.

    mmdebstrap is root of a user namespace then, with the numbers that /etc/subuid gives him (newuidmap(1)).
    """
    require(["newuidmap"])
    user = pwd.getpwuid(os.geteuid()).pw_name
    given = Path("/etc/subuid").read_text() if Path("/etc/subuid").exists() else ""
    if not any(line.split(":")[0] in (user, str(os.geteuid())) for line in given.splitlines()):
        raise MissingError(
            f"/etc/subuid has no numbers for {user}, and the guests' root file system is not made yet",
            f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}; or make it as root once",
        )


def python_layer(root: Path, cache: Cache) -> Path:
    """Return the guests' Python, unpacked."""

    def make(path: Path) -> None:
        call(
            ["unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-dest", path, root,
             "usr/bin", "usr/lib/python3*", "usr/lib/x86_64-linux-gnu"],
            "unpack the guests' Python",
        )  # fmt: skip

    return cache.make(f"images/interpreter-{root.stem.removeprefix('root-')}", make)


def run_python(interpreter: Path, arguments: Sequence[str | Path], what: str) -> None:
    """Run the guest's Python on the machine by its own loader and libraries: no chroot, no rights, no guest."""
    libraries = interpreter / "usr/lib/x86_64-linux-gnu"
    done = subprocess.run(
        [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, interpreter / "usr/bin/python3", *arguments],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "PYTHONHOME": str(interpreter / "usr"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError(f"cannot {what}: {last_words(done.stderr or done.stdout)}")


def compile_all(interpreter: Path, tree: Path, place: str) -> None:
    """Write the guest's bytecode: an emulated processor takes many seconds for what takes the machine one."""
    run_python(
        interpreter,
        ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", place, tree],
        f"compile {tree}",
    )
