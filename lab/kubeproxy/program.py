# SPDX-License-Identifier: MIT
"""A kube-proxy program of the user's own, which writes a node's rules instead of the lab. Nothing runs here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lab.errors import InputError
from lab.kubeproxy.releases import find_release

_SAID: Final = re.compile(r"Kubernetes (v\d+\.\d+\.\d+\S*)")  # k8s.io/component-base/version/verflag
_UNSET: Final = "v0.0.0"  # of a program whose build did not set one (component-base/version/base.go)

#: What the lab itself says to a program, or what would keep it from its work there.
_DECIDED: Final = {
    "master": "the lab serves the API",
    "kubeconfig": "the lab serves the API",
    "hostname-override": "the topology's host names the node",
    "config": "give the file by --kube-proxy-config",
    "metrics-bind-address": "the lab asks there how far it is",
    "metrics-port": "the lab asks there how far it is",
    "proxy-mode": "give the lab's own --proxy-mode",
    "version": "the lab asks for it",
    "help": "call the program yourself",
    "cleanup": "it would write no rules",
    "init-only": "it would write no rules",
    "write-config-to": "it would write no rules",
}


@dataclass(frozen=True)
class ProxyProgram:
    """A program, and what it is told besides what the lab tells it.

    :param path: of the program, as it was given.
    :param version: as the program says it; empty where it does not know.
    :param arguments: the user's own, which come last.
    :param document: the user's KubeProxyConfiguration; None for flags.
    :param over: the program whose rules it finds when it starts: an upgrade.
    """

    path: str
    version: str
    arguments: tuple[str, ...] = ()
    document: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    over: ProxyProgram | None = None

    @property
    def label(self) -> str:
        """What to call it in reports."""
        words = " ".join((self.path, *self.arguments))
        return f"{words} over the rules of {self.over.label}" if self.over else words

    def of_version(self, version: str | None) -> ProxyProgram:
        """Return the program with a version: its own, or where it does not know that, the one that is given.

        :raises InputError: there is none, or there are two.
        """
        if self.version and version is not None:
            raise InputError("--kube-proxy and --proxy-version", cure="the program says its own: leave one away")
        if not self.version and version is None:
            cure = "give --proxy-version, by which the lab knows what to expect"
            raise InputError(f"{self.path} does not know its version", cure=cure)
        over = self.over.of_version(None if self.over.version else version) if self.over else None
        return replace(self, version=self.version or find_release(version or "").name, over=over)


def version_said(path: str, printed: str) -> str:
    """Return the version that a program says by ``--version``; empty where it does not know.

    :param printed: what it printed.
    :raises InputError: it is no kube-proxy, or one of a release before those that are known.
    """
    said = _SAID.match(printed)
    if said is None:
        first = next(iter(printed.strip().splitlines()), "nothing")
        raise InputError(f"{path} is no kube-proxy: asked for --version it printed {first[:200]!r}")
    if said[1].startswith(_UNSET):
        return ""
    find_release(said[1])
    return said[1]


def checked_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return a user's own flags for a program.

    :raises InputError: one is the lab's to decide.
    """
    for name in _names(arguments):
        if name in _DECIDED:
            raise InputError(f"-- --{name}: not for the lab's kube-proxy", cure=_DECIDED[name])
    return tuple(arguments)


def _names(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the names of the flags, written as Go's programs take them: with _ for - too."""
    for word in arguments:
        if word.startswith("--"):
            yield word[2:].partition("=")[0].replace("_", "-")
