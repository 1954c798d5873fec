"""What the kernel's filter lets through of a connection by a Service, on both families."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing

import pytest

from lab.evidence.packet import FIN, RST, SYN
from lab.fabric.lab import Lab
from lab.topology.reader import load
from lab.vocabulary import Family
from lab.wire import filter as filters
from lab.wire.filter import Candidates
from lab.wire.heads import Heads

pytestmark = pytest.mark.lab_kernel

ENDS = {
    Family.IPV4: ("10.0.0.2", "192.168.0.2", "10.0.1.2"),
    Family.IPV6: ("fd00:10::2", "fd00:192:168::2", "fd00:10:0:1::2"),
}
OTHERS = {
    Family.IPV4: frozenset(f"172.{16 + number // 256}.{number % 256}.7" for number in range(600)),
    Family.IPV6: frozenset(f"2001:db8:{number:x}::7" for number in range(600)),
}


@pytest.fixture(params=Family)
def family(request):
    return request.param


def seen_by(family, programs):
    """Return what each filter lets through on the node while a client asks the Service and ends."""
    with Lab(load("kube-proxy"), family=family) as lab, ExitStack() as stack:
        client, vip, server = (str(end) for end in ends_of(lab, family))
        node = lab.hosts["node"].namespace
        made = programs(client, server)
        heads = {name: stack.enter_context(closing(Heads("node", node, made[name]))) for name in made}
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        with lab.hosts["server"].namespace.entered():
            listener = stack.enter_context(socket.create_server(("", 80), family=kind))
        with lab.hosts["client"].namespace.socket(kind, socket.SOCK_STREAM) as asking:
            asking.setblocking(True)
            asking.connect((vip, 80))
            with listener.accept()[0] as answering:
                answering.send(b"x" * 1000)
                asking.recv(1000, socket.MSG_WAITALL)
            asking.recv(1)
        return {name: one.read(1000) for name, one in heads.items()}


def ends_of(lab, family):
    """Return client, VIP and endpoint, as the topology has them."""
    topology = lab.topology
    of = {host: [end.ip for one in topology.ends(host) for end in one.addresses] for host in ("client", "server")}
    addresses = {host: next(one for one in ips if Family.of(one) is family) for host, ips in of.items()}
    return addresses["client"], ENDS[family][1], addresses["server"]


def is_mark(sighting):
    return bool(sighting.packet.tcp and sighting.packet.tcp.flags & (SYN | FIN | RST))


@pytest.mark.parametrize("tcp_only", [True, False])
def test_what_one_leaves_another_takes_and_of_each_packet_the_headers(family, tcp_only):
    def programs(client, server):
        chosen = Candidates(frozenset({client}), frozenset(), frozenset({server}))
        whole = {"everything": filters.everything(), "nothing": filters.nothing()}
        return {**whole, "some": filters.candidates(chosen), "rest": filters.rest(chosen, tcp_only=tcp_only)}

    seen = seen_by(family, programs)
    assert not seen["nothing"]
    every = [one for one in seen["everything"] if one.packet.tcp or not tcp_only]
    halves = [*seen["some"], *seen["rest"]]
    assert sorted((one.interface, one.data) for one in every) == sorted((one.interface, one.data) for one in halves)
    assert any(one.outgoing and not is_mark(one) for one in seen["some"])
    assert {one.outgoing for one in seen["rest"]} == {True, False}
    assert max(one.packet.payload_length for one in seen["rest"]) == 1000
    assert max(len(one.data) for one in seen["rest"]) == filters.SNAP


def test_what_begins_and_ends_and_what_an_endpoint_sends_on_its_own(family):
    def programs(client, server):
        def of(clients=frozenset(), ports=frozenset({80})):
            return filters.candidates(Candidates(frozenset({server}), ports, clients))

        # On the node nothing leaves with the endpoint's address, but for what the client sends there, taken for one.
        away = Candidates(frozenset({client}), frozenset(), frozenset({server}))
        many = Candidates(OTHERS[family] | {client}, frozenset(range(81, 700)), OTHERS[family] | {server})
        return {
            "endpoint": of(frozenset({client})),
            "nobody": filters.candidates(Candidates()),
            "turned": filters.candidates(away),
            "port": filters.candidates(Candidates(away.endpoints, frozenset({81}), away.clients)),
            "other": filters.candidates(Candidates(away.endpoints, frozenset(), OTHERS[family])),
            "many": filters.candidates(many),
        }

    seen = seen_by(family, programs)
    for name in ("endpoint", "nobody", "port", "other"):
        assert seen[name], name
        assert all(map(is_mark, seen[name])), name
    for name in ("turned", "many"):
        plain = [one for one in seen[name] if not is_mark(one)]
        assert plain, name
        assert all(one.outgoing for one in plain), name


def test_many_addresses_are_so_many_networks():
    program = filters.candidates(Candidates(OTHERS[Family.IPV4] | OTHERS[Family.IPV6], frozenset({80}), frozenset()))
    assert len(program) // 8 < 400  # instructions; the kernel takes 4,096
