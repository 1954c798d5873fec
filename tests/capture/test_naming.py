"""Packets are named by their files too, where packets came from more than one: in every sentence."""

import json
import re

import pytest

from lab.capture.explanation import Place
from lab.capture.naming import Naming
from lab.evidence.packet import ACK, RST, SYN
from tests.support.captures import MOMENT, icmp, pcap, tcp, udp
from tests.support.command import lab
from tests.support.explaining import explained

CLIENT, VIP, POD = ("10.0.0.2", 34567), ("192.168.0.2", 80), ("10.0.1.2", 80)
FAR = 2**29


def place(number, file, point=""):
    return Place(file, number, 0, point)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["a/client.pcap"], "7"),
        (["a/client.pcap", "a/client.pcap"], "7"),
        (["a/client.pcap", "b/server.pcap"], "7 of client.pcap"),
        (["a/client.pcap", "b/client.pcap"], "7 of a/client.pcap"),
    ],
)
def test_a_name_is_as_long_as_it_has_to_be(files, name):
    assert Naming(files)(place(7, "a/client.pcap")) == name


def test_packets_of_one_file_are_named_together():
    places = [place(6, "a"), place(1234, "a"), place(2, "b")]
    assert Naming("ab").all(places) == "6, 1234 of a, 2 of b"
    assert Naming("a").all(places[:2], more=True) == "6, 1234, and more"


def test_packets_of_a_text_are_named_by_their_lines():
    named = Naming(["a.pcap", "b.txt"], ["b.txt"])
    places = [place(6, "b.txt"), place(12, "b.txt"), place(2, "a.pcap")]
    assert named.all(places) == "lines 6, 12 of b.txt, 2 of a.pcap"
    assert (named(places[0]), named(places[2])) == ("in line 6 of b.txt", "2 of a.pcap")
    assert named.first(places[0]) == "line 6 of b.txt"
    assert named.where(place(6, "b.txt", "eth0")) == "the packet in line 6 of b.txt (eth0)"
    assert named.in_full(places[2]) == "packet 2 of a.pcap"
    assert Naming(["b.txt"], ["b.txt"]).packet(places[0]) == "the packet in line 6"


def both_sides(*before, after=()):
    """Return captures of a connection by a VIP, on both sides of its node, with what else each of them has."""
    asked = [(SYN, 999, 0), (ACK, 1000, 5000)]
    files = {}
    for name, client, server in (("client.pcap", CLIENT, VIP), ("server.pcap", CLIENT, POD)):
        packets = [
            tcp(client, server, *asked[0]),
            tcp(server, client, SYN | ACK, 4999, 1000),
            tcp(client, server, *asked[1]),
            tcp(client, server, ACK, 1000, 5000, b"?" * 10, number=1),
        ]
        files[name] = [*before, *packets] if name == "client.pcap" else packets
        files[name] += after
    later = {"client.pcap": 0, "server.pcap": 300}
    return {
        name: pcap([(MOMENT + at * 1000 + later[name], one) for at, one in enumerate(packets)], nano=True)
        for name, packets in files.items()
    }


#: What is odd, by a name: it is in both files, but for what comes before.
ODD = {
    "leak": [tcp(POD, CLIENT, ACK, 5000 + FAR, 1010, b"far", number=2), tcp(CLIENT, POD, RST, 1010, 0)],
    "again": [tcp(CLIENT, VIP, ACK, 1000, 5000, b"?" * 10, number=5)],
    "closed": [tcp(VIP, CLIENT, ACK, 5000, 1010, window=0, number=7)],
    "reset": [tcp(VIP, CLIENT, RST | ACK, 5000, 1010, number=7)],
    "other reset": [tcp(VIP, CLIENT, RST, 5001, 0)],
    "gap": [tcp(VIP, CLIENT, ACK, 5000, 1520, b"y"), tcp(CLIENT, VIP, ACK, 1520, 5001, b"z")],
    "icmp": [icmp("10.0.9.9", CLIENT[0], 3, 4, tcp(CLIENT, VIP, ACK, 1000, 5000), mtu=1400)],
    "datagram": [udp(("10.0.0.2", 7001), ("10.96.0.10", 53), b"\1\2 who?", number=9)],
}
_NUMBERS = re.compile(r"(?:packets?|RST|again by the \w+:|in 1 packet:) (\d+)\b(?: of (\w+\.pcap))?")


@pytest.mark.parametrize("odd", ODD)
def test_every_sentence_names_the_file_where_there_are_two(odd):
    for files in (both_sides(after=ODD[odd]), {"client.pcap": both_sides(after=ODD[odd])["client.pcap"]}):
        told = explained(files)
        words = [finding.words for one in told.connections for finding in one.findings]
        named = [found for one in (*words, *told.notes) for found in _NUMBERS.findall(one)]
        assert named, words
        for _number, file in named:
            assert file in files if len(files) > 1 else not file, words


def test_points_without_a_name_are_called_by_their_files():
    assert explained(both_sides()).connections[0].points == ("client.pcap", "server.pcap")
    assert explained({"client.pcap": both_sides()["client.pcap"]}).connections[0].points == ()


def test_the_command_names_them_so(tmp_path):
    for name, data in both_sides(after=ODD["leak"]).items():
        (tmp_path / name).write_bytes(data)
    files = sorted(tmp_path.iterdir())
    done = lab("explain", *files, COLUMNS="1000")
    assert "  * 5 of client.pcap: ACK of the server, 3 bytes: INVALID" in done.stdout
    assert "RST 6 of client.pcap answers it" in done.stdout
    assert f"at {', '.join(one.name for one in files)}\n" in done.stdout
    assert json.loads(lab("explain", *files, "--json").stdout)["files"] == [str(one) for one in files]
    assert "  * 5: ACK of the server" in lab("explain", files[0], COLUMNS="1000").stdout


@pytest.mark.parametrize("flags", [RST, RST | ACK])
def test_a_reset_that_acknowledges_is_told_to_be_of_an_aborted_socket(flags):
    """As a client's own end by SO_LINGER is, beside one that somebody sends in its name."""
    packets = both_sides(after=[tcp(CLIENT, VIP, flags, 1010, 5000)])["client.pcap"]
    [found] = [one for one in explained({"x": packets}).connections[0].findings if one.kind == "reset"]
    assert "the client resets the connection" in found.words
    assert ("that of a socket which is aborted" in found.words) is bool(flags & ACK)
