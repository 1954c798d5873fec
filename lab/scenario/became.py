# SPDX-License-Identifier: MIT
"""What became of a question that a real socket asked, by its own word and by the packets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from lab.conntrack.netlink import ConntrackTable
from lab.evidence.entry import Entry
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import PROTOCOLS, Fate, Passage, Question, Reached
from lab.fabric.lab import Lab
from lab.scenario.astray import broken_links, why_astray
from lab.scenario.unrouted import why_unrouted
from lab.traffic.tcp import TCP_REPAIR

#: Looks up more about what became of a question, while its sockets are open.
Look: TypeAlias = Callable[[Reached], Reached]


class Entries:
    """What the nodes' conntrack has of questions."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._tables: dict[str, ConntrackTable] = {}

    def added_to(self, reached: Reached) -> Reached:
        """Return what became of a question, with what the first node that it passed has of it."""
        if not reached.node or reached.own is None:
            return reached
        return replace(reached, entry=self.entry(reached.node, reached.question, reached.own))

    def entry(self, node: str, question: Question, own: SocketAddress) -> Entry | None:
        """Return what a node has of a question; None where it has nothing."""
        if node not in self._tables:
            self._tables[node] = self._lab.keep(ConntrackTable(self._lab.hosts[node].namespace))
        return self._tables[node].entry(PROTOCOLS[question.protocol], own, question.address)


def without_way(lab: Lab, question: Question, code: int) -> Reached:
    """Return what became of a question for which the client's own host has no way."""
    why = "; ".join((f"{errno.errorcode[code]}: its own host has no way", *broken_links(lab, {question.client})))
    return Reached(question, Fate.NO_WAY, at=question.client, how=why)


def as_it_is(reached: Reached) -> Reached:
    """Return what is known without another look."""
    return reached


def concluded(lab: Lab, reached: Reached, asking: socket.socket, name: bytes, code: int, passage: Passage) -> Reached:
    """Return what came of a question that a server has got and answered by its name."""
    try:
        if asking.recv(100) == name:
            return replace(reached, fate=Fate.CONNECTED)
        return replace(reached, fate=Fate.RESET, at=reached.question.client, how="it was closed without a word")
    except BlockingIOError:
        return unanswered(lab, reached, passage, code)
    except ConnectionResetError:
        return replace(reached, fate=Fate.RESET, at=reached.question.client, how="ECONNRESET")
    except OSError as error:
        return unanswered(lab, reached, passage, error.errno or code)


def half_open(lab: Lab, reached: Reached, passage: Passage) -> Reached:
    """Return what became of a question whose client alone takes its connection for one."""
    at, how, sent_on = passage.last()
    return replace(reached, at=at, how=_with_causes(lab, f"half open: {how}", passage), sent_on=sent_on)


def unanswered(lab: Lab, reached: Reached, passage: Passage, code: int) -> Reached:
    """Return what became of a question to which no answer came.

    :param code: the client's errno, 0 or EINPROGRESS where it has none.
    """
    refusal = passage.refusal() or (passage.refused_by_answer() if code == errno.ECONNREFUSED else None)
    if refusal:
        fate, at, how = refusal
        if fate is Fate.NO_WAY:
            how = "; ".join((how, *broken_links(lab, passage.passed())))
        return replace(reached, fate=fate, at=at, how=how)
    if stranger := passage.stranger():
        return replace(reached, fate=Fate.STRANGER, how=str(stranger))
    at, how, sent_on = passage.last()
    if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
        how = f"{errno.errorcode.get(code, code)}: {how}"
    return replace(reached, at=at, how=_with_causes(lab, how, passage), sent_on=sent_on)


def _with_causes(lab: Lab, how: str, passage: Passage) -> str:
    """Return what became of a packet, with what the kernels tell of why."""
    last, _is_answer = passage.last_sighting()
    if last is not None and (why := (why_astray if last.outgoing else why_unrouted)(lab, last)):
        how = f"{how}: {why}"
    return "; ".join((how, *(one for one in broken_links(lab, passage.passed()) if one not in how)))


def errno_of(sender: socket.socket, text: bytes, to: tuple[str, int] | None = None) -> int:
    """Send, and return its error's number, 0 where there is none: EPERM where a rule of its own host dropped it."""
    try:
        if to is None:
            sender.send(text)
        else:
            sender.sendto(text, to)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def acknowledge_again(asking: socket.socket) -> None:
    """Send an ACK without data, as the one that ends a handshake, by a connected TCP socket.

    Whoever ends TCP_REPAIR has the kernel send one (do_tcp_setsockopt and tcp_send_window_probe, net/ipv4).
    """
    for is_on in (1, 0):
        asking.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, is_on)


def is_open(asking: socket.socket) -> bool:
    """Check whether a client takes its connection for established."""
    try:
        asking.getpeername()
    except OSError:
        return False
    return True
