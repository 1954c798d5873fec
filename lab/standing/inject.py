# SPDX-License-Identifier: MIT
"""Trying a case in a lab that stands: on a connection of its own, beside those that others have there.

What a trial brings along and changes is taken back behind it. The servers of the lab go on answering: the trial's own
listens beside them, for its client alone.
"""

from __future__ import annotations

import errno
import os
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from lab import __version__, fixes
from lab.cases import CASES, find
from lab.cases.case import Injection
from lab.conntrack.flows import Flows
from lab.conntrack.netlink import ConntrackTable
from lab.errors import InputError, LabError, nearest
from lab.evidence.packet import BARRIER_PORT, TCP, Ends, SocketAddress
from lab.evidence.reach import Fate, Question, Target
from lab.fabric.lab import Lab, lent_beside_others
from lab.netns.sockdiag import connected
from lab.results.result import Report, Tally
from lab.scenario import ConnectionScenario, one_processor
from lab.scenario.adopted import AdoptedScenario, Handshake, roles_of
from lab.scenario.visiting import Visiting
from lab.standing.handshakes import Handshakes
from lab.trial import probe, runner
from lab.trial.attempt import attempt
from lab.trial.batch import select
from lab.trial.setting import Setting
from lab.verdict.verdict import Outcome
from lab.vocabulary import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.results.result import Result
    from lab.vocabulary import Behaviour


_FEW: Final = 5  # connections or cases that are named


class Injected(NamedTuple):
    """What came of it.

    :param remarks: what whoever asked for it has to know.
    """

    report: Report
    remarks: tuple[str, ...]


async def inject(lab: Lab, fix: str, case: str, family: Family | None, service: str | None) -> Injected:
    """Try a case in a lab that others use.

    :param fix: that the lab's nodes have, by its name.
    :param family: the first that the lab has, when None.
    :param service: which Service is asked, instead of the first.
    :raises InputError: the case cannot run there; says why.
    :raises LabError: the lab cannot hold it, or no connection comes about there; says which rule keeps it from it.
    """
    chosen = family or lab.families[0]
    if chosen not in lab.families:
        raise InputError(f"this lab was built without {chosen}")
    found = find(case)
    if not issubclass(found.scenario, ConnectionScenario):
        message = f"{case} is about more than one TCP connection, and others have theirs here"
        raise InputError(message, cure=f"`lab run {case}` tries it in a lab of its own")
    selection = select([found], [fixes.find(fix)], lab.current, chosen, (None, None, None), service, stands=True)
    [setting] = selection.settings
    answer = await probe.ask(chosen)
    try:
        came = await attempt(setting, answer, partial(_run, lab))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise LabError("a server of somebody's own has the address and port of an endpoint: end it first") from error
    if came.result is not None and not came.failure:
        _check_connected(lab, setting, came.result)
    tally = came.added_to(Tally(setting.trial))
    report = Report(__version__, os.uname().release, {chosen: answer}, (tally,))
    return Injected(report, (*selection.remarks, *(str(one.message) for one in came.warned)))


def _check_connected(lab: Lab, setting: Setting, result: Result) -> None:
    """Check that the trial's connection came about, which a rule of somebody's may have kept from it.

    :raises LabError: it did not, and another one beside it does not either: the case was not tried.
    """
    outcome, expected = result.verdict.outcome, result.expected and result.expected.outcome
    if outcome not in (Outcome.REFUSED, Outcome.STALLED) or outcome is expected:
        return
    roles = setting.roles
    client, target = roles.client, roles.service_address or roles.servers[0][1]
    with one_processor(), lent_beside_others(lab):
        visiting = Visiting(lab, setting.family)
        try:
            reached = visiting.ask(Question(client, Target.VIP, target), with_entry=False)
        finally:
            visiting.forget()
    if reached.fate is not Fate.CONNECTED:
        message = f"{setting.case.name} was not tried: it needs a connection from {client} to {target}"
        raise LabError(f"{message}, and none comes about in this lab: {reached.known_by}")


async def inject_into(lab: Lab, fix: str, case: str, wanted: str, handshakes: Handshakes) -> Injected:
    """Try a case on a connection that somebody has in a lab, and touch nothing of it but by the case's one packet.

    :param wanted: which: ``HOST``, ``ADDRESS``, or one with ``:PORT`` behind it, of its client; ``only`` where there is
        no other.
    :raises InputError: the case does more than inject one packet, or no connection is meant, or several are.
    :raises LabError: the lab cannot hold it.
    """
    found = find(case)
    if not isinstance(found.steps, Injection):
        can = ", ".join([one.name for one in CASES.values() if isinstance(one.steps, Injection)][:_FEW])
        message = (
            f"{case} does more than inject one packet and see what becomes of it, and the connection is somebody's"
        )
        cure = f"`lab inject {case}` without --connection has one of its own; others are about one, such as {can}"
        raise InputError(message, cure=cure)
    begun = _chosen(lab, _open(lab, handshakes), wanted)
    roles, peer = roles_of(lab, begun)
    family = Family.of(ip_address(begun.own.address))
    own = replace(found, choose_roles=lambda *_given: roles)
    setting = Setting(own, fixes.find(fix), lab.current, family)
    own.roles(lab.current, family)  # refused here, where it demands something else
    answer = await probe.ask(family)

    async def run(_setting: Setting, behaviour: Behaviour, keep: runner.Keep) -> Result:
        with _lent(lab, setting, subject=(begun.own, begun.target)):
            scenario = AdoptedScenario(lab, roles, family, behaviour, begun, peer)
            seen = await runner.carry_out(partial(own.steps, scenario), scenario, keep)
            return runner.judge(setting, behaviour, seen)

    came = await attempt(setting, answer, run)
    report = Report(__version__, os.uname().release, {family: answer}, (came.added_to(Tally(setting.trial)),))
    on = f"on the connection {begun}, which {roles.servers[0][0]} at {roles.servers[0][1]} answers"
    return Injected(report, (on, *(str(one.message) for one in came.warned)))


