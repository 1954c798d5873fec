"""`lab trace` and `lab run --trace`, as people call them."""

from __future__ import annotations

import json

import pytest

from lab.results.saved import from_json
from tests.support.command import lab

pytestmark = pytest.mark.lab_kernel


def test_a_trials_packets_are_shown_rule_by_rule():
    done = lab("trace", "beyond-window", "--fix", "drop-forward", COLUMNS="400")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "beyond-window, fix drop-forward: dropped"
    assert any(line.startswith("handshake at node: 10.0.0.2:34567 > 192.168.0.2:80 SYN, NEW") for line in lines)
    assert any("-j DNAT --to-destination 10.0.1.2:80" in line for line in lines)
    assert "               = now 10.0.0.2:34567 > 10.0.1.2:80" in lines
    assert any("KUBE-FORWARD  rule 1  -m conntrack --ctstate INVALID -j DROP" in line for line in lines)
    assert "no match" not in done.stdout
    full = lab("trace", "beyond-window", "--fix", "drop-forward", "--full", COLUMNS="400").stdout
    assert "no match: -s 10.0.1.2/32 -j KUBE-MARK-MASQ" in full
    assert "filter KUBE-SERVICES  back to who jumped here" in full


@pytest.mark.parametrize(
    ("case", "family", "counter"),
    [
        ("vxlan-wrong-checksum", "ipv4", "UdpInCsumErrors"),
        ("vxlan-wrong-checksum", "ipv6", "Udp6InCsumErrors"),
        ("vxlan-wrong-checksum-unchecked", "ipv4", "UdpInCsumErrors"),
    ],
)
def test_a_packet_that_udp_drops_for_its_checksum_is_not_said_to_come_to_a_socket(case, family, counter):
    lines = lab("trace", case, "--family", family, COLUMNS="400").stdout.splitlines()
    told = f"own stack counted {counter} 1 (UDP drops what has a wrong checksum)"
    end = next(n for n, line in enumerate(lines) if n and not line.startswith(("judged at node-b", "  input", "  pre")))
    assert lines[end] == f"  past the rules, and the node's {told}"
    assert lines[-1].endswith(f"past the rules node-b's {told}")


def test_a_packet_that_is_right_comes_to_its_socket():
    said = lab("trace", "vxlan-right-checksum").stdout
    assert "to the node's own sockets: 192.0.2.1:8473" in said
    assert "stack counted" not in said


def test_a_packet_that_conntrack_loses_at_its_last_step_is_put_down_to_conntrack():
    lines = lab("trace", "snat-ports-used-up", COLUMNS="400").stdout.splitlines()
    assert lines[-1] == "gone behind postrouting at node, past every rule; conntrack's insert_failed 1, drop 1"


def test_json_has_every_walk():
    done = lab("trace", "beyond-window", "--proxy-mode", "nftables", "--json")
    told = json.loads(done.stdout)
    assert [walk["role"] for walk in told["walks"]][:4] == ["handshake", "handshake", "judged", "reset"]
    assert told["untraced"] == []
    assert told["verdict"]["outcome"] == "reset"
    step = told["walks"][0]["hooks"][0]["steps"][0]
    assert step["rule"]["text"] == "ct state new jump firewall-check"


def test_a_trial_under_load_has_walks_of_invalid_packets_alone():
    done = lab("trace", "congested", "--fix", "be-liberal")
    assert done.stdout.splitlines()[1:] == [
        "nothing to show: of a trial under load only INVALID packets are traced, and there were none"
    ]


def test_a_packet_of_ones_own():
    done = lab("trace", "--from", "client:5", "--to", "[fd00:10:0:1::2]:80", "--flags", "FPU", "--fix", "drop-forward")
    assert done.returncode == 0, done.stderr
    assert "judged at node: [fd00:10::2]:5 > [fd00:10:0:1::2]:80 FIN,PSH,URG, INVALID" in done.stdout
    assert "DROPPED by filter KUBE-FORWARD rule 1" in done.stdout
    told = json.loads(lab("trace", "--to", "10.0.1.2", "--json").stdout)
    assert told["packet"]["destination"] == {"address": "10.0.1.2", "port": 80}
    assert told["sent"]["walks"][0]["role"] == "judged"


def test_of_a_release_that_nobody_knows_yet_it_is_said_for_a_packet_of_ones_own_as_well():
    ran = lab("trace", "--to", "192.168.0.2:80", "--proxy-version", "v1.99")
    assert ran.returncode == 0, ran.stdout
    assert ran.stderr == "lab: What kube-proxy v1.99 writes is not known; these are the rules of v1.36.\n"


