# SPDX-License-Identifier: MIT
"""Services and their endpoints, as a node's rules speak of them: for who has a dump and no objects.

In iptables mode a rule of KUBE-SERVICES leads from a cluster IP to a chain KUBE-SVC-, that to chains KUBE-SEP-, and
these translate (``pkg/proxy/iptables/proxier.go``). In nftables mode an element of the map ``service-ips`` leads to a
chain ``service-``, which translates by itself (from v1.36 on) or leads to chains ``endpoint-``
(``pkg/proxy/nftables/proxier.go``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lab.rules.dump import target_of
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.rules.dump import Dump

_TO_SERVICE: Final = re.compile(r"KUBE-(?:SVC|SVL)-")
_DESTINATION: Final = re.compile(r"(?:^| )-d (\S+?)(?:/(?:32|128))? -p (tcp|udp|sctp) ")
_PORT: Final = re.compile(r" --dport (\d+)")
_NAMED: Final = re.compile(r'--comment (?:"([^" ]+)(?: cluster IP)?"|(\S+))')
_DNAT: Final = re.compile(r" --to-destination (?:\[([^\]]+)\]|([0-9.]+)):(\d+)")
_NODE_PORT: Final = re.compile(r"^(?!.*-j KUBE-MARK-MASQ).*-p (tcp|udp|sctp) .* --dport (\d+)")

_OTHER: Final = re.compile(r'-d (\S+?)(?:/(?:32|128))? .*--comment "([^" ]+) (external|loadbalancer) IP"')

_ELEMENT: Final = re.compile(r"(\S+) \. (tcp|udp|sctp) \. (\d+) : goto (\S+)")
_NODE_PORT_ELEMENT: Final = re.compile(r"(tcp|udp|sctp) \. (\d+) : goto (\S+)")
_OF_CHAIN: Final = re.compile(r"[a-z]+-[A-Z2-7]{8}-([a-z0-9.-]+/[a-z0-9.-]+)/(?:tcp|udp|sctp)/(.*)")
_TRANSLATED: Final = re.compile(r"(?<=: )([0-9a-f.:]+) \. (\d+)")
_TO: Final = re.compile(r" dnat (?:ip6? )?to (?:\[([^\]]+)\]|([0-9.]+)):(\d+)")
_GOTO: Final = re.compile(r"goto (endpoint-[^\s,}]+)")


@dataclass(frozen=True)
class Frontend:
    """One port of a Service at its cluster IP, in one family.

    :param service: ``namespace/name``; made of the address where the rules do not name it.
    :param port_name: empty for the one port of a Service.
    :param chain: where its packets go, by table and name.
    """

    service: str
    port_name: str
    protocol: str
    address: str
    port: int
    chain: tuple[str, str]

    @property
    def name(self) -> str:
        """``namespace/name:port``, as kube-proxy writes it."""
        return f"{self.service}:{self.port_name}" if self.port_name else self.service


@dataclass(frozen=True)
class Endpoint:
    """An address and port that the rules translate to."""

    address: str
    port: int


@dataclass(frozen=True)
class Others:
    """The addresses besides its cluster IPs at which rules take in packets for a Service.

    :param unknown: which of both these are, the rules of nftables mode do not tell.
    """

    external_ips: tuple[str, ...] = ()
    load_balancers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def frontends(dump: Dump) -> Iterator[Frontend]:
    """Yield the ports of Services at their cluster IPs, in the order of the rules; those without endpoints are none."""
    if dump.mode is ProxyMode.NFTABLES:
        yield from _nft_frontends(dump)
        return
    services = dump.containers.get(("nat", "KUBE-SERVICES"))
    for line in services.lines if services else ():
        target = target_of(line.text)
        found = _DESTINATION.search(line.text) if _TO_SERVICE.match(target) else None
        port = _PORT.search(line.text) if found else None
        if found is None or port is None:
            continue
        said = _NAMED.search(line.text)
        if said is not None and "cluster IP" not in line.text:
            continue  # an external IP's, or a load balancer's
        name = (said[1] or said[2]) if said else ""
        service, port_name = _name(name, found[1])
        yield Frontend(service, port_name, found[2], found[1], int(port[1]), ("nat", target))


def _nft_frontends(dump: Dump) -> Iterator[Frontend]:
    for (table, name), one in dump.containers.items():
        if name != "service-ips":
            continue
        for line in one.elements:
            found = _ELEMENT.match(line.text)
            if found is None or not found[4].startswith("service-"):
                continue
            said = _OF_CHAIN.match(found[4])
            service, port_name = (said[1], said[2]) if said else _name("", found[1])
            yield Frontend(service, port_name, found[2], found[1], int(found[3]), (table, found[4]))


def _name(said: str, address: str) -> tuple[str, str]:
    """Return a Service's name and its port's; of one that is not named a name that is made of its address."""
    service, _, port = said.partition(":")
    if service.count("/") == 1:
        return service, port
    return "default/at-" + re.sub(r"[^0-9a-f]+", "-", address), ""


def endpoints(dump: Dump, frontend: Frontend) -> tuple[Endpoint, ...]:
    """Return the endpoints that a Service's chain leads to, each once, in the order of the rules."""
    found: dict[Endpoint, None] = {}
    table, _ = frontend.chain
    waiting, known = [frontend.chain], {frontend.chain}
    while waiting:
        one = dump.containers.get(waiting.pop(0))
        for line in one.lines if one else ():
            for endpoint, target in _led(line.text, dump.mode):
                if endpoint is not None:
                    found[endpoint] = None
                elif (place := (table, target)) not in known:
                    known.add(place)
                    waiting.append(place)
    return tuple(found)


