"""The fixture ``lab_trial``, and how options, marks and calls choose what is tried."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.lab_kernel
def test_options_fill_in_what_tests_leave_open(project):
    project.makepyfile(
        """
        import pytest
        from lab.fixes import BE_LIBERAL

        def test_open(lab_trial):
            assert lab_trial("beyond-window").verdict.outcome == "dropped"

        @pytest.mark.lab_topology(fix="none")
        def test_marked(lab_trial):
            assert lab_trial("beyond-window").verdict.outcome == "reset"
            assert lab_trial("beyond_window", fix=BE_LIBERAL).verdict.outcome == "delivered"
            result = lab_trial("beyond-window", backend="legacy")
            assert result.trial.backend == "legacy" and result.as_expected

        def test_lab(lab_running):
            assert lab_running.fix.name == "drop-forward"
        """
    )
    project.run_pytest("--lab-fix=drop-forward").assert_outcomes(passed=3)


@pytest.mark.lab_kernel
def test_a_trial_that_the_machine_held_up_is_tried_again(project):
    project.makepyfile(
        """
        import dataclasses, os, signal
        from lab.cases import find

        STOPS = [True]

        async def steps(scenario):
            await scenario.establish()
            if STOPS and STOPS.pop():
                os.system("(sleep 5.5; kill -CONT $PPID) &")
                os.kill(os.getpid(), signal.SIGSTOP)
                scenario.expect("no stop", False)
            await scenario.inject(scenario.from_server(payload=scenario.next_bytes(1)))
            await scenario.go_on()

        def test_held_up(lab_trial):
            assert lab_trial(dataclasses.replace(find("in-window"), steps=steps)).as_expected
        """
    )
    result = project.run_pytest()
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*HeldUpWarning: in-window with none is tried again: the machine kept the trial *"])


@pytest.mark.lab_kernel
def test_a_trial_runs_where_the_marker_says_or_in_its_own_topology(project):
    project.makepyfile(
        """
        import pytest

        def test_own(lab_trial):
            assert lab_trial("client-on-node-in-window").trial.topology == "uplink"

        @pytest.mark.lab_topology("dns")
        def test_marked(lab_trial):
            assert lab_trial("client-on-node-in-window").trial.topology == "dns"

        @pytest.mark.lab_topology("kube-proxy")
        def test_cannot(lab_trial):
            lab_trial("client-on-node-in-window")
        """
    )
    result = project.run_pytest()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines("*client-on-node-in-window cannot run in kube-proxy: it needs node to have a default*")


def test_a_service_is_chosen_by_marker_call_and_option(project):
    several = (Path(__file__).parents[1] / "trial" / "several.yaml").read_text()
    project.path.joinpath("several.yaml").write_text(several)
    project.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.lab_topology("several.yaml")

        def test_first(lab_trial):
            assert lab_trial("in-window").trial.service == "green/web"

        def test_called(lab_trial):
            seen = lab_trial("in-window", service="db:admin")
            assert (seen.trial.service, str(seen.timeline.target)) == ("green/db:admin", "172.22.0.3:8080")

        @pytest.mark.lab_topology("several.yaml", service="db")
        def test_marked(lab_running):
            async def steps(scenario):
                await scenario.establish()
                await scenario.inject(scenario.from_server(0, scenario.next_bytes(10)))
                await scenario.go_on()
            lab_running.try_steps(steps)
            assert str(lab_running.timeline.target) == "172.22.0.3:5432"
        """
    )
    project.run_pytest("--lab-service=green/web").assert_outcomes(passed=3)


def test_a_service_that_nobody_has_is_told_with_where_it_was_named(project):
    project.makepyfile(
        """
        def test_asked(lab_trial):
            lab_trial("in-window")

        def test_called(lab_trial):
            lab_trial("in-window", service="nix")

        def test_lab(lab_running):
            pass
        """
    )
    result = project.run_pytest("--lab-service=no/such")
    result.assert_outcomes(failed=2, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "*InputError: --lab-service: kube-proxy: there is no Service no/such (known: default/web)",
            "*InputError: lab_trial(service=...): kube-proxy: there is no Service nix (known: default/web)",
            "--lab-service: kube-proxy: there is no Service no/such (known: default/web)",
        ]
    )
    assert "in select" not in result.stdout.str()
    assert "def __call__" not in result.stdout.str()  # but the test's own line, and what is wrong with it
    result.stdout.fnmatch_lines(['>* lab_trial("in-window", service="nix")', "E * there is no Service nix *"])
