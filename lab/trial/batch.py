# SPDX-License-Identifier: MIT
"""Many trials: what the command runs."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from lab import __version__
from lab.cases import CASES, HEADLINE, AnyCase
from lab.cases.on_node import without
from lab.errors import InputError
from lab.fixes import Fix
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.said import NOTHING_SAID, Settings
from lab.netns import interrupt
from lab.results.result import Report
from lab.scenario.roles import Roles, named_ports, usable_ports
from lab.topology.kube_proxy import topology_notes
from lab.topology.model import Topology
from lab.topology.reader import load
from lab.topology.with_settings import as_options, with_proxy
from lab.trial import probe
from lab.trial.rounds import rounds
from lab.trial.setting import Setting
from lab.trial.workers import InThisProcess, Runner
from lab.vocabulary import Backend, Family, ProxyMode

#: Mode, version and backend of a kube-proxy, None for what a topology says.
ProxyChoice: TypeAlias = tuple[ProxyMode | None, str | None, Backend | None]

_USUAL: Final = HEADLINE.topology  # of cases that need nothing special
_FEW: Final = 8  # names that a line has room for


@dataclass(frozen=True)
class Selection:
    """What is to be tried.

    :param remarks: what somebody who chose it has to be told: what is left out and why, and what was taken of several.
    """

    settings: tuple[Setting, ...]
    remarks: tuple[str, ...] = ()


def select(
    cases: Sequence[AnyCase],
    fixes: Sequence[Fix],
    topology: Topology | None,
    family: Family,
    proxy: ProxyChoice,
    service: str | None = None,
    *,
    settings: Settings = NOTHING_SAID,
    named: bool = True,
    stands: bool = False,
) -> Selection:
    """Return every case with every fix, each where it can run.

    :param topology: where all of them are to run; None for each case's own.
    :param proxy: mode, version and backend of the nodes' kube-proxy, None for what a topology says.
    :param service: which Service is asked, instead of the first, as :func:`lab.scenario.roles.service_port` knows it.
    :param settings: of the nodes' kube-proxy, besides what a topology says.
    :param named: whether somebody named these cases; otherwise those that cannot run are left out, which is remarked.
    :param stands: the lab is built already, and its endpoints are what they are; else those that a case cannot use are
        left out of a Service that has others, which is remarked.
    :raises InputError: no such version or Service is known, a case that was named cannot run, or none of them can.
    """
    _mode, version, _backend = proxy
    if version is not None:
        find_release(version)
    places = tuple(_places(cases, topology, proxy, settings))
    if service is not None:
        _check_service(service, places, family, everywhere=named)
    chosen: list[_Place] = []
    refused: dict[str, list[AnyCase]] = {}
    fitting = _Fitting(family, service, fixed=stands)
    for case, place in zip(cases, places, strict=True):
        try:
            fit = fitting.place(case, place)
            chosen.append(_Place(case, fit, case.roles(fit, family, service)))
        except InputError as error:
            reason = error.message.removeprefix(f"{place.name}: ")
            if named:
                message = f"{case.name} cannot run in {place.name}: {reason}"
                raise InputError(message, cure=_cure(case, topology, family, service)) from None
            refused.setdefault(reason, []).append(case)
    if not chosen:
        message = f"none of these cases can run{f' in {topology.name}' if topology else ''}: {'; '.join(refused)}"
        raise InputError(message, cure=_cure(cases[0], topology, family, service))
    made = [
        Setting(
            one.case,
            fix,
            one.topology,
            family,
            one.roles.service if service or one.others(family) else None,
            as_options(one.topology, settings),
        )
        for one in chosen
        for fix in fixes
    ]
    # A case in its own topology asks what it is about, and nobody has chosen another.
    asked = (*_asked(chosen, family), *_unasked(chosen, family)) if service is None and topology is not None else ()
    return Selection(
        tuple(made),
        (
            *_noted(chosen, family),
            *_left_out(refused, topology),
            *_moved(chosen, topology),
            *_doubted(chosen, family),
            *fitting.remarks,
            *asked,
        ),
    )


class _Place(NamedTuple):
    """Where a case runs."""

    case: AnyCase
    topology: Topology
    roles: Roles

    def others(self, family: Family) -> list[str]:
        """Return the names of the Services' ports that might be asked instead of the one that is."""
        ports = usable_ports(self.topology, family)
        protocols = [port.protocol for port in ports if port.name == self.roles.service]
        return [port.name for port in ports if port.protocol in protocols and port.name != self.roles.service]


