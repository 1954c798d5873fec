"""kube-proxy programs as the writers of nodes' rules: pretended ones, and real ones where LAB_KUBE_PROXY names any."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lab import fixes
from lab.errors import InputError, LabError, MissingError
from lab.fabric import program as programs
from lab.fabric.lab import Lab
from lab.fabric.program import ask_version
from lab.fabric.program_progress import Progress, _read
from lab.fabric.program_rules import written
from lab.kubeproxy.program import ProxyProgram
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.said import NOTHING_SAID, Settings
from lab.rules.check import check
from lab.rules.source import Choice, proxies
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.programs import PROGRAMS, each_program, pretended

pytestmark = [
    pytest.mark.lab_kernel,
    # What it deletes entries with up to v1.31 need not be here.
    pytest.mark.filterwarnings("ignore:.*conntrack is not installed"),
    pytest.mark.filterwarnings("ignore:.*serves one address family"),
]


# --- how far it is ---------------------------------------------------------------------------------------------------

ONE_FOR_BOTH = """# HELP kubeproxy_sync_proxy_rules_last_timestamp_seconds text
kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.001"} 0
kubeproxy_sync_proxy_rules_duration_seconds_count 2
kubeproxy_sync_proxy_rules_endpoint_changes_pending 0
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds 1.7959378512001143e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds 1.7959378513586767e+09
kubeproxy_sync_proxy_rules_service_changes_pending 0
"""
ONE_BEHIND = ONE_FOR_BOTH.replace("timestamp_seconds 1", 'timestamp_seconds{ip_family="IPv4"} 1') + (
    'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1.7959378513e+09\n'
    'kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"} 1.7959378512e+09\n'
    'kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv6"} 3\n'
)


def test_progress_is_read_of_both_families():
    assert _read(ONE_FOR_BOTH) == Progress(((1795937851.3586767, 1795937851.2001143),), 2, 0, 0)
    assert _read(ONE_FOR_BOTH).done
    behind = _read(ONE_BEHIND)
    assert behind.failures == 3
    assert not behind.done
    assert not _read(ONE_FOR_BOTH.replace("service_changes_pending 0", "service_changes_pending 1")).done
    assert not _read("kubeproxy_sync_proxy_rules_duration_seconds_count 0\n").done
    with pytest.raises(LabError, match="nothing of its rules"):
        _read("go_goroutines 7\n")


# --- what is no kube-proxy, and what fails ----------------------------------------------------------------------------


def settings(path, document=None):
    return Settings(document=document, program=ProxyProgram(path, ask_version(path)))


def node_of(path, mode=None, topology="kube-proxy", document=None):
    """Return a topology whose nodes have a program, and nothing else changed but for the mode."""
    return with_proxy(load(topology), mode, None, None, settings(path, document))


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("hello", "is no kube-proxy: asked for --version it printed 'hello'"),
        ("Kubernetes v1.8.0", "known are v1.14 to"),
    ],
)
def test_what_says_something_else_is_refused(tmp_path, says, words):
    with pytest.raises(InputError) as refused:
        ask_version(pretended(tmp_path, says=says))
    assert words in str(refused.value)


def test_what_is_not_there_and_what_is_no_program(tmp_path):
    with pytest.raises(InputError, match="there is no program"):
        ask_version(str(tmp_path / "none"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match=r"text cannot be executed .*chmod \+x"):
        ask_version(str(tmp_path / "text"))


def test_what_does_not_end_is_no_kube_proxy(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_ANSWER", 0.3)
    (tmp_path / "slow").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "slow").chmod(0o755)
    with pytest.raises(InputError, match="did not end within"):
        ask_version(str(tmp_path / "slow"))


def test_one_that_ends_is_told_by_its_last_words(tmp_path):
    noise = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo line $i; done"
    path = pretended(tmp_path, does=f"{noise}; echo F1129 no such flag; echo goroutine 1; exit 255")
    with pytest.raises(InputError) as failed:
        Lab(node_of(path), family=Family.IPV4)
    assert str(failed.value) == f"{path} ended: F1129 no such flag"


def test_one_that_never_writes_rules_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_PATIENCE", 3.0)
    path = pretended(tmp_path, does="echo waiting; exec sleep 1000")
    with pytest.raises(InputError, match=r"has not written its rules within 3 s: waiting"):
        Lab(node_of(path), family=Family.IPV4)


def test_a_mode_that_its_release_does_not_have(tmp_path):
    path = pretended(tmp_path, says="Kubernetes v1.20.2")
    with pytest.raises(InputError, match=r"kube-proxy v1\.20\.2 has no nftables mode"):
        Lab(node_of(path, ProxyMode.NFTABLES), family=Family.IPV4)


# --- real ones -------------------------------------------------------------------------------------------------------


def modes(path):
    return [mode for mode in ProxyMode if find_release(ask_version(path)).has_mode(mode)]


def each_mode():
    """A parameter ``mode`` for each; a program that lacks it is passed over."""
    return pytest.mark.parametrize("mode", list(ProxyMode))


def skip_unless(program, mode):
    if mode not in modes(program):
        pytest.skip(f"{program} has no {mode} mode")


def saved(lab, family=Family.IPV4):
    node = lab.hosts[lab.topology.nodes[0].name]
    if node.host.proxy_mode is ProxyMode.NFTABLES:
        return node.nft.run(f"list table {family.nft} kube-proxy")
    return node.xtables.save(family.version)


@each_program
@each_mode()
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("topology", ["endpoints", "dns", "uplink", "across-nodes"])
def test_the_labs_renderer_writes_what_the_program_writes(program, mode, family, topology):
    skip_unless(program, mode)
    version = ask_version(program)
    for proxy in proxies(topology, family, Choice(mode, version), NOTHING_SAID):
        found = check(proxy, written(ProxyProgram(program, version), proxy), program)
        assert list(found.differences) == []


@each_program
@each_mode()
def test_rules_follow_each_change(program, mode):
    """Right after each change, and not a moment later."""
    skip_unless(program, mode)
    with Lab(node_of(program, mode, "endpoints"), family=Family.IPV4) as lab:
        first = balanced(lab)
        assert first == {"10.0.1.2", "10.0.2.2", "10.0.3.2"}
        for _ in range(3):
            for address in sorted(first):
                lab.endpoints.remove("web", address)
                assert balanced(lab) == first - {address}
                lab.endpoints.add("web", address)
                assert balanced(lab) == first
        lab.sync((), ())
        assert "192.168.0.2" not in saved(lab).replace("cluster-ips-check", "")


def balanced(lab):
    """Return the endpoints that a Service's new connections go to."""
    text = saved(lab)
    if text.startswith("table"):
        block = re.search(r"^\tchain service-\S+default/web/tcp/\S* \{$(.*?)^\t\}$", text, re.MULTILINE | re.DOTALL)
        return set(re.findall(r"10\.0\.[123]\.2", block[1])) if block else set()
    chosen = re.findall(r"^\[\d+:\d+\] -A KUBE-SVC-\S+ .*-j (KUBE-SEP-\S+)$", text, re.MULTILINE)
    targets = dict(re.findall(r"-A (KUBE-SEP-\S+) .*--to-destination (\S+):80", text))
    return {targets[chain] for chain in chosen}


