"""A node of the user's own: its rules alone say whether it is affected, and what helps there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import cases, fixes
from lab.errors import InputError
from lab.evidence.walk import Walk
from lab.fabric.given import NotLoadedError
from lab.fabric.lab import Lab
from lab.fixes import Fix
from lab.node.read import read
from lab.report.decided import decided
from lab.results.result import Result
from lab.trial import probe, runner
from lab.trial.fix_file import find_fix
from lab.trial.own_node import own_node, tried
from lab.trial.remedies import remedies
from lab.trial.setting import Setting
from lab.vocabulary import Backend, Behaviour, Family
from tests.support.command import lab

pytestmark = pytest.mark.lab_kernel


def judged(
    *sources: Path,
    family: Family | None = None,
    fix: Fix = fixes.NONE,
    case: str = "beyond-window",
    backend: Backend | None = None,
) -> tuple[Result, tuple[str, ...]]:
    """Return what came of a case on a node, and what has to be known of it."""
    own = own_node(read([str(one) for one in sources]), family=family, backend=backend)
    family = family or own.families[0]
    setting = Setting(cases.find(case), fix, own.topology, family, own.service)

    async def go() -> Result:
        return await runner.run(setting, await probe.ask(family))

    return asyncio.run(go()), own.notes


def nothing(text: str) -> str:
    return text


def without_the_drop(text: str) -> str:
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if not ("KUBE-FORWARD" in line and "--ctstate INVALID" in line)]
    assert len(kept) == len(lines) - 1
    return "".join(kept)


def with_a_cni_that_accepts(text: str) -> str:
    """As Calico's chains do where they come first: whatever is from or to a pod is accepted, INVALID or not."""
    table = text.index("*filter\n") + len("*filter\n")
    first = text.index("-A ", table)
    rules = "-A FORWARD -j cali-FORWARD\n-A cali-FORWARD -i cali+ -j ACCEPT\n-A cali-FORWARD -o cali+ -j ACCEPT\n"
    return f"{text[:table]}:cali-FORWARD - [0:0]\n{text[table:first]}{rules}{text[first:]}"


