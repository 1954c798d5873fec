# SPDX-License-Identifier: MIT
"""Who asks which address of which Service, in a lab of its own, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from lab.errors import InputError, nearest
from lab.evidence.packet import SocketAddress
from lab.evidence.reach import PROTOCOLS, Fate, Question, Reached, Target
from lab.fabric.lab import Lab, lent_beside_others
from lab.kubernetes.objects import ServicePort
from lab.results.reach import Asked, Cell, Client, Reaches
from lab.scenario import one_processor
from lab.scenario.reaching import Reaching, source_of
from lab.scenario.visiting import Visiting
from lab.topology.kube_proxy import node_release
from lab.topology.routes import node_address, node_of
from lab.verdict.semantics import expected
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubernetes.objects import Endpoint, EndpointSlice, Service
    from lab.topology.model import Host, Topology
    from lab.topology.node_change import NodeChange

#: How rarely an endpoint may be missed that is chosen as often as each other one: once in so many cells.
_RARELY: Final = 1_000_000


_MANY: Final = 8  # questions of a cell; the entries of more tell nothing new
_OUTSIDE: Final = "outside"
_OF_OWN_NODE: Final = {Target.VIP, Target.LOAD_BALANCER, Target.EXTERNAL_IP}  # the node of a pod translates these


@dataclass(frozen=True)
class Chosen:
    """What is asked; empty where everything is.

    :param clients: hosts.
    :param service: ``[NAMESPACE/]NAME[:PORT]``.
    :param repeat: how often each question is asked; 0 for as often as it takes to hear of each endpoint.
    """

    clients: tuple[str, ...] = ()
    service: str | None = None
    targets: tuple[Target, ...] = ()
    protocols: tuple[str, ...] = ()
    repeat: int = 0


def reach(
    topology: Topology, family: Family, chosen: Chosen, change: NodeChange | None = None, *, traced: bool = False
) -> Reaches:
    """Build the topology, ask everything that is chosen, and return what became of it.

    :param traced: have the kernel tell which rule decided.
    :raises InputError: nothing of the kind can be asked there.
    :raises MissingError: and ``LabError``: it cannot be built here.
    """
    questions = list(_questions(topology, family, chosen))
    with Lab(topology, family=family, change=change, traced=traced) as lab, one_processor():
        return _reaches(Reaching(lab, family), questions, chosen)


def reach_standing(
    lab: Lab, family: Family, chosen: Chosen, step: Callable[[], None], *, traced: bool = False
) -> Reaches:
    """Ask everything that is chosen in a lab that stands, and leave that as it was, but for what was counted.

    :param step: called before each cell; what it raises ends the questions.
    :param traced: have the kernel tell which rule decided; else of what fails alone which one dropped it.
    :raises InputError: nothing of the kind can be asked there.
    """
    questions = list(_questions(lab.current, family, chosen))
    with one_processor(), lent_beside_others(lab, traced=traced):
        visiting = Visiting(lab, family)
        try:
            found = _reaches(visiting, questions, chosen, step, may_lag=bool(lab.stopped))
            visiting.check()
        finally:
            visiting.forget()
    lagging = [f"The kube-proxy of {node} is stopped: its rules may lag behind." for node in lab.stopped]
    return replace(found, remarks=(*found.remarks, *lagging))


class _Questions(NamedTuple):
    """What a cell asks."""

    client: Client
    service: Service
    port: ServicePort
    asked: Asked


def _questions(topology: Topology, family: Family, chosen: Chosen) -> Iterator[_Questions]:
    """Yield what is chosen, client by client.

    :raises InputError: nothing of the kind can be asked there.
    """
    ports = _ports(topology, family, chosen)
    columns = [(service, port, asked) for service, port in ports for asked in _asked(topology, family, service, port)]
    wanted = chosen.targets or {asked.target for *_port, asked in columns}
    there = ", ".join(dict.fromkeys(asked.target for *_port, asked in columns))
    columns = [one for one in columns if one[2].target in wanted]
    if not columns:
        what = f"no Service is reached by {' or '.join(chosen.targets) or family}"
        raise InputError(f"{topology.name}: {what}", cure=f"there is: {there}" if there else None)
    clients, asking = _clients(topology, family, chosen.clients), set[str]()
    for client in clients:
        for service, port, asked in columns:
            is_here = asked.target is not Target.LOCALHOST or topology.host(client.host).proxy_mode is not None
            if is_here and (client.host in chosen.clients or not _is_of_missing_node(topology, client, asked)):
                asking.add(client.host)
                yield _Questions(client, service, port, asked)
    silent = [client.host for client in clients if client.host not in asking]
    if silent and (chosen.clients or not asking):
        who = " and ".join(silent)
        nodes = ", ".join(f"--from {node.name}" for node in topology.nodes)
        others = [target for target in dict.fromkeys(there.split(", ")) if target != Target.LOCALHOST]
        by_others = f"or another address: --to {', '.join(others)}" if others else ""
        cure = "; ".join(filter(None, (nodes, by_others)))
        raise InputError(
            f"{topology.name}: {who} cannot ask by {Target.LOCALHOST}, which is each node's own", cure=cure
        )


def _is_of_missing_node(topology: Topology, client: Client, asked: Asked) -> bool:
    """Check whether a question is one that a client's own node would decide, which a real node's topology lacks."""
    is_given = any(node.given for node in topology.nodes)
    return is_given and client.place.endswith(_OUTSIDE) and asked.target in _OF_OWN_NODE


def _reaches(
    reaching: Reaching,
    questions: Sequence[_Questions],
    chosen: Chosen,
    step: Callable[[], None] = lambda: None,
    *,
    may_lag: bool = False,
) -> Reaches:
    """Ask everything, and return what became of it.

    :param may_lag: whether the rules need not be those of the Services and endpoints of now.
    """
    topology, family = reaching.lab.current, reaching.family
    cells = []
    for one in questions:
        step()
        cells.append(_ask(reaching, topology, one, chosen.repeat, may_lag=may_lag))
    crafted = sorted({one.asked.protocol for one in questions} & reaching.crafted)
    untold = reaching.deciding.untold if reaching.deciding else ()
    remarks = [
        *untold,
        *(f"This kernel has no {one.upper()} sockets: the lab made the packets of each handshake." for one in crafted),
    ]
    if any(node.given for node in topology.nodes):
        remarks.append(
            "A real node's rules do not say what they were made of, nor which release wrote them: what they decide is"
            " held against nothing. Judged is only what is asked of an endpoint's own address."
        )
        away = [one.client.host for one in questions if one.client.place.endswith(_OUTSIDE)]
        if away:
            remarks.append(
                f"A router stands for all beyond the node, other nodes too: from {' and '.join(dict.fromkeys(away))}"
                " nobody gets to the Service's own addresses, which are asked there only by --from."
            )
    return Reaches(topology.name, _proxies(topology), family, tuple(cells), tuple(remarks), chosen.repeat)


def with_affinity(topology: Topology) -> Topology:
    """Return the topology with session affinity for each Service: a client stays with the endpoint that it got."""

    def sticky(service: Service) -> Service:
        spec = service.spec.model_copy(update={"session_affinity": "ClientIP"})
        return service.model_copy(update={"spec": spec})

    return replace(topology, services=tuple(map(sticky, topology.services)))


def _ask(reaching: Reaching, topology: Topology, one: _Questions, repeat: int, *, may_lag: bool) -> Cell:
    """Ask until each endpoint of the Service has answered, or would have by then.

    :param may_lag: whether the rules may choose others than the Service's endpoints: then as often as it takes to hear
        of one more than have answered.
    """
    client, service, port, asked = one
    family = reaching.family
    question = Question(client.host, asked.target, asked.address, asked.protocol)
    question = replace(question, source=source_of(topology, question, family))
    endpoints = {endpoint.addresses[0] for endpoint in _endpoints(topology, family, service, port)}
    chooses = asked.target is not Target.ENDPOINT
    enough = _enough(len(endpoints)) if chooses else 1
    reached: list[Reached] = []
    while len(reached) < (repeat or enough):
        reached.append(reaching.ask(question, with_entry=len(reached) < _MANY))
        answered = _answered(reached)
        if may_lag and chooses:
            enough = max(enough, _enough(len(answered) + 1))
        if not repeat and (_is_before_any(topology, reached[-1]) or (answered == endpoints and not may_lag)):
            break  # nothing else can come
    return Cell(client, asked, tuple(reached), expected(topology, family, service, port, question), enough)


def _is_before_any(topology: Topology, reached: Reached) -> bool:
    """Check whether a question stopped before an endpoint was chosen, so that others would stop there as well.

    Of what an endpoint itself asks, that nobody knows: what is sent back to it may end at the very node.
    """
    servers = {host.name for host in topology.servers}
    if reached.fate is Fate.TIMES_OUT and reached.question.client in servers:
        return False
    stops = reached.fate in (Fate.REFUSED, Fate.NO_WAY, Fate.TIMES_OUT)
    is_chosen = reached.sent_on or (reached.entry and reached.entry.reply[0] != reached.question.address)
    return stops and not is_chosen and reached.at not in servers


def _answered(reached: Sequence[Reached]) -> set[str]:
    return {one.server_address.address for one in reached if one.server_address}


def _enough(endpoints: int) -> int:
    """Return after how many connections each endpoint was chosen, by chance alone and all but certainly."""
    if endpoints < 2:
        return 1
    return math.ceil(math.log(_RARELY * endpoints) / -math.log(1 - 1 / endpoints))


# --- rows ---------------------------------------------------------------------------------------------


def _clients(topology: Topology, family: Family, names: Sequence[str]) -> list[Client]:
    """Return who asks: the hosts named, or one of each kind and place.

    :raises InputError: there is no such host, or it has no address of the family.
    """
    known = {host.name: host for host in topology.hosts}
    for name in names:
        if name not in known:
            raise InputError(f"{topology.name}: there is no host {name}", cure=nearest(name, known))
        if not topology.addresses(name, family):
            raise InputError(f"{topology.name}: {name} has no {family} address", cure="take the other --family")
    if names:
        return [Client(name, _place(topology, known[name])) for name in dict.fromkeys(names)]
    found: dict[str, Client] = {}
    for host in topology.hosts:
        is_router = host.forwarding and host.proxy_mode is None
        if not is_router and topology.addresses(host.name, family):
            place = _place(topology, host)
            # A node has its own addresses, and each endpoint is asked of by itself.
            own = host.name if host.proxy_mode is not None or host in topology.servers else place
            found.setdefault(own, Client(host.name, place))
    return list(found.values())


def _place(topology: Topology, host: Host) -> str:
    if host.proxy_mode is not None:
        return "the node itself" if len(topology.nodes) == 1 else "a node"
    if host.forwarding:
        return "a router"
    on = node_of(topology, host.name)
    what = "an endpoint" if host in topology.servers else "a pod"
    return f"{what} on {on}" if on else f"{'an endpoint' if host in topology.servers else 'somebody'} {_OUTSIDE}"


# --- columns ------------------------------------------------------------------------------------------


def _ports(topology: Topology, family: Family, chosen: Chosen) -> list[tuple[Service, ServicePort]]:
    """Return the ports of Services that are asked.

    :raises InputError: there is no such Service, or none of its ports is of the protocol.
    """
    wanted, _, port_name = (chosen.service or "").partition(":")
    services = [one for one in topology.services if _cluster_ip(one, family)]
    named = [one for one in services if wanted in ("", one.key, one.metadata.name)]
    if not topology.services:
        raise InputError(f"{topology.name}: there is no Service to ask", cure="add one")
    if not any(_cluster_ip(one, its) for one in topology.services for its in Family):
        raise InputError(f"{topology.name}: no Service has a cluster IP", cure="ask one that is not headless")
    if not services:
        raise InputError(f"{topology.name}: no Service has an {family} cluster IP", cure="take the other --family")
    if not named:
        cure = nearest(wanted, (one.key for one in services))
        raise InputError(f"{topology.name}: there is no Service {wanted}", cure=cure)
    if wanted and len(named) > 1:
        cure = f"one of: {', '.join(one.key for one in named)}"
        raise InputError(f"{topology.name}: several Services are named {wanted}", cure=cure)
    ports = [(one, port) for one in named for port in one.spec.ports if port_name in ("", port.name, str(port.port))]
    if not ports:
        there = ", ".join(port.name or str(port.port) for port in named[0].spec.ports)
        raise InputError(f"{topology.name}: {named[0].key} has no port {port_name}", cure=f"its ports: {there}")
    found = [one for one in ports if not chosen.protocols or one[1].protocol.lower() in chosen.protocols]
    if not found:
        there = ", ".join(dict.fromkeys(port.protocol.lower() for _service, port in ports))
        wrong = " or ".join(chosen.protocols)
        raise InputError(f"{topology.name}: no port is for {wrong}", cure=f"there is: {there}")
    return found


def _cluster_ip(service: Service, family: Family) -> str | None:
    version = ":" if family is Family.IPV6 else "."
    return next((ip for ip in service.spec.all_cluster_ips if version in ip), None)


def _asked(topology: Topology, family: Family, service: Service, port: ServicePort) -> Iterator[Asked]:
    """Yield the addresses of a Service's port: its own, its nodes' and its endpoints'."""
    name = f"{service.key}:{port.name}" if port.name else service.key
    protocol = port.protocol.lower()
    assert protocol in PROTOCOLS

    def one(target: Target, address: object, number: int) -> Asked:
        return Asked(name, target, SocketAddress(str(address), number), protocol)

    of_family = ":" if family is Family.IPV6 else "."
    yield one(Target.VIP, _cluster_ip(service, family), port.port)
    if port.node_port:
        for node in topology.nodes:
            if address := node_address(topology, node.name, family):
                yield one(Target.NODE_PORT, address, port.node_port)
        yield one(Target.LOCALHOST, "::1" if family is Family.IPV6 else "127.0.0.1", port.node_port)
    for ingress in service.status.load_balancer.ingress:
        if ingress.ip and of_family in ingress.ip:
            yield one(Target.LOAD_BALANCER, ingress.ip, port.port)
    for ip in service.spec.external_ips:
        if of_family in ip:
            yield one(Target.EXTERNAL_IP, ip, port.port)
    told: set[str | None] = set()
    for piece in _slices(topology, family, service, port):
        number = next(own.port for own in piece.ports if own.name == port.name)
        for endpoint in piece.endpoints:
            known = topology.host_of(endpoint.addresses[0]) is not None
            if known and number is not None and endpoint.node_name not in told:  # one on each node
                told.add(endpoint.node_name)
                yield one(Target.ENDPOINT, endpoint.addresses[0], number)


def _slices(topology: Topology, family: Family, service: Service, port: ServicePort) -> Iterator[EndpointSlice]:
    for piece in topology.endpoint_slices:
        its = (piece.service_key, piece.address_type) == (service.key, family.kubernetes)
        if its and any((own.name, own.protocol) == (port.name, port.protocol) for own in piece.ports):
            yield piece


def _endpoints(topology: Topology, family: Family, service: Service, port: ServicePort) -> Iterator[Endpoint]:
    return (one for piece in _slices(topology, family, service, port) for one in piece.endpoints)


def _proxies(topology: Topology) -> str:
    """Return which kube-proxy its nodes have."""
    found = [
        f"{mode}{_whose(node)}{f' ({node.backend})' if mode is ProxyMode.IPTABLES else ''}"
        for node in topology.nodes
        if (mode := node.proxy_mode)
    ]
    return ", ".join(dict.fromkeys(found))


def _whose(node: Host) -> str:
    """Return which release wrote a node's rules; of rules that were given, that these are."""
    if node.given:
        return " of its own"
    return f" {node.program.label if node.program else node_release(node).name}"
