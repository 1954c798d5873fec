"""Decoding is held against scapy, which makes the packets."""

from hypothesis import given
from hypothesis import strategies as st

from lab.evidence.packet import ACK, FIN, PSH, RST, SYN, Packet, SocketAddress, TcpHeader, decode
from lab.wire.craft import Segment, craft

FLAGS = {"S": SYN, "SA": SYN | ACK, "A": ACK, "PA": PSH | ACK, "R": RST, "RA": RST | ACK, "FA": FIN | ACK}
numbers = st.integers(0, 2**32 - 1)
ports = st.integers(1, 65535)
addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)


@given(
    addresses,
    ports,
    ports,
    numbers,
    numbers,
    st.sampled_from(sorted(FLAGS)),
    st.integers(0, 65535),
    st.binary(max_size=100),
    st.none() | st.tuples(numbers, numbers),
)
def test_what_scapy_makes_is_read_back(ends, sport, dport, seq, ack, flags, window, payload, timestamps):
    source, destination = SocketAddress(str(ends[0]), sport), SocketAddress(str(ends[1]), dport)
    packet = decode(craft(Segment(source, destination, seq, ack, flags, window, payload, timestamps)))
    expected = TcpHeader(seq, ack, FLAGS[flags], window, timestamps=timestamps)
    assert packet is not None
    assert (packet.source, packet.destination, packet.tcp) == (source, destination, expected)
    assert packet.payload_length == len(payload)
    counts = len(payload) + ("S" in flags) + ("F" in flags)
    assert packet.end == (seq + counts) % 2**32


def test_all_options_of_a_syn():
    from scapy.layers.inet import IP, TCP

    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 10)]
    packet = decode(bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="S", options=options)))
    assert packet.tcp.window_scale == 10
    assert packet.tcp.sack_permitted
    assert packet.tcp.timestamps == (7, 0)


def test_sack_blocks():
    from scapy.layers.inet import IP, TCP

    packet = decode(bytes(IP() / TCP(flags="A", options=[("SAck", (10, 20, 30, 40))])))
    assert packet.tcp.sack_blocks == ((10, 20), (30, 40))


@given(st.binary(max_size=120))
def test_garbage_is_no_packet_but_never_an_error(data):
    assert isinstance(decode(data), Packet | None)


def test_a_later_fragment_is_left_alone():
    from scapy.layers.inet import IP

    assert decode(bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=6, frag=100) / (b"x" * 40))) is None


def test_translation_keeps_the_likeness():
    before = craft(Segment(SocketAddress("10.0.1.2", 80), SocketAddress("10.0.0.2", 9), 1, 2, "PA", 64, b"x"))
    after = craft(Segment(SocketAddress("192.168.0.2", 80), SocketAddress("10.0.0.2", 9), 1, 2, "PA", 64, b"x"))
    other = craft(Segment(SocketAddress("10.0.1.2", 80), SocketAddress("10.0.0.2", 9), 1, 2, "PA", 64, b"xy"))
    assert decode(before).likeness == decode(after).likeness
    assert decode(before).likeness != decode(other).likeness


def test_addresses_read_as_people_write_them():
    assert str(SocketAddress("10.0.0.2", 80)) == "10.0.0.2:80"
    assert str(SocketAddress("fd00::2", 80)) == "[fd00::2]:80"
