"""What is shown of a test that fails, and kept of it."""

from __future__ import annotations

import re

import pytest

from lab.standing import record
from tests.support.command import lab as lab_command


@pytest.mark.lab_kernel
def test_a_failure_shows_what_was_seen(project):
    project.makepyfile(
        """
        def test_wrong(lab_trial):
            assert lab_trial("beyond-window", fix="drop-forward").verdict.outcome == "reset"
        def test_broken_off(lab_running):
            async def steps(scenario):
                await scenario.establish()
                raise ValueError("enough")
            lab_running.try_steps(steps)
        def test_fine(lab_running):
            pass
        """
    )
    result = project.run_pytest("-rA")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ test_wrong _*",
            "*- lab: timeline -*",
            "*10.0.1.2:80 > 10.0.0.2:34567 * INVALID",
            "*- lab: hosts -*",
            "client  eth0 10.0.0.2/24",
            "node    client 10.0.0.1/24; server 10.0.1.1/24; kube-proxy v1.14 *, fix drop-forward",
            "*- lab: rules -*",
            "# node: ipv4",
            "[[]1:*[]] -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "and * rules that no packet came to (-vv shows them)",
            "*_ test_broken_off _*",
            "*- lab: timeline -*",
            "*10.0.0.2:34567 > 192.168.0.2:80 *SYN*",
            "*short test summary*",
        ]
    )
    assert result.stdout.str().count("lab: hosts") == 2
    assert "[0:0] -A " not in result.stdout.str()


@pytest.mark.lab_kernel
def test_every_rule_is_shown_where_it_is_asked_for(project):
    project.makepyfile(
        """
        import pytest
        def test_iptables(lab_running):
            assert not lab_running
        @pytest.mark.lab_topology(proxy_mode="nftables")
        def test_nftables(lab_running):
            assert not lab_running
        """
    )
    told = project.run_pytest("-vv").stdout.str()
    assert "[0:0] -A KUBE-POSTROUTING" in told
    assert "type filter hook" in told
    assert "that no packet came to" not in told
    folded = project.run_pytest().stdout.str()
    assert "type filter hook" not in folded
    assert re.search(r"# node: ipv4\n\d+ lines \(-vv shows them\)\n", folded)


FAILS = """
    def test_fine(lab_running): pass
    def test_fails(lab_running): assert not "what was promised"
"""


@pytest.mark.lab_needs_root
def test_a_failing_test_s_lab_can_be_kept(project, own_run):
    project.makepyfile(FAILS)
    result = project.run_pytest("--lab-keep", start=("env",))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- lab: kept -*",
            "*= labs that stay (`lab status`) =*",
            "*::test_fails: test-fails: `lab shell --lab test-fails client|node|server`, and in the end `lab down *",
        ]
    )
    assert "lab: kept" not in project.run_pytest("--lab-keep", "-ktest_fine").stdout.str()
    [kept] = record.labs()
    assert (kept.name, kept.owner is not None) == ("test-fails", True)
    assert "test-fails: topology kube-proxy, since" in lab_command("status").stdout
    rules = lab_command("exec", "node", "--", "iptables-nft-save").stdout
    assert "-A KUBE-SVC-" in rules
    assert "does not answer" in lab_command("endpoints", "list").stderr
    project.run_pytest("--lab-keep", start=("env",))
    assert {lab.name for lab in record.labs()} == {"test-fails", "test-fails-2"}
    assert lab_command("down", "--all").returncode == 0
    assert list(own_run.iterdir()) == []


@pytest.mark.lab_needs_root
def test_a_worker_s_lab_can_be_kept(project, own_run):
    project.makepyfile(FAILS)
    result = project.run_pytest("--lab-keep", "-n1", "-ktest_fails", start=("env",))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*::test_fails: test-fails: `lab shell --lab test-fails client|node|server`, *"])
    assert "-A KUBE-SVC-" in lab_command("exec", "node", "--", "iptables-nft-save").stdout
    assert lab_command("down", "--all").returncode == 0
    assert list(own_run.iterdir()) == []


def test_only_root_can_keep_a_lab(project):
    project.makepyfile(FAILS)
    result = project.run_pytest("--lab-keep", start=project.ORDINARY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --lab-keep: a lab that stays needs root: *--lab-shell-on-failure*"])


@pytest.mark.lab_kernel
def test_a_shell_that_is_not_there_is_said_and_another_opened(project, monkeypatch):
    monkeypatch.setenv("SHELL", "/no/such/shell")
    project.makepyfile(FAILS)
    result = project.run_pytest("--lab-shell-on-failure", stdin=b"echo I was $((40 + 2))\n")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["SHELL: there is no program '/no/such/shell': *; until then /bin/sh", "I was 42"])


@pytest.mark.lab_kernel
def test_shell_on_failure_is_on_the_node(project, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/sh")
    project.makepyfile(FAILS)
    result = project.run_pytest("--lab-shell-on-failure", stdin=b"cat /proc/net/dev\necho I was $((40 + 2))\n")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_fails",
            "E *what was promised*",
            "a shell on node; *",
            "client  nsenter --net=/proc/*/fd/*",
            "*client:*",
            "*server:*",
            "I was 42",
            "*= FAILURES =*",
        ]
    )
