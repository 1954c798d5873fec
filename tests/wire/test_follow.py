from lab.evidence.follow import Connection, distance
from lab.evidence.packet import ACK, PSH, RST, SYN, TCP, Packet, SocketAddress, TcpHeader

CLIENT, SERVER = SocketAddress("10.0.0.2", 34567), SocketAddress("10.0.1.2", 80)
TOP = 2**32


def segment(source, sequence, acknowledgement, flags, *, length=0, window=1000, scale=None):
    destination = SERVER if source == CLIENT else CLIENT
    header = TcpHeader(sequence % TOP, acknowledgement % TOP, flags, window, window_scale=scale)
    return Packet(source, destination, TCP, 1, length, header)


def handshake(client_first=TOP - 5, server_first=500, *, scales=(10, 7)):
    connection = Connection()
    connection.see(segment(CLIENT, client_first, 0, SYN, window=64240, scale=scales[0]))
    connection.see(segment(SERVER, server_first, client_first + 1, SYN | ACK, window=65160, scale=scales[1]))
    connection.see(segment(CLIENT, client_first + 1, server_first + 1, ACK, window=63))
    return connection


def test_numbers_of_both_sides_over_the_wrap():
    connection = handshake()
    connection.see(segment(CLIENT, TOP - 4, 501, PSH | ACK, length=100))
    assert connection.side(CLIENT).sent == 96
    assert connection.side(SERVER).sent == 501
    assert not connection.quiet
    connection.see(segment(SERVER, 501, 96, ACK))
    assert connection.quiet
    assert connection.side(SERVER).acknowledged == 96


def test_windows_are_scaled_after_the_handshake_only():
    connection = handshake()
    assert connection.side(CLIENT).window == 63 << 10 if 63 << 10 > 64240 else 64240
    connection.see(segment(CLIENT, 1, 501, ACK, window=100))
    assert connection.side(CLIENT).window == 100 << 10


def test_scaling_counts_only_where_both_sides_ask_for_it():
    connection = handshake(scales=(10, None))
    connection.see(segment(CLIENT, 1, 501, ACK, window=65000))
    assert connection.side(CLIENT).window == 65000


def test_a_retransmission_moves_nothing():
    connection = handshake()
    for _ in range(2):
        connection.see(segment(SERVER, 501, 0, PSH | ACK, length=1000))
    assert connection.side(SERVER).sent == 1501


def test_packets_of_a_connection_whose_beginning_was_missed_are_left_alone():
    connection = Connection()
    connection.see(segment(SERVER, 1, 1, ACK))
    assert connection.side(SERVER) is None
    assert not connection.quiet


def test_a_reset_tells_nothing_of_its_senders_numbers():
    connection = handshake()
    connection.see(segment(CLIENT, 2**30, 0, RST))
    assert connection.side(CLIENT).sent == TOP - 4


def test_the_other_side():
    assert handshake().other(SERVER).endpoint == CLIENT


def test_distance_in_sequence_space():
    assert distance(TOP - 1, 1) == 2
    assert distance(1, TOP - 1) == -2
    assert distance(0, 2**29) == 2**29
    assert distance(0, 2**31) == -(2**31)
