# SPDX-License-Identifier: MIT
"""How names in a topology are written, as patterns."""

from __future__ import annotations

from typing import Final

NAME: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""A DNS label (RFC 1123 section 2.1), as Kubernetes names things."""
INTERFACE: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$"
"""An interface name that the kernel takes (``dev_valid_name`` in net/core/dev.c: at most 15 bytes, no slash,
colon or space) and that no program mistakes for an option or a pattern."""
VERSION: Final = r"^v?1\.[0-9]+(\.[0-9]+([-+][0-9A-Za-z.+-]+)?)?$"
"""A version of kube-proxy as people write it (:func:`lab.kubeproxy.releases.find_release`), for editors."""


def with_slashes(key: str) -> str:
    """Return a sysctl's key as below ``/proc/sys``: where dots separate, a slash stands for a dot (sysctl(8))."""
    dot, slash = key.find("."), key.find("/")
    if slash < 0 or 0 <= dot < slash:
        return key.translate(str.maketrans("./", "/."))
    return key
