"""The plugin in somebody else's project: every run is a pytest of its own, as a user's would be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from lab.errors import MissingError
from lab.netns import features
from lab.plugin import hooks
from tests.support.command import pytest_in

CHECKOUT = Path(__file__).resolve().parents[2]

# Makes the caller an ordinary user without any right, whose files are still his own.
ORDINARY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")

# A user namespace in which no further one may be made, and nobody has any right.
FORBIDDEN = ("unshare", "--user", "--map-root-user", "sh", "-c")
FORBIDDEN += ('echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"', "sh")

STAYS = """
    import os
    HOME = os.readlink("/proc/self/ns/net")
    def test_stays_in_the_network():
        assert os.readlink("/proc/self/ns/net") == HOME
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """A project of somebody's, in an environment where this distribution is installed."""
    if not entry_points(group="pytest11", name="lab"):
        pytester.mkdir("kube_proxy_lab-0.dist-info")
        for name, text in (
            ("METADATA", "Metadata-Version: 2.1\nName: kube-proxy-lab\nVersion: 0\n"),
            ("entry_points.txt", "[pytest11]\nlab = lab.plugin.hooks\n"),
        ):
            (pytester.path / "kube_proxy_lab-0.dist-info" / name).write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
        pytester.syspathinsert()
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(pytester.path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    return pytester


def command(*arguments, start=()):
    """Give the command of a run in which every warning is an error."""
    return (*start, sys.executable, "-mpytest", "-pno:cacheprovider", "-Werror", *arguments)


def run(project, *arguments, start=(), **more):
    if start or more:
        return project.run(*command(*arguments, start=start), **more)
    return pytest_in(project.path, "-Werror", *arguments)


# --- at load --------------------------------------------------------------------------------------


def test_loading_it_imports_next_to_nothing():
    script = "import sys, pytest; old = set(sys.modules); import lab.plugin.hooks; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"lab", "lab.errors", "lab.netns.features", "lab.vocabulary", "lab.plugin.hooks"}


def test_other_projects_keep_their_names(project):
    project.makeini("[pytest]\nmarkers = topology: ours")
    project.makepyfile(
        test_stays=STAYS,
        test_names="""
        import pytest
        @pytest.fixture
        def lab(): return "a dog"
        @pytest.fixture
        def trial(lab): return lab
        @pytest.mark.topology("t0", "t1", of=2)
        def test_dog(lab, trial, request):
            assert lab == trial == "a dog"
            assert not request.node.get_closest_marker("kernel")
        """,
    )
    run(project).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        (
            "topology('kube-proxy', mode='nftables')",
            "topology(mode='nftables'): there is no word 'mode' (*known: proxy_mode, proxy_version, backend,",
        ),
        (
            "topology(node_name='w1')",
            "topology(node_name='w1'): there is no word 'node_name' (did you mean 'node_zone'?",
        ),
        ("topology('kube-proxy', 'endpoints')", "topology(reference, *, proxy_mode"),
        ("needs_tool()", "needs_tool(name, ...)"),
        ("needs_tool('nft', package='nftables')", "needs_tool('nft', package='nftables') cannot be"),
        ("kernel_feature('nfnetlink_lag')", "Modules: * nfnetlink_log,"),
    ],
)
def test_wrong_arguments_of_markers_are_usage_errors(project, marker, words):
    project.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(lab): pass")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *::test_it: *{words}*"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--lab-proxy-mode=ipvs", "*invalid choice: 'ipvs'*"),
        ("--lab-proxy-version=v9.9", "ERROR: 'v9.9' is no version of kube-proxy*"),
        ("--lab-cluster-cidr=10.0", "ERROR: cluster_cidr: '10.0' is no CIDR*"),
        ("--lab-masquerade-all=maybe", "ERROR: masquerade_all: must be true or false*"),
        ("--lab-kube-proxy-config=away.yaml", "ERROR: *away.yaml*: cannot be read: No such file*"),
        ("--lab-fix=prayer", "ERROR: there is no fix 'prayer'*"),
        ("--kernels-limit=60", "ERROR: --kernels-limit is for guests*"),
    ],
)
def test_wrong_options_are_usage_errors(project, option, words):
    result = project.runpytest_inprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])


