# SPDX-License-Identifier: MIT
"""The kernel's view of connections: entries, events, statistics, and its reason for INVALID."""

from __future__ import annotations
