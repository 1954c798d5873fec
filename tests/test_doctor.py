"""`lab doctor`: what it finds, that it changes nothing, and what it says of nodes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab import doctor, fixes
from lab.cli import app
from lab.doctor import Check, Diagnosis, Exposure, State
from lab.errors import MissingError
from lab.fabric import Lab
from lab.netns import Namespace, Nft, NftError, userns
from lab.topology.reader import load
from lab.trial import with_proxy
from lab.words import Backend, ProxyMode


@pytest.fixture(scope="module")
def asked():
    """Run the command in a fresh namespace, as if that were the machine: code, JSON, state before, after."""
    userns.ensure()
    machine = Namespace.create()
    with machine.entered():
        before = state()
        command = [sys.executable, "-m", "lab", "doctor", "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        after = state()
    machine.close()
    assert ran.stderr == ""
    return ran.returncode, json.loads(ran.stdout), before, after


def state():
    """Read the rules, links and sysctls of the namespace that this thread is in."""
    here = Path("/proc/thread-self/net")
    nft = Nft(namespace := Namespace.open("/proc/thread-self/ns/net"))
    found = {"nft": nft.run("list ruleset"), "links": (here / "dev").read_text()}
    nft.close()
    namespace.close()
    for name in ("ip_tables_names", "ip6_tables_names"):
        found[name] = (here / name).read_text() if (here / name).exists() else ""
    for path in sorted(Path("/proc/sys/net").rglob("*")):
        if path.is_file() and path.stat().st_mode & 0o400 and path.name != "nf_conntrack_count":
            try:
                found[str(path)] = path.read_text()
            except OSError as error:
                found[str(path)] = str(error.errno)
    return found


def test_it_says_what_is_there(asked):
    code, told, _, _ = asked
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert states["network namespaces"] == states["conntrack"] == states["iptables-nft, ipv4"] == "ok"
    assert told["checks"][0]["detail"] == f"Linux {platform.release()} {platform.machine()}"
    assert told["ready"] is (code == 0)
    assert told["sysctls"]["net.ipv4.ip_forward"] == "0"
    assert told["exposure"] == "no-node"


def test_what_only_some_cases_need_is_not_held_against_a_machine(monkeypatch):
    def nothing(name):
        raise MissingError(f"{name} is not installed", f"apt install {name}")

    monkeypatch.setattr(doctor, "find", nothing)
    checks = {check.name: check for check in doctor._some_cases()}
    assert checks["for load: nginx"] == Check(
        "for load: nginx", State.MISSING, "nginx is not installed", "apt install nginx"
    )
    assert set(checks) == {"for races", "for load", "for load: nginx", "for load: curl", "for load: tc"}
    assert not any(check.necessary for check in checks.values())


def test_it_changes_nothing(asked):
    _, _, before, after = asked
    assert {key: value for key, value in after.items() if before.get(key) != value} == {}
    assert before.keys() == after.keys()


@pytest.fixture
def node():
    """Build the node of the shipped topology; give a function that says what is seen there."""
    userns.ensure()
    labs = []

    def build(fix="none", **proxy):
        settings = {"mode": None, "version": None, "backend": None} | proxy
        labs.append(Lab(with_proxy(load("kube-proxy"), **settings), change=fixes.find(fix).change))
        with labs[-1].hosts["node"].namespace.entered():
            return doctor.expose()

    yield build
    for lab in labs:
        lab.close()


@pytest.mark.parametrize(
    "proxy",
    [{"backend": Backend.NFT}, {"backend": Backend.LEGACY}, {"mode": ProxyMode.NFTABLES}],
    ids=["nft", "legacy", "nftables-mode"],
)
def test_a_node_is_affected_until_it_drops_invalid_packets(node, proxy):
    exposure, sentence = node(**proxy)
    assert exposure is Exposure.AFFECTED
    assert "be_liberal=1" in sentence
    assert node("drop-forward", **proxy)[0] is Exposure.PROTECTED


def test_the_drop_of_a_newer_kube_proxy_is_seen(node):
    assert node(version="v1.15")[0] is Exposure.PROTECTED


def test_be_liberal_protects(node):
    exposure, sentence = node("be-liberal")
    assert exposure is Exposure.PROTECTED
    assert "be_liberal" in sentence


def test_rules_that_cannot_be_read_are_no_conclusion(monkeypatch):
    def refuse():
        raise NftError("Operation not permitted")

    monkeypatch.setattr(doctor, "_forward_chains", refuse)
    assert doctor.expose()[0] is Exposure.UNKNOWN


def test_a_missing_program_is_named_with_its_package(monkeypatch):
    def find(name):
        raise MissingError(f"{name} is not installed", "apt install iptables")

    monkeypatch.setattr(doctor, "find", find)
    check = next(doctor._programs())
    assert (check.name, check.state, check.necessary) == ("iptables-nft-restore", State.MISSING, True)
    assert check.cure == "apt install iptables"


@pytest.mark.parametrize(("necessary", "code"), [(True, 1), (False, 0)])
def test_only_what_is_necessary_makes_it_fail(monkeypatch, necessary, code):
    check = Check("conntrack", State.MISSING, "there is none", "modprobe nf_conntrack", necessary=necessary)
    diagnosis = Diagnosis((check,), {"net.ipv4.ip_forward": None}, Exposure.UNKNOWN, "Unknown.")
    monkeypatch.setattr(doctor, "examine", lambda: diagnosis)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "missing  conntrack  there is none (modprobe nf_conntrack)\n" in result.output
    assert f"A lab {'cannot' if code else 'can'} run here." in result.output
