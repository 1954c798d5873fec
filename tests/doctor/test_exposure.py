"""What `lab doctor` says of nodes: each word from what their rules and their sysctl are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab import fixes
from lab.doctor import exposure
from lab.doctor.exposure import Exposure
from lab.errors import LabError
from lab.fabric.lab import Lab
from lab.kubeproxy.changes import DROPS_INVALID
from lab.kubeproxy.releases import find_release
from lab.netns import Namespace, userns
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode

KINDS = [{"backend": Backend.NFT}, {"backend": Backend.LEGACY}, {"mode": ProxyMode.NFTABLES}]
IDS = ["nft", "legacy", "nftables-mode"]
LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"
PLACES = {
    "nft": ("iptables mode by iptables-nft", "ip filter KUBE-FORWARD", "ip6 filter KUBE-FORWARD"),
    "legacy": (
        "iptables mode by iptables-legacy",
        "iptables-legacy filter KUBE-FORWARD",
        "ip6tables-legacy filter KUBE-FORWARD",
    ),
    "nftables-mode": ("nftables mode", "ip kube-proxy", "ip6 kube-proxy"),
}


@pytest.fixture
def node():
    """Build the node of the shipped topology; give a function that says what is seen there."""
    userns.ensure()
    labs = []

    def build(fix="none", change=None, **proxy):
        settings = {"mode": None, "version": None, "backend": None} | proxy
        labs.append(Lab(with_proxy(load("kube-proxy"), **settings), change=fixes.find(fix).change))
        host = labs[-1].hosts["node"]
        if change is not None:
            change(host)
        with host.namespace.entered():
            return exposure.expose()

    yield build
    for lab in labs:
        lab.close()


def nft(script):
    return lambda host: host.nft.run(script)


def iptables(*arguments, program="iptables-nft"):
    return lambda host: host.run(program, *arguments)


@pytest.mark.parametrize(("proxy", "kind"), list(zip(KINDS, IDS, strict=True)), ids=IDS)
def test_a_node_is_affected_until_it_drops_invalid_packets(node, proxy, kind):
    mode, four, six = PLACES[kind]
    found, sentence = node(**proxy)
    assert found is Exposure.AFFECTED
    assert sentence.startswith(f"Yes, with ipv4 and ipv6: kube-proxy ({mode}, ipv4 and ipv6) drops no INVALID packets")
    assert f"by no rule in {four}, {six} nor anywhere else" in sentence
    assert f"{LIBERAL} is 0" in sentence
    assert f"or set {LIBERAL}=1." in sentence
    found, sentence = node("drop-forward", **proxy)
    assert found is Exposure.PROTECTED
    assert sentence.startswith(f"No: it is a node ({mode}, ipv4 and ipv6), but kube-proxy drops INVALID packets")
    assert f'{four}{" filter-forward" if kind == "nftables-mode" else ""}: "' in sentence


@pytest.mark.parametrize("version", ["v1.14", "v1.15", "v1.23", "v1.29", "v1.36"])
@pytest.mark.parametrize("backend", list(Backend))
def test_the_versions_own_drop_is_seen(node, version, backend):
    found, _sentence = node(version=version, backend=backend)
    assert found is (Exposure.PROTECTED if DROPS_INVALID in find_release(version) else Exposure.AFFECTED)


def test_the_cure_is_the_first_version_with_the_drop(node):
    _found, sentence = node()
    assert "Take a kube-proxy from v1.15 on in iptables mode" in sentence


def test_be_liberal_protects_from_what_it_is_about(node):
    found, sentence = node("be-liberal")
    assert found is Exposure.PROTECTED
    assert f"{LIBERAL} is 1: nothing is INVALID for being out of the window." in sentence
    assert "What is INVALID for its flags or its checksum still passes" in sentence
    found, sentence = node("be-liberal-with-drop")
    assert found is Exposure.PROTECTED
    assert "still passes" not in sentence


def test_one_family_alone_is_told_as_one(node):
    found, sentence = node(version="v1.15", change=iptables("-F", "KUBE-FORWARD", program="ip6tables-nft"))
    assert found is Exposure.AFFECTED
    assert sentence.startswith("Yes, with ipv6: ")
    assert "by no rule in ip6 filter KUBE-FORWARD nor" in sentence


def test_a_drop_that_no_packet_comes_to_is_none(node):
    assert node("drop-input")[0] is Exposure.AFFECTED
    cut = iptables("-D", "FORWARD", "-m", "comment", "--comment", "kubernetes forwarding rules", "-j", "KUBE-FORWARD")
    found, sentence = node(version="v1.15", change=cut)
    assert found is Exposure.AFFECTED
    assert sentence.startswith("Yes, with ipv4: ")


@pytest.mark.parametrize(
    ("chains", "place"),
    [
        ("chain g { ct state invalid drop; }; chain f { HOOK; jump g; }", "inet f g"),
        ("chain f { HOOK; ct state vmap { invalid : drop, new : accept }; }", "inet f f"),
        ("chain f { type filter hook prerouting priority -300; ct state { invalid, untracked } drop; }", "inet f f"),
    ],
    ids=["jump", "vmap", "prerouting"],
)
def test_the_drops_of_others_are_no_promise(node, chains, place):
    chains = chains.replace("HOOK", "type filter hook forward priority 0")
    found, sentence = node(change=nft(f"table inet f {{ {chains}; }}"))
    assert found is Exposure.UNKNOWN
    assert sentence.startswith("Perhaps: kube-proxy (iptables mode by iptables-nft, ipv4 and ipv6) drops no")
    assert sentence.count(f'{place}: "ct state ') == 1


@pytest.mark.parametrize("backend", list(Backend))
def test_the_drop_of_others_counts_for_its_own_family_alone(node, backend):
    rule = ("-t", "mangle", "-I", "PREROUTING", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
    found, sentence = node(backend=backend, change=iptables(*rule, program=f"iptables-{backend}"))
    assert found is Exposure.AFFECTED
    assert sentence.startswith("Yes, with ipv6: ")


@pytest.mark.parametrize(
    "rule",
    [
        "ct state != invalid drop",
        'ct state new log prefix "ct state invalid" drop',
        "ct state invalid accept",
        'ct state invalid counter comment "drop"',
    ],
)
def test_what_only_looks_like_a_drop_is_none(node, rule):
    chain = f"table inet f {{ chain f {{ type filter hook forward priority 0; {rule}; }}; }}"
    assert node(change=nft(chain))[0] is Exposure.AFFECTED


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_a_drop_of_all_but_invalid_packets_is_none(node, program):
    rule = ("-I", "FORWARD", "-m", "conntrack", "!", "--ctstate", "INVALID", "-j", "DROP")
    backend = Backend(program.partition("-")[2])
    found, sentence = node(backend=backend, change=iptables(*rule, program=program))
    assert found is Exposure.AFFECTED
    assert sentence.startswith("Yes, with ipv4 and ipv6: ")


def test_nothing_is_said_on_stderr(tmp_path):
    # libnftables tells there of what it cannot translate, of MASQUERADE for one.
    script = (
        "from lab.doctor.exposure import expose; from lab.fabric.lab import Lab; from lab.netns import userns\n"
        "from lab.topology.reader import load\n"
        "userns.ensure(); lab = Lab(load('kube-proxy'))\n"
        "with lab.hosts['node'].namespace.entered(): print(expose()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("affected\n", "")


def test_a_machine_without_kube_proxy_is_no_node():
    userns.ensure()
    namespace = Namespace.create()
    with namespace.entered():
        found, sentence = exposure.expose()
    namespace.close()
    assert found is Exposure.NO_NODE
    assert sentence == "No: there are no rules of kube-proxy, neither of iptables mode nor of nftables mode."


@pytest.mark.lab_needs_tool("ip")
def test_ipvs_mode_is_not_taken_for_no_node():
    userns.ensure()
    namespace = Namespace.create()
    with namespace.entered():
        subprocess.run(["ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "other"], check=True)
        found, sentence = exposure.expose()
    namespace.close()
    assert found is Exposure.UNKNOWN
    assert "IPVS mode" in sentence


def test_rules_that_cannot_be_read_are_no_conclusion(monkeypatch):
    def refuse(_family: Family):
        raise LabError("Operation not permitted")

    monkeypatch.setattr(exposure, "_found", refuse)
    found, sentence = exposure.expose()
    assert found is Exposure.UNKNOWN
    assert "Operation not permitted" in sentence