# --- the fixtures ---------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("start", [(), ORDINARY], ids=["privileged", "ordinary"])
def test_five_lines_are_enough(project, start):
    project.makepyfile(
        """
        import getpass
        try:
            NAME = getpass.getuser()
        except (KeyError, OSError):
            NAME = "unknown"

        def test_reset(trial):
            assert trial("beyond-window").verdict.outcome == "reset"

        def test_addresses(lab):
            assert "192.168.0.2" in lab.run("node", "iptables-nft-save", "-t", "nat")

        # And what the process is left with: its name, its files, and a loopback.
        def test_afterwards(tmp_path):
            import socket
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname()).close()
            (tmp_path / "file").write_text("")
            assert tmp_path.parents[1].name == "pytest-of-" + NAME
        """
    )
    run(project, start=start).assert_outcomes(passed=3)


@pytest.mark.kernel
def test_topologies_are_named_by_name_file_text_or_object(project):
    text = (CHECKOUT / "topologies/kube-proxy.yaml").read_text()
    project.mkdir("inside")
    (project.path / "inside/mine.yaml").write_text(text.replace("topology: kube-proxy", "topology: mine"))
    (project.path / "inside/test_topologies.py").write_text(
        """
import pytest
from ipaddress import ip_interface
from pathlib import Path
from lab.topology.model import End, Host, Link, Topology

PAIR = Topology("pair", (Host("a"), Host("b")), (
    Link((End("a", "x", (ip_interface("10.0.0.1/24"),)), End("b", "y", (ip_interface("10.0.0.2/24"),)))),))

@pytest.mark.topology("kube-proxy")
def test_name(lab):
    assert lab.topology.name == "kube-proxy"

@pytest.mark.topology("mine.yaml")
def test_file(lab):
    assert lab.topology.name == "mine"

@pytest.mark.topology(Path("mine.yaml"))
def test_path(lab):
    assert lab.topology.name == "mine"

@pytest.mark.topology("topology: alone\\nhosts: {one: }\\n")
def test_text(lab):
    assert list(lab.hosts) == ["one"]

@pytest.mark.topology(PAIR)
def test_object(lab):
    assert lab.topology == PAIR
    assert "x:" in lab.run("a", "cat", "/proc/net/dev")
    assert "10.0.0.2" in lab.run("b", "cat", "/proc/net/fib_trie")

def test_default(lab):
    assert lab.topology.name == "kube-proxy"

@pytest.mark.topology("mine.yaml", proxy_version="v1.15", family="ipv6")
class TestNearestWordWins:
    def test_outer(self, lab):
        (node,) = lab.topology.nodes
        assert (lab.topology.name, node.proxy_version, lab.family) == ("mine", "v1.15", "ipv6")
        assert "fd00" in lab.describe() and "10.0.0" not in lab.describe()
        assert "--ctstate INVALID -j DROP" in lab.rules()

    @pytest.mark.topology(proxy_version="v1.14", backend="legacy")
    def test_inner(self, lab):
        (node,) = lab.topology.nodes
        assert (lab.topology.name, node.proxy_version, node.backend) == ("mine", "v1.14", "legacy")
        assert "legacy" not in lab.rules().split("\\n")[1] and "INVALID" not in lab.rules()
"""
    )
    run(project, "inside").assert_outcomes(passed=8)


