"""Captures that tcpdump itself writes on a lab's hosts, while a trial is run there."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from lab.evidence.packet import BARRIER_PORT
from lab.trial.runner import fresh_lab
from tests.support.captures import linked, udp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fabric.lab import Lab
    from lab.netns.namespace import Namespace
    from lab.trial.setting import Setting

_END: Final = b"nothing comes behind this"
_NOBODY: Final = (("192.0.2.1", BARRIER_PORT), ("192.0.2.2", BARRIER_PORT))


class Dumps:
    """What tcpdump captured at interfaces of hosts, by ``HOST-INTERFACE.pcap``, until nothing more was sent.

    :param points: hosts and interfaces, of which ``any`` is one.
    """

    def __init__(self, *points: tuple[str, str]) -> None:
        if not shutil.which("tcpdump"):
            pytest.skip("no tcpdump: apt-get install tcpdump")
        self._points = points
        self.captures: dict[str, bytes] = {}

    @contextlib.contextmanager
    def build(self, setting: Setting) -> Iterator[Lab]:
        """Make a trial's lab, and capture what passes there."""
        with fresh_lab(setting) as lab, contextlib.ExitStack() as stack:
            running = {
                f"{host}-{interface}.pcap": stack.enter_context(_tcpdump(lab.hosts[host].namespace, interface))
                for host, interface in self._points
            }
            yield lab
            self.captures = {
                name: _until_end(process, lab.hosts[host].namespace, interface)
                for (name, process), (host, interface) in zip(running.items(), self._points, strict=True)
            }


@contextlib.contextmanager
def _tcpdump(namespace: Namespace, interface: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["tcpdump", "-i", interface, "-U", "-w", "-", "tcp or udp or icmp or icmp6"]
    with namespace.entered():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        assert process.stderr is not None
        said = b""
        while b"listening on" not in said:
            line = process.stderr.readline()
            said += line
            if b"Couldn't change to" in said:
                pytest.skip("tcpdump wants to give up root's rights, and cannot in a user namespace")
            assert line, said
        try:
            yield process
        finally:
            process.kill()


def _until_end(process: subprocess.Popen[bytes], namespace: Namespace, interface: str) -> bytes:
    """Return what was captured before a frame that is sent now, and that frame: such as explaining leaves out."""
    with namespace.entered():
        names = [name for _index, name in socket.if_nameindex() if name != "lo"]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((names[0] if interface == "any" else interface, 0))
            sender.send(linked(udp(*_NOBODY, _END), 1))
    assert process.stdout is not None
    captured = b""
    while _END not in captured:
        more = os.read(process.stdout.fileno(), 1 << 20)
        assert more, "tcpdump ended"
        captured += more
    return captured