@pytest.mark.parametrize(
    ("name", "change", "family", "outcome"),
    [
        ("v1.14.0/iptables-v4.txt", nothing, Family.IPV4, "reset"),
        ("v1.14.0/iptables-v6.txt", nothing, Family.IPV6, "reset"),
        ("v1.20.0-rc.0/iptables-v4-dual.txt", nothing, Family.IPV4, "dropped"),
        ("v1.20.0-rc.0/iptables-v6.txt", nothing, Family.IPV6, "dropped"),
        ("v1.36.3/iptables-v4.txt", nothing, Family.IPV4, "dropped"),
        ("v1.36.3/iptables-v4.txt", without_the_drop, Family.IPV4, "reset"),
        ("v1.36.3/iptables-v4.txt", with_a_cni_that_accepts, Family.IPV4, "reset"),
        ("v1.29.1/nft.txt", nothing, Family.IPV4, "dropped"),
        ("v1.33.13/nft.txt", nothing, Family.IPV4, "reset"),
        ("v1.36.3/nft.txt", nothing, Family.IPV6, "reset"),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_a_dump_alone_is_judged(
    name: str, change: Callable[[str], str], family: Family, outcome: str, dump: Callable[[str], str], tmp_path: Path
):
    file = tmp_path / "rules.txt"
    file.write_text(change(dump(name)))
    result, _notes = judged(file, family=family)
    assert result.verdict.outcome == outcome
    assert result.expected is None
    assert result.as_expected, result.verdict.disagreements
    assert result.trial.given


def walk_of(result: Result) -> Walk:
    """Return the walk of the packet that was judged."""
    assert result.timeline.untraced == ()
    [walk] = result.timeline.judged_walks
    return walk


def line_of_the_drop(text: str) -> int:
    """Return the line of kube-proxy's rule against INVALID packets in a dump."""
    lines = enumerate(text.splitlines(), 1)
    [number] = [number for number, line in lines if "-A KUBE-FORWARD " in line and "INVALID" in line]
    return number


@pytest.mark.parametrize("backend", list(Backend))
def test_the_rule_to_thank_is_named_by_its_line(backend: Backend, dump: Callable[[str], str], tmp_path: Path):
    text = "# what was pasted before\n" + dump("v1.36.3/iptables-v4.txt")
    (tmp_path / "rules.txt").write_text(text)
    result, _notes = judged(tmp_path / "rules.txt", backend=backend)
    walk = walk_of(result)
    assert walk.state == "invalid"
    assert walk.accepted_by == ()
    assert walk.fate is not None
    place = walk.fate.place
    assert place is not None
    assert (place.table, place.chain, place.rule.owner) == ("filter", "KUBE-FORWARD", "kube-proxy")
    assert place.rule.line == line_of_the_drop(text)
    assert f"dropped by filter KUBE-FORWARD line {place.rule.line}" == result.verdict.because[0]


def test_of_what_nft_lists_the_line_is_named_as_well(dump: Callable[[str], str], tmp_path: Path):
    text = dump("v1.29.1/nft.txt")
    (tmp_path / "rules.txt").write_text(text)
    walk = walk_of(judged(tmp_path / "rules.txt")[0])
    assert walk.fate is not None
    place = walk.fate.place
    assert place is not None
    assert (place.table, place.chain, place.rule.owner) == ("kube-proxy", "forward", "kube-proxy")
    assert text.splitlines()[place.rule.line - 1].strip() == place.rule.text
    assert "invalid" in place.rule.text


def test_an_unnamed_rule_of_a_script_is_not_given_a_line(dump: Callable[[str], str], tmp_path: Path):
    """What a script changed is not in the dump: where a chain has other rules than that, no line is guessed."""
    (tmp_path / "rules.txt").write_text(dump("v1.36.3/iptables-v4.txt"))
    (tmp_path / "fix.sh").write_text(
        "#!/bin/sh\niptables-nft -I KUBE-FORWARD 1 -m conntrack --ctstate INVALID -j DROP\n"
    )
    walk = walk_of(judged(tmp_path / "rules.txt", fix=find_fix(str(tmp_path / "fix.sh")))[0])
    assert walk.fate is not None
    assert walk.fate.rule is not None
    assert (walk.fate.chain, walk.fate.rule.position, walk.fate.rule.line) == ("KUBE-FORWARD", 1, None)
    assert walk.fate.rule.drops_invalid
    assert [place.rule.line for place in walk.unseen_drops] == [None]


def test_where_it_was_deleted_no_rule_is_blamed(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(without_the_drop(dump("v1.36.3/iptables-v4.txt")))
    walk = walk_of(judged(tmp_path / "rules.txt")[0])
    assert (walk.state, walk.fate, walk.accepted_by, walk.unseen_drops) == ("invalid", None, (), ())
    assert walk.left is not None


@pytest.mark.parametrize("fix", [fixes.NONE, fixes.find("drop-forward")], ids=lambda fix: fix.name)
def test_a_rule_that_accepts_first_is_blamed_by_its_line(fix: Fix, dump: Callable[[str], str], tmp_path: Path):
    """A fix puts a rule before those of the dump in KUBE-FORWARD: the lines are still the dump's."""
    text = with_a_cni_that_accepts(dump("v1.36.3/iptables-v4.txt"))
    (tmp_path / "rules.txt").write_text(text)
    result, _notes = judged(tmp_path / "rules.txt", fix=fix)
    walk = walk_of(result)
    [step] = walk.accepted_by
    assert step.place is not None
    assert (step.place.chain, step.place.rule.owner) == ("cali-FORWARD", "Calico")
    assert text.splitlines()[step.place.rule.line - 1] == f"-A cali-FORWARD {step.place.rule.text}"
    lines = [place.rule.line for place in walk.unseen_drops]
    assert lines == [*([] if fix is fixes.NONE else [None]), line_of_the_drop(text)]
    [words] = decided(result.timeline)
    assert f"passed on by filter cali-FORWARD line {step.place.rule.line} of " in words
    assert f"KUBE-FORWARD line {line_of_the_drop(text)} of " in words


def test_the_answer_names_the_rule_to_blame(dump: Callable[[str], str], tmp_path: Path):
    text = with_a_cni_that_accepts(dump("v1.20.0-rc.0/iptables-v4-dual.txt"))
    (tmp_path / "node.txt").write_text(text)
    done = lab("run", "beyond-window", "--node", "node.txt", "--fix", "none", directory=tmp_path, COLUMNS="800")
    assert done.returncode == 0, done.stderr
    lines = text.splitlines()
    accepting, dropping = lines.index("-A cali-FORWARD -o cali+ -j ACCEPT") + 1, line_of_the_drop(text)
    blame = (
        f"INVALID and passed on by filter cali-FORWARD line {accepting} of node.txt (Calico): -o cali+ -j ACCEPT,"
        f" before filter KUBE-FORWARD line {dropping} of node.txt (kube-proxy) could see it"
    )
    told = done.stdout.splitlines()
    assert told[0].startswith("AFFECTED: ")
    assert told[0].endswith(f" reset a healthy connection: {blame}.")
    assert f"{blame}: beyond-window with none." in told


def test_its_sysctls_count(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    (tmp_path / "sysctl.txt").write_text("net.netfilter.nf_conntrack_tcp_be_liberal = 1\n")
    assert judged(tmp_path)[0].verdict.outcome == "delivered"
    assert judged(tmp_path / "rules.txt")[0].verdict.outcome == "reset"


def test_all_that_a_node_has_of_sysctls_does_not_keep_it_from_being_judged(dump: Callable[[str], str], tmp_path: Path):
    """As `lab collect` brings them: what is the machine's, what is not the namespace's, what this kernel lacks."""
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    said = ["net.netfilter.nf_conntrack_max=1", "net.netfilter.nf_conntrack_buckets=1", "net.ipv4.tcp_mem=1 2 3"]
    said += [
        "net.netfilter.nf_conntrack_events=0",
        "net.ipv6.conf.default.accept_dad=1",
        "net.ipv4.conf.all.rp_filter=1",
    ]
    (tmp_path / "sysctl.txt").write_text("\n".join([*said, "net.netfilter.nf_conntrack_tcp_of_no_kernel=1", ""]))
    before = Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text()
    result, notes = judged(tmp_path)
    assert result.verdict.outcome == "reset"
    assert result.as_expected, result.verdict.disagreements
    assert any("of 7 sysctls 2 are set" in note for note in notes), notes
    assert any("nf_conntrack_tcp_of_no_kernel = 1 is not set: No such file" in note for note in notes), notes
    assert Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text() == before


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [
        ("mine.rules", "*filter\n-I FORWARD 1 -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n", "dropped"),
        (
            "mine.nft",
            """table inet mine {
                chain f {
                    type filter hook forward priority -10; ct state invalid counter drop
                }
            }""",
            "dropped",
        ),
        ("mine.conf", "# liberal\nnet.netfilter.nf_conntrack_tcp_be_liberal = 1\n", "delivered"),
        ("mine.sh", "#!/bin/sh\necho 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal\n", "delivered"),
        ("none.rules", "*filter\n-A FORWARD -s 203.0.113.9 -j DROP\nCOMMIT\n", "reset"),
    ],
)
def test_a_fix_of_ones_own_is_tried(name: str, text: str, outcome: str, dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / name).write_text(text)
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    result, _notes = judged(tmp_path / "rules.txt", fix=find_fix(str(tmp_path / name)))
    assert (result.verdict.outcome, result.trial.fix, result.expected) == (outcome, name, None)
    assert result.as_expected, result.verdict.disagreements


def test_the_command_answers_first_and_says_what_each_fix_does_there(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    names = "beyond-window", "in-window", "syn-fin", "entry-deleted"
    run = lab("run", *names, "--node", tmp_path / "rules.txt", "--json", tmp_path / "found.json")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("AFFECTED: on Linux ")
    assert "reset in 3 of 4 cases:" in lines
    assert "drop-forward: cures 2: beyond-window, syn-fin; leaves entry-deleted; breaks nothing of 4 cases." in lines
    assert "be-liberal: cures beyond-window; leaves 2: syn-fin, entry-deleted; breaks nothing of 4 cases." in lines
    assert "  iptables-nft -w -t filter -I KUBE-FORWARD 1 -m conntrack --ctstate INVALID -j DROP" in lines
    assert "  sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1" in lines
    assert any("tcpBeLiberal: true" in line for line in lines)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["fix"] for one in found["remedies"]] == ["drop-forward", "be-liberal"]
    assert len(found["tallies"]) == 12


def test_a_fix_that_breaks_what_worked_is_said_to(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.36.3/iptables-v4.txt"))
    (tmp_path / "mine.rules").write_text("*filter\n-I FORWARD 1 -p tcp --dport 8080 -j DROP\nCOMMIT\n")
    (tmp_path / "none.rules").write_text("*filter\n-A FORWARD -s 203.0.113.9 -j DROP\nCOMMIT\n")
    given = "--fix", tmp_path / "mine.rules", "--fix", tmp_path / "none.rules"
    run = lab("run", "beyond-window", "in-window", "--node", tmp_path / "rules.txt", *given)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].startswith("NOT AFFECTED: on Linux ")
    assert "reset in none of 2 cases." in lines
    assert "mine.rules: cures nothing; breaks 2: beyond-window, in-window." in lines
    assert "none.rules: cures nothing; breaks nothing of 2 cases." in lines
    assert not any("On the node, as root" in line for line in lines)  # neither cures anything


def test_both_families_of_a_dump_are_tried(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.33.13/nft.txt"))
    names = "beyond-window", "redirected-in-pod"
    run = lab("run", *names, "--node", tmp_path / "rules.txt", "--fix", "be-liberal")
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["AFFECTED", "AFFECTED"]
    for family in Family:
        words = f"by {family}: be-liberal: cures beyond-window; leaves redirected-in-pod; breaks nothing of 2 cases."
        assert words in lines


def test_what_is_typed_for_an_nftables_node_is_what_was_tried(dump: Callable[[str], str], tmp_path: Path):
    """And the table of one's own, which outlives kube-proxy's next sync, does the same."""
    (tmp_path / "rules.txt").write_text(dump("v1.36.3/nft.txt"))
    own = own_node(read([str(tmp_path / "rules.txt")]))
    [one] = remedies(own.topology, "node", own.families, [fixes.DROP_FORWARD])
    assert one.commands == (
        "nft 'insert rule ip kube-proxy filter-forward ct state invalid counter drop'",
        "nft 'insert rule ip6 kube-proxy filter-forward ct state invalid counter drop'",
    )
    alone = re.search(r"nft '([^']+)'", one.lasting)
    assert alone is not None
    (tmp_path / "mine.nft").write_text(alone[1].replace("; add", "\nadd") + "\n")
    result, _notes = judged(tmp_path / "rules.txt", fix=find_fix(str(tmp_path / "mine.nft")), family=Family.IPV6)
    assert (result.verdict.outcome, result.as_expected) == ("dropped", True)


def test_cases_that_need_a_living_kube_proxy_are_left_out(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.36.3/iptables-v4.txt"))
    run = lab("run", "endpoint-removed", "--node", tmp_path / "rules.txt")
    assert run.returncode == 2
    assert "needs a kube-proxy that changes rules" in run.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("hello\n", "neither rules nor sysctls"),
        ("*filter\n-A FORWARD -j DROP\n", "without COMMIT"),
        ("net.ipv4.ip_forward = 1\nhello\n", "no sysctl"),
        ("kernel.panic = 1\n", "the machine's own"),
        ("net.netfilter.nf_conntrack_max = 1\n", "the machine's own"),
    ],
)
def test_what_is_no_fix_is_refused(text: str, words: str, tmp_path: Path):
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        find_fix(str(tmp_path / "mine.txt"))


def test_a_rule_that_cannot_be_loaded_is_named_with_its_line(dump: Callable[[str], str], tmp_path: Path):
    rule = "-A FORWARD -m nosuchmatch --really -j DROP"
    text = dump("v1.14.0/iptables-v4.txt")
    place = text.index("-A FORWARD")
    (tmp_path / "rules.txt").write_text(f"{text[:place]}{rule}\n{text[place:]}")
    line = text[:place].count("\n") + 1
    result, notes = judged(tmp_path / "rules.txt")
    assert result.verdict.outcome == "reset"
    assert any(f"line {line}: left out" in note and rule in note and "nosuchmatch" in note for note in notes), notes


def test_of_a_part_the_line_is_the_sources(dump: Callable[[str], str], tmp_path: Path):
    """Tables and chains are declared before the rules that grep left: the line is that of what was given."""
    rules = [line for line in dump("v1.14.0/iptables-v4.txt").splitlines() if line.startswith("-A KUBE-")]
    rules.insert(2, "-A KUBE-SERVICES -m nosuchmatch --really -j DROP")
    (tmp_path / "rules.txt").write_text("\n".join([*rules, ""]))
    _result, notes = judged(tmp_path / "rules.txt")
    assert any("line 3: left out" in note and "nosuchmatch" in note for note in notes), notes


def test_a_service_that_nobody_has_is_refused(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    with pytest.raises(InputError, match="no rule is for a Service shop/no-such"):
        own_node(read([str(tmp_path / "rules.txt")]), service="shop/no-such")


def test_long_rules_are_believed_until_they_are_refused(
    dump: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Trying them beforehand would take as long as loading them."""
    lines = dump("v1.36.3/nft.txt").splitlines()
    place = lines.index("\tchain filter-forward {") + 2
    rule = "\t\tnosuchmatch 7 drop"
    (tmp_path / "rules.txt").write_text("\n".join([*lines[:place], rule, *lines[place:], ""]))
    monkeypatch.setattr("lab.trial.own_node._BIG", 1000)
    own = own_node(read([str(tmp_path / "rules.txt")]))
    assert not any("nosuchmatch" in note for note in own.notes)
    assert any(f"line {place + 1}: left out" in note for note in tried(own).notes)
    setting = Setting(cases.find("in-window"), fixes.NONE, own.topology, Family.IPV4, own.service)
    with pytest.raises(NotLoadedError, match="not loaded here"):
        asyncio.run(runner.run(setting, Behaviour.STRICT))


def test_what_objects_and_other_parts_say_of_it_is_told(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.36.3/iptables-v4.txt"))
    (tmp_path / "uname.txt").write_text("Linux worker-1 5.10.0-28-amd64 #1 SMP Debian x86_64 GNU/Linux\n")
    (tmp_path / "conntrack.txt").write_text("cpu=0   found=1 invalid=1200 insert=0 insert_failed=0 drop=0\n")
    (tmp_path / "objects.yaml").write_text(
        """
apiVersion: v1
kind: Service
metadata: {name: aff-single, namespace: default}
spec: {clusterIP: 10.97.0.72, ports: [{name: web, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: aff-1, namespace: default, labels: {kubernetes.io/service-name: aff-single}}
addressType: IPv4
endpoints: [{addresses: [10.244.9.9]}]
ports: [{name: web, port: 8080}]
"""
    )
    notes = own_node(read([str(tmp_path)]), service="default/aff-single").notes
    assert any("the node runs Linux 5.10.0-28-amd64, and judged is Linux" in note for note in notes), notes
    assert any("--kernels 5.10,running" in note for note in notes)
    assert any("found 1,200 packets INVALID" in note for note in notes)
    assert any(
        "the objects have endpoints that the rules lead nobody to (default/aff-single): 10.244.9.9" in note
        for note in notes
    )
    assert any(
        "the rules lead to endpoints that the objects lack (default/aff-single): 10.244." in note for note in notes
    )


def test_a_sysctl_of_an_interface_is_set_where_the_interface_is_built(dump: Callable[[str], str], tmp_path: Path):
    (tmp_path / "rules.txt").write_text(dump("v1.14.0/iptables-v4.txt"))
    said = ("net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.docker0.rp_filter=1", "net.ipv4.conf.eth0.forwarding=1")
    (tmp_path / "sysctl.txt").write_text("\n".join([*said, ""]))
    own = own_node(read([str(tmp_path)]))
    assert any("of 3 sysctls 1 is set" in note for note in own.notes), own.notes
    with Lab(own.topology, family=own.families[0]) as running:
        namespace = running.hosts["node"].namespace
        assert namespace.sysctl("net/ipv4/conf/eth0/rp_filter") == "2"
        assert namespace.sysctl("net/ipv4/conf/all/rp_filter") == "0"