@pytest.mark.kernel
def test_what_cannot_be_built_is_told_in_a_line(project):
    project.makepyfile(
        """
        import pytest
        @pytest.mark.topology("kube-proxi")
        def test_name(lab): pass
        @pytest.mark.topology("away.yaml")
        def test_file(lab): pass
        @pytest.mark.topology("topology: x\\nhosts: {a: {forwardin: true}}\\n")
        def test_text(lab): pass
        @pytest.mark.topology(proxy_mode="ipvs")
        def test_word(lab): pass
        @pytest.mark.topology(42)
        def test_number(lab): pass
        """
    )
    result = run(project)
    result.assert_outcomes(errors=5)
    result.stdout.fnmatch_lines(
        [
            "kube-proxi: there is no such file or topology (*kube-proxy*)",
            "*/away.yaml: there is no such file or topology",
            "<inline>:2: hosts.a.forwardin: *(*forwarding*)",
            "there is no proxy mode 'ipvs' (one of: iptables, nftables)",
            "no topology: 42 (*)",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "another exception" not in result.stdout.str()


@pytest.mark.kernel
def test_settings_of_kube_proxy_are_words_as_well(project):
    """In a marker, a call and an option; what is nearest to the test counts, and all before the file."""
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    project.mkdir("inside")
    (project.path / "inside/beside.yaml").write_text(f"{head}clusterCIDR: 10.7.0.0/16\nmode: nftables\n")
    (project.path / "started.yaml").write_text(f"{head}clusterCIDR: 10.8.0.0/16\n")
    (project.path / "inside/test_settings.py").write_text(
        """
import pytest

def pods(lab):
    [node] = lab.topology.nodes
    return [str(cidr) for cidr in node.cluster_cidrs]

def test_option(lab):
    [node] = lab.topology.nodes
    assert (node.masquerade_all, pods(lab), node.proxy_mode) == (True, ["10.8.0.0/16"], "iptables")
    assert "--dport 80 -j KUBE-MARK-MASQ" in lab.rules()

@pytest.mark.topology(kube_proxy_config="beside.yaml", proxy_version="1.33")
def test_file_beside(lab):
    [node] = lab.topology.nodes
    assert (pods(lab), node.proxy_mode) == (["10.7.0.0/16"], "nftables")
    assert "kube-proxy v1.33 in nftables mode" in lab.describe()

@pytest.mark.topology(cluster_cidr="10.9.0.0/16", masquerade_all=False)
class TestMarked:
    def test_marker(self, lab):
        assert pods(lab) == ["10.9.0.0/16"]
        assert not lab.topology.nodes[0].masquerade_all

    def test_call(self, trial):
        result = trial("beyond-window", proxy_version="1.29.1", conntrack_tcp_be_liberal=True)
        assert result.verdict.outcome == "delivered" and result.as_expected
        assert result.trial.proxy_version == "v1.29.1"
        assert set(result.trial.settings) == {
            "--cluster-cidr=10.9.0.0/16", "--masquerade-all=false", "--conntrack-tcp-be-liberal=true"}

def test_unknown(trial):
    trial("beyond-window", masquerad_all=True)

def test_too_new(trial):
    trial("beyond-window", conntrack_tcp_be_liberal=True)
"""
    )
    result = run(project, "--lab-masquerade-all=true", "--lab-kube-proxy-config=started.yaml", "inside")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*there is no setting 'masquerad_all' of kube-proxy (did you mean 'masquerade_all'?)",
            "*conntrack_tcp_be_liberal: kube-proxy v1.14 does not know it (v1.29 is the first that does)",
        ]
    )


@pytest.mark.kernel
def test_options_fill_in_what_tests_leave_open(project):
    project.makepyfile(
        """
        import pytest
        from lab.fixes import BE_LIBERAL

        def test_open(trial):
            assert trial("beyond-window").verdict.outcome == "dropped"

        @pytest.mark.topology(fix="none")
        def test_marked(trial):
            assert trial("beyond-window").verdict.outcome == "reset"
            assert trial("beyond_window", fix=BE_LIBERAL).verdict.outcome == "delivered"
            result = trial("beyond-window", backend="legacy")
            assert result.trial.backend == "legacy" and result.as_expected

        def test_lab(lab):
            assert lab.fix.name == "drop-forward"
        """
    )
    run(project, "--lab-fix=drop-forward").assert_outcomes(passed=3)


@pytest.mark.kernel
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

        def test_held_up(trial):
            assert trial(dataclasses.replace(find("in-window"), steps=steps)).as_expected
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*HeldUpWarning: in-window with none is tried again: the machine kept the trial *"])


@pytest.mark.kernel
def test_a_trial_runs_where_the_marker_says_or_in_its_own_topology(project):
    project.makepyfile(
        """
        import pytest

        def test_own(trial):
            assert trial("client-on-node-in-window").trial.topology == "uplink"

        @pytest.mark.topology("dns")
        def test_marked(trial):
            assert trial("client-on-node-in-window").trial.topology == "dns"

        @pytest.mark.topology("kube-proxy")
        def test_cannot(trial):
            trial("client-on-node-in-window")
        """
    )
    result = run(project)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines("*client-on-node-in-window cannot run in kube-proxy: it needs node to have a default*")


def test_a_service_is_chosen_by_marker_call_and_option(project):
    several = (CHECKOUT / "tests" / "selection" / "several.yaml").read_text()
    project.path.joinpath("several.yaml").write_text(several)
    project.makepyfile(
        """
        import pytest
        pytestmark = pytest.mark.topology("several.yaml")

        def test_first(trial):
            assert trial("in-window").trial.service == "green/web"

        def test_called(trial):
            seen = trial("in-window", service="db:admin")
            assert (seen.trial.service, str(seen.timeline.target)) == ("green/db:admin", "172.22.0.3:8080")

        @pytest.mark.topology("several.yaml", service="db")
        def test_marked(lab):
            async def steps(scenario):
                await scenario.establish()
                await scenario.inject(scenario.from_server(0, scenario.next_bytes(10)))
                await scenario.go_on()
            lab.try_steps(steps)
            assert str(lab.timeline.target) == "172.22.0.3:5432"
        """
    )
    run(project, "--lab-service=green/web").assert_outcomes(passed=3)


