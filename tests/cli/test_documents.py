"""What commands tell programs: one rule of where it goes, and each kind with a version and by its schema."""

from __future__ import annotations

import gzip
import json
from typing import Any

import jsonschema
import pytest

from lab.cases import CASES
from lab.cli.command import ALONE, OR_ALONE
from lab.cli.documents import DOCUMENTS, schema_of
from tests.support.command import CHECKOUT, lab
from tests.support.cover import sample
from tests.support.documents import check, commands

TRIAL = ("run", "in-window", "--fix", "none", "--no-timeline")
OBJECTS = "tests/rules/objects.yaml"


def option(command: Any, name: str) -> Any:
    return next((one for one in command.params if name in one.opts), None)


def test_every_command_that_tells_programs_something_does_so_by_one_rule_and_has_a_schema():
    told = {words: option(command, "--json") for words, command in commands()}
    told = {words: one for words, one in told.items() if one is not None}
    # Those whose FILE may be the next word always had one.
    assert {words for words, one in told.items() if one.metavar == OR_ALONE} == {("run",), ("matrix",), ("report",)}
    assert {one.metavar for one in told.values()} == {ALONE, OR_ALONE}
    documented = {tuple(one.command.split(" ", 1)[1].split(" --")[0].split()) for one in DOCUMENTS.values()}
    documented = {tuple(word for word in words if word.islower()) for words in documented}
    assert {words for words in told if words != ("report",)} == documented


def test_schemas_are_listed_and_printed():
    listed = dict(line.split(None, 1) for line in lab("schema").stdout.splitlines())
    assert listed == {name: one.command for name, one in DOCUMENTS.items()}
    for name in DOCUMENTS:
        printed = json.loads(lab("schema", name).stdout)
        assert printed == schema_of(name)
        jsonschema.Draft202012Validator.check_schema(printed)
        assert printed["$schema"].endswith("2020-12/schema")
        if name != "watch":  # whose first line has it
            assert printed["required"][0] == "version"


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("list", ("list",), 0),
        ("show", ("show", *CASES), 0),
        ("reasons", ("show", "--reasons"), 0),
        ("doctor", ("doctor",), None),
        ("rules-diff", ("rules", OBJECTS, "--diff", "tests/rules/kubelet-chains-v115.txt"), 1),
        ("rules-diff", ("rules", OBJECTS, "--diff", "tests/rules/nft-ruleset.json", "--proxy-version", "v1.31"), 1),
        ("rules-since", ("rules", "two-nodes", "--since", "v1.14"), 0),
        ("rules-since", ("rules", "--since", "v1.36", "--proxy-version", "v1.31", "--proxy-mode", "nftables"), 0),
        ("rules-sysctls", ("rules", "two-nodes", "--sysctls"), 0),
        ("reach", ("reach", "services", "--from", "outside", "--trace", "--proxy-mode", "both"), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_told_fits_its_schema(name, words, code):
    done = lab(*words, "--json")
    assert code is None or done.returncode == code, done.stderr
    check(name, json.loads(done.stdout))


def test_walks_fit_their_schema_whatever_the_case():
    quick = [name for name, case in CASES.items() if not case.slow]
    for case in sample(quick, 5):
        done = lab("trace", case, "--json")
        assert done.returncode in (0, 1), done.stderr
        check("trace", json.loads(done.stdout))


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "192.168.0.2:80"),
        ("--to", "[fd00:192:168::2]:80", "--flags", "FPU"),
        ("--to", "10.0.1.2:53", "--protocol", "udp", "--proxy-mode", "nftables"),
        ("--to", "203.0.113.9"),  # nobody is there
    ],
)
def test_walks_of_one_s_own_packet_fit_theirs(words):
    done = lab("trace", *words, "--json")
    assert done.returncode in (0, 1), done.stderr
    check("trace-packet", json.loads(done.stdout))


def test_explanations_fit_theirs(tmp_path):
    capture = tmp_path / "run.pcapng"
    cases = ("beyond-window", "in-window", "snat-port-race", "icmp-error", "port-reused")
    assert lab("run", *(one for one in cases if one in CASES), "--fix", "none", "--pcapng", capture).stderr == ""
    texts = sorted((CHECKOUT / "tests/capture/texts").iterdir())
    assert len(texts) > 3
    for words in ([capture], [capture, "--replay"], [capture, "--kernel", "5.10"], *([text] for text in texts)):
        done = lab("explain", *words, "--json")
        assert done.returncode in (0, 1), (words, done.stderr)
        data = json.loads(done.stdout)
        check("explain", data)
        assert ("replayed" in data) == ("--replay" in words)


# --- where it goes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("list",), ("show", "in-window"), ("rules", "--sysctls"), TRIAL], ids=" ".join)
def test_alone_it_is_printed_and_with_a_file_beside_the_text(words, tmp_path):
    def told(*options):
        done = lab(*words, *options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    text, alone = told(), told("--json")
    json.loads(alone)
    assert not text.startswith("{")
    assert len(told("--json=-").splitlines()) == len(alone.splitlines())
    assert len(told(f"--json={tmp_path / 'x.json'}").splitlines()) == len(text.splitlines())
    told(f"--json={tmp_path / 'x.json.gz'}")
    plain, packed = (
        json.loads((tmp_path / "x.json").read_text()),
        gzip.decompress((tmp_path / "x.json.gz").read_bytes()),
    )
    assert plain.keys() == json.loads(packed).keys() == json.loads(alone).keys()


def test_it_may_stand_before_other_words():
    assert json.loads(lab("show", "--json", "in-window").stdout)["cases"][0]["name"] == "in-window"
    assert "tallies" in json.loads(lab("run", "--json", "--no-timeline", "--fix", "none", "in-window").stdout)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--json", "in-window"), "--json in-window: a case, and no file"),
        (("matrix", "--html", "in-window"), "--html in-window: a case, and no file"),
        (("list", "--json=/no/such/place.json"), "cannot write /no/such/place.json: No such file or directory"),
        (("watch", "--json=x.json"), "--json=x.json: a line is printed as it comes (`lab watch --json > FILE`)"),
        (("reach", "services", "--json", "x.json"), "x.json: there is no such file (to write one: --json=x.json)"),
        (("explain", "x.pcap", "--json", "x.json.gz"), "x.json.gz: there is no such file (to write one: --json="),
        (("list", "--json", "x.json"), "x.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_no_file_is_refused_before_anything_is_done(words, said, tmp_path):
    done = lab(*words, directory=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []
