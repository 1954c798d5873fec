# SPDX-License-Identifier: MIT
"""What can be said of a command's words before any of them is used: none is lost, and none means something else."""

from __future__ import annotations

import itertools
import os
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from lab.errors import InputError

#: How the files are called that ``--json=FILE`` writes.
_WRITTEN: Final = (".json", ".json.gz", ".json.zst")

#: The parameters that name what is read, in which ``-`` is standard input.
_READ: Final = frozenset(
    {"topology", "topology_", "node", "objects", "nodes", "fix", "files", "source", "diff", "results"}
    | {"kube_proxy_config"}
)

#: Values that name a file, a host or a lab, by how the help writes them: nothing has an empty name.
_NAMES: Final = frozenset(
    ("FILE", "[FILE]", "[=FILE]", "TOPOLOGY", "PATH", "DIRECTORY", "RESULT", "SOURCE", "NAME", "HOST", "NODE")
)

_PROGRAMS: Final = frozenset({"COMMAND"})  # the words of another program, which may be any bytes
_EMPTY: Final = frozenset({"diff"})  # by which `lab rules --kube-proxy` is told that --diff stands alone


def check_behind(words: Sequence[str], alone: Collection[str], lost: Collection[str]) -> None:
    """Check that no file to be written stands behind an option which takes it by ``=`` only.

    :param words: up to ``--``; ``lost`` are those for which the command has no place.
    :raises InputError: one does.
    """
    for option, behind in itertools.pairwise(words):
        if option not in alone or behind.startswith("-"):
            continue
        cure = f"to write one: {option}={shlex.quote(behind)}"
        if behind in lost:
            raise InputError(f"there is no place for {behind!r}", cure=cure)
        if behind.endswith(_WRITTEN) and not os.path.lexists(behind):
            raise InputError("there is no such file", source=behind, cure=cure)


def check_given(parsed: Mapping[str, Any], order: Sequence[Any]) -> None:
    """Check that each word counts, and that standard input is read once.

    :param parsed: the values by their parameters' names; ``order`` is the parameters, each as often as it was given.
    :raises InputError: an option that has one value was given several, a name is empty or no UTF-8, or ``-`` was given
        twice.
    """
    read: list[str] = []
    for parameter, times in Counter(order).items():
        option = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]
        if times > 1 and _has_one_value(parameter):
            raise InputError(f"{option} is given {times} times, and one counts", cure="give it once")
        value = parsed.get(parameter.name)
        values = value if isinstance(value, (list, tuple)) else (value,)
        if "" in values and parameter.metavar in _NAMES and parameter.name not in _EMPTY:
            raise InputError(f"{option}: '' names nothing", cure="is a variable of the shell empty?")
        if parameter.metavar not in _PROGRAMS and (wrong := next(filter(_is_no_text, values), None)) is not None:
            shown = os.fsencode(wrong).decode(errors="backslashreplace")
            raise InputError(f"{option}: {shown} is no UTF-8, as results are", cure="give it another name")
        if parameter.name in _READ:
            read += [option] * list(values).count("-")
    if len(read) > 1:
        raise InputError(f"standard input twice, by {read[0]} and {read[1]}", cure="give one of them as a file")


def _is_no_text(value: object) -> bool:
    """Report whether a word has bytes of which Python made no character: no result could say its name."""
    return isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value)


def _has_one_value(parameter: Any) -> bool:  # noqa: ANN401 - click's, which typer brings along
    """Report whether an option that is given again makes what was given before mean nothing."""
    if parameter.param_type_name == "argument" or parameter.multiple:
        return False
    return not parameter.is_flag or bool(parameter.secondary_opts)
