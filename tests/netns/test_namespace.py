import os
import socket
from pathlib import Path

import pytest

from lab.netns import Namespace

pytestmark = pytest.mark.lab_kernel


def here():
    return os.stat("/proc/thread-self/ns/net").st_ino


@pytest.fixture
def namespace():
    made = Namespace.create()
    yield made
    made.close()


def test_making_one_leaves_the_caller_where_he_was(namespace):
    home = here()
    other = Namespace.create()
    assert here() == home
    assert len({home, namespace.inode, other.inode}) == 3
    other.close()


def test_entering_and_coming_home_also_after_an_error(namespace):
    home = here()
    inside = []

    def fail():
        with namespace.entered():
            inside.append(here())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (inside, here()) == ([namespace.inode], home)


def test_a_socket_stays_where_it_was_opened(namespace):
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(True)
        with pytest.raises(OSError, match="unreachable"):  # the loopback of a fresh namespace is down
            sock.connect(("127.0.0.1", 1))


def test_sysctls_are_the_namespaces_own(namespace):
    machine = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    namespace.set_sysctls({"net/ipv4/ip_forward": 1, "net/ipv4/tcp_orphan_retries": 3})
    assert namespace.sysctl("net/ipv4/ip_forward") == "1"
    assert namespace.sysctl("net/ipv4/tcp_orphan_retries") == "3"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == machine


def test_an_unknown_sysctl_is_an_error(namespace):
    with pytest.raises(FileNotFoundError):
        namespace.set_sysctls({"net/ipv4/no_such_thing": 1})


def test_it_is_gone_with_its_last_descriptor():
    # Its number may be given to another one only when nothing holds it any more, so holding it by path must fail.
    made = Namespace.create()
    path = Path(f"/proc/self/fd/{made.fileno()}")
    assert path.exists()
    made.close()
    assert not path.exists()
