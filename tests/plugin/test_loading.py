"""What the plugin brings into everybody's pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.plugin import marks

CHECKOUT = Path(__file__).resolve().parents[2]

#: What loading the plugin may load.
LIGHT = {
    "lab",
    "lab.errors",
    "lab.plugin",
    "lab.plugin.fixtures",
    "lab.plugin.hooks",
    "lab.plugin.labs",
    "lab.plugin.marks",
    "lab.plugin.options",
    "lab.plugin.user_namespace",
    "lab.vocabulary",
}


def test_loading_it_imports_next_to_nothing():
    script = "import sys, pytest; old = set(sys.modules); import lab.plugin.hooks; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == LIGHT


def test_other_projects_keep_their_names(project):
    project.makeini(
        "[pytest]\nmarkers =\n    topology: ours\n    kernel: ours\n    needs_root: ours\n    lab_topology: ours"
    )
    project.makepyfile(
        test_stays=project.STAYS,
        test_names="""
        import pytest
        @pytest.fixture
        def lab_running(): return "a dog"
        @pytest.mark.kernel
        @pytest.mark.needs_root
        @pytest.mark.topology("t0", "t1", of=2)
        @pytest.mark.lab_topology("t0", "t1", of=2)
        def test_dog(lab_running, request):
            assert lab_running == "a dog"
            assert not request.node.get_closest_marker("lab_kernel")
        @pytest.mark.parametrize("name", ["lab", "trial"])
        def test_nobodys(name, request):
            with pytest.raises(pytest.FixtureLookupError):
                request.getfixturevalue(name)
        """,
    )
    project.run_pytest(start=project.ORDINARY).assert_outcomes(passed=4)


def test_whatever_it_adds_is_named_as_the_labs(project):
    told = project.run_pytest("--fixtures").outlines
    descriptions = project.run_pytest("--markers").outlines
    fixtures = [line.split()[0] for line in told if "plugin/fixtures.py" in line]
    assert sorted(fixtures) == ["lab_running", "lab_trial"]
    registered = re.findall(r"^@pytest\.mark\.(\w+)", "\n".join(descriptions), re.MULTILINE)
    ours = [name for name in registered if any(name == known for known in marks.DESCRIPTIONS)]
    assert ours == list(marks.DESCRIPTIONS)
    assert all(name.startswith("lab_") for name in ours)
    helped = "\n".join(project.run_pytest("--help").outlines)
    (group,) = re.findall(r"^kube-proxy-lab .*?:\n(.*?)^\S", helped, re.MULTILINE | re.DOTALL)
    options = re.findall(r"^  (--[\w-]+)", group, re.MULTILINE)
    assert {"--lab-kernels", "--lab-kernels-limit", "--lab-keep", "--lab-family"} < set(options)
    assert all(option.startswith("--lab-") for option in options)
    assert "--kernels" not in helped


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (
            "lab_topology('kube-proxy', mode='nftables')",
            "lab_topology(mode='nftables'): there is no word 'mode' (*known: proxy_mode, proxy_version, backend,",
        ),
        (
            "lab_topology(node_name='w1')",
            "lab_topology(node_name='w1'): there is no word 'node_name' (did you mean 'node_zone'?",
        ),
        ("lab_topology('kube-proxy', 'endpoints')", "lab_topology(reference, *, proxy_mode"),
        ("lab_needs_tool()", "lab_needs_tool(name, ...)"),
        ("lab_needs_tool('nft', package='nftables')", "lab_needs_tool('nft', package='nftables') cannot be"),
        ("lab_kernel_feature('nfnetlink_lag')", "Modules: * nfnetlink_log,"),
    ],
)
def test_wrong_arguments_of_markers_are_usage_errors(project, marker, words):
    project.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(lab_running): pass")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *::test_it: *{words}*"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--lab-proxy-mode=ipvs", "*invalid choice: 'ipvs'*"),
        ("--lab-proxy-version=v9.9", "ERROR: --lab-proxy-version: 'v9.9' is no version of kube-proxy*"),
        ("--lab-cluster-cidr=10.0", "ERROR: --lab-cluster-cidr: '10.0' is no CIDR*"),
        ("--lab-masquerade-all=maybe", "ERROR: --lab-masquerade-all: must be true or false*"),
        ("--lab-kube-proxy-config=away.yaml", "ERROR: *away.yaml*: cannot be read: No such file*"),
        ("--lab-detect-local-mode=nodecidr", "ERROR: --lab-detect-local-mode: *did you mean 'NodeCIDR'*"),
        ("--lab-fix=prayer", "ERROR: --lab-fix: there is no fix 'prayer'*"),
        ("--lab-kernels-limit=60", "ERROR: --lab-kernels-limit is for guests*"),
    ],
)
def test_wrong_options_are_usage_errors(project, option, words):
    result = project.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
