# SPDX-License-Identifier: MIT
"""How the values of a topology file's keys are read, and refused."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from lab.kubeproxy.settings import KEYS
from lab.kubeproxy.values import BadValueError
from lab.kubernetes.errors import found
from lab.topology.given import OF_MACHINE
from lab.topology.names import with_slashes

_SYSCTL: Final = re.compile(r"net/[a-z0-9_.-]+(/[A-Za-z0-9_.-]+)+")
_MARK: Final = re.compile(r"(0x[0-9a-fA-F]{1,8})(?:/(0x[0-9a-fA-F]{1,8}))?")
MARK_SCHEMA: Final = WithJsonSchema({"type": "string", "pattern": _MARK.pattern})
MARK_WORDS: Final = "Only packets with this mark, or these bits of it, such as '0x1/0xff': a node's rules may set them."
STRICT_KEYS: Final = ConfigDict(extra="forbid")
LAST_TABLE: Final = 252  # the next three are the kernel's own: default, main and local (rtnetlink.h)


def refused(message: str, cure: str | None) -> PydanticCustomError:
    """Make the error that a validator raises: what is wrong, and what to write instead."""
    return PydanticCustomError("refused", "{message}", {"message": message, "cure": cure})


def key(field: str) -> Any:  # noqa: ANN401 - what pydantic's Field is said to return
    """Return the key of a kube-proxy's setting, and its words."""
    return Field(alias=KEYS[field].key, description=KEYS[field].what)


def reads(field: str) -> PlainValidator:
    """Return what reads a setting's value, by the same word as its option is read."""
    setting = KEYS[field]

    def read(value: Any) -> Any:  # noqa: ANN401
        if setting.many and not isinstance(value, list | tuple | dict):
            raise refused(f"must be a list, not {found(value)}", None)
        if not setting.metavar and not isinstance(value, bool):
            raise refused(f"must be true or false, not {found(value)}", None)
        try:
            return setting.read(value)
        except BadValueError as error:
            raise refused(error.message, error.cure) from None

    return PlainValidator(read)


def read_mark(value: Any) -> str:  # noqa: ANN401
    """Read a packet mark with or without a mask, and return it as written."""
    if not isinstance(value, str) or not _MARK.fullmatch(value):
        raise refused(f"{found(value)} is no packet mark", "write it in quotes, as '0x4000/0x4000'")
    return value


def mark_and_mask(text: str) -> tuple[int, int]:
    """Return the numbers of a mark that :func:`read_mark` has taken; without a mask it is the whole mark."""
    mark, _, mask = text.partition("/")
    return int(mark, 16), int(mask or "0xffffffff", 16)


def read_sysctls(value: Any) -> tuple[tuple[str, str], ...]:  # noqa: ANN401
    """Read sysctls as a mapping, and return them with slashes, each with its value as text."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, dict):
        raise refused(f"must be a mapping, not {found(value)}", "write it as {net.ipv4.conf.all.rp_filter: 1}")
    read = []
    for name, setting in value.items():
        path = with_slashes(name) if isinstance(name, str) else ""
        if not _SYSCTL.fullmatch(path) or ".." in path:
            raise refused(f"{found(name)} is no sysctl of a network namespace", "write it as net.ipv4.ip_forward")
        if OF_MACHINE.fullmatch(path):
            raise refused(f"{name} is the whole machine's, which no lab changes", "leave it away")
        if isinstance(setting, bool) or not isinstance(setting, str | int):
            raise refused(f"{name} must be a number or a text, not {found(setting)}", None)
        read.append((path, str(setting)))
    return tuple(read)