def test_a_packet_that_its_sender_cannot_send():
    done = lab("trace", "--from", "node", "--to", "192.168.0.2")
    assert done.returncode == 1
    assert done.stdout == "its sender's stack did not send it: ENETUNREACH (Network is unreachable)\n"


def test_lab_run_adds_walks_where_they_are_wanted(tmp_path):
    words = ("run", "beyond-window", "--fix", "drop-forward", "--json", tmp_path / "found.json")
    done = lab(*words, "--trace", COLUMNS="400")
    assert done.returncode == 0, done.stderr
    rule = "filter KUBE-FORWARD rule 1 (kube-proxy): -m conntrack --ctstate INVALID -j DROP"
    assert f"  DROPPED by {rule}" in done.stdout.splitlines()
    assert f"dropped by {rule}: beyond-window with drop-forward." in done.stdout.splitlines()
    [tally] = from_json((tmp_path / "found.json").read_text()).tallies
    assert tally.sample.timeline.judged_walks
    done = lab(*words)
    assert "1 dropped by rule" in done.stdout
    assert "DROPPED by" not in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "neither a CASE nor --to (name a case from `lab list`, or say where a packet goes)"),
        (("beyond-window", "--to", "10.0.1.2"), "a CASE, and a packet of your own besides (leave one of them away)"),
        (("beyond-windw",), "there is no case 'beyond-windw' (did you mean 'beyond-window'?)"),
        (("--to", "nowhere"), "--to 'nowhere' is no address (write 192.168.0.2:80, or [fd00::2]:80)"),
        *(
            (("--to", to), f"{to} is client's own: a packet to it comes to no node (take another, or a node as sender)")
            for to in ("10.0.0.2", "127.0.0.1", "::1")
        ),
        (("--to", "10.0.1.2:0"), "--to: '0' is no port (1 to 65535)"),
        (("--to", "10.0.1.2", "--from", "client:x"), "--from: 'x' is no port (1 to 65535)"),
        (("--to", "10.0.1.2", "--from", "clint"), "kube-proxy: there is no host 'clint' (did you mean 'client'?)"),
        (("--to", "10.0.1.2", "--flags", "SX"), "--flags 'SX' (letters of SAFRPU, for --protocol tcp)"),
        (
            ("--to", "10.0.1.2", "--flags", "S", "--protocol", "udp"),
            "--flags 'S' (letters of SAFRPU, for --protocol tcp)",
        ),
        (
            ("--to", "10.0.1.2", "--protocol", "sctp"),
            "--protocol: there is no 'sctp' (known: tcp, udp)\nTry `lab trace --help`.",
        ),
        (("--to", "10.0.1.2", "--family", "ipv6"), "--to 10.0.1.2 and --family ipv6 (leave one of them away)"),
        (("--from", "client"), "neither a CASE nor --to (name a case from `lab list`, or say where a packet goes)"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words, said):
    done = lab("trace", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"lab: {said}\n")


def test_udp_port_of_the_labs_own_datagrams_is_refused():
    done = lab("trace", "--to", "10.0.1.2:7", "--protocol", "udp")
    assert (done.returncode, done.stdout) == (2, "")
    assert "port 7 is that of the lab's own datagrams" in done.stderr


BRIDGED = """
topology: bridged
hosts:
  pod: {routes: [{to: default, via: 10.0.0.1}]}
  server: {routes: [{to: default, via: 10.0.1.1}]}
  node:
    forwarding: true
    proxy-mode: nftables
    sysctls: {net.ipv4.conf.all.rp_filter: 1}
    rules: [{from: 10.0.0.0/24, to: 198.51.100.0/24, table: 100}]
    closed-routes: [{to: 203.0.113.0/24, kind: blackhole}, {to: 198.51.100.0/24, kind: prohibit, table: 100}]
links:
  - [{host: pod, interface: e, addresses: [10.0.0.2/24]},
     {host: node, interface: port, bridge: cbr0, addresses: [10.0.0.1/24]}]
  - [{host: server, interface: e, addresses: [10.0.1.2/24]}, {host: node, interface: server, addresses: [10.0.1.1/24]}]
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 172.30.0.10, ports: [{port: 80}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.1.2]}]
ports: [{port: 80}]
"""


@pytest.mark.parametrize(("to", "why"), [("203.0.113.5:80", "a blackhole"), ("198.51.100.5:80", "a prohibited route")])
def test_what_comes_in_by_a_bridges_port_is_routed_as_from_the_bridge(tmp_path, to, why):
    file = tmp_path / "bridged.yaml"
    file.write_text(BRIDGED)
    said = lab("trace", "--topology", file, "--from", "pod", "--to", to).stdout
    assert f"the packet came to node and no further, NEW there: {why}" in said
