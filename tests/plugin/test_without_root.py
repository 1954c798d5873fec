"""Without root, with threads, and with xdist."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from lab.plugin.marks import SKIPPED

NEEDS_KERNEL = """
    import pytest
    @pytest.mark.lab_kernel
    def test_kernel(): pass
    def test_lab(lab_running): pass
    def test_trial(lab_trial): pass
"""


@pytest.mark.lab_kernel
def test_where_user_namespaces_are_forbidden_kernel_tests_are_skipped_aloud(project):
    project.makepyfile(NEEDS_KERNEL + project.STAYS)
    result = project.run_pytest(start=project.FORBIDDEN)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(
        [
            "*= 3 tests were not run =*",
            "no root and no user namespace: run it with sudo, or raise the sysctl user.max_user_namespaces",
            "    *::test_kernel",
            "    *::test_lab",
            "    *::test_trial",
        ]
    )
    project.run_pytest("-mnot lab_kernel", start=project.FORBIDDEN).assert_outcomes(passed=1, deselected=3)


@pytest.mark.lab_kernel
def test_where_the_rights_are_taken_away_inside_the_process_stays_outside(project):
    # As on Ubuntu 23.10 and later: unshare(2) succeeds, and what comes after it does not.
    project.makeconftest(
        """
        import lab.netns.userns
        from lab.errors import MissingError
        from lab.netns.syscalls import CLONE_NEWNET, CLONE_NEWUSER, unshare
        def enter():
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            raise MissingError("no rights", "set the sysctl")
        lab.netns.userns.enter = enter
        """
    )
    project.makepyfile(NEEDS_KERNEL + project.STAYS)
    result = project.run_pytest(start=project.ORDINARY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*= 3 tests were not run =*", "no rights: set the sysctl"])


@pytest.mark.lab_kernel
def test_where_threads_run_kernel_tests_are_skipped_aloud(project):
    project.makeconftest(
        """
        import threading
        release = threading.Event()
        threading.Thread(target=release.wait).start()
        def pytest_unconfigure(): release.set()
        """
    )
    project.makepyfile(NEEDS_KERNEL + project.STAYS)
    result = project.run_pytest(start=project.ORDINARY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*= 3 tests were not run =*", "*this process runs threads already; *unshare -Urn *"])


# --- with xdist -----------------------------------------------------------------------------------

needs_xdist = pytest.mark.skipif(
    find_spec("xdist") is None,
    reason=f"{SKIPPED}pytest-xdist is not installed: pip install pytest-xdist",
)


@needs_xdist
@pytest.mark.lab_kernel
def test_xdist_workers_are_in_the_namespace_of_their_controller(project, start):
    project.makeini("[pytest]\nrequired_plugins = kube-proxy-lab")
    project.makepyfile(NEEDS_KERNEL)
    project.run_pytest("-n2", start=start).assert_outcomes(passed=3)


@needs_xdist
@pytest.mark.lab_kernel
def test_xdist_alone_is_no_reason_to_leave_the_network(project):
    project.makepyfile(NEEDS_KERNEL + project.STAYS)
    home = os.readlink("/proc/self/ns/net")
    project.makeconftest(f"import os\ndef pytest_unconfigure(): assert os.readlink('/proc/self/ns/net') == {home!r}")
    result = project.run_pytest("-n2", start=project.ORDINARY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*= 3 tests were not run =*", "*this process runs threads already; *unshare -Urn *"])


@needs_xdist
def test_xdist_has_no_terminal_for_a_shell(project):
    result = project.run_pytest("-n2", "--lab-shell-on-failure")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *leave out -n"])
