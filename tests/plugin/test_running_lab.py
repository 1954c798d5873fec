"""The fixture ``lab_running``."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lab.errors import InputError, LabError
from tests.support.programs import pretended

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.mark.lab_kernel
def test_five_lines_are_enough(project, start):
    project.makepyfile(
        """
        import getpass
        try:
            NAME = getpass.getuser()
        except (KeyError, OSError):
            NAME = "unknown"

        def test_reset(lab_trial):
            assert lab_trial("beyond-window").verdict.outcome == "reset"

        def test_addresses(lab_running):
            assert "192.168.0.2" in lab_running.run("node", "iptables-nft-save", "-t", "nat")

        # And what the process is left with: its name, its files, and a loopback.
        def test_afterwards(tmp_path):
            import socket
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname()).close()
            (tmp_path / "file").write_text("")
            assert tmp_path.parents[1].name == "pytest-of-" + NAME
        """
    )
    project.run_pytest(start=start).assert_outcomes(passed=3)


@pytest.mark.lab_kernel
def test_topologies_are_named_by_name_file_text_or_object(project):
    text = (CHECKOUT / "topologies/kube-proxy.yaml").read_text()
    project.mkdir("inside")
    (project.path / "inside/mine.yaml").write_text(text.replace("topology: kube-proxy", "topology: mine"))
    (project.path / "inside/test_topologies.py").write_text(
        """
import pytest

from tests.support.programs import pretended
from ipaddress import ip_interface
from pathlib import Path
from lab.topology.model import End, Host, Link, Topology

PAIR = Topology("pair", (Host("a"), Host("b")), (
    Link((End("a", "x", (ip_interface("10.0.0.1/24"),)), End("b", "y", (ip_interface("10.0.0.2/24"),)))),))

@pytest.mark.lab_topology("kube-proxy")
def test_name(lab_running):
    assert lab_running.topology.name == "kube-proxy"

@pytest.mark.lab_topology("mine.yaml")
def test_file(lab_running):
    assert lab_running.topology.name == "mine"

@pytest.mark.lab_topology(Path("mine.yaml"))
def test_path(lab_running):
    assert lab_running.topology.name == "mine"

@pytest.mark.lab_topology("topology: alone\\nhosts: {one: }\\n")
def test_text(lab_running):
    assert list(lab_running.hosts) == ["one"]

@pytest.mark.lab_topology(PAIR)
def test_object(lab_running):
    assert lab_running.topology == PAIR
    assert "x:" in lab_running.run("a", "cat", "/proc/net/dev")
    assert "10.0.0.2" in lab_running.run("b", "cat", "/proc/net/fib_trie")

def test_default(lab_running):
    assert lab_running.topology.name == "kube-proxy"

@pytest.mark.lab_topology("mine.yaml", proxy_version="v1.15", family="ipv6")
class TestNearestWordWins:
    def test_outer(self, lab_running):
        (node,) = lab_running.topology.nodes
        assert (lab_running.topology.name, node.proxy_version, lab_running.family) == ("mine", "v1.15", "ipv6")
        assert "fd00" in lab_running.describe() and "10.0.0" not in lab_running.describe()
        assert "--ctstate INVALID -j DROP" in lab_running.ruleset()

    @pytest.mark.lab_topology(proxy_version="v1.14", backend="legacy")
    def test_inner(self, lab_running):
        (node,) = lab_running.topology.nodes
        assert (lab_running.topology.name, node.proxy_version, node.backend) == ("mine", "v1.14", "legacy")
        assert "legacy" not in lab_running.ruleset().split("\\n")[1] and "INVALID" not in lab_running.ruleset()
"""
    )
    project.run_pytest("inside").assert_outcomes(passed=8)


@pytest.mark.lab_kernel
def test_what_cannot_be_built_is_told_in_a_line(project):
    project.makepyfile(
        """
        import pytest
        @pytest.mark.lab_topology("kube-proxi")
        def test_name(lab_running): pass
        @pytest.mark.lab_topology("away.yaml")
        def test_file(lab_running): pass
        @pytest.mark.lab_topology("topology: x\\nhosts: {a: {forwardin: true}}\\n")
        def test_text(lab_running): pass
        @pytest.mark.lab_topology(proxy_mode="ipvs")
        def test_word(lab_running): pass
        @pytest.mark.lab_topology(42)
        def test_number(lab_running): pass
        @pytest.mark.lab_topology(service="no/such")
        def test_service(lab_running): pass
        """
    )
    result = project.run_pytest()
    result.assert_outcomes(errors=6)
    result.stdout.fnmatch_lines(
        [
            "kube-proxi: there is no such file or topology (*kube-proxy*)",
            "*/away.yaml: there is no such file or topology",
            "<inline>:2: hosts.a.forwardin: *(*forwarding*)",
            "lab_topology(proxy_mode=...): there is no 'ipvs' (known: iptables, nftables)",
            "no topology: 42 (*)",
            "lab_topology(service=...): kube-proxy: there is no Service no/such*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "another exception" not in result.stdout.str()


@pytest.mark.lab_kernel
def test_settings_of_kube_proxy_are_words_as_well(project):
    """In a marker, a call and an option; what is nearest to the test counts, and all before the file."""
    head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
    project.mkdir("inside")
    (project.path / "inside/beside.yaml").write_text(f"{head}clusterCIDR: 10.7.0.0/16\nmode: nftables\n")
    (project.path / "started.yaml").write_text(f"{head}clusterCIDR: 10.8.0.0/16\n")
    (project.path / "inside/test_settings.py").write_text(
        """
import pytest

from lab.errors import InputError
from tests.support.programs import pretended

def pods(running):
    [node] = running.topology.nodes
    return [str(cidr) for cidr in node.cluster_cidrs]

def test_option(lab_running):
    [node] = lab_running.topology.nodes
    assert (node.masquerade_all, pods(lab_running), node.proxy_mode) == (True, ["10.8.0.0/16"], "iptables")
    assert "--dport 80 -j KUBE-MARK-MASQ" in lab_running.ruleset()

@pytest.mark.lab_topology(kube_proxy_config="beside.yaml", proxy_version="1.33")
def test_file_beside(lab_running):
    [node] = lab_running.topology.nodes
    assert (pods(lab_running), node.proxy_mode) == (["10.7.0.0/16"], "nftables")
    assert "kube-proxy v1.33 in nftables mode" in lab_running.describe()

@pytest.mark.lab_topology(cluster_cidr="10.9.0.0/16", masquerade_all=False)
class TestMarked:
    def test_marker(self, lab_running):
        assert pods(lab_running) == ["10.9.0.0/16"]
        assert not lab_running.topology.nodes[0].masquerade_all

    def test_call(self, lab_trial):
        result = lab_trial("beyond-window", proxy_version="1.29.1", conntrack_tcp_be_liberal=True)
        assert result.verdict.outcome == "delivered" and result.as_expected
        assert result.trial.proxy_version == "v1.29.1"
        assert set(result.trial.settings) == {
            "--cluster-cidr=10.9.0.0/16", "--masquerade-all=false", "--conntrack-tcp-be-liberal=true"}

def test_unknown(lab_trial):
    lab_trial("beyond-window", masquerad_all=True)

def test_too_new(lab_trial):
    lab_trial("beyond-window", conntrack_tcp_be_liberal=True)
"""
    )
    result = project.run_pytest("--lab-masquerade-all=true", "--lab-kube-proxy-config=started.yaml", "inside")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*there is no setting 'masquerad_all' of kube-proxy (did you mean 'masquerade_all'?)",
            "*conntrack_tcp_be_liberal=...): kube-proxy v1.14 does not know it (v1.29 is the first that does)",
        ]
    )


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

        def test_steps(lab_running):
            verdict = lab_running.try_steps(disturb)
            assert (verdict.outcome, verdict.judgement) == ("reset", "INVALID")
            assert lab_running.timeline.injected.offset == 2**29
            with pytest.raises(LabError, match="was used already"):
                lab_running.try_steps(disturb)
            with pytest.raises(InputError, match="there is no host 'nobody'"):
                lab_running.run("nobody", "true")

        @pytest.mark.lab_topology("topology: alone\\nhosts: {one: }\\n")
        def test_nobody_to_ask(lab_running):
            with pytest.raises(InputError, match="a client and a node"):
                lab_running.try_steps(disturb)
            assert lab_running.timeline is None

        REFUSE = '''table inet refuse {
            chain forward { type filter hook forward priority 0; meta l4proto tcp reject with tcp reset; }
        }'''

        def test_refused(lab_running):
            async def steps(scenario):
                lab_running.hosts["node"].nft.run(REFUSE)
                await scenario.establish()
            assert lab_running.try_steps(steps).outcome == "refused"

        def namespaces():
            for thread in threading.enumerate():
                if thread.name == "reaper":
                    thread.join()
            links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            names = [os.readlink(link) for link in links if os.path.lexists(link)]
            return sum(name.startswith("net:") for name in names)

        def test_the_last_trials_lab_lives(lab_trial):
            for _ in range(3):
                lab_trial("beyond-window")
            assert namespaces() == 3

        def test_nothing_is_left():
            assert namespaces() == 0
        """
    )
    project.run_pytest().assert_outcomes(passed=5)


@pytest.mark.lab_kernel
def test_a_kube_proxy_program_is_an_option_and_a_word(project, tmp_path):
    path = pretended(tmp_path, does="echo F1129 broken; exit 255")
    project.makepyfile(
        test_program="""
        import pytest
        def test_option(lab_running): pass
        @pytest.mark.lab_topology("kube-proxy", kube_proxy="/bin/cat")
        def test_word(lab_running): pass
        def test_trial(lab_trial):
            with pytest.raises(Exception, match="F1129 broken"):
                lab_trial("beyond-window")
        """
    )
    done = project.run_pytest("--lab-kube-proxy", path)
    done.assert_outcomes(errors=2, passed=1)
    done.stdout.fnmatch_lines([f"*{path} ended: F1129 broken", "*kube_proxy=...): /bin/cat is no kube-proxy*"])
    done = project.run_pytest("--lab-kube-proxy", "nowhere")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done = project.run_pytest("--lab-kube-proxy", path, "--lab-kernels", "newest")
    assert done.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.lab_kernel
def test_conntracks_entries_of_a_host_are_listed_deleted_and_flushed(lab_running):
    client, node = lab_running.hosts["client"].namespace, lab_running.conntrack("node")
    for port in (7, 8):
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as lone:
            lone.sendto(b"hello", ("10.0.1.2", port))

    def ports():  # kernels send something of their own now and then
        lines = (str(flow) for flow in node)
        return sorted(int(line.partition(" dport=")[2].split()[0]) for line in lines if line.startswith("udp      17 "))

    assert ports() == [7, 8]
    [gone] = node.delete(destination="10.0.1.2:7")
    assert gone.original.ports["dport"] == 7
    assert ports() == [8]
    node.flush()
    assert ports() == []
    with pytest.raises(InputError, match="there is no host 'nod'"):
        lab_running.conntrack("nod")


@pytest.mark.lab_kernel
@pytest.mark.lab_topology("kube-proxy", proxy_mode="nftables", family="ipv4")
def test_services_change_and_nodes_lag_while_their_kube_proxy_is_stopped(lab_running):
    def rules():
        return lab_running.run("node", "nft", "list", "ruleset")

    service = (
        "{apiVersion: v1, kind: Service, metadata: {name: other}, spec: {clusterIP: 192.168.0.7, ports: [{port: 9}]}}"
    )
    lab_running.stop_kube_proxy("node")
    lab_running.services.add(service)
    assert [known.service for known in lab_running.services] == ["default/web", "default/other"]
    assert "192.168.0.7" not in rules()
    lab_running.start_kube_proxy("node")
    assert "192.168.0.7" in rules()
    with pytest.raises(InputError, match="there is a Service default/other already"):
        lab_running.services.add(service)
    lab_running.services.apply(service.replace("192.168.0.7", "192.168.0.8"))
    assert "192.168.0.7" not in rules()
    lab_running.services.remove("other", "web")
    lab_running.restart_kube_proxy("node")
    assert "192.168.0" not in rules()
    assert list(lab_running.endpoints) == []


ECHO = """
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {clusterIP: 192.168.0.7, ports: [{port: 9, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
endpoints: [{addresses: [10.0.1.2]}]
ports: [{port: 9009, protocol: UDP}]
"""


@pytest.mark.lab_kernel
@pytest.mark.lab_needs_tool("curl")
def test_servers_answer_at_the_endpoints_as_those_of_lab_up_do(lab_running):
    def curl(address):
        return lab_running.run("client", "curl", "-sS", "--max-time", "10", f"http://{address}")

    assert curl("192.168.0.2").startswith("server 10.0.1.2:80 answers 10.0.0.2:")
    assert curl("[fd00:192:168::2]").startswith("server [fd00:10:0:1::2]:80 answers [fd00:10::2]:")
    lab_running.services.add(ECHO)
    with lab_running.hosts["client"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.sendto(b"hello", ("192.168.0.7", 9))
        assert client.recvfrom(10) == (b"hello", ("192.168.0.7", 9))
    lab_running.stop_servers()
    with pytest.raises(LabError, match=r"[Cc]onnect"):
        curl("192.168.0.2")
    with lab_running.hosts["server"].namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
        own.bind(("10.0.1.2", 80))  # there is room for one's own
