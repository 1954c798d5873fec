"""What a test needs and the machine lacks."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import pytest

from lab.errors import MissingError
from lab.netns import features
from tests.support import cover
from tests.support.command import python

CHECKOUT = Path(__file__).resolve().parents[2]


NEEDY = """
    import pytest
    @pytest.mark.lab_needs_tool("cat", "frobnicate")
    def test_tool(): pass
    @pytest.mark.lab_needs_tool("iptables-legacy-restore")
    def test_program(): pass
    @pytest.mark.lab_kernel_feature("CONFIG_NET", "CONFIG_OF_NOBODYS")
    def test_option(): pass
    @pytest.mark.lab_kernel_feature("nf_conntrack", "CONFIG_NET")
    def test_feature(): pass
    @pytest.mark.skip(reason="of their own")
    def test_other(): pass
"""


def test_what_is_missing_is_skipped_and_said_aloud(project, monkeypatch):
    bare = project.mkdir("bin")
    (bare / "cat").symlink_to("/bin/cat")
    monkeypatch.setenv("PATH", str(bare))
    monkeypatch.setattr(sys, "executable", sys.executable)
    project.makeconftest(
        """
        import lab.netns.features, lab.netns.program
        lab.netns.program.EXTRA_PATH = ()
        lab.netns.features._kernel_options = lambda: {"CONFIG_NET": "y", "CONFIG_NF_CONNTRACK": "y"}
        """
    )
    project.makepyfile(NEEDY)
    result = project.run_pytest()
    result.assert_outcomes(passed=1, skipped=4)
    result.stdout.fnmatch_lines(
        [
            "*= 3 tests were not run =*",
            "there is no program 'frobnicate' on PATH: mend its name, or install what brings it",
            "    *::test_tool",
            "iptables-legacy-restore is not installed: apt install iptables",
            "    *::test_program",
            "the kernel was built without CONFIG_OF_NOBODYS: boot one with CONFIG_OF_NOBODYS=y or =m",
            "    *::test_option",
            "*= 1 passed, 4 skipped in *",
        ]
    )


# Without one of these a trial would run, and come to the wrong outcome; so both doors to the one runner must ask.
WITHOUT = """
    import lab.netns.features
    options = dict.fromkeys(lab.netns.features.MODULES.values(), "y")
    del options["{option}"]
    lab.netns.features._kernel_options = lambda: options
"""

NEEDS_OF_THE_KERNEL = [
    ("CONFIG_IP_NF_IPTABLES", "ip_tables", "in-window", {"backend": "legacy"}),
    ("CONFIG_IP6_NF_IPTABLES", "ip6_tables", "in-window", {"backend": "legacy", "family": "ipv6"}),
    ("CONFIG_NFT_COMPAT", "nft_compat", "in-window", {"backend": "nft"}),
    ("CONFIG_BRIDGE_NETFILTER", "br_netfilter", "promiscuous-bridge", {}),
]


@pytest.mark.lab_kernel
@pytest.mark.parametrize(("option", "module", "case", "said"), cover.sample(NEEDS_OF_THE_KERNEL, 1))
def test_what_a_trial_needs_of_the_kernel_is_asked_for_by_the_fixtures(project, option, module, case, said):
    project.makeconftest(WITHOUT.format(option=option))
    project.makepyfile(
        f"""
        import pytest

        def test_trial(lab_trial): lab_trial({case!r}, **{said})
        @pytest.mark.lab_topology(**{said})
        def test_lab(lab_running): pass
        def test_what_needs_none_of_it(lab_trial): assert lab_trial("in-window", proxy_mode="nftables").as_expected
        """
    )
    result = project.run_pytest()
    of_the_backend = int(bool(said))  # what a case needs beyond it, a lab without that case does not
    result.assert_outcomes(passed=2 - of_the_backend, skipped=1 + of_the_backend)
    result.stdout.fnmatch_lines(
        [f"the kernel was built without {module}: boot one with {option}=y or =m", "    *::test_trial"]
    )


@pytest.mark.lab_kernel
@pytest.mark.parametrize(("option", "module", "case", "said"), NEEDS_OF_THE_KERNEL)
def test_and_by_the_command(option, module, case, said):
    options = [f"--{word}={value}" for word, value in said.items()]
    code = f"""{textwrap.dedent(WITHOUT.format(option=option))}
import sys
sys.argv = ["lab", "run", "{case}", "--fix=none", *{options}]
from lab.__main__ import main; main()
"""
    done = python("-c", code, directory=CHECKOUT)
    needed = f"not run: {case} with none: the kernel was built without {module}: boot one with {option}=y or =m"
    assert needed in done.stdout.replace("\n", " "), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "NOTHING WAS TRIED: what it takes is missing."


@pytest.mark.parametrize(
    ("options", "name", "missing"),
    [
        ({"CONFIG_NETFILTER_NETLINK_LOG": "y"}, "nfnetlink_log", None),
        ({"CONFIG_NETFILTER_NETLINK_LOG": "m"}, "nfnetlink_log", "module nfnetlink_log is missing"),
        ({"CONFIG_NET": "y"}, "nfnetlink_log", "CONFIG_NETFILTER_NETLINK_LOG=y or =m"),
        ({"CONFIG_NET": "m"}, "CONFIG_NET", None),
        ({}, "nfnetlink_log", None),
    ],
)
def test_features_are_known_by_the_kernels_options(monkeypatch, options, name, missing):
    monkeypatch.setattr(features, "_kernel_options", lambda: options)
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"release": "0.0-nobodys"}))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    if missing is None:
        features.require(name)
    else:
        with pytest.raises(MissingError, match=missing):
            features.require(name)


def test_where_no_options_are_known_the_list_of_modules_tells(monkeypatch):
    monkeypatch.setattr(features, "_kernel_options", dict)
    monkeypatch.setattr(features, "_modules", lambda _release: "kernel/drivers/net/veth.ko.xz:\n")
    monkeypatch.setattr(Path, "exists", lambda path: False)
    features.require("veth")
    with pytest.raises(MissingError, match="the kernel has no sch_htb: boot one with CONFIG_NET_SCH_HTB=y or =m"):
        features.require("sch_htb")


@pytest.mark.lab_kernel
def test_root_of_a_user_namespace_is_not_root(project):
    project.makepyfile(
        """
        import pytest
        @pytest.mark.lab_needs_root
        def test_before(): pass
        @pytest.mark.lab_kernel
        def test_entered():
            import os
            assert os.geteuid() == 0
        @pytest.mark.lab_needs_root
        def test_after(): pass
        """
    )
    result = project.run_pytest(start=project.ORDINARY)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*= 2 tests were not run =*", "needs root of the machine: run it with sudo"])


@pytest.mark.lab_needs_root
def test_root_of_the_machine_is_root(project):
    project.makepyfile("import pytest\n@pytest.mark.lab_needs_root\ndef test_it(): pass")
    project.run_pytest().assert_outcomes(passed=1)