@each_program
@pytest.mark.parametrize("fix", [fixes.DROP_FORWARD, fixes.DROP_PREROUTING], ids=lambda fix: fix.name)
def test_what_a_fix_adds_stays_once_after_a_change_and_a_restart(program, fix):
    with Lab(node_of(program, None, "endpoints"), family=Family.IPV4, change=fix.change) as lab:
        count = saved(lab).count("--ctstate INVALID")
        assert count >= 1
        lab.endpoints.remove("web", "10.0.1.2")
        assert saved(lab).count("--ctstate INVALID") == count
        lab.restart_kube_proxies()
        assert saved(lab).count("--ctstate INVALID") == count


@each_program
@pytest.mark.parametrize("backend", list(Backend))
def test_the_programs_of_the_backend_load_its_rules(program, backend):
    topology = with_proxy(load("kube-proxy"), ProxyMode.IPTABLES, None, backend, settings(program))
    with Lab(topology, family=Family.IPV4) as lab:
        others = dataclasses.replace(lab.topology.nodes[0], backend=next(one for one in Backend if one != backend))
        assert "KUBE-SERVICES" in saved(lab)
        node = lab.hosts["node"]
        assert "KUBE-SERVICES" not in node.run(f"iptables-{others.backend}-save")


@each_program
def test_conntracks_entries_are_not_to_be_kept(program):
    with (
        Lab(node_of(program, None, "endpoints"), family=Family.IPV4) as lab,
        pytest.raises(MissingError, match="deletes conntrack entries as it will"),
    ):
        lab.endpoints.remove("web", "10.0.1.2", clean_conntrack=False)


@each_program
def test_a_kube_proxy_configuration_is_what_it_reads(program, tmp_path):
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "iptables": {"masqueradeBit": 9, "masqueradeAll": True},
    }
    topology = node_of(program, ProxyMode.IPTABLES, document=document)
    with Lab(topology, family=Family.IPV4) as lab:
        assert "0x200/0x200" in saved(lab)


@pytest.mark.skipif(len(PROGRAMS) < 2, reason="needs two real kube-proxies: LAB_KUBE_PROXY=OLD:NEW")
def test_an_upgrade_finds_the_rules_of_the_one_before():
    old, new = (ProxyProgram(path, ask_version(path)) for path in PROGRAMS[:2])
    topology = with_proxy(load("kube-proxy"), None, None, None, Settings(program=dataclasses.replace(new, over=old)))
    with Lab(topology, family=Family.IPV4) as lab:
        assert lab.topology.nodes[0].proxy_version == new.version
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_of(path, lab)]
        assert {words.split(b"\0")[0].decode() for words in commands} == {"unshare", new.path}
        left = find_release(old.version).minor in range(20, 25) and find_release(new.version).minor > 24
        assert (":KUBE-MARK-DROP - " in saved(lab)) is left


def _is_of(path, lab):
    try:
        return (path.parent / "ns/net").stat().st_ino == lab.hosts["node"].namespace.inode
    except OSError:
        return False
