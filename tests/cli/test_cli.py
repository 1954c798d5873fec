"""The command as people call it: what it prints, what it exits with, and what it says to mistakes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from lab import __version__
from lab.cases import CASES
from lab.cli import app
from lab.cli.arguments import version_names
from lab.fixes import FIXES
from lab.kubeproxy.changes import ENTRIES_RECONCILED
from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.command import lab, python, shown_on_terminal


@pytest.mark.parametrize(
    "command", [(), ("run",), ("list",), ("rules",), ("topology",), ("topology", "schema")], ids=" ".join
)
def test_help(command):
    done = lab(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == ""


def test_help_writes_every_value_in_one_style():
    """By one word in capitals, or by the few words that it may be."""

    def walk(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from walk(command, (*path, name))
            else:
                yield *path, name

    style = re.compile(r"[A-Z]+(:[A-Z]+|=true)?(,\.\.\.)?|[a-z0-9-]+(\|[a-z0-9-]+)+|\[=true\|false\]|\[FILE\]")
    paths = list(walk(get_command(app), ()))
    assert ("kernels", "run") in paths
    for path in paths:
        shown = lab("help", *path).stdout
        usage, _paragraph, rest = shown.partition("\n\n")
        assert usage.startswith(f"Usage: lab {' '.join(path)} [OPTIONS]")
        told = rest.partition("\n  Examples:")[0]
        assert re.search(r"[<>{}]|x>=|\(\(", usage + told) is None, shown
        assert "[required" not in told.partition("\nOptions:")[0]
        values = re.findall(r"^  --[a-z-]+ (\S+)", rest, re.MULTILINE)
        assert [value for value in values if not style.fullmatch(value) and value != "/"] == []


def test_help_is_a_command_as_well():
    assert lab("help").stdout == lab("--help").stdout
    assert lab("help", "kernels", "run").stdout == lab("kernels", "run", "--help").stdout


def test_the_version_is_known():
    assert lab("--version").stdout == f"kube-proxy-lab {__version__}\n"


def test_what_completes_a_value_is_its_words():
    def completed(*words):
        line, place = " ".join(words), str(len(words) - 1)
        return lab(_LAB_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=place).stdout.split()

    assert completed("lab", "run", "--family", "ip") == list(Family)
    assert completed("lab", "run", "--family", "ipv5", "--proxy-mode", "n") == ["nftables"]
    assert completed("lab", "show", "in-window", "beyond-window-") == ["beyond-window-without-data"]
    assert completed("lab", "show", "--json", "beyond-window-") == ["beyond-window-without-data"]
    assert completed("lab", "list", "--json", "b") == []
    assert completed("lab", "help", "kern") == ["kernels"]
    assert completed("lab", "help", "kernels", "") == ["list", "fetch", "run"]
    assert completed("lab", "help", "run", "r") == []
    assert completed("lab", "reach", "--from", "out") == ["outside"]
    assert completed("lab", "reach", "--proxy-version", "v1.20,v1.35") == ["v1.20,v1.35"]
    assert "v1.35,v1.35" not in completed("lab", "reach", "--proxy-version", "v1.35,v1.3")
    assert completed("lab", "trace", "beyond-window-") == ["beyond-window-without-data"]
    assert completed("lab", "trace", "--from", "cl") == ["client"]
    assert completed("lab", "trace", "--to", "10.0.1.2", "--protocol", "u") == ["udp"]
    assert completed("lab", "rules", "--since", "v1.1")[0] == "v1.14"


def test_help_of_run_has_examples_and_exit_codes():
    text = lab("run", "--help").stdout
    assert "lab run beyond-window --fix none --family ipv6" in text
    assert "Exit code: 0 when every trial" in text


def test_help_imports_nothing_slow():
    code = (
        "import sys; sys.argv = ['lab', '--help']\n"
        "from lab.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print({'scapy', 'pyroute2', 'pydantic', 'yaml', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_list_names_everything_in_a_line_each():
    lines = lab("list").stdout.splitlines()
    for name in ("beyond-window", "upstream-regression", "none", "drop-forward", "kube-proxy", "endpoints"):
        [line] = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line.split(None, 1)[1]) > 10


def test_list_marks_the_slow_cases():
    lines = lab("list").stdout.splitlines()
    slow = {line.split()[0] for line in lines if line.endswith(" (slow)")}
    assert slow == {case.name for case in CASES.values() if case.slow}


def test_list_for_a_program():
    listed = json.loads(lab("list", "--json").stdout)
    assert [case["name"] for case in listed["cases"]] == list(CASES)
    assert [fix["name"] for fix in listed["fixes"]] == list(FIXES)
    assert {"name", "group", "title", "slow", "topology"} == set(listed["cases"][0])
    assert "kube-proxy" in [topology["name"] for topology in listed["topologies"]]


def test_show_tells_the_story_and_what_is_expected():
    text = lab("show", "upstream_regression").stdout
    assert "The regression test waits for a reset that no such kernel sends" in " ".join(text.split())
    assert "torvalds/linux 6e250dcbff1d" in text
    assert "INVALID, reset" in text
    assert "ignored, delivered" in text


def test_several_cases_are_shown_one_after_the_other():
    text = lab("show", "in-window", "beyond-window", "in_window").stdout
    assert text.index("in-window: control") < text.index("\nbeyond-window: data far beyond")
    found = json.loads(lab("show", "in-window", "beyond-window", "--json").stdout)
    assert [one["name"] for one in found["cases"]] == ["in-window", "beyond-window"]


def test_a_restart_is_told_by_what_changed():
    """As the release has it, what a restart does to flows that were well is another thing."""
    text = " ".join(lab("show", "kube-proxy-restarted").stdout.split())
    assert f"a kube-proxy before v1.{ENTRIES_RECONCILED.minor} (entries-reconciled) finds endpoints" in text
    assert "by a load balancer's address from v1.20.11, v1.21.5, v1.22.1, v1.23 (entries-of-balancer) on" in text
    assert f"From v1.{ENTRIES_RECONCILED.minor} (entries-reconciled) on entries are laid beside" in text


def test_rules_are_what_kube_proxy_writes():
    text = lab("rules", "--proxy-version", "v1.15").stdout
    assert "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP" in text
    assert "--ctstate INVALID" not in lab("rules").stdout
    assert "-j DNAT --to-destination [fd00:10:0:1::2]:80" in lab("rules", "--family", "ipv6").stdout
    assert "add table ip kube-proxy" in lab("rules", "--proxy-mode", "nftables").stdout


def test_the_schema_is_json():
    assert json.loads(lab("topology", "schema").stdout)["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "no-such-case"), "there is no case 'no-such-case' (see `lab list`)"),
        (("run", "beyond-windo"), "there is no case 'beyond-windo' (did you mean 'beyond-window'?)"),
        (("run", "--fix", "prayer"), "there is no fix 'prayer' (known: be-liberal, be-liberal-late, "),
        (("run", "--fix", "be-libera"), "there is no fix 'be-libera' (did you mean 'be-liberal'?)"),
        (("run", "--fix", "in_window"), "there is no fix 'in_window' (that is a case: see `lab list`)"),
        (("show", "be-liberal"), "there is no case 'be-liberal' (that is a fix: see `lab list`)"),
        (("show", "kube-proxy"), "there is no case 'kube-proxy' (that is a topology: see `lab list`)"),
        (("show", "reset-behnd"), "there is no case 'reset-behnd' (did you mean 'reset-behind'?)"),
        (("run", "--topology", "nowhere"), "nowhere: there is no such file or topology (known: across-nodes, "),
        (("run", "--topology", "kube-prox"), "there is no such file or topology (did you mean 'kube-proxy'?)"),
        (("run", "--topology", "be-liberal"), "there is no such file or topology (that is a fix: see `lab list`)"),
        (("run", "--proxy-version", "1.31x"), "'1.31x' is no version of kube-proxy (did you mean 'v1.31'?)"),
        (("run", "--proxy-version", "latest"), "'latest' is no version of kube-proxy (write it as v1.33, v1.33.6 or"),
        (("run", "--proxy-version", "v1.13"), "no kube-proxy version 'v1.13' is known (known are v1.14 to v1.36)"),
        (("run", "--proxy-mode", "nftables", "--proxy-version", "v1.14"), "nftables mode"),
        (("run", "--proxy-mode", "nftables", "--backend", "legacy"), "backend"),
        (("run", "--proxy-mode", "ebpf"), "--proxy-mode: there is no 'ebpf' (known: iptables, nftables)"),
        (("run", "--backend", "legcy"), "--backend: there is no 'legcy' (did you mean 'legacy'?)"),
        (("run", "--family", "IPv6"), "--family: there is no 'IPv6' (did you mean 'ipv6'?)"),
        (("run", "--repeat", "0"), "--repeat: must be a whole number, 1 or more, not '0'"),
        (("run", "--repeat"), "lab: option '--repeat' requires an argument"),
        (("matrix", "--limit", "inf"), "--limit: must be a number, 1 or more, not 'inf'"),
        (("run", "--json", "/no/such/folder/x.json"), "cannot write /no/such/folder/x.json: No such file"),
        (("run", "--zz"), "lab: there is no option --zz\nTry `lab run --help`.\n"),
        (("run", "--jsno", "-"), "lab: there is no option --jsno (did you mean '--json'?)\nTry `lab run --help`.\n"),
        (("exec",), "lab: missing argument 'HOST'\nTry `lab exec --help`.\n"),
        (("run", "--all", "in-window"), "cases by name, and --all besides (leave --all away, or the names; "),
        (("run", "in-window", "--slow"), "cases by name, and --slow besides (leave --slow away, or the names)"),
        (("matrix", "in-window", "--all"), "cases by name, and --all besides"),
        (("matrix", "--kernels", "running", "--memory", "256"), "--memory is for guests, and running is none"),
        (("matrix", "--kernels", "running", "--jobs", "2"), "--jobs is for guests, and running is none"),
        (("run", "--topology", "kube-proxy", "client-on-node"), "client-on-node cannot run in kube-proxy: it needs"),
        (("run", "in-window", "--service", "nix"), "lab: --service: kube-proxy: there is no Service nix (known: defa"),
        (("run", "--service", ""), "lab: --service: '' names no Service (write [NAMESPACE/]NAME[:PORT], such as "),
        (("run", "--proxy-mode", "nftables", "--backend", "nft"), "backend nft is for iptables mode"),
        (("run", "--json", "-", "--timeline"), "--timeline, and results on stdout"),
        (("run", "--json", "-", "--md", "-"), "--json and --md both to standard output"),
        (("rules", "--backend", "legacy"), "--backend, and kube-proxy writes the same for both"),
        (("rules", "/dev/null"), "/dev/null"),
        (("nonsense",), "lab: there is no command 'nonsense' (known: capture, collect, "),
        (("lst",), "lab: there is no command 'lst' (did you mean 'list'?)\nTry `lab --help`.\n"),
        (("kernels", "lst"), "lab: there is no command 'lst' (did you mean 'list'?)\nTry `lab kernels --help`.\n"),
        (("help", "kernels", "lst"), "lab: there is no command 'lst' (did you mean 'list'?)"),
        (("kernels", "run", "6.1", "--cpus", "2", "--", "true"), "'--cpus' is no program (options stand before KERNEL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_clear_error(arguments, words):
    done = lab(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert done.stdout == ""


def test_a_topology_that_cannot_run_is_an_input_error():
    given = "topology: alone\nhosts: {client: {}, node: {proxy-mode: iptables, forwarding: true}}\n"
    done = lab("run", "--topology", "-", given=given)
    assert done.returncode == 2
    assert "no TCP service with an ipv4 endpoint" in done.stderr


def test_the_options_are_the_words_of_the_topology_file():
    text = lab("run", "--help").stdout
    for words in (ProxyMode, Backend, Family):
        assert "|".join(words) in text


@pytest.mark.parametrize("command", ["rules", "run", "up", "matrix"])
def test_every_setting_of_kube_proxy_is_an_option(command):
    """Of the node itself where there is none, for objects alone."""
    text = lab(command, "--help").stdout
    assert "\nSettings of kube-proxy, by its own flags" in text
    options = [
        f"--{row.option} " for row in (SETTINGS[field] for field in (SETTINGS if command == "rules" else TOPOLOGYS))
    ]
    section = text[text.index("\nSettings of kube-proxy") :]
    assert [option for option in (*options, "--kube-proxy-config FILE") if option not in section] == []
    assert ("--node-name" in text) == (command == "rules")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--detect-local-mode=NodeCIDR"), "--detect-local-mode: kube-proxy v1.14 does not know it (v1.18 is"),
        (("up", "kube-proxy", "--iptables-localhost-nodeports=false"), "kube-proxy v1.14 does not know it (v1.26 is"),
        (("run", "--proxy-mode=nftables", "--iptables-masquerade-bit=3"), "--iptables-masquerade-bit: is for iptables"),
        (("matrix", "--cluster-cidr", "10"), "--cluster-cidr: '10' is no CIDR"),
        (("matrix", "--kube-proxy-config", "/no/such"), "'/no/such': cannot be read: No such file"),
        (
            ("run", "--node-pod-cidr=10.0.0.0/24", "--topology=two-nodes"),
            "the topology two-nodes has several nodes (write",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_setting_that_cannot_be_is_one_clear_error(arguments, words):
    done = lab(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_versions_are_completed():
    assert list(version_names())[::22] == ["v1.14", "v1.36"]


@pytest.mark.lab_kernel
class TestRun:
    def test_settings_are_in_every_form_and_notes_before(self, tmp_path):
        file = tmp_path / "r.json"
        settings = ("--proxy-version", "1.33", "--proxy-mode", "nftables", "--masquerade-all", "--node-zone=a")
        done = lab("run", "in-window", "--fix", "none", *settings, "--json", file, "--no-timeline")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr.startswith("lab: v1.33 stands for its newest patch: ")
        assert "kube-proxy v1.33 in nftables mode (ipv4, --masquerade-all=true, --node-zone=a)" in done.stdout
        [tally] = json.loads(file.read_text())["tallies"]
        assert tally["trial"]["settings"] == ["--masquerade-all=true", "--node-zone=a"]
        assert tally["trial"]["proxy_version"] == "v1.33"

    def test_what_is_not_known_is_called_so(self, tmp_path):
        files = {version: tmp_path / f"{version}.json" for version in ("v1.36.9", "v1.37")}
        for version, file in files.items():
            done = lab("run", "in-window", "--fix", "none", "--proxy-version", version, "--no-timeline", "--json", file)
        known = {version: json.loads(file.read_text())["tallies"][0]["trial"] for version, file in files.items()}
        written = {version: trial.get("proxy_known", True) for version, trial in known.items()}
        assert written == {"v1.36.9": True, "v1.37": False}
        assert done.stderr == "lab: What kube-proxy v1.37 writes is not known; these are the rules of v1.36.\n"
        assert "of kube-proxy v1.37 (not known) in iptables mode" in done.stdout

    def test_a_time_out_of_conntrack_is_the_nodes(self):
        """The case looks at how long the entry has, and says so where it is another time."""
        given = ("--proxy-version", "v1.33", "--conntrack-tcp-timeout-established", "10m")
        done = lab("run", "entry-expired", "--fix", "none", *given, "--no-timeline")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_another_mode_is_judged_by_the_topologys_version(self, tmp_path):
        text = (Path(__file__).parents[2] / "topologies" / "kube-proxy.yaml").read_text()
        place = tmp_path / "mine.yaml"
        place.write_text(text.replace("proxy-version: v1.14", "proxy-version: v1.36"))
        file = tmp_path / "r.json"
        given = ("--topology", place, "--proxy-mode", "nftables", "--json", file)
        lab("run", "in-window", "--fix", "none", *given, "--no-timeline")
        [tally] = json.loads(file.read_text())["tallies"]
        assert (tally["trial"]["proxy_mode"], tally["trial"]["proxy_version"]) == ("nftables", "v1.36")

    def test_what_is_left_out_and_taken_is_said_before(self):
        place = str(Path(__file__).parents[1] / "trial" / "several.yaml")
        done = lab("run", "in-window", "--fix", "none", "--topology", place)
        assert done.returncode == 0, done.stdout + done.stderr
        said = "blue/web is asked and not green/web, green/db:sql, green/db:admin: --service takes another"
        assert done.stderr == f"lab: in several, {said}\n"
        assert done.stdout.startswith("in-window, fix none, Service blue/web: delivered")
        place = str(Path(__file__).parents[1] / "trial" / "statsd.yaml")
        done = lab("run", "--fix", "none", "--topology", place, "--all", "--no-timeline")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "cases are left out for statsd: it needs a client outside of the cluster: client-masq" in done.stderr
        assert "udp-before-service" in done.stdout

    def test_the_service_that_was_chosen_is_named_in_every_form(self, tmp_path):
        place = str(Path(__file__).parents[1] / "trial" / "several.yaml")
        forms = {form: tmp_path / form for form in ("md", "html", "junit", "json")}
        to = [word for form, file in forms.items() for word in (f"--{form}", str(file))]
        chosen = ("--topology", place, "--service", "green/web", "--no-timeline")
        done = lab("run", "in-window", "--fix", "none", *chosen, *to, XDG_STATE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert "topology several, Service green/web." in done.stdout
        for form in ("md", "html", "junit"):
            assert "topology several, Service green/web" in forms[form].read_text(), form
        assert '"service":"green/web"' in forms["json"].read_text()
        assert "topology several, Service green/web" in lab("show", "in-window", XDG_STATE_HOME=str(tmp_path)).stdout

    def test_everything_as_expected_is_exit_code_0(self):
        done = lab("run")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "OOPS: from the pod's address" in done.stdout
        assert "AFFECTED: on Linux" in done.stdout
        assert done.stdout.count(" ms  ") > 10

    def test_json_and_the_rest_of_the_options(self, tmp_path):
        path = tmp_path / "results.json"
        done = lab(
            *("run", "beyond_window", "--fix", "drop-forward", "--fix", "be_liberal", "--family", "ipv6"),
            *("--proxy-mode", "nftables", "--repeat", "2", "--no-timeline", "--json", str(path)),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " ms  " not in done.stdout
        tallies = json.loads(path.read_text())["tallies"]
        assert [(one["trial"]["fix"], one["runs"], one["as_expected"]) for one in tallies] == [
            ("drop-forward", 2, 2),
            ("be-liberal", 2, 2),
        ]
        assert {one["trial"]["proxy_mode"] for one in tallies} == {"nftables"}

    def test_json_on_stdout_is_all_there_is(self):
        done = lab("run", "in-window", "--fix", "none", "--json", "-")
        assert json.loads(done.stdout)["tallies"][0]["sample"]["verdict"]["outcome"] == "delivered"
        assert done.returncode == 0

    def test_a_tool_that_is_missing_is_named_and_only_what_needs_it_is_not_run(self, tmp_path):
        only_nft = tmp_path / "bin"
        only_nft.mkdir()
        code = (
            "import sys, lab.netns.program as program; program.EXTRA_PATH = ()\n"
            "sys.argv = ['lab', 'run', 'in-window', '--fix', 'none']\n"
            "from lab.__main__ import main; main()"
        )
        done = python("-c", code, PATH=str(only_nft))
        assert done.returncode == 0
        assert "not run: in-window with none: iptables-nft-restore is not installed: apt install iptables" in (
            done.stdout.replace("\n", " ")
        )
        assert done.stdout.splitlines()[-1] == "NOTHING WAS TRIED: what it takes is missing."

    def test_a_reader_that_goes_away_is_no_error(self):
        done = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m lab run | head -1"], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert done.stdout.startswith("beyond-window, fix none: reset")

    def test_progress_names_the_trial_that_is_running(self):
        asked = ("run", "in-window", "--fix", "drop-forward", "--repeat", "20")
        assert b"in-window with drop-forward" in shown_on_terminal(*asked, TERM="xterm", COLUMNS="120")

    def test_a_terminal_of_somebody_who_wants_no_colour_gets_no_control_sequence(self):
        run = ("run", "in-window", "--fix", "none")
        assert b"\x1b[1min-window, fix none: " in shown_on_terminal(*run, both=True, TERM="xterm")
        for command in (run, ("show", "in-window"), ("rules", "kube-proxy"), ("doctor",)):
            shown = shown_on_terminal(*command, both=True, TERM="xterm", NO_COLOR="1")
            assert shown.strip()
            assert b"\x1b" not in shown

    def test_what_all_leaves_out_is_named(self, monkeypatch):
        slow = sum(case.slow for case in CASES.values())
        code = (
            "import sys, lab.cases as cases\n"
            "kept = {name: case for name, case in cases.CASES.items() if case.slow or name == 'in-window'}\n"
            "cases.CASES.clear(); cases.CASES.update(kept)\n"
            "sys.argv = ['lab', 'run', '--all', '--fix', 'none', '--no-timeline']\n"
            "from lab.__main__ import main; main()"
        )
        done = python("-c", code, XDG_STATE_HOME="/dev/null")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"left out: {slow} slow cases; --slow runs them"
