"""A real CNI plugin, called in a lab as a runtime calls it: Debian's `portmap`, and the entries that it deletes.

containernetworking/plugins #553: a UDP flow that is older than its port mapping kept its entry, and never came to the
pod; since then the plugin deletes such entries when it adds one. #1190: when it takes one away, it deletes none.
"""

from __future__ import annotations

import json
import re
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import InputError

PORTMAP = Path("/usr/lib/cni/portmap")  # of Debian's containernetworking-plugins
HOST_PORT, POD_PORT = 5353, 53
NODE, POD = "10.0.0.1", "10.0.1.2"

pytestmark = [pytest.mark.lab_kernel, pytest.mark.lab_topology("kube-proxy", family="ipv4")]
needs_portmap = pytest.mark.skipif(
    not PORTMAP.exists(), reason=f"{PORTMAP} is not there: apt-get install containernetworking-plugins"
)


def call_portmap(lab, command):
    configuration = {
        "cniVersion": "0.4.0",
        "name": "lab",
        "type": "portmap",
        "runtimeConfig": {"portMappings": [{"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "udp"}]},
        "prevResult": {
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "eth0", "sandbox": str(lab.namespace("server"))}],
            "ips": [{"version": "4", "address": f"{POD}/24", "interface": 0}],
        },
    }
    words = {"COMMAND": command, "CONTAINERID": "pod", "NETNS": lab.namespace("server"), "IFNAME": "eth0"}
    environment = [f"CNI_{name}={value}" for name, value in {**words, "PATH": PORTMAP.parent}.items()]
    return lab.run("node", "env", *environment, str(PORTMAP), text=json.dumps(configuration))


@contextmanager
def old_flow(lab):
    """A UDP client that has sent to the node's port, where nobody listened, and keeps its own."""
    with (
        lab.hosts["server"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as pod,
        lab.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        pod.bind((POD, POD_PORT))
        client.bind(("10.0.0.2", 7000))

        def reaches_pod():
            client.sendto(b"?", (NODE, HOST_PORT))
            # What was refused is said by ICMP, and what came in is there: over veth both happen within sendto().
            pod.setblocking(False)
            try:
                return pod.recvfrom(10)[0] == b"?"
            except BlockingIOError:
                return False

        assert not reaches_pod()
        yield reaches_pod


def entries(lab):
    return [flow for flow in lab.conntrack("node") if flow.original.ports.get("dport") == HOST_PORT]


@needs_portmap
def test_portmap_frees_a_flow_that_is_older_than_its_mapping(lab_running):
    with old_flow(lab_running) as reaches_pod:
        [before] = entries(lab_running)
        assert before.reply.source == NODE  # nobody translates it
        call_portmap(lab_running, "ADD")
        assert entries(lab_running) == []
        assert reaches_pod()
        [after] = entries(lab_running)
        assert after.reply.source == POD
        call_portmap(lab_running, "DEL")
        assert f"--to-destination {POD}:{POD_PORT}" not in lab_running.run("node", "iptables-nft-save", "-t", "nat")
        # What comes of the flow now is for the entry alone to say.
        assert reaches_pod() == bool([flow for flow in entries(lab_running) if flow.reply.source == POD])
        lab_running.conntrack("node").delete(protocol="udp", destination=f"{NODE}:{HOST_PORT}")
        assert not reaches_pod()


MAPPING = f"""
*nat
:CNI-DN - [0:0]
-A CNI-DN -p udp -m udp --dport {HOST_PORT} -j DNAT --to-destination {POD}:{POD_PORT}
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-DN
COMMIT
"""


def test_without_the_clean_up_the_flow_stays_where_it_was(lab_running):
    """The rules alone, as the plugin's before the clean-up: every datagram goes by the entry of the first."""
    with old_flow(lab_running) as reaches_pod:
        lab_running.rules("node").load(MAPPING)
        assert not reaches_pod()
        assert not reaches_pod()
        [gone] = lab_running.conntrack("node").delete(protocol="udp", destination=f"{NODE}:{HOST_PORT}")
        assert gone.reply.source == NODE
        assert reaches_pod()


def test_a_stale_entry_can_be_made(lab_running):
    """The other way about: an entry that leads to the pod, and no rule does."""
    made = lab_running.conntrack("node").create(
        "udp", "10.0.0.2:7000", f"{NODE}:{HOST_PORT}", reply_source=f"{POD}:{POD_PORT}", timeout=60
    )
    assert re.fullmatch(
        rf"udp      17 \d+ src=10.0.0.2 dst={NODE} sport=7000 dport={HOST_PORT} \[UNREPLIED\]"
        rf" src={POD} dst=10.0.0.2 sport={POD_PORT} dport=7000 mark=0 use=\d",
        str(made),
    )
    with pytest.raises(AssertionError), old_flow(lab_running):
        pass  # what it sends comes to the pod at once
    with pytest.raises(InputError, match=r"there is an entry of udp .* already"):
        lab_running.conntrack("node").create("udp", "10.0.0.2:7000", f"{NODE}:{HOST_PORT}")


def test_rules_are_nfts_or_iptables_and_refused_in_a_line(lab_running):
    rules = lab_running.rules("server")  # on any host
    rules.load("table inet mine {\nchain in {\ntype filter hook input priority 0; udp dport 53 drop\n}\n}\n")
    assert "udp dport 53 drop" in lab_running.run("server", "nft", "list", "table", "inet", "mine")
    rules.load("*filter\n-A INPUT -p udp --dport 54 -j DROP\nCOMMIT\n")
    assert "--dport 54 -j DROP" in lab_running.run("server", "iptables-nft-save", "-t", "filter")
    for text, says in (
        ("*filter\n-A NOWHERE -j DROP\nCOMMIT\n", "rules for server:2: not loaded here: No chain"),
        ("table inet mine {\nchain in {\nudp dport nonsense drop\n}\n}\n", "rules for server:3: not loaded here: "),
        ("net.ipv4.ip_forward = 1\n", "rules for server: no rules"),
        ("hello\n", "rules for server:1: neither rules nor"),
    ):
        with pytest.raises(InputError, match=says):
            rules.load(text)
    with pytest.raises(InputError, match="there is no host 'servr'"):
        lab_running.rules("servr")
    with pytest.raises(InputError, match="there is no host 'servr'"):
        lab_running.namespace("servr")
