# SPDX-License-Identifier: MIT
"""How long anything waits for what an event ends within a millisecond.

One number for all, read when a wait begins: as ``bound.SECONDS``, so that a test can make them all short.
"""

from __future__ import annotations

#: Generous: a busy machine may well keep everybody waiting for a second or two.
SECONDS = 10.0
