"""What is shown of a test that fails, and kept of it."""

from __future__ import annotations

import signal
import subprocess

import pytest


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
            "*- lab: hosts -*",
            "client  eth0 10.0.0.2/24",
            "node    client 10.0.0.1/24; server 10.0.1.1/24; kube-proxy v1.14 *, fix drop-forward",
            "*- lab: rules -*",
            "[[]1:*[]] -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "*- lab: timeline -*",
            "*10.0.1.2:80 > 10.0.0.2:34567 * INVALID",
            "*_ test_broken_off _*",
            "*- lab: timeline -*",
            "*10.0.0.2:34567 > 192.168.0.2:80 *SYN*",
            "*short test summary*",
        ]
    )
    assert result.stdout.str().count("lab: hosts") == 2


FAILS = """
    def test_fine(lab_running): pass
    def test_fails(lab_running): assert not "what was promised"
"""


@pytest.mark.lab_kernel
def test_keep_leaves_the_failing_lab_until_enter(project, start):
    project.makepyfile(FAILS)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(project.command("--lab-keep", start=start), cwd=project.path, **pipes) as pytest_:
        signal.alarm(60)  # the test ends here if the words never come
        lines = []
        while not lines or "press Enter" not in lines[-1]:
            lines.append(pytest_.stdout.readline())
            assert lines[-1], lines
        (title,) = (line for line in lines if "stands" in line)
        assert "::test_fails" in title
        ways = {words[0]: words[1:] for line in lines if (words := line.split())[1:2] == ["nsenter"]}
        assert list(ways) == ["client", "node", "server"]
        assert ("--user=" in " ".join(ways["node"])) == bool(start)
        inside = subprocess.check_output([*ways["node"], "cat", "/proc/net/dev"], text=True)
        assert "client:" in inside
        assert "server:" in inside
        pytest_.communicate("\n")
        signal.alarm(0)
    assert pytest_.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.lab_kernel
def test_keep_waits_for_nothing_where_nothing_failed(project):
    project.makepyfile("def test_fine(lab_running): pass")
    result = project.run_pytest("--lab-keep", stdin=subprocess.PIPE, timeout=60)
    result.assert_outcomes(passed=1)


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
