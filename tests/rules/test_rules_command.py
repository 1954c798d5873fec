"""`lab rules` as people call it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.command import lab, python, shown_on_terminal

HERE = Path(__file__).parent

NODE = ("--node-name", "worker-1", "--node-address", "192.0.2.9", "--cluster-cidr", "10.244.0.0/16")


def test_a_list_from_stdin(lab_rules, objects):
    text = lab_rules("-", "--proxy-version", "v1.29", *NODE, given=objects.read_text(), code=0).stdout
    assert text.startswith("# worker-1: kube-proxy ipv4\n*filter\n")
    assert "! -s 10.244.0.0/16 -j KUBE-MARK-MASQ" in text
    assert text.count("--to-destination") == 11
    ipv6 = lab_rules(objects, "--family", "ipv6", "--proxy-version", "v1.20", code=0).stdout
    assert ipv6.startswith("# kube-proxy ipv6\n")
    assert "--to-destination [fd00:244::1]:8080" in ipv6
    assert "add table ip kube-proxy" in lab_rules(objects, "--proxy-mode", "nftables", code=0).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("kube-proxy", "--node-address", "10.0.0.1"), "--node-address: the topology kube-proxy decides that"),
        (("kube-proxy", "--json"), "--json is for differences, changes and sysctls (give --diff FILE, --since"),
        (("kube-proxy", "--saved", "--sysctls"), "--saved and --sysctls (give one of them)"),
        (("kube-proxy", "--sysctls", "--proxy-mode", "nftables", "--proxy-version", "v1.28"), "has no nftables mode"),
        (("kube-proxy", "--sysctls", "--backend", "nft"), "--backend, and kube-proxy writes the same for both"),
        (("kube-proxy", "--saved", "--diff", "x"), "--diff and --saved (give one of them)"),
        (("-", "--diff", "-"), "standard input twice, by --diff and SOURCE (give one of them as a file)"),
        (("kube-proxy", "--diff", "/no/such"), "/no/such: cannot be read: No such file or directory"),
        (("kube-proxy", "--diff", "/dev/null"), "/dev/null: empty: there are no rules in it"),
        (("kube-proxy", "--diff", __file__), f"{__file__}:1: this is no dump of rules"),
        (("kube-proxy", "--node-name", "other"), "no host with proxy-mode is named 'other'"),
        (("OBJECTS", "--proxy-mode", "nftables", "--backend", "nft"), "--backend is for iptables mode"),
        (("OBJECTS", "--backend", "nft"), "--backend, and kube-proxy writes the same for both (give --saved too)"),
        (
            ("OBJECTS", "--service-cidr", "10.96.0.0/12"),
            "--service-cidr: is for nftables mode: iptables mode makes nothing of it (leave it away)",
        ),
        (("kube-proxy", "--proxy-version", ""), "'' is no version of kube-proxy (write it as v1.33"),
        (("OBJECTS", "--proxy-version="), "'' is no version of kube-proxy (write it as v1.33"),
        (("kube-proxy", "--proxy-version", "auto"), "--proxy-version auto, and nothing to fit (give --diff FILE too)"),
        (
            ("kube-proxy", "--proxy-version", "auto", "--since", "v1.28"),
            "--proxy-version auto, and nothing to fit (name the release that --since is for)",
        ),
        (
            ("kube-proxy", "--proxy-version", "auto", "--sysctls"),
            "--proxy-version auto, and nothing to fit (name the release that --sysctls is for)",
        ),
        (("kube-proxy", "--diff", ""), "lab: '': cannot be read: Is a directory"),
        (("",), "lab: SOURCE: '' names nothing (is a variable of the shell empty?)"),
        (
            ("OBJECTS", "--proxy-mode", "nftables", "--proxy-version", "v1.32", "--service-cidr", "10.96.0.0/12"),
            "--service-cidr: kube-proxy v1.32 does not know it (v1.33 is the first that does)",
        ),
        (("OBJECTS", "--proxy-mode", "nftables", "--proxy-version", "v1.20"), "has no nftables mode"),
        (("OBJECTS", "--node-address", "here"), "--node-address: 'here'"),
    ],
)
def test_mistakes_are_one_line(lab_rules, objects, arguments, words):
    done = lab_rules(*(objects if one == "OBJECTS" else one for one in arguments), code=2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_sysctls(lab_rules, objects):
    shown = lab_rules("--sysctls", "--proxy-version", "v1.25", code=0).stdout.splitlines()
    assert shown[0] == "# node: v1.25, iptables mode"
    assert [line for line in shown if not line.startswith("#")] == [
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait = 3600",
        "net.ipv4.conf.all.route_localnet = 1",
    ]
    assert sum(line.startswith("# only where it is less") for line in shown) == 2

    nodes = lab_rules("two-nodes", "--sysctls", "--proxy-mode", "nftables", "--json", code=0).json()
    assert [node["node"] for node in nodes] == ["node-a", "node-b"]
    assert (nodes[0]["mode"], nodes[0]["known"]) == ("nftables", True)
    [node] = lab_rules("--sysctls", "--json", "--proxy-version", "v1.40", code=0).json()
    assert (node["version"], node["known"]) == ("v1.40", False)
    assert nodes[0]["sysctls"] == [
        {"name": "net.netfilter.nf_conntrack_tcp_timeout_established", "value": 86400, "only_raised": False},
        {"name": "net.netfilter.nf_conntrack_tcp_timeout_close_wait", "value": 3600, "only_raised": False},
    ]
    unknown = lab_rules(objects, "--sysctls", "--proxy-mode", "nftables", "--proxy-version", "v1.40", code=0).stdout
    assert "# What kube-proxy v1.40 writes is not known" in unknown
    assert "# net.ipv4.conf.all.route_localnet is left as it is" in unknown


def test_a_malformed_object_is_refused_by_its_path(lab_rules, objects):
    given = objects.read_text().replace("port: 8080", "port: 80800", 1)
    done = lab_rules("-", given=given, code=2)
    line = given[: given.index("port: 80800")].count("\n") + 1
    assert done.stderr.startswith(f"lab: <stdin>:{line}: items[1].ports[0].port: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (("--masquerade-all",), 'cluster IP" -m tcp -p tcp -d 192.168.0.2 --dport 80 -j KUBE-MARK-MASQ'),
        (("--cluster-cidr=10.9.0.0/16,fd00::/64",), "--dport 80 ! -s 10.9.0.0/16 -j KUBE-MARK-MASQ"),
        (("--cluster-cidr", "fd00::/64", "--cluster-cidr", "10.9.0.0/16"), "! -s 10.9.0.0/16 -j KUBE-MARK-MASQ"),
        (
            ("--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix=veth"),
            "--dport 80 ! -i veth+ -j KUBE-MARK-MASQ",
        ),
        (("--detect-local-mode=NodeCIDR", "--node-pod-cidr=10.0.1.0/24"), "! -s 10.0.1.0/24 -j KUBE-MARK-MASQ"),
        (
            ("--nodeport-addresses", "10.0.0.0/24"),
            '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports;',
        ),
        (("--iptables-localhost-nodeports=false",), "-m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j KUBE-NODEPORTS"),
        (("--iptables-masquerade-bit", "3"), "-A KUBE-MARK-MASQ -j MARK --or-mark 0x00000008"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_setting_shapes_the_rules(lab_rules, settings, rule):
    """Also a flag that stands alone before what is no value of it, as kube-proxy takes its own."""
    plain = lab_rules("kube-proxy", "--proxy-version", "v1.29", code=0).stdout
    shaped = lab_rules("--proxy-version", "v1.29", *settings, "kube-proxy", code=0).stdout
    assert rule in shaped
    assert shaped != plain


def test_be_liberal_is_without_the_drop(lab_rules):
    drop = "--ctstate INVALID -j DROP"
    assert drop in lab_rules("--proxy-version", "v1.29", code=0).stdout
    assert drop not in lab_rules("--proxy-version", "v1.29", "--conntrack-tcp-be-liberal", code=0).stdout
    assert drop in lab_rules("--proxy-version", "v1.29", "--conntrack-tcp-be-liberal=false", code=0).stdout


def test_kube_proxys_own_file(lab_rules, objects, tmp_path):
    file = tmp_path / "config.conf"
    file.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n"
        "clusterCIDR: 10.9.0.0/16\nhostnameOverride: worker-1\nclusterCidr: x\n"
    )
    done = lab_rules(objects, "--kube-proxy-config", file, code=0)
    assert done.stdout.startswith("# worker-1: kube-proxy ipv4\nadd table ip kube-proxy")
    assert "ip saddr != 10.9.0.0/16" in done.stdout
    words = "clusterCidr: unknown field of KubeProxyConfiguration, left out (did you mean 'clusterCIDR'?)"
    assert done.stderr == f"lab: {file}:6: {words}\n"
    iptables = ("--proxy-mode=iptables", "--proxy-version=v1.29")
    shaped = lab_rules(objects, "--kube-proxy-config", file, "--cluster-cidr", "10.8.0.0/16", *iptables, code=0).stdout
    assert "! -s 10.8.0.0/16" in shaped
    on_stdin = lab_rules(objects, "--kube-proxy-config", "-", given=file.read_text(), code=0)
    assert on_stdin.stdout == done.stdout
    both = lab_rules("-", "--kube-proxy-config", "-", code=2)
    assert both.stderr == "lab: standard input twice, by --kube-proxy-config and SOURCE (give one of them as a file)\n"


def test_what_has_to_be_known_is_said_beside_the_rules(lab_rules):
    done = lab_rules("--proxy-mode", "nftables", "--proxy-version", "1.33", code=0)
    assert done.stderr.startswith("lab: v1.33 stands for its newest patch: it has filters-after-dnat (v1.33.6)")
    done = lab_rules("--proxy-version", "v1.37", "--since", "v1.36", code=0)
    assert done.stderr == "lab: What kube-proxy v1.37 writes is not known; these are the rules of v1.36.\n"
    done = lab_rules(HERE / "hints-node.yaml", "--proxy-version", "v1.34", code=0)
    assert done.stderr.count("which are not used") == 2
    known = ("--node-name=w1", "--node-zone=z1")
    done = lab_rules(HERE / "hints-node.yaml", "--proxy-version=v1.34", *known, code=0)
    assert "kube-proxy v1.34 can lose the node's zone when it starts" in done.stderr
    assert lab_rules(HERE / "hints-node.yaml", "--proxy-version=v1.33.1", *known, code=0).stderr == ""


def test_one_external_ip_of_two_services(lab_rules):
    """kube-proxy writes both rules in iptables mode, and one element in nftables mode."""
    arguments = (HERE / "same-external-ip.yaml", "--proxy-version", "v1.33.5", "--node-name", "w1")
    done = lab_rules(*arguments, code=0)
    words = "v/a and v/b both claim 192.0.2.77 80/tcp: kube-proxy sends it to either, by chance; here it goes to v/a"
    assert done.stderr == f"lab: {words}\n"
    assert re.findall(r'"(v/\w) has no endpoints" -m tcp -p tcp -d 192.0.2.77', done.stdout) == ["v/a", "v/b"]
    done = lab_rules(*arguments, "--proxy-mode", "nftables", code=0)
    assert done.stderr == f"lab: {words}\n"
    assert done.stdout.count("no-endpoint-services { 192.0.2.77 . tcp . 80") == 1


@pytest.mark.parametrize("claim", ["clusterIP: 10.96.2.7", "nodePort: 30000"])
def test_what_is_allocated_twice_is_refused(lab_rules, claim):
    text = (HERE / "same-external-ip.yaml").read_text().replace("clusterIP: 10.96.2.8", "clusterIP: 10.96.2.9")
    if claim.startswith("clusterIP"):
        text = text.replace("clusterIP: 10.96.2.9", claim)
    else:
        text = text.replace("spec: {", "spec: {type: NodePort, ").replace("{port: 80}", f"{{port: 80, {claim}}}")
    done = lab_rules("-", given=text, code=2)
    assert done.stderr.startswith("lab: v/a: and v/b: both claim ")


def test_an_unknown_field_is_named_and_left_out(lab_rules, objects):
    text = objects.read_text()
    given = text.replace("spec:\n", "spec:\n    sessionAfinity: None\n", 1)
    assert given != text
    done = lab_rules("-", "--proxy-version", "v1.29", *NODE, given=given, code=0)
    line = given[: given.index("sessionAfinity")].count("\n") + 1
    assert done.stderr.startswith(f"lab: <stdin>:{line}: items[")
    assert done.stderr.endswith("].spec.sessionAfinity: unknown field, left out (did you mean 'sessionAffinity'?)\n")
    assert done.stdout == lab_rules("-", "--proxy-version", "v1.29", *NODE, given=text, code=0).stdout


@pytest.mark.lab_kernel
class TestKernel:
    @pytest.fixture(params=[("--proxy-version", "v1.29"), ("--proxy-mode", "nftables", "--proxy-version", "v1.36")])
    def options(self, request):
        return (*request.param, *NODE)

    def test_saved(self, lab_rules, objects):
        text = lab_rules(objects, "--saved", "--proxy-version", "v1.29", *NODE, code=0).stdout
        assert re.findall(r"^\*\w+", text, re.MULTILINE) == ["*mangle", "*filter", "*nat"]
        assert "--probability 0.33333333349" in text  # as the kernel keeps it
        assert not re.search(r"\[(?!0:0\])\d+:\d+\]|^\[|^# Generated", text, re.MULTILINE)

    @pytest.mark.parametrize("mode", ["iptables", "nftables"])
    def test_one_external_ip_of_two_services_can_be_loaded(self, lab_rules, mode):
        lab_rules(HERE / "same-external-ip.yaml", "--saved", "--proxy-mode", mode, "--proxy-version=v1.33.5", code=0)

    def test_saved_by_nft(self, lab_rules, objects):
        text = lab_rules(objects, "--saved", "--proxy-mode", "nftables", *NODE, code=0).stdout
        assert text.startswith("# worker-1: kube-proxy ipv4\ntable ip kube-proxy {\n")

    def test_the_same(self, lab_rules, objects, options):
        text = lab_rules(objects, "--saved", *options, code=0).stdout
        done = lab_rules(objects, "--diff", "-", *options, given=text, code=0)
        assert done.stdout.startswith("<stdin> has the rules of kube-proxy v1.")
        assert lab_rules(objects, "--diff", "-", "--json", *options, given=text, code=0).json()[0]["differences"] == []

    def test_the_dump_chooses_the_mode(self, lab_rules, objects):
        text = lab_rules(objects, "--saved", "--proxy-mode", "nftables", code=0).stdout
        lab_rules(objects, "--diff", "-", given=text, code=0)
        done = lab_rules(objects, "--diff", "-", "--proxy-mode", "iptables", given=text, code=2)
        assert "give --proxy-mode nftables" in done.stderr

    def test_another_version(self, lab_rules, tmp_path):
        """The bug itself: a node without the INVALID drop."""
        node = tmp_path / "node.txt"
        node.write_text(lab_rules("--saved", "--proxy-version", "v1.14", code=0).stdout)
        done = lab_rules("--diff", node, "--proxy-version", "v1.15", code=1)
        heading, row, cause, fits, verdict = done.stdout.splitlines()
        assert heading.split() == ["chain", "rule"]
        assert row.split(None, 3) == ["missing", "filter", "KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP"]
        assert cause == "The difference: The rules are those of kube-proxy v1.14 (give --proxy-version v1.14)."
        assert fits == "v1.14 fits without a difference then."
        differs = "1 missing; it changes where packets go."
        assert verdict == f"{node} differs from the rules of kube-proxy v1.15 (iptables, ipv4): {differs}"

    def test_json_of_differences(self, lab_rules, objects, tmp_path):
        node = tmp_path / "node.txt"
        options = ("--proxy-version", "v1.29", *NODE)
        text = lab_rules(objects, "--saved", *options, code=0).stdout
        node.write_text(text.replace("--to-destination 10.244.1.4:53", "--to-destination 10.244.9.9:53", 1))
        [answer] = lab_rules(objects, "--diff", node, "--json", *options, code=1).json()
        [difference] = answer["differences"]
        assert (answer["same"], answer["mode"], answer["version"]) == (False, "iptables", "v1.29")
        assert answer["notes"] == []
        assert difference["kind"] == "different"
        assert difference["table"] == "nat"
        assert difference["found"] == difference["expected"].replace("10.244.1.4:53", "10.244.9.9:53")
        assert difference["found"] in node.read_text().splitlines()[difference["line"] - 1]

    def test_of_a_part_what_is_there_is_compared(self, lab_rules, objects, options):
        """Cut off, or picked out by grep: nothing is called missing of which nothing is known."""
        text = lab_rules(objects, "--saved", *options, code=0).stdout
        cut = text[: int(len(text) * 0.9)]
        if "nftables" in options:  # braces tell that it is cut off, and nothing what is
            done = lab_rules(objects, "--diff", "-", *options, given=cut, code=2)
            assert f"<stdin>:{cut.count(chr(10)) + 1}: ends within the table" in done.stderr
            return
        picked = "".join(line for line in text.splitlines(keepends=True) if "-A" in line and "shop/web" in line)
        for given, words in ((cut, "the table nat has no end"), (picked, "lines outside of any table")):
            done = lab_rules(objects, "--diff", "-", *options, given=given, code=0)
            assert "Only a part of what iptables-save prints: " in done.stdout
            assert words in done.stdout
            assert "What is there of <stdin> is as kube-proxy v1.29 writes it (iptables, ipv4)." in done.stdout
            other = given.replace("10.244.1.1:8080", "10.244.9.9:8080").replace("10.244.1.1/", "10.244.9.9/")
            done = lab_rules(objects, "--diff", "-", *options, given=other, code=1)
            assert "10.244.9.9" in done.stdout

    def test_a_part_and_a_wrong_name_are_one_cause(self, lab_rules, options):
        """What grep found of one Service, on a node that takes itself for another."""
        given = HERE.parent / "node" / "given"
        name, cidr = ("--node-name", "worker-one.corp.example"), ("--cluster-cidr", "10.44.0.0/16")
        command = (given / "dump-objs.yaml", "--diff", given / "dump-node_grep.txt", *name, *cidr)
        [answer] = lab_rules(*command, "--proxy-version", "v1.20", "--json", code=1).json()
        assert answer["partial"]
        [cause] = answer["causes"]
        assert cause["setting"] == "--node-name"
        assert "Every local endpoint of worker-one.corp.example is missing" in cause["sentence"]
        assert [(one["kind"], one["line"]) for one in answer["differences"]] == [("extra", 7)]

    def test_without_programs_it_can_be_compared_but_not_saved(self, lab_rules, objects, tmp_path):
        """Exit code 1 is an answer, and 2 is none."""
        node = tmp_path / "node.txt"
        options = ("--proxy-version", "v1.29", *NODE)
        node.write_text(lab_rules(objects, "--saved", *options, code=0).stdout.replace("DNAT", "SNAT", 1))

        def without_programs(*arguments):
            hidden = (
                "import sys, lab.netns.program as program; program.EXTRA_PATH = ()\n"
                f"sys.argv = ['lab', 'rules', {str(objects)!r}, *{arguments!r}, *{options!r}]\n"
                "from lab.__main__ import main; main()"
            )
            return python("-c", hidden, PATH=str(tmp_path))

        compared = without_programs("--diff", str(node))
        assert (compared.returncode, compared.stderr) == (1, "")
        done = without_programs("--saved")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "lab: iptables-nft-restore is not installed: apt install iptables\n"

    def test_very_many_are_written_and_not_loaded_and_that_is_said(self, objects):
        code = (
            "import sys, lab.rules.saving as saving; saving.MANY = 10\n"
            f"sys.argv = ['lab', 'rules', {str(objects)!r}, '--saved', '--proxy-version', 'v1.29']\n"
            "from lab.__main__ import main; main()"
        )
        done = python("-c", code)
        assert done.returncode == 0
        assert re.fullmatch(r"lab: \d+ lines, written as iptables-save prints them and not loaded .*\n", done.stderr)
        assert "--probability 0.33333333349" in done.stdout

    def test_a_terminal_is_told_what_is_done(self, objects):
        said = shown_on_terminal("rules", objects, "--proxy-version", "v1.29", "--saved")
        assert f"reading {objects} ...".encode() in said
        assert b"loading and saving the rules ..." in said
        assert said.endswith(b" \r")

    def test_several_nodes_want_a_name(self, lab_rules, tmp_path):
        two = tmp_path / "two.yaml"
        two.write_text("topology: pair\nhosts: {a: {proxy-mode: iptables}, b: {proxy-mode: iptables}}\n")
        text = lab_rules(two, "--saved", "--node-name", "a", code=0).stdout
        done = lab_rules(two, "--diff", "-", given=text, code=2)
        assert "has several nodes: a, b (say by --node-name whose rules these are)" in done.stderr
        lab_rules(two, "--diff", "-", "--node-name", "b", given=text, code=0)

    @pytest.mark.lab_needs_root
    def test_saved_without_root(self, lab_rules, objects, tmp_path):
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        nobody = (
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        )
        done = subprocess.run(
            [*nobody, sys.executable, "-m", "lab", "rules", "-", "--saved", "--proxy-version", "v1.20"],
            input=objects.read_text(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        if "user namespace" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        assert ":KUBE-SERVICES - [0:0]" in done.stdout

    def test_what_explains_it_is_said_and_then_fits(self, lab_rules, objects, tmp_path):
        """As somebody would meet it: another release, and another name of the node."""
        node = tmp_path / "node.txt"
        there = ("--proxy-version", "v1.31", *NODE)
        node.write_text(lab_rules(objects, "--saved", *there, code=0).stdout)
        here = ("--proxy-version", "v1.20", *NODE[2:], "--node-name", "worker-2")
        said = lab_rules(objects, "--diff", node, *here, code=1).stdout
        assert "is the node's name worker-1? (give --node-name worker-1)" in said
        assert re.search(
            r"differences: The rules are those of kube-proxy v1\.\d+ to v1\.\d+ \(give --proxy-version v", said
        )
        assert " fit without a difference then." in said
        assert re.search(r"differs from the rules of kube-proxy v1.20 .*; \d+ of them change where packets go\.$", said)
        cure = re.search(r"give --proxy-version (\S+)\)", said)[1]
        lab_rules(objects, "--diff", node, "--proxy-version", cure, *NODE, code=0)
        done = lab_rules(objects, "--diff", node, "--proxy-version", "auto", *NODE, code=0)
        assert re.search(rf"has the rules of kube-proxy (v1\.\S+ to )?{re.escape(cure)} \(", done.stdout)

    def test_json_has_effects_causes_and_what_fits(self, lab_rules, objects, tmp_path):
        node = tmp_path / "node.txt"
        text = lab_rules(objects, "--saved", "--proxy-version", "v1.31", *NODE, code=0).stdout
        node.write_text(text.replace("*nat\n", "*nat\n:KUBE-XLB-AAAAAAAAAAAAAAAA - [0:0]\n"))
        [answer] = lab_rules(objects, "--diff", node, "--json", "--proxy-version", "v1.31", *NODE, code=1).json()
        assert (answer["same"], answer["changes_traffic"], answer["causes"]) == (False, False, [])
        [one] = answer["differences"]
        assert (one["kind"], one["effect"], one["name"]) == ("extra", "unused", "KUBE-XLB-AAAAAAAAAAAAAAAA")
        assert one["note"] == "KUBE-XLB chains of v1.23 or earlier, unused"
        assert "v1.31" in answer["fitting_versions"]
        assert answer["known"]
        assert (answer["fitting_first"], answer["fitting_last"]) == ("v1.31", "v1.36")
        [done] = lab_rules(objects, "--diff", node, "--json", "--proxy-version", "v1.20", *NODE, code=1).json()
        assert done["changes_traffic"]
        [cause] = done["causes"]
        assert (cause["setting"], cause["explains"]) == ("--proxy-version", len(done["differences"]) - 1)
        assert {one["cause"] for one in done["differences"]} == {0, None}

    def test_what_changes_nothing_is_one_line(self, lab_rules, objects, tmp_path):
        node = tmp_path / "node.txt"
        text = lab_rules(objects, "--saved", "--proxy-version", "v1.29", *NODE, code=0).stdout
        node.write_text(text.replace("service portals", "service gates"))
        done = lab_rules(objects, "--diff", node, "--proxy-version", "v1.29", *NODE, code=1)
        first, *_ = done.stdout.split("\n")
        assert first == "6 differences change nothing for a packet: 6 in comments alone."
        assert "6 different; none of them changes where packets go." in done.stdout


def test_what_is_piped_on_is_not_filled_with_blanks(lab_rules, objects, tmp_path):
    """Nor folded, however long a rule is."""
    dump = tmp_path / "node.txt"
    dump.write_text(lab_rules(objects, "--saved", "--proxy-version", "v1.32", code=0).stdout)
    lines = lab_rules(objects, "--diff", dump, "--proxy-version", "v1.32", *NODE, code=1).stdout.splitlines()
    assert any(len(line) > 120 for line in lines)
    assert [line for line in lines if line != line.rstrip()] == []


def test_an_archive_is_named_for_what_it_is(tmp_path):
    archive = tmp_path / "node.tar"
    with tarfile.open(archive, "w") as made:
        made.add(__file__, "iptables-nft-save.txt")
    done = lab("rules", "kube-proxy", "--diff", str(archive))
    assert done.returncode == 2
    assert done.stderr == (f"lab: {archive}: an archive (unpack it, and give iptables-nft-save.txt or nft.txt of it)\n")
