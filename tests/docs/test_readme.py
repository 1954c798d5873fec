"""README: short, and what it shows is what comes of it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from tests.support.command import lab, run_pytest
from tests.support.pages import CHECKOUT, DOCS, code

README = CHECKOUT / "README.md"


def test_it_is_short():
    assert len(README.read_text().splitlines()) < 200


def test_a_fresh_machine_wants_two_commands():
    """Which tests/packaging/test_rootfs.py runs on bare distributions."""
    first, second, *_ = code(README, "sh")[0].splitlines()[1:]
    assert first.split("#")[0].strip() == "./bootstrap lab run"
    assert second.split("#")[0].strip() == "./bootstrap pytest"


@pytest.fixture(scope="module")
def run():
    """What `lab run` prints on a kernel as the pages' own."""
    done = lab("run", COLUMNS="110")
    if "from 6.1 on" not in done.stdout:
        pytest.skip("the pages' kernel ignores late packets, this one does not")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plain(line: str) -> str:
    """Return a line without what differs from run to run: times, and numbers that the kernel chooses."""
    line = re.sub(r"^ *\d+\.\d+ ms", "ms", line)
    return re.sub(r"(?<=bound )\d+|\d+(?= s left)", "N", line).replace(platform.release(), "6.18.44").rstrip()


@pytest.mark.lab_kernel
@pytest.mark.parametrize("page", ["README.md", "docs/run.md"])
def test_what_lab_run_prints_is_what_is_shown(page, run):
    """In this order, and where nothing is left out ("..."), each line behind the other."""
    shown = next(text for text in code(CHECKOUT / page, "text") if "OOPS" in text)
    printed = [plain(line) for line in run.splitlines()]
    for part in re.split(r"^\.\.\.\n", shown.removeprefix("$ lab run\n"), flags=re.MULTILINE):
        lines = [plain(line) for line in part.splitlines()]
        if lines:
            places = [at for at in range(len(printed)) if printed[at : at + len(lines)] == lines]
            assert places, "\n".join(lines)
            printed = printed[places[0] + len(lines) :]


@pytest.mark.lab_kernel
def test_the_example_test_passes(pytester):
    [example] = code(README, "python")
    assert example == code(DOCS / "pytest.md", "python")[0]
    pytester.makepyfile(example)
    run_pytest(pytester.path).assert_outcomes(passed=3)


@pytest.mark.lab_kernel
def test_the_picture_is_of_what_comes_of_it_here(run):
    """Its letters are those that docs/make/picture.py draws now, but for numbers; and a page has nothing to load."""
    from docs.make.picture import PICTURE, draw
    from docs.make.picture import run as try_it

    shown, drawn = PICTURE.read_text(), draw(try_it())
    assert letters(shown) == letters(drawn), "draw it anew: python docs/make/picture.py"
    assert len(shown) < 60_000
    assert not re.search(r"(?:href|src)=|url\((?!#)|@import|/home/|/root/|/tmp/", shown)


def letters(picture: str) -> list[str]:
    texts = re.findall(r"<text[^>]*>(.*?)</text>", picture)
    return [word for text in texts if (word := re.sub(r"[\d.]+|&#160;", "", text).strip())]


def test_every_file_that_is_spoken_of_is_there():
    for page in [README, *DOCS.glob("*.md")]:
        named = set(re.findall(r"`((?:docs|lab|tests|topologies|vagrant)/[\w./-]*)`", page.read_text()))
        assert {path for path in named if not (CHECKOUT / path).exists()} <= {"lab/cases/fin_beyond_window.py"}, page


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_the_words_are_the_fields(page: Path):
    assert not re.search(r"conntrack's (?:own )?word|kernel's own word|own word on", page.read_text())
