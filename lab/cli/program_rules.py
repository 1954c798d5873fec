# SPDX-License-Identifier: MIT
"""`lab rules --kube-proxy`: what a program writes, and how that differs from what the lab would."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.cli.programs import with_program
from lab.cli.screen import steps
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.cli.arguments import Proxy
    from lab.cli.rules import Asked
    from lab.kubeproxy.said import Settings
    from lab.vocabulary import Family


def of_program(source: str, proxy: Proxy, family: Family, asked: Asked, settings: Settings) -> int:
    """Print the rules that a program writes, or with --diff how they differ from the lab's; return the exit code.

    :raises InputError: it is no kube-proxy, or what is asked for besides is not of a program.
    """
    from lab.fabric.program_rules import written
    from lab.rules.source import Choice, proxies

    asked.check_for_program(proxy.proxy_version)
    program = with_program(proxy, settings).program
    assert program is not None
    choice = Choice(proxy.proxy_mode, program.version, proxy.backend)
    chosen = proxies(source, family, choice, settings)
    if asked.json and len(chosen) > 1:
        raise InputError(f"{source} has several nodes, and --json", cure="choose one by --node-name")
    for one in chosen:
        one.options.require_mode(one.mode)
    program = replace(program, document=settings.document)
    for note in dict.fromkeys(note for one in chosen for note in one.notes):
        print(f"lab: {note}", file=sys.stderr)
    code = 0
    for one in chosen:
        with steps() as say:
            say(f"having {program.path} write its rules")
            text = written(program, one)
        title = f"# {one.title}, by {program.label}"
        if asked.diff is None:
            print(title, text, sep="\n", end="" if text.endswith("\n") else "\n")
            continue
        from lab.cli.rules import told
        from lab.rules.check import check

        if len(chosen) > 1 and not asked.json:
            print(title)
        code |= told(check(one, text, program.path), one, program.path, json=asked.json)
    return code
