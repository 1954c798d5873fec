"""What a guest boots from, in layers: each is made once, and again only when what it is made from has changed.

=============  =========================================================================  ======================
layer          what is in it                                                              is made anew when
=============  =========================================================================  ======================
root           Debian with Python and the programs that the lab and its tests call        the recipe changes
interpreter    the same Python, unpacked, so that it can be run on the machine             the root changes
dependencies   the lab's Python packages, and those of its tests                          those named change
project        the tree that commands are run from, and the lab                           a file in it changes
modules        one kernel's modules                                                       for every kernel
initrd         busybox, a script, and the modules that are needed to mount the rest       for every kernel
=============  =========================================================================  ======================

All are compressed and read-only. A layer's name carries a hash of what it was made from.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Final

from lab.errors import InputError, LabError, MissingError
from lab.kernels.archive import keyring, mirrors
from lab.kernels.cache import Cache, say
from lab.kernels.kernel import Kernel, fingerprint
from lab.kernels.programs import call, last_words, require
from lab.netns.program import find

_HERE: Final = Path(__file__).parent
_DISTRIBUTION: Final = "kube-proxy-lab"

#: The guest's distribution, whatever the machine's is.
SUITE: Final = "bookworm"
PACKAGES: Final = (
    "conntrack", "curl", "ethtool", "iproute2", "iptables", "kmod", "nftables", "nginx-light", "procps", "python3",
)  # fmt: skip
_WITHOUT: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")

#: What the lab's own tests import beyond the lab's dependencies (pyproject.toml, dependency group `dev`).
TEST_REQUIREMENTS: Final = ("hypothesis>=6", "jsonschema>=4", "pytest-xdist>=3", "xmlschema>=3")

# What mounts the rest. A kernel that has one of them built in has nothing to load for it.
_NEEDED_MODULES: Final = ("virtio_pci", "virtio_blk", "squashfs", "overlay")

_NO_PART_OF_A_PROJECT: Final = {"__pycache__", "node_modules", ".git", ".hypothesis", ".vagrant"}
_LARGEST_PROJECT: Final = 256 << 20  # bytes
_FORGOTTEN_AFTER: Final = 24 * 3600.0


@dataclass(frozen=True)
class Image:
    """The files that a guest boots from."""

    vmlinuz: Path
    initrd: Path
    root: Path
    modules: Path
    dependencies: Path
    project: Path

    @property
    def disks(self) -> dict[str, Path]:
        """The read-only disks by their serial numbers."""
        return {
            "root": self.root, "modules": self.modules, "dependencies": self.dependencies, "project": self.project,
        }  # fmt: skip


def make_image(kernel: Kernel, cache: Cache, project: Path | None = None) -> Image:
    """Give what a guest with that kernel boots from, making what is not in the cache.

    :param project: the tree that commands are run from; without one the checkout that the lab was imported from.
    :raises MissingError: programs are missing; all of them are named.
    :raises LabError: a layer cannot be made.
    """
    require()
    modules, initrd = kernel_layers(kernel, cache)
    root = root_layer(cache)
    python = _interpreter(root, cache)
    dependencies = _dependencies(python, cache)
    return Image(kernel.vmlinuz, initrd, root, modules, dependencies, _project(project, python, cache))


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def _squash(directory: Path, file: Path, *, level: int = 15) -> None:
    call(
        ["mksquashfs", directory, file, "-comp", "zstd", "-Xcompression-level", str(level), "-all-root", "-noappend",
         "-no-progress", "-no-xattrs"],
        f"make {file}",
    )  # fmt: skip


# --- a kernel's own -------------------------------------------------------------------------------


def kernel_layers(kernel: Kernel, cache: Cache) -> tuple[Path, Path]:
    """Give a kernel's modules and its initrd."""
    identity = fingerprint(kernel.modules)
    busybox = Path(find("busybox"))
    scripts = [_HERE / "initrd.sh", _HERE / "guest.sh"]
    own = _digest(identity, busybox.read_bytes(), *(script.read_bytes() for script in scripts))
    modules = cache.make(
        f"images/modules-{kernel.release}-{identity}.squashfs", lambda path: _squash(kernel.modules, path, level=3)
    )
    initrd = cache.make(
        f"images/initrd-{kernel.release}-{own}", lambda path: _make_initrd(path, kernel, busybox, scripts)
    )
    return modules, initrd


