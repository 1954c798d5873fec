"""Holds a node's rules against those of a kube-proxy."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import InputError
from lab.kubeproxy.chance import Undecided, undecided
from lab.kubeproxy.jumps import kubelets_chains
from lab.netns import NftError
from lab.rules import dump, json_dump
from lab.rules.diff import Comparison, compare
from lab.rules.expected import expected
from lab.rules.restored import UnknownFormError
from lab.rules.scratch import listed, saved_uncounted
from lab.words import ProxyMode

if TYPE_CHECKING:
    from lab.rules.dump import Dump
    from lab.rules.source import Proxy


def read_text(path: str) -> str:
    """Read a dump's file; ``-`` is standard input.

    :raises InputError: it cannot be read, or is no text.
    """
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("not a text file", source=path, line=line, cure=dump.CURE) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source=path) from None


def check(proxy: Proxy, text: str, source: str) -> Comparison:
    """Compare a dump with what this kernel gives back of a kube-proxy's rules.

    Whether rules count by nfacct depends on the node's kernel, not on kube-proxy's options, so the dump decides.

    :param source: what to call the dump in errors.
    :raises InputError: it is no dump of this mode and family, with the line.
    :raises LabError: this kernel refused kube-proxy's rules.
    """
    mode = dump.mode_of(text, source)
    if mode is not proxy.mode:
        message = f"a dump of a node in {mode} mode, but kube-proxy's rules are for {proxy.mode} mode"
        raise InputError(message, source=source, cure=f"give --proxy-mode {mode}")
    if dump.is_json(text):
        return _check_json(proxy, text, source)
    found = dump.read(text, source, proxy.options.family)
    comparison = _compare(proxy, found)
    for one in undecided(proxy.endpoint_slices, proxy.options):
        if not comparison.same:
            proxy, comparison = _settled(proxy, found, one, comparison)
    return comparison


def _settled(proxy: Proxy, found: dump.Dump, one: Undecided, comparison: Comparison) -> tuple[Proxy, Comparison]:
    """Take the way, of those that kube-proxy leaves to chance, that the node has gone."""
    best = (proxy, comparison)
    for winner in one.ways:
        tried = dataclasses.replace(proxy, endpoint_slices=one.settled(proxy.endpoint_slices, winner))
        other = _compare(tried, found)
        if len(other.differences) < len(best[1].differences):
            said = (
                f"Which slice's word of {one.address} counts for {one.service}, kube-proxy leaves to chance: here it is"
                f" that of {proxy.endpoint_slices[winner].metadata.name}."
            )
            best = (tried, dataclasses.replace(other, left_out=(*comparison.left_out, said)))
    return best


def _compare(proxy: Proxy, found: dump.Dump) -> Comparison:
    options = dataclasses.replace(proxy.options, nfacct=found.counts_by_name)
    wanted, note = _wanted(dataclasses.replace(proxy, options=options))
    if proxy.mode is ProxyMode.IPTABLES:
        chains = kubelets_chains(options.release)
        wanted, found = wanted.without_kubelets(chains), found.without_kubelets(chains)
    comparison = compare(wanted, found)
    return dataclasses.replace(comparison, left_out=(*note, *comparison.left_out))


def _wanted(proxy: Proxy) -> tuple[Dump, tuple[str, ...]]:
    """Return kube-proxy's rules as a dump has them, and what has to be known of how that was found."""
    try:
        return expected(proxy), ()
    except UnknownFormError as error:
        by = "nft" if proxy.mode is ProxyMode.NFTABLES else f"iptables-{proxy.backend}"
        note = f"kube-proxy's rules were loaded here, by {by}, to be compared: {error}."
        return dump.read(saved_uncounted(proxy), "kube-proxy's rules", proxy.options.family), (note,)


def _check_json(proxy: Proxy, text: str, source: str) -> Comparison:
    """Compare with what a kernel makes of JSON: its text has other lines, and of the comments only those of rules."""
    family = proxy.options.family
    given = json_dump.read(text, source, family)
    try:
        listing = listed(given.objects, family)
    except NftError as error:
        cure = f"give what 'nft list ruleset' prints, without -j: {error}"
        raise InputError("nft's JSON, but it cannot be loaded here", source=source, cure=cure) from None
    found = dataclasses.replace(dump.read(listing, source, family).without_comments(), others=given.others)
    wanted, note = _wanted(proxy)
    comparison = compare(wanted.without_comments(), found)
    return Comparison(
        tuple(dataclasses.replace(difference, line=None) for difference in comparison.differences),
        (
            *note,
            *comparison.left_out,
            "The comments of tables, chains, sets and maps are not compared: JSON lacks some.",
        ),
    )
