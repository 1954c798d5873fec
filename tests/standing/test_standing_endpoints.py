"""`lab endpoints` on a lab that stands: the owner applies it while it serves."""

from __future__ import annotations

import json
import os
import select
import signal
import socket

import pytest

from lab.conntrack.netlink import ConntrackTable
from lab.errors import InputError, LabError
from lab.evidence.packet import UDP, SocketAddress
from lab.netns import Namespace
from lab.standing import commands, control, names, record
from lab.standing.up import up
from lab.topology.reader import load, parse, shipped
from lab.topology.with_settings import with_proxy
from lab.vocabulary import ProxyMode
from tests.support.command import lab as lab_command

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once


def who_answers(vip="192.168.0.2"):
    namespace = Namespace.open(names.DIRECTORY / "endpoints-client")
    with namespace.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_STREAM) as client:
        namespace.close()
        client.settimeout(PATIENCE)
        client.connect((vip, 80))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return client.recv(4096).decode().split("\r\n\r\n")[1].split()[0]


@pytest.mark.parametrize("mode", ProxyMode)
def test_clients_follow_the_changes(own_run, mode):
    lab = up(with_proxy(load("endpoints"), mode, None, None))
    for word, address in (("remove", "10.0.1.2"), ("drain", "10.0.2.2")):
        ran = lab_command("endpoints", word, "web", address)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert {who_answers() for _ in range(8)} == {"server-3"}
    # A pod that was none answers too.
    control.change(lab, "add", "web", "10.0.0.2")
    assert {who_answers() for _ in range(64)} == {"server-3", "client"}
    assert {who_answers("fd00:192:168::2") for _ in range(64)} == {"server-1", "server-2", "server-3"}
    listed = json.loads(lab_command("endpoints", "list", "--json").stdout)["endpoints"]
    assert [(one["address"], one["state"], one["host"]) for one in listed if one["address"].startswith("10")] == [
        ("10.0.2.2", "draining", "server-2"),
        ("10.0.3.2", "ready", "server-3"),
        ("10.0.0.2", "ready", "client"),
    ]
    assert listed[0]["service"] == "default/web"
    assert listed[0]["ports"] == ["80/TCP"]


def test_the_table(own_run):
    up(load("kube-proxy"))
    assert lab_command("endpoints", "list").stdout.splitlines() == [
        "SERVICE      ADDRESS         PORTS   STATE  HOST",
        "default/web  10.0.1.2        80/TCP  ready  server",
        "default/web  fd00:10:0:1::2  80/TCP  ready  server",
    ]
    lab_command("endpoints", "remove", "web", "10.0.1.2")
    assert lab_command("endpoints", "remove", "web", "fd00:10:0:1::2").stdout == "no Service has an endpoint\n"


def test_what_is_refused_is_said_in_a_line(own_run):
    lab = up(load("kube-proxy"))
    for arguments, says in (
        (("remove", "nope", "10.0.1.2"), "lab: there is no Service 'nope' (known: default/web)\n"),
        (("add", "web", "10.0.1.2"), "lab: 10.0.1.2 is a ready endpoint of default/web already\n"),
        (("drain", "web", "10.0.1.2", "--lab", "nope"), "lab: no lab 'nope' stands (known: kube-proxy)\n"),
    ):
        ran = lab_command("endpoints", *arguments)
        assert (ran.returncode, ran.stderr) == (2, says)
    with pytest.raises(InputError, match="is no IP address"):
        control.change(lab, "add", "web", "server")
    assert len(control.endpoints(lab)) == 2


def test_stale_udp_entries_go_unless_they_are_to_be_kept(own_run):
    text = dict(shipped())["endpoints"].read_text().replace("protocol: TCP", "protocol: UDP")
    up(parse(text))
    namespace = Namespace.open(names.DIRECTORY / "endpoints-client")
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("192.168.0.2", 80))

        def seen_by_conntrack():
            client.send(b"hello")
            assert client.recv(100) == b"hello"
            node = Namespace.open(names.DIRECTORY / "endpoints-node")
            table = ConntrackTable(node)
            source = SocketAddress(*client.getsockname()[:2])
            endpoint = table.entry(UDP, source, SocketAddress("192.168.0.2", 80)).reply[0].address
            table.close()
            node.close()
            return endpoint

        first = seen_by_conntrack()
        assert lab_command("endpoints", "remove", "web", first, "--keep-conntrack").returncode == 0
        assert seen_by_conntrack() == first
        lab_command("endpoints", "add", "web", first)
        assert lab_command("endpoints", "remove", "web", first).returncode == 0
        assert seen_by_conntrack() != first
    namespace.close()


def test_a_dead_owner_cannot_be_asked_and_its_socket_is_removed(own_run):
    lab = up(load("kube-proxy"))
    assert lab.owner is not None
    process = os.pidfd_open(lab.owner)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    assert select.select([process], [], [], PATIENCE)[0]
    os.close(process)
    with pytest.raises(LabError, match="the owner of the lab kube-proxy does not answer: `lab down kube-proxy`"):
        control.endpoints(lab)
    assert lab.socket.exists()
    commands.down(*record.labs())
    assert list(own_run.iterdir()) == []


def test_a_question_that_makes_no_sense_does_not_disturb_the_owner(own_run):
    lab = up(load("kube-proxy"))
    for question in (b"nonsense\n", b"", b"x" * 100_000):
        with socket.socket(socket.AF_UNIX) as owner:
            owner.settimeout(PATIENCE)
            owner.connect(str(lab.socket))
            owner.sendall(question)
            owner.shutdown(socket.SHUT_WR)
            assert owner.recv(100) == b""
    assert len(control.endpoints(lab)) == 2
