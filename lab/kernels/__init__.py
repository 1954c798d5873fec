# SPDX-License-Identifier: MIT
"""Other kernels: find and fetch them, boot a guest, run a command there, and bring its results back."""

from __future__ import annotations

from lab.kernels.cache import Cache
from lab.kernels.find import resolve
from lab.kernels.guest import GuestRun, run_in_guest
from lab.kernels.image import Image, make_image
from lab.kernels.kernel import Kernel

__all__ = ["Cache", "GuestRun", "Image", "Kernel", "make_image", "resolve", "run_in_guest"]
