# SPDX-License-Identifier: MIT
"""From what a user calls a kernel to the kernel itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from lab.errors import InputError, LabError, MissingError, misspelt
from lab.kernels import archive
from lab.kernels.archive import Candidate
from lab.kernels.cache import Cache
from lab.kernels.kernel import Kernel, fingerprint, order, read_banner
from lab.kernels.programs import call, require

#: The newest that the archive has; the one that this machine runs.
NEWEST: Final = "newest"
RUNNING: Final = "running"

_NAMES: Final = (
    "give a series such as 6.1, a version, `newest`, `running`, VMLINUZ, VMLINUZ:MODULES or a .deb; "
    "`lab kernels list` shows what there is"
)


def resolve(reference: str, cache: Cache) -> Kernel:
    """Return the kernel that a user means, and fetch it where the cache has none of that name.

    What was fetched stays what the name means: :func:`fetch` asks the archive anew.

    :param reference: a series (``6.1``), a version (``6.1.192``), a release, ``newest``, ``running``, the path of a
        ``vmlinuz``, of a ``vmlinuz`` and its modules with a colon between them, or of a ``.deb``.
    :raises InputError: there is no such kernel.
    :raises MissingError: a program that is needed is missing.
    :raises LabError: it cannot be fetched.
    """
    if reference == RUNNING:
        return _running()
    if "/" in reference or reference.endswith(".deb"):
        return _of_path(reference, cache)
    if not (reference == NEWEST or re.match(r"\d+\.\d+", reference)):
        raise InputError(f"{reference!r} is no kernel", cure=misspelt(reference, (NEWEST, RUNNING)) or _NAMES)
    return _cached(reference, cache) or fetch([reference], cache)[0]


def fetch(references: list[str], cache: Cache) -> list[Kernel]:
    """Ask the archive for the newest kernels of these names, and bring them into the cache.

    :raises InputError: the archive has no such kernel.
    :raises LabError: the archive cannot be reached, or something that came is not what was signed.
    """
    require(["apt-get", "dpkg-deb", "depmod"])
    found, trouble = archive.look(cache, archive.sources())
    if not found:
        raise LabError(f"no list of kernels could be had: {'; '.join(trouble) or 'the archive has none'}")
    chosen = [(reference, _choose(reference, found)) for reference in references]
    return [_installed(reference, candidate, cache) for reference, candidate in chosen]


def _choose(reference: str, found: list[Candidate]) -> Candidate:
    for candidate in found:
        if reference == NEWEST or _means(reference, candidate.release, candidate.version):
            return candidate
    there = ", ".join(candidate.series for candidate in archive.newest_of_each_series(found))
    raise InputError(f"the archive has no kernel {reference}", cure=f"it has {there}")


def _means(reference: str, release: str, version: str) -> bool:
    return reference in (release, version) or version.startswith((f"{reference}.", f"{reference}-", f"{reference}~"))


# --- the cache ------------------------------------------------------------------------------------


def _installed(reference: str, candidate: Candidate, cache: Cache) -> Kernel:
    name = f"{candidate.release}_{candidate.version}"

    def make(path: Path) -> None:
        path.mkdir()
        configuration = cache.directory / "apt/apt.conf"
        debs = [archive.download(package, path, configuration) for package in candidate.packages]
        _unpack(debs, path, asdict(candidate))
        for deb in debs:
            deb.unlink()

    directory = cache.make(f"kernels/{name}", make)
    if reference == NEWEST:
        link = directory.parent / f".{NEWEST}.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.rename(directory.parent / NEWEST)
    return _read(reference, directory)


def _unpack(debs: list[Path], directory: Path, origin: dict[str, object]) -> None:
    """Unpack a kernel's packages, find what is in them, and note what it was and where it came from."""
    tree = directory / "tree"
    for deb in debs:
        call(["dpkg-deb", "--extract", deb, tree], f"unpack {deb}")
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")  # where depmod looks
    vmlinuz = next((path for path in (*tree.glob("boot/vmlinuz*"), *tree.glob("lib/modules/*/vmlinuz"))), None)
    if vmlinuz is None:
        raise InputError("there is no vmlinuz in it", source=", ".join(map(str, debs)))
    release, _version = read_banner(vmlinuz)
    if not (tree / "lib/modules" / release / "kernel").is_dir():
        raise InputError(f"there are no modules of {release} in it", source=", ".join(map(str, debs)))
    call(["depmod", "--basedir", tree, release], f"list the modules of {release}")
    note = {**origin, "vmlinuz": str(vmlinuz.relative_to(directory)), "vmlinuz_sha256": archive.checksum(vmlinuz)}
    (directory / "kernel.json").write_text(json.dumps(note, indent=2))