def _make_initrd(path: Path, kernel: Kernel, busybox: Path, scripts: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        tree = Path(directory)
        (tree / "bin").mkdir()
        (tree / "modules").mkdir()
        shutil.copy(busybox, tree / "bin/busybox")
        for script, name in zip(scripts, ("init", "guest.sh"), strict=True):
            shutil.copy(script, tree / name)
            (tree / name).chmod(0o755)
        names = []
        for module in _in_order(kernel):
            name = module.name[: module.name.index(".ko")] + ".ko"
            (tree / "modules" / name).write_bytes(_unpacked(module))
            names.append(name)
        (tree / "modules/order").write_text("".join(f"{name}\n" for name in names))
        listing = "".join(f"{one.relative_to(tree)}\n" for one in sorted(tree.rglob("*")))
        with path.open("wb") as file:
            done = subprocess.run(
                [find("cpio"), "--create", "--format=newc", "--owner=+0:+0", "--quiet"],
                input=listing.encode(), stdout=file, stderr=subprocess.PIPE, cwd=tree, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"cannot make {path}: {last_words(done.stderr.decode(errors='replace'))}")


def _in_order(kernel: Kernel) -> list[Path]:
    """List the needed modules, each after those that it needs itself (modules.dep(5))."""
    needs: dict[str, list[str]] = {}
    dependencies = kernel.modules / "modules.dep"
    for line in dependencies.read_text().splitlines() if dependencies.exists() else ():
        module, _colon, others = line.partition(":")
        needs[module] = others.split()
    by_name = {Path(module).name.partition(".")[0].replace("-", "_"): module for module in needs}
    ordered: dict[str, None] = {}
    for name in _NEEDED_MODULES:
        if name in by_name:
            # modprobe(8) loads them from right to left.
            ordered.update(dict.fromkeys((*reversed(needs[by_name[name]]), by_name[name])))
    return [kernel.modules / module for module in ordered]


def _unpacked(module: Path) -> bytes:
    data = module.read_bytes()
    if module.suffix == ".xz":
        return lzma.decompress(data)
    if module.suffix == ".zst":  # Python has no zstd before 3.14
        return subprocess.run([find("zstd"), "-dc"], input=data, capture_output=True, check=True).stdout
    return data


# --- the distribution -----------------------------------------------------------------------------


def root_layer(cache: Cache) -> Path:
    """Give the guest's root file system."""
    recipe = _digest(SUITE, *PACKAGES, *_WITHOUT)
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
    """See that a user who is not root may have users of his own, whom the root file system's files belong to.

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


def _interpreter(root: Path, cache: Cache) -> Path:
    def make(path: Path) -> None:
        call(
            ["unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-dest", path, root,
             "usr/bin", "usr/lib/python3*", "usr/lib/x86_64-linux-gnu"],
            "unpack the guests' Python",
        )  # fmt: skip

    return cache.make(f"images/interpreter-{root.stem.removeprefix('root-')}", make)


def _run_python(interpreter: Path, arguments: Sequence[str | Path], what: str) -> None:
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


def _compile(interpreter: Path, tree: Path, place: str) -> None:
    """Write the guest's bytecode: an emulated processor takes many seconds for what takes the machine one."""
    _run_python(
        interpreter,
        ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", place, tree],
        f"compile {tree}",
    )


# --- Python packages ------------------------------------------------------------------------------


def requirements() -> list[str]:
    """List what the guest's Python needs to run the lab and its tests."""
    try:
        own = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise MissingError("the lab is not installed, so its dependencies are not known", "pip install .") from None
    return sorted({*(line for line in own if ";" not in line), *TEST_REQUIREMENTS})


def _dependencies(interpreter: Path, cache: Cache) -> Path:
    wanted = requirements()

    def make(path: Path) -> None:
        say("fetching the guests' Python packages (once)")
        pip = util.find_spec("pip")
        if pip is None or pip.origin is None:
            raise MissingError("pip is not installed beside the lab", f"{sys.executable} -m ensurepip")
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            tree = Path(directory)
            # By the guest's own Python, so that versions, markers and wheels are the guest's and not the machine's.
            _run_python(
                interpreter,
                [Path(pip.origin).parent, "install", "--quiet", "--only-binary=:all:", "--no-compile", "--target",
                 tree, *wanted],
                "fetch the guests' Python packages",
            )  # fmt: skip
            shutil.rmtree(tree / "bin", ignore_errors=True)
            _compile(interpreter, tree, "/mnt/dependencies")
            _squash(tree, path)

    return cache.make(f"images/dependencies-{_digest(interpreter.name, *wanted)}.squashfs", make)


# --- the project ----------------------------------------------------------------------------------


def _project(project: Path | None, interpreter: Path, cache: Cache) -> Path:
    package = _HERE.parent
    checkout = package.parent if (package.parent / "pyproject.toml").exists() else None
    tree = project or checkout
    if tree is not None:
        tree = tree.resolve()
    trees = {"project": tree} if tree else {}
    if tree is None or tree != checkout:
        trees["site/lab"] = package
        if checkout is not None:
            trees["site/topologies"] = checkout / "topologies"
    files = {
        f"{place}/{path.relative_to(top)}": path for place, top in trees.items() for path in _small(top, _files(top))
    }
    identity = _digest(
        interpreter.name,
        *(part for place, path in files.items() for part in (place, str(path.stat().st_mode), path.read_bytes())),
    )

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            _lay_out(Path(directory), files, own="site" if "site/lab" in trees else "project")
            _compile(interpreter, Path(directory), "/mnt/lab")
            _squash(Path(directory), path, level=3)

    made = cache.make(f"images/project-{identity}.squashfs", make)
    os.utime(made)
    for other in made.parent.glob("project-*.squashfs"):
        with suppress(OSError):  # another process may be doing the same
            if other.stat().st_mtime < time.time() - _FORGOTTEN_AFTER:
                other.unlink()
    return made


def _small(top: Path, files: Iterable[Path]) -> Iterator[Path]:
    """Pass files on for as long as they fit: without a pyproject.toml pytest may take /tmp for a project."""
    size = 0
    for path in files:
        size += path.stat().st_size
        if size > _LARGEST_PROJECT:
            raise InputError(
                f"more than {_LARGEST_PROJECT >> 20} MiB, which is too much to be copied into a guest",
                source=top,
                cure="a pyproject.toml or pytest.ini nearer to the tests makes a smaller project",
            )
        yield path


def _files(top: Path) -> Iterator[Path]:
    """List a tree's files; without what tools have put there, and without environments."""
    for directory, directories, names in os.walk(top):
        directories[:] = sorted(
            name
            for name in directories
            if name not in _NO_PART_OF_A_PROJECT
            and not name.endswith(("_cache", ".egg-info"))
            and not (Path(directory) / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = Path(directory) / name
            if path.is_file() and name != ".git":  # which is a file in a work tree
                yield path


def _lay_out(tree: Path, files: dict[str, Path], *, own: str) -> None:
    tree.chmod(0o755)
    for place, path in files.items():
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tree / "project").mkdir(exist_ok=True)
    distribution = metadata.distribution(_DISTRIBUTION)
    described = tree / "site" / f"kube_proxy_lab-{distribution.version}.dist-info"
    described.mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        (described / name).write_text(distribution.read_text(name) or "", encoding="utf-8")
    (tree / "environment").write_text(
        f"export PYTHONPATH={':'.join(dict.fromkeys((f'/mnt/lab/{own}', '/mnt/lab/site', '/mnt/dependencies')))}\n"
    )
    (tree / "bin").mkdir()
    for name, module in (("lab", "lab"), ("pytest", "pytest")):
        (tree / "bin" / name).write_text(f'#!/bin/sh\nexec python3 -m {module} "$@"\n')
        (tree / "bin" / name).chmod(0o755)
