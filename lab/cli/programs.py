# SPDX-License-Identifier: MIT
"""kube-proxy programs of the user's own, as commands are told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli.screen import steps
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.cli.arguments import Programs
    from lab.kubeproxy.said import Settings


def with_program(given: Programs, settings: Settings) -> Settings:
    """Return the settings, and with them the one program that is given; none where none is.

    :raises InputError: there are several, or it is no kube-given.
    """
    first, *others = with_programs(given, settings)
    if others:
        raise InputError("several --kube-proxy", cure="give one, or --upgrade for one after the other")
    return first


def with_programs(given: Programs, settings: Settings) -> tuple[Settings, ...]:
    """Return the settings once for each program that is given, once without where none is.

    :raises InputError: one is no kube-proxy, or is told what the lab decides.
    """
    paths = given.kube_proxy or []
    if given.upgrade and len(paths) < 2:
        raise InputError("--upgrade wants two programs", cure="--kube-proxy OLD --kube-proxy NEW --upgrade")
    if not paths:
        return (settings,)
    from lab.fabric.program import ask_version
    from lab.kubeproxy.program import ProxyProgram, checked_arguments
    from lab.netns import userns

    flags = checked_arguments(given.kube_proxy_flags or ())
    userns.ensure()
    found: list[ProxyProgram] = []
    with steps() as say:
        for path in paths:
            say(f"asking {path} for its version")
            whole = str(Path(path).absolute())  # a lab that stays is at home elsewhere
            version = ask_version(whole)
            over = found.pop() if given.upgrade and found else None
            found.append(ProxyProgram(whole, version, flags, over=over))
    return tuple(replace(settings, program=one) for one in found)
