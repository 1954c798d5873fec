"""Packets within packets: the inner one is followed, and what it is within is told as a place where it passed by."""

import io
import struct
from pathlib import Path

import pytest

from lab.capture.explain import explain
from lab.capture.reader import Reader
from lab.evidence.packet import ACK, SYN, decode
from lab.verdict import Outcome
from lab.vocabulary import Behaviour
from tests.support.captures import MOMENT, ip, linked, pcap, tcp, udp
from tests.support.command import lab

NODES = ("192.0.2.1", "192.0.2.2")
CLIENT, VIP, POD = ("10.1.1.2", 34567), ("192.168.0.2", 80), ("10.2.1.2", 80)


def vxlan(source, destination, packet, *, port=4789, flags=8, number=7):
    header = struct.pack("!B3xI", flags, number << 8)
    return udp((source, 50_000), (destination, port), header + linked(packet, 1))


def geneve(source, destination, packet):
    """With four bytes of options, and a whole frame within."""
    header = struct.pack("!BBHI", 1, 0, 0x6558, 9 << 8) + bytes(4)
    return udp((source, 50_000), (destination, 6081), header + linked(packet, 1))


def gre(source, destination, packet):
    """With a key (RFC 2890)."""
    return ip(source, destination, 47, struct.pack("!HHI", 0x2000, 0x0800, 5) + packet)


def ip_in_ip(source, destination, packet):
    return ip(source, destination, 4, packet)


def read(*packets, link=101):
    captured = pcap([(MOMENT + at * 1000, linked(packet, link)) for at, packet in enumerate(packets)], link=link)
    reader = Reader(io.BufferedReader(io.BytesIO(captured)), "x.pcap")
    return list(reader), list(reader.notes)


INNER = tcp(CLIENT, POD, ACK, 1000, 5000, b"inner", number=3)


@pytest.mark.parametrize(
    ("cover", "name"),
    [
        (vxlan, "VXLAN 7"),
        (lambda *of: vxlan(*of, port=8472), "VXLAN 7"),
        (geneve, "Geneve 9"),
        (gre, "GRE"),
        (ip_in_ip, "IP in IP"),
    ],
)
@pytest.mark.parametrize("link", [1, 101, 276])
def test_the_inner_packet_is_read(cover, name, link):
    [there, back], notes = read(cover(*NODES, INNER), cover(*NODES[::-1], INNER), link=link)
    assert (there.packet, notes) == (decode(INNER), [])
    assert there.interface.endswith(f"in {name} between 192.0.2.1 and 192.0.2.2")
    assert there.interface == back.interface


def test_a_tunnel_within_a_tunnel():
    [frame], _notes = read(vxlan(*NODES, ip_in_ip("10.9.0.1", "10.9.0.2", INNER)))
    assert frame.packet == decode(INNER)
    assert frame.interface.endswith("in IP in IP between 10.9.0.1 and 10.9.0.2")


@pytest.mark.parametrize(
    "outer",
    [
        vxlan(*NODES, INNER, port=4790),
        vxlan(*NODES, INNER, flags=0),
        udp((NODES[0], 1), (NODES[1], 4789), b"\x08short"),
        udp((NODES[0], 1), (NODES[1], 6081), b""),
    ],
)
def test_what_is_no_tunnel_is_a_datagram(outer):
    [frame], _notes = read(outer)
    assert frame.packet == decode(outer)


@pytest.mark.parametrize("cover", [vxlan, geneve, gre, ip_in_ip])
def test_wherever_a_tunnel_is_cut_there_is_an_answer(cover):
    whole = cover(*NODES, INNER)
    for end in range(len(whole)):
        read(whole[:end])


def test_a_leak_behind_a_tunnel():
    """A capture of the underlay alone, whose client asked its own node's VIP."""
    through = [
        tcp(CLIENT, VIP, SYN, 999, 0),
        tcp(VIP, CLIENT, SYN | ACK, 4999, 1000),
        tcp(CLIENT, VIP, ACK, 1000, 5000, number=1),
        tcp(POD, CLIENT, ACK, 5000 + 2**29, 1000, b"far", number=2),
        tcp(CLIENT, POD, 4, 1000, 0),
    ]
    reader = Reader(
        io.BufferedReader(io.BytesIO(pcap([(MOMENT + at, vxlan(*NODES, one)) for at, one in enumerate(through)]))), "x"
    )
    [one] = explain([reader], Behaviour.IGNORES_LATE).connections
    assert one.outcome is Outcome.RESET
    assert one.points == ("in VXLAN 7 between 192.0.2.1 and 192.0.2.2",)


@pytest.mark.lab_kernel
def test_a_trial_through_a_tunnel(tmp_path):
    """Of two nodes, whose only endpoint is on the other one."""
    topology, path = tmp_path / "tunnel.yaml", tmp_path / "run.pcapng"
    given = (Path(__file__).parents[2] / "topologies" / "vxlan.yaml").read_text()
    near = "  - {addresses: [10.1.2.2], nodeName: node-a, conditions: {ready: true}}\n"
    assert near in given
    topology.write_text(given.replace(near, ""))
    done = lab("run", "beyond-window", "--topology", topology, "--fix", "none", "--pcapng", path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = lab("explain", path, COLUMNS="1000")
    assert "10.1.1.2:34567 > 192.168.0.2:80, which is 10.2.1.2:8080: reset" in told.stdout
    assert "node-a:node-b in VXLAN 1 between 192.0.2.1 and 192.0.2.2, node-b:node-a in VXLAN 1" in told.stdout
    assert "INVALID by condition I" in told.stdout
