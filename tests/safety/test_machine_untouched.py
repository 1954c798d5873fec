"""The machine is never touched: what it is set to is the same before and after, whatever way a run ends.

Asked twice: of the machine as it is, where a few things change by themselves (each is named here, with its
reason), and of one that nobody but the lab is on, where nothing may differ at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

from lab.netns import Namespace
from lab.netns.program import find
from tests.support import cover
from tests.support.programs import each_program

pytestmark = [pytest.mark.lab_kernel, pytest.mark.lab_needs_tool("ip", "nft")]

#: What changes by itself, on any machine.
BY_ITSELF = {
    "/proc/sys/kernel/random/uuid": "another one at every reading",
    "/proc/sys/kernel/random/entropy_avail": "the kernel's entropy estimate",
    "/proc/sys/kernel/ns_last_pid": "the last process id given out",
    "/proc/sys/kernel/pty/nr": "how many pseudo terminals are open",
    "/proc/sys/kernel/perf_event_max_sample_rate": "the kernel lowers it by itself where interrupts take long",
    "/proc/net/ipv6_route": "carries use counts, and host routes come late; `ip -6 route` is compared",
    "/proc/modules": "the kernel loads modules on demand, in answer to a namespace's rules too",
}

#: What changes by itself on a machine that others use too.
BY_OTHERS = {
    "/proc/sys/net/netfilter/nf_conntrack_count": "connections come and go",
    "/proc/sys/net/nf_conntrack_count": "the same by its older name",
    "ip neighbour": "neighbours are met and forgotten; the permanent ones are compared apart",
    "/proc/net/tcp": "sockets of other programs",
    "/proc/net/tcp6": "sockets of other programs",
    "/proc/net/udp": "sockets of other programs",
    "/proc/net/udp6": "sockets of other programs",
    "/proc/net/raw": "sockets of other programs",
    "/proc/net/packet": "sockets of other programs",
    "mounts": "other programs may mount",
}

#: Counters and clocks within texts: chains' and rules' packets and bytes, the life of addresses and routes.
RUNNING = re.compile(r"\[\d+:\d+\]|packets \d+ bytes \d+|expires \d+\w+|valid_lft \d+\w*|preferred_lft \d+\w*")

#: A machine with something of everything that a careless lab could lose, flush or count up.
FURNITURE = """
link set lo up
link add lan type veth peer name lan-far
link set lan up
link set lan-far up
address add 10.0.0.1/24 dev lan
address add fd00:10::1/64 dev lan nodad
route add 10.0.1.0/24 via 10.0.0.2
route add 192.168.0.0/16 via 10.0.0.2 table 77
rule add from 10.0.0.0/24 lookup 77
neighbour add 10.0.0.2 lladdr 02:00:00:00:00:02 dev lan nud permanent
"""
#: It counts IPv4 alone: the kernel tells its multicast groups over IPv6 links, at times of its own.
RULES = """
table ip machine {
    counter seen { }
    chain input { type filter hook input priority 0; policy accept; ct state invalid counter drop; }
    chain output { type filter hook output priority 0; policy accept; counter name seen; }
}
"""
LEGACY_RULES = "*filter\n:KUBE-FORWARD - [7:7]\n-A KUBE-FORWARD -s 10.0.0.2 -j ACCEPT\nCOMMIT\n"


@pytest.fixture(scope="module")
def own_machine():
    namespace = Namespace.create()
    # No router discovery, no duplicate address detection: nothing that would happen later by itself.
    namespace.set_sysctls({"net/ipv6/conf/default/addr_gen_mode": 1, "net/ipv6/conf/default/accept_dad": 0})

    def run(*command, given):
        subprocess.run(command, input=given, text=True, check=True)

    with namespace.entered():
        run("ip", "-batch", "-", given=FURNITURE)
        run("nft", "-f", "-", given=RULES)
        if shutil.which("iptables-legacy-restore"):
            lock = {**os.environ, "XTABLES_LOCKFILE": "/dev/null"}
            subprocess.run(["iptables-legacy-restore"], input=LEGACY_RULES, text=True, check=True, env=lock)
    yield namespace
    namespace.close()


@pytest.fixture(params=["as it is", "of its own"])
def machine(request):
    """What to start a program in, so that it takes it for the machine."""
    if request.param == "as it is":
        return contextlib.nullcontext
    return request.getfixturevalue("own_machine").entered


@pytest.fixture
def unchanged(machine, request, snapshot):
    """A block after which the machine is as it was before."""
    others_are_about = machine is contextlib.nullcontext

    @contextlib.contextmanager
    def block():
        before = snapshot(machine)
        yield
        after = snapshot(machine)
        exempt = BY_ITSELF | (BY_OTHERS if others_are_about else {})
        brought_by_modules = set(after) - set(before) if before["/proc/modules"] != after["/proc/modules"] else set()
        differing = {
            name: (before.get(name), after.get(name))
            for name in set(before) | set(after)
            if name not in exempt
            and name not in brought_by_modules
            and settled(before.get(name), others_are_about) != settled(after.get(name), others_are_about)
        }
        assert not differing
        assert permanent(before) == permanent(after)
        assert len(before) > 300
        assert "lo:" in before["ip -details address"]
        if not others_are_about:
            assert "KUBE-FORWARD" in before["iptables-legacy-save"] + before["iptables-nft-save"]

    return block


def settled(text, others_are_about):
    return text and RUNNING.sub("(running)", text) if others_are_about else text


def permanent(snapshot):
    return [line for line in snapshot["ip neighbour"].splitlines() if "PERMANENT" in line]


def test_whole_run(unchanged, machine, start_lab):
    with unchanged(), machine():
        process = start_lab("run")
        output, errors = process.communicate()
    assert process.returncode == 0, output + errors


WAYS = (("--backend", "legacy"), ("--proxy-mode", "nftables"), ("--family", "ipv6"))


@pytest.mark.parametrize("options", cover.some(WAYS, of="options"))
def test_whole_run_another_way(unchanged, machine, start_lab, options):
    with unchanged(), machine():
        process = start_lab("run", "beyond-window", *options)
        output, errors = process.communicate()
    assert process.returncode == 0, output + errors


@each_program
def test_whole_run_of_a_kube_proxy_program(unchanged, machine, start_lab, program):
    """Its default limits, its modules, its locks: all of that is the machine's, and stays as it is."""
    with unchanged(), machine():
        process = start_lab("run", "beyond-window", "--kube-proxy", program, "--", "--conntrack-max-per-core=7")
        output, errors = process.communicate()
    assert process.returncode in (0, 2), output + errors  # up to a release it ends where it cannot set its limit


