"""`--kube-proxy`: what is no kube-proxy is told in one line, and real ones where LAB_KUBE_PROXY names any."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import CHECKOUT, PATIENCE, lab
from tests.support.programs import PROGRAMS, each_program, pretended

pytestmark = pytest.mark.lab_kernel
TROUBLES = pytest.mark.parametrize(
    "command", [("run", "beyond-window"), ("rules",), ("trace", "beyond-window")], ids=lambda one: one[0]
)


def refused(*arguments):
    """Return the one line in which a command is refused."""
    done = lab(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    [line] = done.stderr.splitlines()
    return line


@TROUBLES
def test_what_is_no_kube_proxy(command, tmp_path):
    assert refused(*command, "--kube-proxy", "/nowhere") == (
        "lab: there is no program /nowhere (give the path of a kube-proxy)"
    )
    line = refused(*command, "--kube-proxy", "/bin/cat")
    assert line.startswith("lab: /bin/cat is no kube-proxy: asked for --version it ")
    path = pretended(tmp_path, does="echo F1129 broken; exit 255")
    assert refused(*command, "--kube-proxy", path) == f"lab: {path} ended: F1129 broken"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--kube-proxy", "KP", "--proxy-version", "v1.33"), "--kube-proxy and --proxy-version"),
        (("run", "--kube-proxy", "KP", "--", "--master=x"), "-- --master: not for the lab's kube-proxy"),
        (("run", "--kube-proxy", "KP", "--upgrade"), "--upgrade wants two programs"),
        (("run", "--upgrade"), "--upgrade wants two programs"),
        (("run", "--kube-proxy", "KP", "--node", "node.txt"), "--node and --kube-proxy"),
        (("trace", "beyond-window", "--kube-proxy", "KP", "--node", "node.txt"), "--node and --kube-proxy"),
        (("rules", "--kube-proxy", "KP", "--kube-proxy", "KP"), "several --kube-proxy"),
        (("rules", "--kube-proxy", "KP", "--diff", "node.txt"), "--kube-proxy and --diff FILE"),
        (("rules", "--kube-proxy", "KP", "--since", "v1.20"), "--kube-proxy and --since"),
        (("rules", "--kube-proxy", "KP", "--proxy-mode", "nftables"), "kube-proxy v1.20.2 has no nftables mode"),
        (("run", "--kube-proxy", "KP", "--proxy-mode", "nftables"), "kube-proxy v1.20.2 has no nftables mode"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_what_does_not_go_together(arguments, words, tmp_path):
    path = pretended(tmp_path, says="Kubernetes v1.20.2")
    assert words in refused(*(path if word == "KP" else word for word in arguments))


def test_flags_behind_two_dashes_are_the_programs_own(tmp_path):
    path = pretended(tmp_path, does='for last; do :; done; echo "F1129 $last"; exit 255')
    assert refused("run", "beyond-window", "--kube-proxy", path, "--", "--v=4", "--mine=1").endswith("F1129 --mine=1")
    assert "there is no case" in refused("run", "--", "--v=4")


@each_program
def test_one_run(program, tmp_path):
    done = lab("run", "beyond-window", "--fix", "none", "--kube-proxy", program, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"by {program} in iptables mode" in done.stdout
    [tally] = json.loads((tmp_path / "found.json").read_text())["tallies"]
    assert tally["trial"]["program"] == program
    assert tally["outcomes"] == [["dropped", 1]]  # each from v1.15 on


@each_program
def test_the_walk_through_its_rules(program):
    done = lab("trace", "beyond-window", "--kube-proxy", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DROPPED by filter KUBE-FORWARD rule 1 (kube-proxy)" in done.stdout
    assert "lab_api" not in done.stdout  # which is the lab's


@each_program
def test_rules_and_their_difference_from_the_labs(program):
    done = lab("rules", "endpoints", "--kube-proxy", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# node: kube-proxy ipv4, by {program}\n*mangle\n")
    done = lab("rules", "endpoints", "--kube-proxy", program, "--diff", "--masquerade-all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{program} has the rules of kube-proxy" in done.stdout


@pytest.mark.skipif(len(PROGRAMS) < 2, reason="needs two real kube-proxies: LAB_KUBE_PROXY=OLD:NEW")
def test_two_side_by_side_and_one_over_the_other(tmp_path):
    both = [word for path in PROGRAMS[:2] for word in ("--kube-proxy", path)]
    done = lab("run", "beyond-window", "--fix", "none", *both, "--md", tmp_path / "both.md")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 trials gave the same with all 2 kube-proxies." in done.stdout
    assert f"| case | fix | {PROGRAMS[0]} | {PROGRAMS[1]} |" in (tmp_path / "both.md").read_text()
    done = lab("run", "beyond-window", "--fix", "none", *both, "--upgrade")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"by {PROGRAMS[1]} over the rules of {PROGRAMS[0]} in iptables mode" in done.stdout


@pytest.mark.parametrize("more", [(), ("--repeat", "40", "-j", "2")], ids=["here", "in workers"])
def test_ctrl_c_ends_the_wait_for_a_program(more, tmp_path):
    path = pretended(tmp_path, does="exec sleep 1000")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "run", "beyond-window", "--fix", "none", "--kube-proxy", path, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=CHECKOUT,
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE
    while not _sleeps(process.pid) and time.monotonic() < end:
        os.sched_yield()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)  # it would wait for a minute
    assert process.returncode == 130
    assert all(line.startswith("lab: 40 trials, ") for line in output.splitlines()), output


def _sleeps(session):
    """Return whether the program's sleep runs in a session."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (path / "stat").read_text()
            if "(sleep)" in fields and int(fields.rpartition(")")[2].split()[3]) == session:
                return True
    return False
