# SPDX-License-Identifier: MIT
"""The settings of a node by which its conntrack judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Sysctls:
    """What a node has set; the kernel's defaults where nothing is known.

    :param be_liberal: nothing is INVALID by the window (``nf_conntrack_tcp_be_liberal``).
    :param loose: an entry is made of packets from the middle of a connection (``nf_conntrack_tcp_loose``).
    :param ignores_wrong_resets: (``nf_conntrack_tcp_ignore_invalid_rst``).
    """

    be_liberal: bool = False
    loose: bool = True
    ignores_wrong_resets: bool = False


DEFAULTS: Final = Sysctls()
