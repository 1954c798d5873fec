# SPDX-License-Identifier: MIT
"""A kernel's own layers: its modules, and the initrd that mounts the rest."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.errors import LabError
from lab.kernels.cache import Cache
from lab.kernels.kernel import Kernel, fingerprint
from lab.kernels.layer import digest_of, squash
from lab.kernels.programs import last_words
from lab.netns.program import find

_HERE: Final = Path(__file__).parent

# What mounts the rest. A kernel that has one of them built in has nothing to load for it.
_NEEDED_MODULES: Final = ("virtio_pci", "virtio_blk", "squashfs", "overlay")


def kernel_layers(kernel: Kernel, cache: Cache) -> tuple[Path, Path]:
    """Return a kernel's modules and its initrd."""
    identity = fingerprint(kernel.modules)
    busybox = Path(find("busybox"))
    scripts = [_HERE / "initrd.sh", _HERE / "guest.sh"]
    own = digest_of(identity, busybox.read_bytes(), *(script.read_bytes() for script in scripts))
    modules = cache.make(
        f"images/modules-{kernel.release}-{identity}.squashfs", lambda path: squash(kernel.modules, path, level=3)
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
