# SPDX-License-Identifier: MIT
"""The walks of a trial's packets through the nodes' rules, hook by hook, for a terminal or as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from lab.evidence.packet import ICMP, ICMPV6, UDP, Packet
from lab.evidence.timeline import Timeline
from lab.evidence.walk import AtHook, Role, Rule, Step, Walk
from lab.tones import FINE, HARMLESS, NOTABLE, OOPS, QUIET

_HOOK: Final = len("postrouting")

_PROTOCOLS: Final = {UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}
_BY_ENTRY: Final = "by conntrack's entry:"

#: Rules that have a connection translated, of iptables and of nft.
_TRANSLATION: Final = re.compile(
    r"-j (?:[SD]NAT|MASQUERADE|REDIRECT|NETMAP|TPROXY)\b|\b(?:[sd]nat|masquerade|redirect|tproxy)\b"
)


def walks(timeline: Timeline) -> Iterator[Text]:
    """Draw the walks of the packet that was judged and of resets; of a trial without such a packet, all."""
    told = [walk for walk in timeline.walks if walk.role in (Role.JUDGED, Role.RESET) or not timeline.judged_walks]
    yield from drawn(told, full=False)
    yield from untraced(timeline.untraced)


def untraced(sentences: Sequence[str]) -> Iterator[Text]:
    """Yield in a line each what of walks could not be traced."""
    for words in sentences:
        yield Text(f"not traced: {words}", OOPS)


def drawn(told: Sequence[Walk], *, full: bool) -> Iterator[Text]:
    """Draw walks, one below the other.

    :param full: with the rules that did not match, and the chains that led to nothing.
    """
    for walk in told:
        yield from _lines(walk, full=full)


def _lines(walk: Walk, *, full: bool) -> Iterator[Text]:
    title = Text(f"{walk.role} at {walk.node}: ", "bold")
    state = walk.state.upper() or "not judged"
    title.append(f"{named(walk.packet)}, ").append(state, OOPS if walk.state == "invalid" else NOTABLE)
    yield title
    packet, mark = walk.packet, 0
    for at in walk.hooks:
        if _route(at.before) != _route(packet):
            yield _note(f"{_BY_ENTRY} {_route(at.before)}")
        yield from _at(at, full=full)
        packet, before = at.after or at.before, mark
        mark = at.steps[-1].mark if at.steps else mark
        if _route(packet) != _route(at.before):
            yield _note(f"{'now' if _translates(at) else _BY_ENTRY} {_route(packet)}")
        if mark != before:
            yield _note(f"now mark {mark:#x}")
    if walk.left is not None and _route(walk.left) != _route(packet):
        yield _note(f"{_BY_ENTRY} {_route(walk.left)}")
    yield _end(walk)


def _end(walk: Walk) -> Text:
    if walk.fate:
        return Text(f"  DROPPED by {walk.fate.words}", FINE if walk.state == "invalid" else OOPS)
    if walk.queued:
        return Text(f"  given to a program by {walk.queued.brief}; what comes behind that is not traced", QUIET)
    if walk.vanished or walk.left is None:
        return Text(f"  {walk.vanishing}", OOPS)
    if walk.came_to_sockets and walk.counted:
        return Text(f"  past the rules, and the node's own stack counted {'; '.join(walk.counted)}", OOPS)
    where = "to the node's own sockets" if walk.last_hook == "input" else "on its way"
    return Text(f"  {where}: {_route(walk.left)}", QUIET)


def _at(at: AtHook, *, full: bool) -> Iterator[Text]:
    steps = at.steps if full else _folded(at.steps)
    head = at.hook
    for step in steps:
        for line in _missed(step) if full else ():
            yield _row(head, step, line, QUIET)
            head = ""
        yield _row(head, step, *_told(step))
        head = ""


def _told(step: Step) -> tuple[str, str]:
    """Return what a step is, and how it looks."""
    verdict = " ".join(filter(None, (step.verdict, step.target)))
    style = {"drop": OOPS, "accept": FINE}.get(step.verdict, "")
    if step.rule is None:
        return ("back to who jumped here", QUIET) if step.verdict == "return" else (f"policy {verdict}", style)
    text = step.rule.text
    told = f"  # {verdict}" if "vmap" in text or step.target not in text else ""  # else the rule says it
    return f"{_which(step.rule)}  {text}{told}", style


def _missed(step: Step) -> Iterator[str]:
    if step.more:
        yield f"{step.more:,} rules did not match, and then"
    for rule in step.missed:
        yield f"{_which(rule)}  no match: {rule.text}"


def _which(rule: Rule) -> str:
    return f"line {rule.line}" if rule.line else f"rule {rule.position}"


def _row(head: str, step: Step, words: str, style: str) -> Text:
    family = "" if step.family in ("ip", "ip6") else f"{step.family} "
    owner = f" ({step.rule.owner})" if step.rule and step.rule.owner not in ("", "kube-proxy") else ""
    line = Text(f"  {head:{_HOOK}}  ", QUIET)
    return line.append(f"{family}{step.table} {step.chain}{owner}  ", "").append(words, style)


def _folded(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that did something, and the jumps that led to them."""
    kept: list[Step] = []
    way: list[Step] = []  # jumps of which nothing has come yet, the outermost first
    for step in steps:
        while way and step.chain not in (way[-1].target, way[-1].chain):
            way.pop()
        if way and step.chain == way[-1].chain != way[-1].target:
            way.pop()
        if step.verdict in ("jump", "goto"):
            way.append(step)
        elif step.verdict != "return":
            kept += [*way, step]
            way = []
    return kept


def _translates(at: AtHook) -> bool:
    rule = at.steps[-1].rule if at.steps else None
    return rule is not None and _TRANSLATION.search(rule.text) is not None


def _note(words: str) -> Text:
    return Text(f"  {'':{_HOOK}}  = {words}", HARMLESS)


def named(packet: Packet) -> str:
    """Return what to call a packet: its ends, and its flags or protocol."""
    if packet.icmp is not None:
        kind = f"{_PROTOCOLS[packet.protocol]} type {packet.icmp.kind} code {packet.icmp.code}"
        return f"{_route(packet)} {kind}"
    flags = packet.tcp.flag_names if packet.tcp else _PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    return f"{_route(packet)} {flags}"


def _route(packet: Packet) -> str:
    if packet.icmp is not None:
        return f"{packet.source.address} > {packet.destination.address}"
    return f"{packet.source} > {packet.destination}"