def _read(name: str, directory: Path) -> Kernel:
    note = json.loads((directory / "kernel.json").read_text())
    vmlinuz = directory / note["vmlinuz"]
    if archive.checksum(vmlinuz) != note["vmlinuz_sha256"]:
        raise LabError(f"{vmlinuz} has changed since it was fetched; remove {directory} and fetch it again")
    release, version = read_banner(vmlinuz)
    return Kernel(name, release, version, vmlinuz, directory / "tree/lib/modules" / release)


def cached(cache: Cache) -> Iterator[tuple[str, str, Path]]:
    """List the archive's kernels that are in the cache: release, Debian's version and directory; the newest first."""
    found = []
    for path in (cache.directory / "kernels").glob("*_*"):
        release, _underscore, version = path.name.partition("_")
        if (path / "kernel.json").exists() and not path.name.endswith(".new"):
            found.append((release, version, path))
    yield from sorted(found, key=lambda one: order(one[1]), reverse=True)


def _cached(reference: str, cache: Cache) -> Kernel | None:
    if reference == NEWEST:
        link = cache.directory / "kernels" / NEWEST
        return _read(reference, link.resolve()) if link.exists() else None
    for release, version, directory in cached(cache):
        if _means(reference, release, version):
            return _read(reference, directory)
    return None


# --- paths ----------------------------------------------------------------------------------------


def _of_path(reference: str, cache: Cache) -> Kernel:
    if reference.endswith(".deb"):
        return _of_deb(Path(reference), reference, cache)
    image, _colon, modules = reference.partition(":")
    vmlinuz = Path(image).absolute()
    release, version = read_banner(vmlinuz)
    places = [Path(modules).absolute()] if modules else _places(vmlinuz, release)
    for place in places:
        if any((place / name).exists() for name in ("modules.dep", "modules.order", "kernel")):
            kernel = Kernel(reference, release, version, vmlinuz, place)
            return kernel if (place / "modules.dep").exists() else _with_index(kernel, cache)
    looked = ", ".join(map(str, places))
    raise InputError(f"no modules of {release} in {looked}", source=vmlinuz, cure=f"give {image}:DIRECTORY")


def _places(vmlinuz: Path, release: str) -> list[Path]:
    """Where the modules of an image lie: in a root file system's tree, beside it, or as the newest packages have it."""
    beside = vmlinuz.parent
    trees = (beside, beside.parent, Path("/"))
    return [beside, *(tree / lib / "modules" / release for tree in trees for lib in ("lib", "usr/lib"))]


def _with_index(kernel: Kernel, cache: Cache) -> Kernel:
    """Copy the modules into the cache, and list there what depends on what: the user's own tree is only read."""

    def make(path: Path) -> None:
        copied = path / "lib/modules" / kernel.release
        shutil.copytree(kernel.modules, copied, symlinks=True, ignore=shutil.ignore_patterns("build", "source"))
        call(["depmod", "--basedir", path, kernel.release], f"list the modules of {kernel.release}")

    require(["depmod"])
    tree = cache.make(f"kernels/path-{kernel.release}-{fingerprint(kernel.modules)}", make)
    return replace(kernel, modules=tree / "lib/modules" / kernel.release)


def _of_deb(deb: Path, reference: str, cache: Cache) -> Kernel:
    if not deb.is_file():
        raise InputError("there is no such file", source=deb)
    require(["dpkg-deb", "depmod"])
    release = re.sub(r"^linux-(?:image|binary|modules)-", "", deb.name.partition("_")[0])
    # Split packages lie beside each other, or they are of no use.
    others = [one for part in ("modules", "base") for one in sorted(deb.parent.glob(f"linux-{part}-{release}_*.deb"))]
    debs = [deb, *(one for one in others if one != deb)]
    sums = {one.name: archive.checksum(one) for one in debs}

    def make(path: Path) -> None:
        path.mkdir()
        _unpack(debs, path, {"packages": sums})

    own = archive.checksum(deb)[:16]
    return _read(reference, cache.make(f"kernels/deb-{own}", make))


def _running() -> Kernel:
    release = os.uname().release
    vmlinuz, modules = Path(f"/boot/vmlinuz-{release}"), Path(f"/lib/modules/{release}")
    if not (vmlinuz.exists() and modules.exists()):
        missing = vmlinuz if not vmlinuz.exists() else modules
        raise MissingError(f"the running kernel {release} cannot be booted in a guest", f"there is no {missing}")
    return Kernel(RUNNING, release, read_banner(vmlinuz)[1], vmlinuz, modules)