class _Fitting:
    """Leaves the endpoints out that cases cannot use; cases that lack the same have one topology.

    :param fixed: nothing is left out.
    """

    def __init__(self, family: Family, service: str | None, *, fixed: bool) -> None:
        self._family, self._service, self._fixed = family, service, fixed
        self._made: dict[tuple[str, str, tuple[str, ...]], Topology] = {}
        self._cases: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}

    def place(self, case: AnyCase, topology: Topology) -> Topology:
        """Return where a case runs.

        :raises InputError: someone is missing there.
        """
        if self._fixed or any(node.given for node in topology.nodes):
            return topology
        service, addresses = case.left_out(topology, self._family, self._service)
        if not addresses:
            return topology
        key = (topology.name, service, addresses)
        if key not in self._made:
            self._made[key] = without(topology, service, addresses)
        self._cases.setdefault(key, []).append(case.name)
        return self._made[key]

    @property
    def remarks(self) -> Iterator[str]:
        """What was left out, and for which cases."""
        for (topology, service, addresses), cases in self._cases.items():
            what = f"{service} is without {', '.join(addresses)}, which the node itself has (hostNetwork)"
            yield f"in {topology}, {what}: these are about a pod behind the node: {', '.join(cases)}"


def _places(
    cases: Sequence[AnyCase], topology: Topology | None, proxy: ProxyChoice, settings: Settings
) -> Iterator[Topology]:
    if topology is not None:
        return itertools.repeat(with_proxy(topology, *proxy, settings), len(cases))
    names = dict.fromkeys(case.topology for case in cases)
    built = {name: with_proxy(load(name), *proxy, settings) for name in names}
    return (built[case.topology] for case in cases)


def _noted(chosen: Sequence[_Place], family: Family) -> Iterator[str]:
    """Yield what has to be known of the nodes' kube-proxies."""
    topologies = {one.topology.name: one.topology for one in chosen}.values()
    yield from dict.fromkeys(note for topology in topologies for note in topology_notes(topology, family))


def _check_service(service: str, places: Sequence[Topology], family: Family, *, everywhere: bool) -> None:
    """Check a Service's name before any case, so that what is wrong with it is reported as such.

    :param everywhere: whether it has to be right in every place; otherwise one will do.
    :raises InputError: it is not.
    """
    wrong: list[InputError] = []
    for place in (distinct := {place.name: place for place in places}).values():
        try:
            named_ports(place, family, service)
        except InputError as error:
            wrong.append(error)
    if wrong and (everywhere or len(wrong) == len(distinct)):
        raise wrong[0]


def _cure(case: AnyCase, topology: Topology | None, family: Family, service: str | None) -> str | None:
    """Return what would do instead: the case's own topology, and the cases that can run in this one."""
    if topology is None:
        return "leave the Service away" if service is not None else None
    cure = f"without a topology given it runs in {case.topology}"
    can = [one.name for one in CASES.values() if _can_run(one, topology, family, service)]
    cure = f"{cure}; in {topology.name} can run: {', '.join(can) or 'no case'}" if len(can) <= _FEW else cure
    return f"{cure}; `lab reach` asks by {others}" if (others := _other_protocols(topology, family, service)) else cure


def _other_protocols(topology: Topology, family: Family, service: str | None) -> str:
    """Return by which protocols the Services of a topology can be asked, where that is by none of most cases'."""
    ports = usable_ports(topology, family) if service is None else named_ports(topology, family, service)
    protocols = dict.fromkeys(port.protocol for port in ports)
    return "" if "tcp" in protocols else " and ".join(protocols).upper()


