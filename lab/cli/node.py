# SPDX-License-Identifier: MIT
"""A node of the user's own, as commands are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.cli.screen import steps
from lab.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.cli.arguments import Programs, Proxy
    from lab.kubeproxy.said import Settings
    from lab.trial.own_node import OwnNode
    from lab.vocabulary import Family


def own_node(
    sources: Sequence[str] | None,
    objects: Sequence[str] | None,
    topology: str | None,
    proxy: Proxy,
    programs: Programs,
    settings: Settings,
    *,
    service: str | None,
    family: Family | None,
) -> OwnNode:
    """Return the node that --node and --objects speak of.

    :raises InputError: they cannot be read, or something else was given that a node's own rules decide.
    """
    from lab.netns import userns
    from lab.node.read import read
    from lab.trial import own_node as own

    if not sources:
        raise InputError("--objects without --node", cure="give the node's rules as well, by --node")
    others = {
        "--topology": topology,
        "--proxy-mode": proxy.proxy_mode,
        "--proxy-version": proxy.proxy_version,
        "--kube-proxy": programs.kube_proxy,
        "a setting of kube-proxy": settings.said or settings.mode,
    }
    if given := next((option for option, value in others.items() if value), None):
        raise InputError(f"--node and {given}", cure="the node's own rules say it: leave one of them away")
    with steps() as step:
        step("reading the node's rules")
        bundle = read(sources, objects or ())
        userns.ensure()
        step("trying which of its rules this kernel loads")
        return own.own_node(bundle, service=service, family=family, backend=proxy.backend)
