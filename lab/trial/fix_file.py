# SPDX-License-Identifier: MIT
"""A fix of the user's own, read from a file: rules, sysctls or a shell script."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from lab.errors import InputError
from lab.fixes import Fix, find
from lab.topology.given import OF_MACHINE, GivenText
from lab.topology.names import with_slashes
from lab.topology.node_change import NodeChange
from lab.vocabulary import Family, ProxyMode

_CURE: Final = (
    "give what iptables-restore reads (*filter ... COMMIT), an nft script, lines of sysctl.conf, or a script that"
    " begins with #!"
)
_RULES_CURE: Final = "give what iptables-restore reads (*filter ... COMMIT), or an nft script"
_RESTORE: Final = re.compile(r"\*[a-z]+$")
_NFT: Final = re.compile(r"(table|add|insert|create|delete|flush|replace|chain|define|destroy) ")
_SYSCTL: Final = re.compile(r"-?([a-z0-9_]+(?:[./][a-zA-Z0-9_*-]+)+)\s*=\s*(\S.*)")
_IPV4: Final = re.compile(r"(?:^| )(?:-[sd]|--to-(?:source|destination)) (?:[0-9]+\.){3}")
_IPV6: Final = re.compile(r"(?:^| )(?:-[sd]|--to-(?:source|destination)) \[?[0-9a-f]*:[0-9a-f:]")
_MOST: Final = 4 * 1024 * 1024


def is_file(name: str) -> bool:
    """Report whether what was given as a fix is a file and not a name of the catalogue."""
    return name == "-" or "/" in name or "." in name


def find_fix(name: str) -> Fix:
    """Return the fix of a name, or what a file says.

    :raises InputError: there is none of this name, or the file is none.
    """
    return read_fix(name) if is_file(name) else find(name)


def read_fix(path: str) -> Fix:
    """Read a fix from a file; ``-`` is standard input. What it is, its first line tells.

    :raises InputError: it cannot be read, or is nothing that a node can be given.
    """
    text = _text(path)
    source = "the fix on standard input" if path == "-" else path
    name = "stdin" if path == "-" else Path(path).name
    return Fix(name, f"what {source} does to a node", _change(text, source), known=False)


def rules_of(text: str, source: str) -> NodeChange:
    """Return what loads rules that are given as text: those of iptables-restore, or an nft script.

    :param source: what to call them in messages.
    :raises InputError: they are neither.
    """
    change = _change(text, source)
    if not change.texts:
        raise InputError("no rules", source=source, cure=_RULES_CURE)
    return change


def _text(path: str) -> str:
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=path) from error
    if len(data) > _MOST:
        raise InputError("larger than 4 MiB: that is no fix", source=path)
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError("no text", source=path, cure=_CURE) from None


def _change(text: str, source: str) -> NodeChange:
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    if text.startswith("#!"):
        return NodeChange(script=text)
    said = [(number, line) for number, line in lines if line and not line.startswith(("#", ";"))]
    if not said:
        raise InputError("empty: it changes nothing", source=source, cure=_CURE)
    number, first = said[0]
    if _RESTORE.fullmatch(first):
        if said[-1][1] != "COMMIT":
            raise InputError("ends without COMMIT", source=source, line=said[-1][0], cure="add a line COMMIT")
        return NodeChange(texts=(GivenText(source, f"{text.rstrip()}\n", ProxyMode.IPTABLES, _family(text)),))
    if _SYSCTL.fullmatch(first):
        return NodeChange(sysctls=dict(_sysctl(number, line, source) for number, line in said))
    if _NFT.match(first):
        return NodeChange(texts=(GivenText(source, text, ProxyMode.NFTABLES),))
    raise InputError("neither rules nor sysctls nor a script", source=source, line=number, cure=_CURE)


def _family(text: str) -> Family | None:
    found = [family for family, pattern in ((Family.IPV4, _IPV4), (Family.IPV6, _IPV6)) if pattern.search(text)]
    return found[0] if len(found) == 1 else None


def _sysctl(number: int, line: str, source: str) -> tuple[str, str]:
    found = _SYSCTL.fullmatch(line)
    if found is None:
        raise InputError(f"no sysctl: {line!r}", source=source, line=number, cure="write KEY = VALUE")
    key = with_slashes(found[1])
    if not key.startswith("net/") or OF_MACHINE.fullmatch(key):
        raise InputError(
            f"{found[1]} is the machine's own, and no lab's to change",
            source=source,
            line=number,
            cure="keep to what a network namespace has of its own, of net.*",
        )
    return key, found[2]
