# SPDX-License-Identifier: MIT
"""`lab rules --kube-proxy`: what a program writes, and how that differs from what the lab would."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from lab.cli.comparison import told
from lab.cli.documents import JsonPlace
from lab.cli.screen import steps
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.cli.rules import Asked
    from lab.kubeproxy.said import Settings
    from lab.rules.source import Choice
    from lab.vocabulary import Family


def of_program(source: str, choice: Choice, settings: Settings, family: Family, asked: Asked) -> int:
    """Print the rules that a program writes, or with --diff how they differ from the lab's; return the exit code.

    :param settings: with the program.
    :raises InputError: what is asked for besides is not of a program, or it cannot write rules for these objects.
    """
    from lab.fabric.program_rules import written
    from lab.rules.source import proxies

    asked.check_for_program()
    assert settings.program is not None
    program = replace(settings.program.of_version(choice.version), document=settings.document)
    choice = replace(choice, version=program.version)
    chosen = proxies(source, family, choice, replace(settings, program=None))
    if asked.json is not None and len(chosen) > 1:
        raise InputError(f"{source} has several nodes, and --json", cure="choose one by --node-name")
    for one in chosen:
        one.options.require_mode(one.mode)
    for note in dict.fromkeys(note for one in chosen for note in one.notes):
        print(f"lab: {note}", file=sys.stderr)
    place = JsonPlace(asked.json)
    code = 0
    for one in chosen:
        with steps() as say:
            say(f"having {program.path} write its rules")
            text = written(program, one)
        title = f"# {one.title}, by {program.label}"
        if asked.diff is None:
            print(title, text, sep="\n", end="" if text.endswith("\n") else "\n")
            continue
        from lab.rules.check import check

        if len(chosen) > 1 and asked.json is None:
            print(title)
        code |= told(check(one, text, program.path), one, program.path, place)
    return code
