"""`lab doctor`: what it finds, that it changes nothing, and what it says of nodes."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.doctor import checks as looks
from lab.doctor import exposure, features, machine
from lab.doctor.checks import Check, State
from lab.doctor.exposure import Exposure
from lab.doctor.machine import Diagnosis
from lab.errors import ExhaustedError, LabError, MissingError
from lab.netns import Namespace, Nft, userns


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

    monkeypatch.setattr(machine, "find", nothing)
    checks = {check.name: check for check in machine._some_cases()}
    assert checks["for load: nginx"] == Check(
        "for load: nginx", State.MISSING, "nginx is not installed", "apt install nginx"
    )
    assert set(checks) == {"for races", "for load", "for load: nginx", "for load: curl", "for load: tc"}
    assert not any(check.necessary for check in checks.values())


def test_it_changes_nothing(asked):
    _, _, before, after = asked
    assert {key: value for key, value in after.items() if before.get(key) != value} == {}
    assert before.keys() == after.keys()


def test_a_missing_program_is_named_with_its_package(monkeypatch):
    def find(name):
        raise MissingError(f"{name} is not installed", "apt install iptables")

    monkeypatch.setattr(machine, "find", find)
    check = next(machine._programs())
    assert (check.name, check.state, check.necessary) == ("iptables-nft-restore", State.MISSING, True)
    assert check.cure == "apt install iptables"


@pytest.mark.parametrize(("necessary", "code"), [(True, 1), (False, 0)])
def test_only_what_is_necessary_makes_it_fail(monkeypatch, necessary, code):
    check = Check("conntrack", State.MISSING, "there is none", "modprobe nf_conntrack", necessary=necessary)
    diagnosis = Diagnosis((check,), {"net.ipv4.ip_forward": None}, Exposure.UNKNOWN, "Unknown.")
    monkeypatch.setattr(machine, "examine", lambda: diagnosis)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    first, second, *rest = result.output.splitlines()
    assert first == "Is this machine affected? Unknown."
    assert second == f"A lab {'cannot' if code else 'can'} run here: 0 of 1 checks are well."
    assert rest[0] == "missing  conntrack  there is none (modprobe nf_conntrack)"


def test_what_is_well_is_listed_where_all_is_asked_for(monkeypatch):
    checks = (Check("veth", State.OK, "a pair was made"), Check("for load: tc", State.MISSING, "no tc", "apt"))
    diagnosis = Diagnosis(checks, {"net.ipv4.ip_forward": "1"}, Exposure.NO_NODE, "No: it is none.")
    monkeypatch.setattr(machine, "examine", lambda: diagnosis)
    short, long = (CliRunner().invoke(app, ["doctor", *words]).output for words in ([], ["--all"]))
    assert "veth" not in short
    assert "net.ipv4.ip_forward" not in short
    assert "missing  for load: tc  no tc (apt)\n" in short
    assert "ok       veth          a pair was made\n" in long
    assert "net.ipv4.ip_forward  1\n" in long
    assert long.startswith("Is this machine affected? No: it is none.\nA lab can run here: 1 of 2 checks are well.\n")


@pytest.mark.parametrize(
    ("exposure", "code"),
    [(Exposure.AFFECTED, 3), (Exposure.PROTECTED, 0), (Exposure.NO_NODE, 0), (Exposure.UNKNOWN, 2)],
)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_the_exit_code_is_the_answer_where_it_is_asked_for(monkeypatch, exposure, code, form):
    lacking = Check("conntrack", State.MISSING, "there is none", "", necessary=True)  # of a lab, not of the answer
    monkeypatch.setattr(machine, "examine", lambda: Diagnosis((lacking,), {"a": None}, exposure, "So it is."))
    assert CliRunner().invoke(app, ["doctor", "--exit-code", *form]).exit_code == code


# In a process of its own: who examines as an ordinary user enters a user namespace, and never leaves it.
AS_AN_ORDINARY_USER = """
from lab.doctor import machine

def refuse():
    raise AssertionError("asked without the right to")

machine.userns.privileged = lambda: False
machine.expose = refuse
diagnosis = machine.examine()
print(diagnosis.exposure.value)
print(diagnosis.sysctls["net.netfilter.nf_conntrack_tcp_be_liberal"] or "unknown")
print(diagnosis.conclusion)
"""


@pytest.mark.lab_kernel
def test_an_ordinary_user_is_told_who_can_know_and_what_the_sysctl_is():
    run = [sys.executable, "-c", AS_AN_ORDINARY_USER]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    exposure, liberal, conclusion = done.stdout.splitlines()
    assert exposure == Exposure.UNKNOWN.value
    assert conclusion == (
        "Unknown: only root can read its rules: `sudo lab doctor`."
        f" net.netfilter.nf_conntrack_tcp_be_liberal is {liberal}."
    )


WANT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@pytest.mark.parametrize("code", WANT, ids=errno.errorcode.get)
class TestWantIsNoLackOfTheMachine:
    """What a limit or a full disk lets fail comes through each place that would take it for an answer."""

    @pytest.fixture
    def failing(self, code):
        def fail(*_arguments, **_words):
            raise OSError(code, os.strerror(code))

        return fail

    def test_in_a_check(self, failing):
        with pytest.raises(ExhaustedError):
            looks.check("conntrack", failing)

    def test_in_making_namespaces(self, failing, monkeypatch):
        monkeypatch.setattr(Namespace, "create", failing)
        with pytest.raises(ExhaustedError):
            next(features.features())

    def test_in_a_child(self, failing, monkeypatch):
        monkeypatch.setattr(userns, "enter", failing)
        with pytest.raises(ExhaustedError):
            machine._user_namespaces()

    def test_in_reading_sysctls_and_rules(self, failing, monkeypatch):
        monkeypatch.setattr(Namespace, "open", failing)
        with pytest.raises(ExhaustedError):
            exposure.expose()
        monkeypatch.setattr(Path, "read_text", failing)
        for read in (exposure.be_liberal, lambda: machine._sysctl("net.ipv4.ip_forward")):
            with pytest.raises(ExhaustedError):
                read()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM], ids=errno.errorcode.get)
def test_want_that_a_program_passes_on_is_none_either(code):
    def fail():
        raise LabError(f"iptables -V: error while loading shared libraries: {os.strerror(code)}")

    with pytest.raises(ExhaustedError, match="error while loading"):
        looks.check("iptables", fail)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EROFS, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_what_the_machine_refuses_is_an_answer(code):
    def fail():
        raise OSError(code, os.strerror(code))

    assert looks.check("conntrack", fail).state is State.MISSING


def test_want_of_memory_is_no_refusal_of_user_namespaces(monkeypatch):
    def fail(_flags):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(userns, "unshare", fail)
    with pytest.raises(ExhaustedError, match="Cannot allocate memory"):
        userns.enter()