def _can_run(case: AnyCase, topology: Topology, family: Family, service: str | None) -> bool:
    try:
        case.roles(topology, family, service)
    except InputError:
        return False
    return True


def _left_out(refused: Mapping[str, Sequence[AnyCase]], topology: Topology | None) -> Iterator[str]:
    for reason, cases in refused.items():
        count = f"{len(cases)} {'case is' if len(cases) == 1 else 'cases are'} left out"
        where = f" for {topology.name}" if topology else ""
        yield f"{count}{where}: {reason}: {', '.join(case.name for case in cases)}"


def _moved(chosen: Sequence[_Place], topology: Topology | None) -> Iterator[str]:
    moved = [
        f"{one.case.name} ({one.case.topology})" for one in chosen if one.topology.name != one.case.topology != _USUAL
    ]
    if topology is not None and moved:
        yield f"in {topology.name} instead of their own topologies: {', '.join(moved)}"


def _doubted(chosen: Sequence[_Place], family: Family) -> Iterator[str]:
    doubted: dict[tuple[str, str], list[str]] = {}
    for one in chosen:
        if doubt := one.case.doubt(one.topology, family, one.roles):
            doubted.setdefault((one.topology.name, doubt), []).append(one.case.name)
    for (topology, doubt), cases in doubted.items():
        yield f"in {topology}, {doubt}: what comes of these is a finding and not as expected: {', '.join(cases)}"


def _asked(chosen: Sequence[_Place], family: Family) -> Iterator[str]:
    asked = {(one.topology.name, one.roles.service): one.others(family) for one in chosen}
    for (topology, service), others in asked.items():
        if others:
            yield f"in {topology}, {service} is asked and not {', '.join(others)}: --service takes another"


def _unasked(chosen: Sequence[_Place], family: Family) -> Iterator[str]:
    """Name the Services whose protocol no case of the whole catalogue asks by."""
    for topology in {one.topology.name: one.topology for one in chosen}.values():
        services = {one.roles.service for one in chosen if one.topology.name == topology.name}
        ports = usable_ports(topology, family)
        asked = {port.protocol for port in ports if port.name in services}
        others: dict[str, list[str]] = {}
        for port in ports:
            if port.protocol not in asked and port.protocol not in _protocols(family):
                others.setdefault(port.protocol, []).append(port.name)
        for protocol, names in others.items():
            left = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left unasked"
            yield f"no case asks a Service by {protocol.upper()}: in {topology.name}, {left}"


@functools.cache
def _protocols(family: Family) -> frozenset[str]:
    """Return by which protocols the catalogue's cases ask a Service: each runs in its own topology."""
    topologies = {name: load(name) for name in dict.fromkeys(case.topology for case in CASES.values())}
    asked = {(case.topology, case.roles(topologies[case.topology], family).service) for case in CASES.values()}
    return frozenset(
        port.protocol
        for name, topology in topologies.items()
        for port in usable_ports(topology, family)
        if (name, port.name) in asked
    )


async def run(settings: Sequence[Setting], family: Family, repeat: int, runner: Runner | None = None) -> Report:
    """Probe what the kernel does, then try everything ``repeat`` times, with progress on stderr.

    Ctrl-C cancels it.

    :param runner: what runs the trials; None for this process, one after the other.
    :raises InputError: the topology cannot run these cases.
    :raises MachineError: the machine ran out of something on the way.
    :raises LabError: the kernel fits no known behaviour, or cannot hold a lab.
    """
    used = closing(InThisProcess(settings)) if runner is None else nullcontext(runner)
    with interrupt.cancels_task(), used as runs:
        answer = await probe.ask(family)
        tallies = await rounds(settings, answer, repeat, runs)
    return Report(__version__, os.uname().release, {family: answer}, tallies)
