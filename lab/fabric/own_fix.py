# SPDX-License-Identifier: MIT
"""A fix of somebody's own on a running node: it is made, or refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lab.errors import InputError, LabError, raise_if_of_machine
from lab.netns import Namespace, Nft, NftError, ProgramError
from lab.topology.given import GivenText
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.fabric.host import RunningHost
    from lab.topology.node_change import NodeChange

_SAID: Final = re.compile(r": ([^:\n]+(?:: ?[^\n]+)?)\n+Error occurred at line: (\d+)")
#: How iptables-restore says which line the kernel did not take: the nft backend with its reason.
_FAILED: Final = re.compile(r": line (\d+) failed(?:: ([^\n]+))?")


def run_change(node: RunningHost, change: NodeChange, families: Sequence[Family]) -> None:
    """Load the rules of a fix that are somebody's own, and run its script: what comes last on any node.

    :raises InputError: the rules were refused, or the script failed.
    """
    for text in change.texts:
        if text.mode is ProxyMode.NFTABLES:
            _load_nft_of_fix(node.nft, text)
        for family in families if text.mode is ProxyMode.IPTABLES else ():
            if text.family in (None, family):
                try:
                    node.xtables.start_restore(family.version, text.text).finish()
                except ProgramError as error:
                    raise _of_fix(text, error) from error
        node.rules.append(text.text)
    if change.script:
        try:
            node.run("sh", "-c", change.script)
        except ProgramError as error:
            said = str(error).removeprefix(f"sh -c {change.script}").strip()
            raise InputError(
                f"the script of this fix {said.rstrip(': ')}", cure="let it end with exit code 0"
            ) from error


def set_sysctls(namespace: Namespace, change: NodeChange) -> None:
    """Set the sysctls of a fix.

    :raises InputError: this kernel, or this namespace, has none of a name or does not take its value.
    """
    for key, value in change.sysctls.items():
        try:
            namespace.set_sysctls({key: value})
        except OSError as error:
            raise_if_of_machine(error)
            said = f"this fix's {key.replace('/', '.')} = {value} cannot be set here: {error.strerror}"
            raise InputError(said, cure="mend the fix") from None


def _load_nft_of_fix(nft: Nft, text: GivenText) -> None:
    """Load an nft script of somebody's own.

    :raises InputError: it is refused; says what is wrong first, and in which line.
    """
    try:
        faults = nft.faults(text.text)
    except NftError as error:
        raise _of_fix(text, error) from error
    for number, reason in faults.items():
        raise InputError(f"not loaded here: {reason}", source=text.source, line=text.line(number))


def _of_fix(text: GivenText, error: LabError) -> InputError:
    """Return why the rules of a fix are not loaded, which says nothing of the node's own."""
    if found := _FAILED.search(str(error)):
        said = f"not loaded here: {found[2].removesuffix('.')}" if found[2] else "not loaded here"
        return InputError(said, source=text.source, line=text.line(int(found[1])))
    return InputError(f"not loaded here: {words_of(str(error))}", source=text.source)


def words_of(error: str) -> str:
    """Return what a program said, without its name and version."""
    if found := _SAID.search(error):
        return found[1].replace("`", "'").removesuffix(":No such file or directory")
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1] if lines else error
