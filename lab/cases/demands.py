# SPDX-License-Identifier: MIT
"""What cases demand of a topology: each says what is lacking, or nothing where it will do."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeAlias

from lab.errors import InputError
from lab.evidence.packet import SocketAddress
from lab.fixes import Protection
from lab.kubeproxy import changes
from lab.kubeproxy.options import DetectLocalMode
from lab.scenario.roles import CLIENT_PORT, Roles
from lab.topology.kube_proxy import node_release
from lab.topology.model import Topology
from lab.topology.routes import forwarded_by, leads_to, next_hop, node_of
from lab.vocabulary import Family, ProxyMode

#: Says why the roles cannot run in a topology; empty where they can.
Demand: TypeAlias = Callable[[Topology, Family, Roles], str]


def one_endpoint(_topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand one endpoint: where an entry is gone, the rules choose among several anew."""
    several = len(roles.servers) > 1
    return "it needs a Service with one endpoint: among several the rules would choose anew" if several else ""


def second_endpoint(_topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand an endpoint that is left when one goes, or to which a second flow may go."""
    return "" if len(roles.servers) > 1 else "it needs a Service with two endpoints or more"


def living_proxy(topology: Topology, _family: Family, _roles: Roles) -> str:
    """Demand nodes whose kube-proxy can be told of a change: a real node's rules are what they are."""
    given = next((node.name for node in topology.nodes if node.given is not None), "")
    return f"it needs a kube-proxy that changes rules, and {given} has rules that were given" if given else ""


def alone(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand that no other node is on the way: it would judge, count and drop as well, with an entry of its own."""
    for host, address in roles.servers:
        back = forwarded_by(topology, host, roles.client_address.address) or ()
        passed = {*_passed(topology, roles, host, address.address), *back} - {roles.node}
        if others := [node.name for node in topology.nodes if node.name in passed]:
            return f"it needs {roles.node} to be the only node on the way to {host}, and {others[0]} is there too"
    return ""


def two_nodes(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand that every connection passes two nodes: the client's, which translates, and the server's."""
    passed = [nodes_between(topology, roles.client, address.address) for _host, address in roles.servers]
    if any(len(nodes) != 2 for nodes in passed):
        return "it needs every endpoint behind a second node, other than the client's"
    return "" if len({*passed}) == 1 else "it needs every endpoint behind the same node"


def no_way_to_service(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a node that has no route to what is left untranslated."""
    return (
        ""
        if _after(topology, roles) is None
        else f"it needs {roles.node} to have no route to the VIP, nor a default route"
    )


def way_to_service(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand that what is left untranslated goes on, as by a default route."""
    return "" if _after(topology, roles) else f"it needs {roles.node} to have a default route, or one to the VIP"


def drops_unallocated(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a node that drops what goes to the VIP while no Service has it."""
    if Protection.DROP_UNALLOCATED in to_vips(topology, roles):
        return ""
    first = f"v1.{changes.DROPS_UNALLOCATED.minor}"
    return f"it needs {roles.node} in nftables mode of {first} or later, and service-cidrs that hold the VIP"


def cleans_by_vip(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a kube-proxy that deletes entries by the VIP where an endpoint is gone."""
    node = topology.host(roles.node)
    key = roles.service.partition(":")[0]
    ports = [port for one in topology.services if one.key == key for port in one.spec.ports]
    if node.proxy_mode is None or not any(port.node_port for port in ports):
        return ""
    if changes.ENTRIES_OF_CLUSTER_IP in node_release(node):
        return ""
    first = changes.ENTRIES_OF_CLUSTER_IP.minor
    return f"it needs kube-proxy v1.{first} or later: up to v1.{first - 1} a node port is cleaned instead of the VIP"


def masqueraded(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a node that makes itself the source of what this client sends to the VIP."""
    if topology.host(roles.node).masquerade_all or _from_elsewhere(topology, roles):
        return ""
    return f"it needs cluster-cidrs of {roles.node} without {roles.client}, or masquerade-all"


def _from_elsewhere(topology: Topology, roles: Roles) -> bool:
    """Check whether a node knows the client to be none of its pods, by the way in which it tells them."""
    node = topology.host(roles.node)
    if node.detect_local_mode in (DetectLocalMode.BRIDGE, DetectLocalMode.INTERFACE_PREFIX):
        came_by = interface_towards(topology, roles)
        if node.detect_local_mode is DetectLocalMode.BRIDGE:
            return came_by != node.pod_bridge_interface
        return not came_by.startswith(node.pod_interface_name_prefix)
    own = ip_address(roles.client_address.address)
    known = node.node_pod_cidrs if node.detect_local_mode is DetectLocalMode.NODE_CIDR else node.cluster_cidrs
    ranges = [cidr for cidr in known if cidr.version == own.version]
    return bool(ranges) and all(own not in cidr for cidr in ranges)


def interface_towards(topology: Topology, roles: Roles) -> str:
    """Return the node's interface by which the client's packets come; empty where the node itself sends them."""
    here, asked = roles.client, roles.service_address
    passed: list[str] = []
    while asked is not None and here != roles.node and here not in passed:
        passed.append(here)
        hop = next_hop(topology, here, asked.address)
        if hop is None or hop.to is None:
            break
        if hop.to.host == roles.node:
            return hop.to.bridge or hop.to.interface
        here = hop.to.host
    return ""


def not_masqueraded(topology: Topology, family: Family, roles: Roles) -> str:
    """Demand a client that the server knows by its own address: masqueraded anew, it has another port each time."""
    if masqueraded(topology, family, roles):
        return ""
    return f"it needs {roles.client} not to be masqueraded: where an entry is gone it would get another port"


def answered_at_node(topology: Topology, family: Family, roles: Roles) -> bool:
    """Check whether what a server answers by the VIP ends at the node that masqueraded, and no other forwards it."""
    if roles.service_address is None or masqueraded(topology, family, roles):
        return False
    return not alone(topology, family, roles)


def masqueraded_by_node_port(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a Service whose node port hides the client: with externalTrafficPolicy Local it does not."""
    key = roles.service.partition(":")[0]
    local = any(one.key == key and one.spec.external_traffic_policy == "Local" for one in topology.services)
    return f"it needs externalTrafficPolicy Cluster, and {key} has Local" if local else ""


def way_to_pods(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a way from the client to the pods themselves, which the lab's own datagrams take."""
    for host, address in roles.servers:
        if forwarded_by(topology, roles.client, address.address) is None:
            return f"it needs a route from {roles.client} to {host}, for the lab's own datagrams"
    return ""


def both_ways(topology: Topology, family: Family, roles: Roles) -> str:
    """Demand a node that passes what client and server send each other: what nearly every case expects."""
    for host, address in roles.servers:
        back = forwarded_by(topology, host, roles.client_address.address) or ()
        passed_back = _answers_node(topology, family, roles) or roles.node in (host, *back, roles.client)
        if not passed_back or roles.node not in _passed(topology, roles, host, address.address):
            return f"{roles.node} is not both on the way from {roles.client} to {host} and on the way back"
    return ""


def _answers_node(topology: Topology, family: Family, roles: Roles) -> bool:
    """Check whether the server knows the client by the node's address, by kube-proxy's rules or the case's own."""
    asked = roles.service_address
    if asked is None:
        return not roles.service
    by_node_port = topology.host_of(asked.address) is topology.host(roles.node)
    return by_node_port or not masqueraded(topology, family, roles)


def _passed(topology: Topology, roles: Roles, server: str, address: str) -> tuple[str, ...]:
    """Return the hosts that see what the client sends to a server: by the service, the first node rewrites it."""
    passed, asked = [roles.client], roles.service_address
    while asked is not None and topology.host(passed[-1]).proxy_mode is None:
        following = leads_to(topology, passed[-1], asked.address)
        if following is None or following in passed:
            return tuple(passed)  # it never comes there
        passed.append(following)
    return (*passed, *(forwarded_by(topology, passed[-1], address) or ()), server)


def answers_alone(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a node that the server's answers pass, and the client's packets do not."""
    for host, address in roles.servers:
        there = forwarded_by(topology, roles.client, address.address)
        back = forwarded_by(topology, host, roles.client_address.address)
        if there is None or back is None or roles.node in there or roles.node not in back:
            return f"it needs answers that pass {roles.node} while what the client sends does not"
    return ""


def requests_alone(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a node that the client's packets pass, and the server's answers do not."""
    for host, address in roles.servers:
        there = forwarded_by(topology, roles.client, address.address)
        back = forwarded_by(topology, host, roles.client_address.address)
        if there is None or back is None or roles.node not in there or roles.node in back:
            return f"it needs {roles.node} passed by what {roles.client} sends, and not by the answers"
    return ""


def no_way_back(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand somebody outside who cannot answer the pod's own address."""
    outside, pod = roles.servers[0][0], roles.client_address.address
    way = forwarded_by(topology, outside, pod)
    return "" if way is None else f"it needs {outside} to have no route to {roles.client}"


def way_back(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand somebody outside who can answer the pod's own address, which the lab's own datagrams have."""
    outside, pod = roles.servers[0][0], roles.client_address.address
    way = forwarded_by(topology, outside, pod)
    needed = f"it needs a route from {outside} to {roles.client}, for the lab's own datagrams"
    return needed if way is None else ""


def by_own_link(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand that what is for a server comes in by the link with its address, which is where REDIRECT leads."""
    server, address = roles.servers[0]
    forwarding = forwarded_by(topology, roles.client, address.address) or ()
    hop = next_hop(topology, (roles.client, *forwarding)[-1], address.address)
    own = hop.to.addresses if hop and hop.to else ()
    return (
        ""
        if address.address in {str(one.ip) for one in own}
        else f"it needs packets for {server} on that address's link"
    )


def router_before_server(topology: Topology, _family: Family, roles: Roles) -> str:
    """Demand a host between node and server that may hold packets back."""
    server, _address = roles.servers[0]
    end = next(end for end in topology.ends(server) if end.addresses)
    others = topology.neighbours(end)
    router = topology.host(others[0].host)
    good = router.forwarding and router.proxy_mode is None and len(topology.ends(router.name)) == 2 and len(others) == 1
    return "" if good else f"it needs a router with two links between the node and {server}"


# --- what nodes do ---------------------------------------------------------------------------------------


def to_vips(topology: Topology, roles: Roles) -> Protection:
    """Return what the node does, besides translating, with what goes to the VIP that is asked.

    Only nftables mode does anything, and with the first packets of a flow alone (``ct state new``).
    """
    node, asked = topology.host(roles.node), roles.service_address
    if node.proxy_mode is not ProxyMode.NFTABLES or asked is None:
        return Protection.NOTHING
    release = node_release(node)
    found = Protection.NOTHING
    if changes.NFT_MAPS in release:
        found |= Protection.REJECT_UNTRANSLATED
    address = ip_address(asked.address)
    if changes.DROPS_UNALLOCATED in release and any(address in cidr for cidr in topology.service_cidrs):
        found |= Protection.DROP_UNALLOCATED
    return found


def reconciles_entries(topology: Topology, roles: Roles) -> bool:
    """Check whether the node's kube-proxy lays UDP entries beside endpoints, and so skips Services without any."""
    return changes.ENTRIES_RECONCILED in node_release(topology.host(roles.node))


# --- who is where -------------------------------------------------------------------------------------


def beyond(topology: Topology, roles: Roles) -> str:
    """Return the host that gets what the node leaves addressed to the VIP. :func:`way_to_service` sees to it."""
    host = _after(topology, roles)
    assert host is not None
    return host


def _after(topology: Topology, roles: Roles) -> str | None:
    assert roles.service_address is not None
    return leads_to(topology, roles.node, roles.service_address.address)


def nodes_between(topology: Topology, host: str, address: str) -> tuple[str, ...]:
    """Return the nodes that forward what a host sends to a pod, in order."""
    forwarding = forwarded_by(topology, host, address) or ()
    return tuple(name for name in forwarding if topology.host(name).proxy_mode is not None)


def outsider(topology: Topology, family: Family) -> str:
    """Return the first host outside of the cluster: neither node nor router nor a node's pod.

    :raises InputError: there is none.
    """
    for client in topology.clients:
        if topology.addresses(client.name, family) and not _of_node(topology, client.name):
            return client.name
    raise InputError("it needs a client outside of the cluster")


def _of_node(topology: Topology, host: str) -> bool:
    """Check whether a host is a node's pod."""
    return node_of(topology, host) is not None


def _pods(topology: Topology, family: Family) -> list[str]:
    names = (client.name for client in topology.clients if topology.addresses(client.name, family))
    return [name for name in names if _of_node(topology, name)]


def egress(topology: Topology, family: Family, service: str | None = None, *, port: int) -> Roles:
    """Have the first pod talk to somebody outside, by the node between them; no Service is asked.

    :raises InputError: someone is missing.
    """
    if service is not None:
        raise InputError("it asks no Service")
    outside, pods = outsider(topology, family), _pods(topology, family)
    if not pods:
        raise InputError("it needs a client pod")
    address = str(topology.addresses(outside, family)[0])
    nodes = nodes_between(topology, pods[0], address)
    if len(nodes) != 1:
        raise InputError(f"it needs one node between {pods[0]} and {outside}, and there are {len(nodes)}")
    own = SocketAddress(str(topology.addresses(pods[0], family)[0]), CLIENT_PORT)
    return Roles(pods[0], nodes[0], own, ((outside, SocketAddress(address, port)),), None)


def way_out(topology: Topology, roles: Roles) -> str:
    """Return the node's interface towards the server of :func:`egress`."""
    hop = next_hop(topology, roles.node, roles.servers[0][1].address)
    assert hop is not None
    return hop.end.interface


def two_pods(topology: Topology, family: Family, roles: Roles) -> str:
    """Demand a second client pod of the same node."""
    return "" if second_pod(topology, family, roles) else f"it needs a second client pod on {roles.node}"


def second_pod(topology: Topology, family: Family, roles: Roles) -> str | None:
    """Return the pod of the same node beside the client of :func:`egress`."""
    address = roles.servers[0][1].address
    pods = (name for name in _pods(topology, family) if name != roles.client)
    return next((name for name in pods if nodes_between(topology, name, address) == (roles.node,)), None)
