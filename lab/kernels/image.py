# SPDX-License-Identifier: MIT
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

from dataclasses import dataclass
from pathlib import Path

from lab.kernels.cache import Cache
from lab.kernels.distribution import python_layer, root_layer
from lab.kernels.kernel import Kernel
from lab.kernels.kernel_layers import kernel_layers
from lab.kernels.programs import require
from lab.kernels.python_layers import dependencies_layer, project_layer


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
    """Return what a guest with that kernel boots from; what is not in the cache is made.

    :param project: the tree that commands are run from; without one the checkout that the lab was imported from.
    :raises MissingError: programs are missing; all of them are named.
    :raises LabError: a layer cannot be made.
    """
    require()
    modules, initrd = kernel_layers(kernel, cache)
    root = root_layer(cache)
    python = python_layer(root, cache)
    dependencies = dependencies_layer(python, cache)
    return Image(kernel.vmlinuz, initrd, root, modules, dependencies, project_layer(project, python, cache))
