# SPDX-License-Identifier: MIT
"""Kernel primitives: namespaces, links, sysctls, rules, and programs inside. Knows no Kubernetes."""

from __future__ import annotations

from lab.netns.namespace import Namespace
from lab.netns.nft import Nft, NftError
from lab.netns.program import Program, ProgramError
from lab.netns.rtnetlink import RouteSocket
from lab.netns.running import RunningProgram
from lab.netns.xtables import Xtables

__all__ = ["Namespace", "Nft", "NftError", "Program", "ProgramError", "RouteSocket", "RunningProgram", "Xtables"]
