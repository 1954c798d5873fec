"""`lab reach` as people call it: what it prints, and what it exits with."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from lab.results import reach_saved
from tests.support.command import lab
from tests.support.programs import each_program


@pytest.mark.lab_kernel
def test_a_table_of_clients_by_addresses_and_the_count_below():
    done = lab("reach", "--proxy-version", "v1.36")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "uplink, iptables v1.36 (nft), ipv4"
    [row] = [line for line in lines if line.startswith("│ outside")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["outside", "server, as 10.0.1.1", "server, as 10.0.1.1", "-", "server, as 203.0.113.2"]
    assert lines[-1] == "13 cells: 13 of 13 as Kubernetes documents it"


@pytest.mark.lab_kernel
def test_a_cell_that_differs_makes_the_exit_code_1_and_is_explained(tmp_path):
    """What is given as a fix takes something away here: the node's own firewall."""
    firewall = tmp_path / "firewall.nft"
    rule = "chain c { type filter hook forward priority 0; ip saddr 203.0.113.2 tcp dport 80 ct state new drop; }"
    firewall.write_text(f"table ip firewall {{\n{rule}\n}}\n")
    done = lab("reach", "--proxy-mode", "nftables", "--to", "nodeport", "--fix", firewall)
    assert done.returncode == 1
    assert "NOT AS EXPECTED" in done.stdout
    assert "outside to nodeport 203.0.113.1:30080/tcp: times out at node" in done.stdout
    assert "    expected: server, as 10.0.1.1: kubernetes.io/docs/" in done.stdout
    assert "came in by outside and went no further" in done.stdout
    assert done.stdout.splitlines()[-1] == "4 cells: 3 of 4 as Kubernetes documents it"
    [command] = re.findall("    rules:    lab (trace .*)", done.stdout)
    traced = lab(*shlex.split(command))
    assert traced.returncode == 0, traced.stderr
    assert re.search("firewall.* drop", traced.stdout), traced.stdout


@pytest.mark.lab_kernel
def test_json_has_every_cell():
    asked = ("reach", "services", "--from", "outside", "--service", "ranges", "--to", "loadbalancer", "--json")
    done = lab(*asked, "--proxy-version", "v1.31")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert (told["version"], told["command"]) == (reach_saved.VERSION, f"lab {' '.join(asked)} --proxy-version v1.31")
    [found] = told["reaches"]
    assert (found["topology"], found["proxies"], found["family"]) == ("services", "iptables v1.31 (nft)", "ipv4")
    [cell] = found["cells"]
    assert (cell["client"]["host"], cell["as_expected"], cell["surprises"]) == ("outside", True, [])
    assert cell["asked"] == {
        "service": "default/ranges:http",
        "target": "loadbalancer",
        "address": {"address": "198.18.0.4", "port": 80},
        "protocol": "tcp",
    }
    assert (cell["expected"]["fates"], cell["expected"]["at"]) == (["times out"], "node-a")
    assert cell["expected"]["why"].startswith("loadBalancerSourceRanges")
    assert (cell["reached"][0]["fate"], cell["reached"][0]["at"]) == ("times out", "node-a")
    assert "rule" not in cell["reached"][0]


@pytest.mark.lab_kernel
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_traced_the_rule_that_decided_is_named(mode, tmp_path):
    """One that leads a connection to its endpoint, one that refuses, and a firewall's that drops."""
    firewall = tmp_path / "firewall.nft"
    rule = "chain c { type filter hook forward priority 10; ip saddr 203.0.113.2 ct state new drop; }"
    firewall.write_text(f"table ip firewall {{\n{rule}\n}}\n")
    asked = ("reach", "services", "--proxy-mode", mode, "--proxy-version", "v1.33", "--trace", "--json")
    done = lab(*asked, "--fix", firewall, "--to", "nodeport", "--from", "outside", "--from", "client")
    [found] = json.loads(done.stdout)["reaches"]
    rules = {}
    for cell in found["cells"]:
        asked_of = (cell["client"]["host"], cell["asked"]["service"], cell["asked"]["address"]["address"])
        rules |= {(*asked_of, one["fate"]): one["rule"] for one in cell["reached"] if "rule" in one}
    led = rules["client", "default/proxied:http", "192.0.2.2", "connected"]
    assert re.match(r"led on at node-a by (nat KUBE-SEP|kube-proxy endpoint-)\S+ rule \d \(kube-proxy\): .*10\.", led)
    refused = rules["client", "default/nobody:http", "192.0.2.2", "refused"]
    assert re.match("dropped at node-a by .*(REJECT|reject)", refused)
    dropped = rules["outside", "default/proxied:http", "192.0.2.2", "times out"]
    assert dropped == "dropped at node-a by firewall c rule 1: ip saddr 203.0.113.2 ct state new drop"


