"""`lab conntrack`: the entries of a host, as the program `conntrack` prints them."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack, closing

import pytest

from lab.netns import Namespace
from lab.standing import names
from lab.standing.up import up
from lab.topology.reader import load
from tests.support.command import lab as lab_command

pytestmark = pytest.mark.lab_needs_root

PATIENCE = 5.0  # seconds; the end of a wait that an event ends at once


@pytest.fixture
def lab(own_run):
    """A lab with flows of several kinds over its node: TCP and UDP, of both families, answered and not."""
    lab = up(load("kube-proxy"))
    with closing(Namespace.open(names.DIRECTORY / "kube-proxy-node")) as node:
        # 30 seconds by default, within which a busy machine runs no three commands.
        node.set_sysctls({f"net/netfilter/nf_conntrack_{kind}_timeout": 600 for kind in ("udp", "icmp")})
    with ExitStack() as stack:
        namespace = Namespace.open(names.DIRECTORY / "kube-proxy-client")
        for vip in ("192.168.0.2", "fd00:192:168::2"):
            family = socket.AF_INET6 if ":" in vip else socket.AF_INET
            client = stack.enter_context(namespace.socket(family, socket.SOCK_STREAM))
            client.settimeout(PATIENCE)
            client.connect((vip, 80))
        lone = stack.enter_context(namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
        lone.sendto(b"hello", ("10.0.1.2", 9))
        icmp = stack.enter_context(namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        icmp.settimeout(PATIENCE)
        icmp.sendto(bytes.fromhex("0800f7fd00010001"), ("10.0.1.2", 0))  # an echo request, and its checksum
        assert icmp.recv(100)[20] == 0
        namespace.close()
        yield lab


def listed(*arguments):
    ran = lab_command("conntrack", "list", "node", *arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_entries_of_both_families(lab):
    lines = listed()
    assert any(
        re.fullmatch(
            r"tcp      6 \d+ ESTABLISHED src=10\.0\.0\.2 dst=192\.168\.0\.2 sport=\d+ dport=80"
            r" src=10\.0\.1\.2 dst=10\.0\.0\.2 sport=80 dport=\d+ \[ASSURED\] mark=0 use=1",
            line,
        )
        for line in lines
    ), lines
    assert any("dst=fd00:192:168::2" in line and "src=fd00:10:0:1::2" in line for line in lines)
    assert any(
        re.fullmatch(r"icmp     1 \d+ .*dst=10.0.1.2 type=8 code=0 id=1 .*type=0 code=0.*", line) for line in lines
    )


@pytest.mark.lab_needs_tool("conntrack")
def test_it_is_what_conntrack_prints(lab):
    theirs = [
        line
        for family in ("ipv4", "ipv6")
        for line in lab_command("exec", "node", "--", "conntrack", "-L", "-f", family).stdout.splitlines()
    ]
    assert len(theirs) >= 4
    fixed = (
        sorted(re.sub(r"use=\d+", "", re.sub(r"^(\S+ +\d+) \d+", r"\1", line)) for line in one)
        for one in (listed(), theirs)
    )
    ours, theirs = fixed
    assert ours == theirs


def test_what_is_chosen_is_deleted_and_nothing_else(lab):
    def known():
        return {
            (flow["protocol"], flow["original"]["destination"])
            for flow in json.loads("".join(listed("--json")))["entries"]
        }

    before = known()
    assert {("tcp", "192.168.0.2"), ("tcp", "fd00:192:168::2"), ("icmp", "10.0.1.2")} < before
    ran = lab_command("conntrack", "delete", "node", "--protocol", "tcp", "--destination", "[fd00:192:168::2]:80")
    assert (ran.returncode, ran.stderr) == (0, "lab: 1 entry deleted\n")
    assert "dst=fd00:192:168::2" in ran.stdout
    assert known() == before - {("tcp", "fd00:192:168::2")}
    ran = lab_command("conntrack", "delete", "node", "--protocol", "icmp")
    assert (ran.returncode, known()) == (0, before - {("tcp", "fd00:192:168::2"), ("icmp", "10.0.1.2")})
    ran = lab_command("conntrack", "delete", "node", "--destination", "192.168.0.2:81")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert lab_command("conntrack", "flush", "node").returncode == 0
    assert not [line for line in listed() if line.startswith(("tcp", "udp"))]


def test_an_entry_is_created_as_conntrack_has_it(lab):
    ends = ("--source", "10.0.0.2:5000", "--destination", "192.168.0.2:80", "--reply-source", "10.0.1.2:80")
    translated = (*ends, "--reply-destination", "10.0.1.1:5000")
    ran = lab_command("conntrack", "create", "node", "--protocol", "tcp", *translated, "--assured", "--timeout", "90")
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(
        r"tcp      6 (90|89) ESTABLISHED src=10\.0\.0\.2 dst=192\.168\.0\.2 sport=5000 dport=80"
        r" src=10\.0\.1\.2 dst=10\.0\.1\.1 sport=80 dport=5000 \[ASSURED\] mark=0 use=\d\n",
        ran.stdout,
    )
    six = ("--source", "[fd00::7]:1", "--destination", "[fd00:192:168::2]:80", "--reply-source", "[fd00:10:0:1::2]:80")
    ran = lab_command("conntrack", "create", "node", "--protocol", "tcp", *six, "--state", "SYN_SENT")
    assert "SYN_SENT src=fd00::7" in ran.stdout
    assert "[UNREPLIED] src=fd00:10:0:1::2 dst=fd00::7 sport=80 dport=1 " in ran.stdout
    for words, says in (
        (("tcp", *ends), "there is an entry of tcp 10.0.0.2:5000 > 192.168.0.2:80 already (delete it first)"),
        (("icmp", *ends), "no entry of 'icmp' can be made (one of: tcp, udp; or send packets)"),
        (("udp", *ends, "--state", "SYN_SENT"), "udp has no states (leave the state away)"),
        (
            ("tcp", *ends[:1], "10.0.0.2:5001", *ends[2:], "--state", "NONE"),
            "no kernel says how long an entry stays in",
        ),
        (("tcp", *ends, "--state", "OPEN"), "TCP has no state 'OPEN' (one of: NONE, SYN_SENT, "),
        (("udp", *ends[:-1], "[fd00::1]:2"), "the addresses of an entry are of one family"),
        (("udp", "--source", "10.0.0.2", *ends[2:]), "'10.0.0.2' is no address with a port, as the source of"),
    ):
        ran = lab_command("conntrack", "create", "node", "--protocol", *words)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith(f"lab: {says}")


@pytest.mark.parametrize(
    ("words", "sysctl"),
    [
        (("udp",), "udp_timeout"),
        (("udp", "--assured"), "udp_timeout_stream"),
        (("tcp",), "tcp_timeout_established"),
        (("tcp", "--state", "SYN_SENT2"), "tcp_timeout_syn_sent"),
    ],
)
def test_an_entry_that_is_created_stays_as_long_as_its_kernel_says(lab, words, sysctl):
    with closing(Namespace.open(names.DIRECTORY / "kube-proxy-node")) as node:
        node.set_sysctls({f"net/netfilter/nf_conntrack_{sysctl}": 7_000})
    ends = ("--source", "10.0.0.2:5000", "--destination", "192.168.0.10:53")
    ran = lab_command("conntrack", "create", "node", "--protocol", *words, *ends)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[2]) in (7_000, 6_999)


def test_what_is_refused_is_said_in_a_line(lab):
    for arguments, says in (
        (("delete", "node"), "lab: nothing says which entries are to go (flush deletes all of them)\n"),
        (("list", "nope"), "lab: the lab kube-proxy has no host 'nope' (did you mean 'node'?)\n"),
        (("list", "node", "--source", "x"), "lab: 'x' is no address (write 10.0.0.1, 10.0.0.1:80 or [fd00::1]:80)\n"),
    ):
        ran = lab_command("conntrack", *arguments)
        assert (ran.returncode, ran.stderr, ran.stdout) == (2, says, "")
