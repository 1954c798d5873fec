# SPDX-License-Identifier: MIT
"""Packets: following a live connection's numbers, crafting, injecting and capturing."""

from __future__ import annotations