@pytest.mark.lab_kernel
def test_what_was_found_is_told_again_from_its_file_and_as_a_page(tmp_path):
    first = lab("reach", "--proxy-version", "v1.36", "--html", "first.html", directory=tmp_path)
    (tmp_path / "reach.json").write_text(lab("reach", "--proxy-version", "v1.36", "--json").stdout)
    (tmp_path / "older.json").write_text(lab("reach", "--proxy-version", "v1.14", "--json").stdout)
    again = lab("report", "reach.json", "--html", "again.html", directory=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == first.stdout
    titles = {re.search("<h1.*</h1>", (tmp_path / name).read_text())[0] for name in ("first.html", "again.html")}
    assert len(titles) == 1
    both = lab("report", "older.json", "reach.json", directory=tmp_path)
    assert both.stdout.splitlines()[-1] == "26 cells with 2 kube-proxies: 26 of 26 as Kubernetes documents it"
    wrong = lab("report", "reach.json", "--md", "x.md", "--html", "y.html", directory=tmp_path)
    assert wrong.stderr == "lab: --md of what `lab reach` found out (take --json or --html)\n"
    assert (wrong.returncode, wrong.stdout, (tmp_path / "y.html").exists()) == (2, "", False)


@pytest.mark.lab_kernel
def test_versions_and_modes_stand_beside_each_other_and_what_is_left_out_is_told():
    asked = ("reach", "services", "--service", "leaving", "--from", "outside", "--to", "loadbalancer")
    done = lab(*asked, "--proxy-version", "v1.25,v1.26", "--proxy-mode", "both")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "lab: kube-proxy v1.25 has no nftables mode: left out",
        "lab: kube-proxy v1.26 has no nftables mode: left out",
    ]
    [row] = [line for line in done.stdout.splitlines() if line.startswith("│ outside")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[2:] == ["times out at node-a", "≠ server-a, as 203.0.113.2"]


@pytest.mark.lab_kernel
@pytest.mark.lab_kernel
def test_a_pipe_has_tables_as_wide_as_they_are_unless_it_is_given_a_width():
    words = ("reach", "services", "--service", "web:http", "--from", "outside")
    [row] = [line for line in lab(*words, COLUMNS=None).stdout.splitlines() if "192.168.0.2:80" in line]
    assert len(row) > 120
    assert "198.18.0.101:80/tcp" in row
    narrow = lab(*words, COLUMNS="60").stdout
    assert "198.18.0.101:80/tcp" in narrow
    assert "┃" not in narrow


@pytest.mark.lab_kernel
@pytest.mark.parametrize("version", ["v1.99", "v1.36,v1.99"])
def test_a_release_that_nobody_knows_yet_is_said_to_have_the_rules_of_the_last(version):
    ran = lab("reach", "--from", "client", "--to", "vip", "--proxy-version", version)
    assert ran.returncode == 0, ran.stdout
    assert "lab: What kube-proxy v1.99 writes is not known; these are the rules of v1.36.\n" in ran.stderr


def test_a_node_of_ones_own_is_asked_and_nothing_is_held_against_it(tmp_path):
    rules = lab("rules", "uplink", "--proxy-version", "v1.31", "--saved").stdout
    (tmp_path / "node.txt").write_text(rules)
    done = lab("reach", "--node", "node.txt", directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "endpoint-1, as " in done.stdout
    assert "what they decide is held against nothing" in " ".join(done.stdout.split())


@pytest.mark.lab_kernel
def test_a_topology_from_standard_input_is_read_once_for_all_versions():
    text = (Path(__file__).parents[2] / "topologies" / "uplink.yaml").read_text()
    done = lab("reach", "-", "--proxy-version", "v1.20,v1.36", "--from", "client", given=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 cells with 2 kube-proxies: 6 of 6 as Kubernetes documents it"


@pytest.mark.lab_kernel
@each_program
def test_a_real_kube_proxy_does_as_documented(program):
    """The renderer has no part in it: the rules are the program's own, and the expectations the documentation's."""
    done = lab("reach", "services", "--proxy-mode", "both", "--kube-proxy", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT AS EXPECTED" not in done.stdout
    assert re.search(r"([0-9,]+) of \1 as Kubernetes documents it", done.stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nope",), "nope: there is no such file or topology"),
        (("--json", "no/found.json"), "no/found.json: there is no such file (to write one: --json=no/found.json)"),
        (("--to", "vp"), "--to: there is no 'vp' (did you mean 'vip'?)"),
        (("--from", "clint"), "uplink: there is no host clint (did you mean 'client'?)"),
        (("--protocol", "udp"), "uplink: no port is for udp (there is: tcp)"),
        (("--repeat", "0"), "--repeat: must be a whole number, 1 or more, not '0'"),
        (("--proxy-mode", "nftables", "--proxy-version", "v1.20"), "kube-proxy v1.20 has no nftables mode"),
        (("--proxy-version", "v1.20,"), ""),
        (("--proxy-version", ","), "--proxy-version ',' names none (write v1.20,v1.36)"),
    ],
)
def test_mistakes_are_told_in_a_line(words, said):
    done = lab("reach", *words)
    assert (done.returncode, done.stderr.startswith(f"lab: {said}")) == ((2, True) if said else (0, False)), done.stderr
