"""What is said of a node of the user's own where its rules are strict, are a part, or are printed as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.node.read import read
from lab.trial.own_node import own_node
from tests.support.command import lab

JSON = Path(__file__).parents[1] / "node/given/nft-ruleset.json"
V4 = "v1.28.3/iptables-v4.txt"

pytestmark = pytest.mark.lab_kernel


def answer(file: Path, *more: str) -> str:
    done = lab("run", "beyond-window", "--fix", "none", "--node", str(file), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[0]


def first(text: str, *rules: str) -> str:
    """Put rules before all others of the table filter."""
    place = text.index("-A ", text.index("*filter"))
    return text[:place] + "".join(f"{rule}\n" for rule in rules) + text[place:]


@pytest.mark.parametrize("last", ["DROP", "REJECT --reject-with icmp-port-unreachable"])
def test_a_node_that_lets_only_tcp_through_is_judged(last: str, dump: Callable[[str], str], tmp_path: Path):
    file = tmp_path / "node.txt"
    rules = ("-A FORWARD -p tcp -m conntrack ! --ctstate INVALID -j ACCEPT", f"-A FORWARD -j {last}")
    file.write_text(first(dump(V4), *rules))
    said = answer(file)
    assert said.startswith("NOT AFFECTED: ")
    assert "dropped by filter FORWARD line 2" in said
    assert f"-j {last}" in said


def test_a_node_that_drops_everything_is_not_judged_and_the_rule_is_named(dump: Callable[[str], str], tmp_path: Path):
    file = tmp_path / "node.txt"
    file.write_text(first(dump(V4), "-A FORWARD -j DROP"))
    said = answer(file)
    assert said.startswith("NOT KNOWN: ")
    assert "no connection by the Service comes about there: dropped by filter FORWARD line " in said


def test_a_dump_without_the_table_filter_says_nothing_of_a_drop(dump: Callable[[str], str], tmp_path: Path):
    file = tmp_path / "node.txt"
    text = dump(V4)
    file.write_text(text[text.index("*nat") :])
    said = answer(file)
    assert said.startswith("NOT KNOWN: as far as these rules tell, ")
    assert said.endswith(f"but {file} is only a part of what iptables-save prints: there is no table filter.")


def test_of_rules_without_endpoints_it_is_said_what_is_missing(dump: Callable[[str], str], tmp_path: Path):
    file = tmp_path / "node.txt"
    file.write_text("".join(line for line in dump(V4).splitlines(keepends=True) if "SVC" in line))
    done = lab("run", "--node", str(file))
    assert done.returncode == 2
    assert "there is no table filter" in done.stderr


def test_a_liberal_node_is_thanked_by_its_sysctl(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    (tmp_path / "sysctl.txt").write_text("net.netfilter.nf_conntrack_tcp_be_liberal = 1\n")
    said = answer(tmp_path)
    assert said.startswith("NOT AFFECTED: ")
    assert said.endswith("not INVALID there, as net.netfilter.nf_conntrack_tcp_be_liberal=1 has it.")


def test_a_packet_that_leaks_resets_nothing_where_the_rst_is_dropped(dump: Callable[[str], str], tmp_path: Path):
    file = tmp_path / "node.txt"
    file.write_text(first(dump(V4), "-A FORWARD -i eth0 -j ACCEPT"))
    said = answer(file)
    assert said.startswith("NOT AFFECTED: ")
    assert "; its RST is dropped by filter KUBE-FORWARD line " in said


def test_what_nft_prints_as_json_is_loaded():
    """It has maps before the chains to which they lead."""
    kinds = [next(iter(one)) for one in json.loads(JSON.read_text())["nftables"]]
    assert kinds.index("map") < kinds.index("chain")
    assert "NOT AFFECTED: " in (said := answer(JSON))
    assert "dropped by hostfw forward rule 1: " in said


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mine.sh", "#!/bin/sh\necho oh no >&2\nexit 3\n", "ended with exit code 3: oh no"),
        ("mine.conf", "net.nosuch.key = 1\n", "net.nosuch.key = 1 cannot be set here: No such file or directory"),
        ("mine.nft", "table inet x {\n chain f { bananas }\n}\n", "mine.nft:2: not loaded here: syntax error"),
        ("mine.v4", "*filter\n-I NOSUCH 1 -j DROP\nCOMMIT\n", "mine.v4:2: not loaded here: "),
    ],
)
def test_a_fix_that_cannot_be_made_is_one_error(
    name: str, text: str, words: str, dump: Callable[[str], str], tmp_path: Path
):
    (tmp_path / "node.txt").write_text(dump(V4))
    (tmp_path / name).write_text(text)
    done = lab("run", "beyond-window", "--node", str(tmp_path / "node.txt"), "--fix", str(tmp_path / name))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout.count("AFFECTED") == 1


def test_an_endpoint_of_the_clients_own_network_is_reached_by_the_node(dump: Callable[[str], str], tmp_path: Path):
    """The client's bridge has an address of the endpoints' network: what goes to one of them goes by the node."""
    (tmp_path / "rules.txt").write_text(dump("v1.28.3/iptables-v4-dual.txt"))
    addresses = [
        {"ifname": "cni0", "addr_info": [{"local": "10.244.1.1", "prefixlen": 24}]},
        {"ifname": "eth0", "addr_info": [{"local": "192.168.50.10", "prefixlen": 24}]},
    ]
    routes = [
        {"dst": "default", "gateway": "192.168.50.1", "dev": "eth0"},
        {"dst": "10.244.1.0/24", "dev": "cni0"},
    ]
    (tmp_path / "ip-addr.json").write_text(json.dumps(addresses))
    (tmp_path / "ip-route.json").write_text(json.dumps(routes))
    own = own_node(read([str(tmp_path)]), service="default/dual-itp-local")
    beside = [note.split()[0] for note in own.notes if "is a pod of this node" in note]
    assert beside
    assert answer(tmp_path, "--service", "default/dual-itp-local").startswith("NOT AFFECTED: ")


def test_what_a_rule_says_in_brackets_is_printed_as_it_is(dump: Callable[[str], str], tmp_path: Path):
    """And not taken for what a terminal is told of colors; `[/b]` without its beginning would be an error there."""
    file = tmp_path / "node.txt"
    said = '-m comment --comment "[b]mine[/i]"'
    unknown = '-A FORWARD -m nosuchmatch --comment "[/a]" -j DROP'
    rules = (f"-A FORWARD {said} -m conntrack --ctstate INVALID -j DROP", unknown)
    file.write_text(first(dump(V4), *rules))
    done = lab("run", "beyond-window", "--fix", "none", "--node", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[b]mine[/i]" in done.stdout.splitlines()[0]
    assert unknown in done.stdout