@pytest.mark.parametrize(
    ("instead", "code", "words"),
    [("/bin/false", 1, "ended with exit code 1"), ("/dev/null", 0, "iptables-nft-restore is not installed")],
)
def test_run_that_fails_in_the_middle(unchanged, machine, start_lab, instead, code, words):
    tool = os.path.realpath(find("iptables-nft-restore"))
    hidden = ("unshare", "--mount", "sh", "-c", f'mount --bind {instead} {tool} && exec "$@"', "sh")
    with unchanged(), machine():
        process = start_lab("run", "beyond-window", "--json", "-", prefix=hidden)
        output, errors = process.communicate()
    assert process.returncode == code
    assert words in output + errors


def test_topology_that_cannot_be(unchanged, machine, start_lab):
    with unchanged(), machine():
        process = start_lab("run", "--topology", "-", stdin=subprocess.PIPE)
        output, errors = process.communicate("topology: x\nhosts: {client: {colour: red}}\n")
    assert (process.returncode, output) == (2, "")
    assert "colour" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_run_that_is_ended_in_the_middle(unchanged, machine, start_lab, stands, number):
    with unchanged(), machine():
        process = start_lab("run", "beyond-window", "--repeat", "1000")
        stands(process)
        os.killpg(process.pid, number)
        process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