def test_a_connection_of_ones_own(project):
    project.makepyfile(
        """
        import os, threading
        import pytest
        from lab.errors import InputError, LabError

        async def disturb(scenario):
            await scenario.establish()
            await scenario.inject(scenario.from_server(2**29, b"forged"))
            await scenario.go_on()

        def test_steps(lab):
            verdict = lab.try_steps(disturb)
            assert (verdict.outcome, verdict.judgement) == ("reset", "INVALID")
            assert lab.timeline.injected.offset == 2**29
            with pytest.raises(LabError, match="was used already"):
                lab.try_steps(disturb)
            with pytest.raises(InputError, match="no host 'nobody' .one of: client, node, server"):
                lab.run("nobody", "true")

        @pytest.mark.topology("topology: alone\\nhosts: {one: }\\n")
        def test_nobody_to_ask(lab):
            with pytest.raises(InputError, match="a client and a node"):
                lab.try_steps(disturb)
            assert lab.timeline is None

        REFUSE = '''table inet refuse {
            chain forward { type filter hook forward priority 0; meta l4proto tcp reject with tcp reset; }
        }'''

        def test_refused(lab):
            async def steps(scenario):
                lab.hosts["node"].nft.run(REFUSE)
                await scenario.establish()
            assert lab.try_steps(steps).outcome == "refused"

        def namespaces():
            for thread in threading.enumerate():
                if thread.name == "reaper":
                    thread.join()
            links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            names = [os.readlink(link) for link in links if os.path.lexists(link)]
            return sum(name.startswith("net:") for name in names)

        def test_the_last_trials_lab_lives(trial):
            for _ in range(3):
                trial("beyond-window")
            assert namespaces() == 3

        def test_nothing_is_left():
            assert namespaces() == 0
        """
    )
    run(project).assert_outcomes(passed=5)


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_a_failure_shows_what_was_seen(project):
    project.makepyfile(
        """
        def test_wrong(trial):
            assert trial("beyond-window", fix="drop-forward").verdict.outcome == "reset"
        def test_broken_off(lab):
            async def steps(scenario):
                await scenario.establish()
                raise ValueError("enough")
            lab.try_steps(steps)
        def test_fine(lab):
            pass
        """
    )
    result = run(project, "-rA")
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
    def test_fine(lab): pass
    def test_fails(lab): assert not "what was promised"
"""


@pytest.mark.kernel
@pytest.mark.parametrize("start", [(), ORDINARY], ids=["privileged", "ordinary"])
def test_keep_leaves_the_failing_lab_until_enter(project, start):
    project.makepyfile(FAILS)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command("--lab-keep", start=start), cwd=project.path, **pipes) as pytest_:
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


@pytest.mark.kernel
def test_keep_waits_for_nothing_where_nothing_failed(project):
    project.makepyfile("def test_fine(lab): pass")
    result = run(project, "--lab-keep", stdin=subprocess.PIPE, timeout=60)
    result.assert_outcomes(passed=1)


@pytest.mark.kernel
def test_a_shell_that_is_not_there_is_said_and_another_opened(project, monkeypatch):
    monkeypatch.setenv("SHELL", "/no/such/shell")
    project.makepyfile(FAILS)
    result = run(project, "--lab-shell-on-failure", stdin=b"echo I was $((40 + 2))\n")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["SHELL: there is no program '/no/such/shell': *; until then /bin/sh", "I was 42"])


@pytest.mark.kernel
def test_shell_on_failure_is_on_the_node(project, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/sh")
    project.makepyfile(FAILS)
    result = run(project, "--lab-shell-on-failure", stdin=b"cat /proc/net/dev\necho I was $((40 + 2))\n")
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


# --- what is missing ------------------------------------------------------------------------------

NEEDY = """
    import pytest
    @pytest.mark.needs_tool("cat", "frobnicate")
    def test_tool(): pass
    @pytest.mark.needs_tool("iptables-legacy-restore")
    def test_program(): pass
    @pytest.mark.kernel_feature("CONFIG_NET", "CONFIG_OF_NOBODYS")
    def test_option(): pass
    @pytest.mark.kernel_feature("nf_conntrack", "CONFIG_NET")
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
        lab.netns.program._EXTRA_PATH = ()
        lab.netns.features._kernel_options = lambda: {"CONFIG_NET": "y", "CONFIG_NF_CONNTRACK": "y"}
        """
    )
    project.makepyfile(NEEDY)
    result = run(project)
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


WITHOUT_LEGACY = """
    import pytest

    def test_trial(trial): trial("in-window", backend="legacy")
    @pytest.mark.topology(backend="legacy")
    def test_lab(lab): pass
    def test_case_by_another_backend(trial): assert trial("in-window", backend="nft").as_expected
