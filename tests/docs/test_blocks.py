"""Every command block of README and docs/: its commands exist, and are run as they stand there."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lab.cases import CASES
from lab.evidence.packet import ACK, SYN
from lab.fixes import FIXES
from tests.support.captures import MOMENT, pcap, tcp
from tests.support.command import lab
from tests.support.pages import CHECKOUT, DOCS, NEEDS, PAGES, Command, blocks, code, command, reports
from tests.support.standing import own_run  # noqa: F401 - a fixture

BLOCKS = [(page, block) for page in PAGES for block in blocks(page)]
OWN = "fin-beyond-window"  # the case that docs/own-case.md writes
#: What tests/docs/test_reports.py runs, and looks at.
REPORTED = {line for page in PAGES for report in reports(page) for line in report.lines}
RUN = dict.fromkeys(
    found
    for _page, block in BLOCKS
    if not block.needs
    for line in block.lines
    if line not in REPORTED
    if (found := command(line)) is not None and found.words
)
#: Calls whose exit code 1 is an answer as well: other rules than kube-proxy's, and what went wrong in a log.
ANSWERS = {"--diff", "dmesg.txt"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_is_one(page):
    """With its options and their values, as far as they can be told without being run."""
    from typer.main import get_command

    from lab.cli import app

    for block in blocks(page):
        for line in block.lines:
            found = command(line)
            if found is None or not found.words:
                continue
            reached: Any = get_command(app)
            context, words = None, list(found.words)
            while hasattr(reached, "commands"):
                context = reached.make_context("lab", list(words), parent=context)
                name, reached, words = reached.resolve_command(context, [*context._protected_args, *context.args])
            given = reached.make_context(name, list(words), parent=context).params
            if name in ("run", "matrix") and "cases" in given:
                assert set(given["cases"] or ()) <= {*CASES, OWN}, line
            if isinstance(given.get("fix"), list):
                assert set(given["fix"]) <= set(FIXES), line


def test_readme_shows_the_commands_that_a_newcomer_needs():
    shown = {found.words[0] for block in blocks(CHECKOUT / "README.md") for line in block.lines
             if (found := command(line)) and found.words}  # fmt: skip
    assert shown >= {"run", "list", "show", "doctor", "rules", "up", "exec", "endpoints", "status", "down", "matrix"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_what_it_needs(page):
    for block in blocks(page):
        assert set(block.needs) <= set(NEEDS), block
        programs = {line.split()[0] for line in block.lines}
        assert block.needs or programs == {"lab"}, f"{page.name}: only `lab` is run by the test: {programs}"
        assert block.needs != ("root",) or programs == {"sudo"}, f"{page.name}: only `sudo lab` is: {programs}"
        for path in re.findall(r"\btests/[\w./]+", " ".join(block.lines)):
            assert (CHECKOUT / path).exists(), path
    assert not re.search(r"^    (?:sudo |\./bootstrap )?lab ", page.read_text(), re.MULTILINE), "fence it: ```sh"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the files that the blocks speak of."""
    directory = tmp_path_factory.mktemp("reader")
    objects = directory / "objects.yaml"
    objects.write_text((CHECKOUT / "tests" / "rules" / "objects.yaml").read_text())
    (directory / "run.json").write_text((CHECKOUT / "tests" / "results" / "version-2.json").read_text())
    reach = json.loads((CHECKOUT / "tests" / "results" / "reach-version-1.json").read_text())
    (directory / "reach.json").write_text(json.dumps(reach | {"reaches": reach["reaches"][:1]}))
    client, vip = ("10.0.0.2", 34567), ("192.168.0.2", 80)
    handshake = (tcp(client, vip, SYN, 1, 0), tcp(vip, client, SYN | ACK, 1, 2), tcp(client, vip, ACK, 2, 2))
    whole = pcap([(MOMENT, packet) for packet in handshake])
    for name in ("capture.pcap", "client-side.pcapng", "server-side.pcapng.gz"):
        (directory / name).write_bytes(whole)
    texts = CHECKOUT / "tests" / "capture" / "texts"
    for name, text in (("dmesg.txt", "dmesg.txt"), ("conntrack-L.txt", "list-and-statistics.txt")):
        (directory / name).write_text((texts / text).read_text())
    (directory / "mine.yaml").write_text(code(DOCS / "topology.md", "yaml")[0])
    shop, nodes = code(DOCS / "reach.md", "yaml")
    (directory / "shop.yaml").write_text(shop)
    (directory / "nodes.yaml").write_text(nodes)
    (directory / "kube-proxy.yaml").write_text(code(DOCS / "fixes.md", "yaml")[0])
    web = (CHECKOUT / "topologies" / "endpoints.yaml").read_text().partition("---\n")[2]
    (directory / "endpoints-web.yaml").write_text(web)
    node = called(Command(("rules", str(objects), "--proxy-version=v1.28", "--cluster-cidr=10.244.0.0/16", "--saved")))
    assert node.exit_code == 0, node.output
    rules = [line for line in node.stdout.splitlines() if "--ctstate INVALID" not in line]
    (directory / "node.txt").write_text("\n".join(rules))
    return directory


def called(shown: Command) -> Result:
    """Call it in this process, which has what all of them import."""
    from lab.cli import app

    return CliRunner().invoke(app, shown.words, env={"COLUMNS": "120"})


@pytest.mark.lab_kernel
@pytest.mark.parametrize("shown", RUN, ids=str)
def test_every_command_that_needs_nothing_does_its_work(shown, place, monkeypatch):
    monkeypatch.chdir(place)
    done = called(shown)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 0 or (ANSWERS & set(shown.words) and done.exit_code == 1), done.output
    assert done.stdout.strip()


def test_the_difference_that_own_node_shows_is_found(place, monkeypatch):
    monkeypatch.chdir(place)
    [shown] = [text for text in code(DOCS / "own-node.md", "text") if text.startswith("missing")]
    words = "rules objects.yaml --cluster-cidr 10.244.0.0/16 --proxy-version v1.28 --diff node.txt"
    done = called(Command(tuple(words.split())))
    assert done.exit_code == 1
    assert shown.split() in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.lab_needs_root
def test_every_block_that_needs_root_alone_does_its_work(own_run, place, monkeypatch):  # noqa: F811
    """What becomes another program (`lab exec`) has a process of its own, in the same namespace of mounts."""
    monkeypatch.chdir(place)
    seen: set[str] = set()
    for lines in sorted((block.lines for _page, block in BLOCKS if block.needs == ("root",)), key=len, reverse=True):
        if seen >= set(lines):  # a shorter block of the same
            continue
        seen |= set(lines)
        for shown in filter(None, map(command, lines)):
            if shown.words[0] == "exec":
                done = lab(*shown.words, directory=place)
                assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
            else:
                assert called(shown).exit_code == 0, shown
        if "sudo lab down" not in lines:
            called(Command(("down", "--all")))
