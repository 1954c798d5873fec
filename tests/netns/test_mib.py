"""A stack's counters are those of the namespace in which their files were opened, whoever reads them."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from lab.netns import Namespace, RouteSocket, mib
from lab.netns.rtnetlink import LOOPBACK_INDEX, link_up

pytestmark = pytest.mark.lab_kernel


def test_files_that_stay_open_tell_what_was_counted_since():
    with closing(Namespace.create()) as mine, closing(Namespace.create()) as other:
        for namespace in (mine, other):
            with closing(RouteSocket(namespace)) as routes:
                routes.apply([link_up(LOOPBACK_INDEX, "a loopback")])
        with closing(mib.Files(mine)) as files:
            before = files.read()
            for namespace, count in ((mine, 2), (other, 1)):
                with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    for _ in range(count):
                        sender.sendto(b"nobody listens", ("127.0.0.1", 9))
            after = files.read()
        assert mib.moved(mib.counted(before), mib.counted(after)) == ("UdpNoPorts 2 (no socket at its port)",)
        assert mib.counters(mine)["UdpNoPorts"] == 2
        assert {"TcpExtListenDrops", "IpExtInNoRoutes", "Ip6InNoRoutes"} <= mib.counters(mine).keys()