"""


@pytest.mark.kernel
def test_what_a_backend_needs_of_the_kernel_is_asked_for_by_both_fixtures(project):
    project.makeconftest(
        """
        import lab.netns.features
        options = dict.fromkeys(lab.netns.features.MODULES.values(), "y")
        del options["CONFIG_IP_NF_IPTABLES"]
        lab.netns.features._kernel_options = lambda: options
        """
    )
    project.makepyfile(WITHOUT_LEGACY)
    result = run(project)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["the kernel was built without ip_tables: boot one with CONFIG_IP_NF_IPTABLES=y or =m", "    *::test_trial"]
    )


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


@pytest.mark.kernel
def test_root_of_a_user_namespace_is_not_root(project):
    project.makepyfile(
        """
        import pytest
        @pytest.mark.needs_root
        def test_before(): pass
        @pytest.mark.kernel
        def test_entered():
            import os
            assert os.geteuid() == 0
        @pytest.mark.needs_root
        def test_after(): pass
        """
    )
    result = run(project, start=ORDINARY)
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*= 2 tests were not run =*", "needs root of the machine: run it with sudo"])


@pytest.mark.needs_root
def test_root_of_the_machine_is_root(project):
    project.makepyfile("import pytest\n@pytest.mark.needs_root\ndef test_it(): pass")
    run(project).assert_outcomes(passed=1)


NEEDS_KERNEL = """
    import pytest
    @pytest.mark.kernel
    def test_kernel(): pass
    def test_lab(lab): pass
    def test_trial(trial): pass
"""


@pytest.mark.kernel
def test_where_user_namespaces_are_forbidden_kernel_tests_are_skipped_aloud(project):
    project.makepyfile(NEEDS_KERNEL + STAYS)
    result = run(project, start=FORBIDDEN)
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
    run(project, "-mnot kernel", start=FORBIDDEN).assert_outcomes(passed=1, deselected=3)


@pytest.mark.kernel
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
    project.makepyfile(NEEDS_KERNEL + STAYS)
    result = run(project, start=ORDINARY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*= 3 tests were not run =*", "no rights: set the sysctl"])


@pytest.mark.kernel
def test_where_threads_run_kernel_tests_are_skipped_aloud(project):
    project.makeconftest(
        """
        import threading
        release = threading.Event()
        threading.Thread(target=release.wait).start()
        def pytest_unconfigure(): release.set()
        """
    )
    project.makepyfile(NEEDS_KERNEL + STAYS)
    result = run(project, start=ORDINARY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*= 3 tests were not run =*", "*this process runs threads already; *unshare -Urn *"])


# --- with xdist -----------------------------------------------------------------------------------

needs_xdist = pytest.mark.skipif(
    find_spec("xdist") is None,
    reason=f"{hooks._SKIPPED}pytest-xdist is not installed: pip install pytest-xdist",
)


@needs_xdist
@pytest.mark.kernel
@pytest.mark.parametrize("start", [(), ORDINARY], ids=["privileged", "ordinary"])
def test_xdist_workers_are_in_the_namespace_of_their_controller(project, start):
    project.makeini("[pytest]\nrequired_plugins = kube-proxy-lab")
    project.makepyfile(NEEDS_KERNEL)
    run(project, "-n2", start=start).assert_outcomes(passed=3)


@needs_xdist
@pytest.mark.kernel
def test_xdist_alone_is_no_reason_to_leave_the_network(project):
    project.makepyfile(NEEDS_KERNEL + STAYS)
    home = os.readlink("/proc/self/ns/net")
    project.makeconftest(f"import os\ndef pytest_unconfigure(): assert os.readlink('/proc/self/ns/net') == {home!r}")
    result = run(project, "-n2", start=ORDINARY)
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["*= 3 tests were not run =*", "*this process runs threads already; *unshare -Urn *"])


@needs_xdist
def test_xdist_has_no_terminal_for_a_shell(project):
    result = run(project, "-n2", "--lab-shell-on-failure")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *leave out -n"])
