# SPDX-License-Identifier: MIT
"""As much of a Kubernetes API server as a kube-proxy asks: lists and watches of what it reads, over plain HTTP."""

from __future__ import annotations

from typing import Final

#: The nftables table by which what is said to it, and to who asks it, stays out of the node's conntrack.
TABLE: Final = "lab_api"