def _led(rule: str, mode: ProxyMode) -> Iterator[tuple[Endpoint | None, str]]:
    """Yield the endpoints that a rule translates to, and the chains of endpoints that it leads to."""
    if mode is ProxyMode.IPTABLES:
        target = target_of(rule)
        if target == "DNAT" and (found := _DNAT.search(rule)):
            yield Endpoint(found[1] or found[2], int(found[3])), ""
        elif target.startswith(("KUBE-SEP-", "KUBE-SVC-")):
            yield None, target
        return
    if found := _TO.search(f" {rule}"):
        yield Endpoint(found[1] or found[2], int(found[3])), ""
    elif " dnat " in f" {rule}":
        for address, port in _TRANSLATED.findall(rule):
            yield Endpoint(address, int(port)), ""
    for chain in _GOTO.findall(rule):
        yield None, chain


def node_ports(dump: Dump) -> dict[tuple[str, str, str], int]:
    """Return the node ports, by Service, name of its port, and protocol."""
    found: dict[tuple[str, str, str], int] = {}
    if dump.mode is ProxyMode.IPTABLES:
        one = dump.containers.get(("nat", "KUBE-NODEPORTS"))
        for line in one.lines if one else ():
            rule, said = _NODE_PORT.search(line.text), _NAMED.search(line.text)
            if rule and said:
                service, port_name = _name(said[1] or said[2], "")
                found[service, port_name, rule[1]] = int(rule[2])
        return found
    for (_table, name), one in dump.containers.items():
        for line in one.elements if name == "service-nodeports" else ():
            rule = _NODE_PORT_ELEMENT.match(line.text)
            said = _OF_CHAIN.match(rule[3]) if rule else None
            if rule and said:
                found[said[1], said[2], rule[1]] = int(rule[2])
    return found


def others(dump: Dump, service: str) -> Others:
    """Return a Service's addresses besides its cluster IPs, in the order of the rules."""
    if dump.mode is ProxyMode.IPTABLES:
        one = dump.containers.get(("nat", "KUBE-SERVICES"))
        said = [found for line in (one.lines if one else ()) if (found := _OTHER.search(line.text))]
        its: dict[str, list[str]] = {"external": [], "loadbalancer": []}
        for found in said:
            if _name(found[2], "")[0] == service:
                its[found[3]].append(found[1])
        return Others(*(tuple(dict.fromkeys(some)) for some in its.values()))
    unknown: dict[str, None] = {}
    for (_table, name), one in dump.containers.items():
        for line in one.elements if name == "service-ips" else ():
            rule = _ELEMENT.match(line.text)
            whose = _OF_CHAIN.match(rule[4]) if rule and rule[4].startswith("external-") else None
            if rule and whose and whose[1] == service:
                unknown[rule[1]] = None
    return Others(unknown=tuple(unknown))