def _open(lab: Lab, handshakes: Handshakes) -> list[Handshake]:
    """Return the connections whose client has them still."""
    known = {(one.client, one.own, one.target): one for one in handshakes.known()}
    alive = {}
    for host in dict.fromkeys(one.client for one in known.values()):
        for sock in connected(lab.hosts[host].namespace):
            own, target = SocketAddress(*sock.own), SocketAddress(*sock.peer)
            alive[host, *_as_it_leaves(lab, host, own, target)] = own, target
    return [replace(one, own=alive[ends][0], target=alive[ends][1]) for ends, one in known.items() if ends in alive]


def _as_it_leaves(
    lab: Lab, host: str, own: SocketAddress, target: SocketAddress
) -> tuple[SocketAddress, SocketAddress]:
    """Return the ends that a client's packets have on its link: a node's own kernel translates them before."""
    if lab.topology.host(host).proxy_mode is None:
        return own, target
    with closing(ConntrackTable(lab.hosts[host].namespace)) as table:
        entry = table.entry(TCP, own, target)
    return entry.translated if entry else (own, target)


def _chosen(lab: Lab, found: Sequence[Handshake], wanted: str) -> Handshake:
    """Return the connection that is meant: of several the one that a case can be tried on, where it is one alone.

    :raises InputError: there is none, or there are several.
    """
    if wanted != "only":
        _check(lab, wanted)
    meant = [one for one in found if wanted == "only" or wanted in _names(one)]
    if len(meant) > 1:
        meant = [one for one in meant if _is_translated(lab, one)] or meant
    if len(meant) == 1:
        return meant[0]
    there = "; ".join(f"{one.client}:{one.own.port} (to {one.target})" for one in (meant or found)[-_FEW:])
    if not found:
        cure = "open one, such as `lab exec client -- nc ADDRESS PORT`, and leave it open"
        raise InputError("no client has a connection open in this lab", cure=cure)
    if not meant:
        raise InputError(f"no connection of {wanted} is open", cure=f"there is: {there}")
    raise InputError(f"{len(meant)} connections are open", cure=f"--connection says which: {there}")


def _check(lab: Lab, wanted: str) -> None:
    """Refuse a client that the lab does not have.

    :raises InputError: there is no such host or address, or no such port.
    """
    has_port = wanted.count(":") == 1 or "]:" in wanted
    client, _, port = wanted.rpartition(":") if has_port else (wanted, "", "")
    host, names = client.strip("[]"), [one.name for one in lab.topology.hosts]
    if host not in names and lab.topology.host_of(host) is None:
        raise InputError(f"--connection {wanted}: this lab has no host or address {host!r}", cure=nearest(host, names))
    if has_port and not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InputError(f"--connection {wanted}: {port!r} is no port", cure="1 to 65535")


def _is_translated(lab: Lab, one: Handshake) -> bool:
    """Check whether a node translates a connection, so that a case can be tried on it."""
    try:
        roles_of(lab, one)
    except InputError:
        return False
    return True


def _names(one: Handshake) -> set[str]:
    address = one.own.address
    return {one.client, f"{one.client}:{one.own.port}", address, str(one.own)}


async def _run(lab: Lab, setting: Setting, behaviour: Behaviour, keep: runner.Keep) -> Result:
    return await runner.run(setting, behaviour, keep, partial(_lent, lab))


@contextmanager
def _lent(lab: Lab, setting: Setting, *, subject: Ends | None = None) -> Iterator[Lab]:
    """Lend the lab to the trial, and delete the trial's entries behind it.

    :param subject: the connection that it is about, where that is somebody's; it keeps its entries.
    """
    client, port = setting.roles.client, setting.roles.client_address.port
    ports = [BARRIER_PORT, *([port + max(1, lab.trials)] if subject is None else [])]
    mine = [f"[{own}]:{port}" for own in lab.topology.addresses(client, setting.family) for port in ports]
    try:
        with lent_beside_others(lab, subject=subject):
            yield lab
    finally:
        for node in lab.topology.nodes:
            for end in mine:
                Flows(lab.hosts[node.name].namespace).delete(source=end)
