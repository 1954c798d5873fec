"""Two servers at one address: one for everybody, and one for a client of its own."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, closing

import pytest

from lab.evidence.packet import SocketAddress
from lab.netns import Namespace, RouteSocket
from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up
from lab.traffic.tcp import address_family, listen, listen_beside, listen_first

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once


@pytest.fixture
def space():
    with closing(Namespace.create()) as made:
        with closing(RouteSocket(made)) as routes:
            routes.apply([link_up(LOOPBACK_INDEX, "lo")])
        yield made


@pytest.mark.lab_kernel
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_client_comes_to_the_server_that_is_for_it_and_nobody_else_does(space, address):
    with ExitStack() as stack:

        def connected(port):
            client = stack.enter_context(space.socket(address_family(address), socket.SOCK_STREAM))
            client.settimeout(PATIENCE)
            client.bind((address, port))
            client.connect((address, 80))

        first = stack.enter_context(listen_first(space, SocketAddress(address, 80)))
        for own in (34567, 34568):  # also when one has come and gone
            with listen_beside(space, SocketAddress(address, 80), own) as beside:
                for port in (own, *range(own + 10, own + 90, 10)):
                    connected(port)
                    [server] = select.select([first, beside], [], [], PATIENCE)[0]
                    stack.enter_context(server.accept()[0])
                    assert (server is beside) == (port == own)
            connected(own + 100)
            stack.enter_context(first.accept()[0])
        stack.enter_context(listen(space, SocketAddress(address, 81)))
        with pytest.raises(OSError, match="in use"):
            listen_beside(space, SocketAddress(address, 81), 34567)
