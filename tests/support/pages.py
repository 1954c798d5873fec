"""The pages as their readers see them: command blocks and what these need, headings, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = CHECKOUT / "docs"
PAGES: Final = [CHECKOUT / "README.md", *sorted(DOCS.glob("*.md"))]

#: What the first line of a command block may say that it needs, and who runs it instead of tests/docs/test_blocks.py.
NEEDS: Final = {
    "root": "run there, all of them in one namespace of mounts",
    "Debian or Ubuntu": "tests/packaging/test_rootfs.py, on bare distributions",
    "a release": "tests/packaging, with a wheel of its own",
    "a kube-proxy": "tests/fabric/test_program.py and tests/cli, with LAB_KUBE_PROXY",
    "a cluster": "nobody: it is about somebody's own nodes",
    "virtual machines": "tests/kernels and tests/results, with LAB_BOOT=1",
    "workers": "tests/results/test_cluster.py",
    "a terminal": "tests/standing",
    "minutes": "shorter runs of the same; the options are checked",
    "vagrant": "nobody here",
    "the case of this page": "tests/docs/test_own_case.py",
}


class Block(NamedTuple):
    """One fenced block of commands."""

    needs: tuple[str, ...]
    lines: tuple[str, ...]


class Command(NamedTuple):
    """One call of `lab`: its words, and the file that its output goes to."""

    words: tuple[str, ...]
    output: str | None = None

    def __str__(self) -> str:
        return " ".join(self.words)


def code(page: Path, language: str) -> list[str]:
    """Return what stands in the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> Iterator[Block]:
    """Yield the command blocks of a page, without their comments."""
    for text in code(page, "sh"):
        needs = re.match(r"# needs: (.*)\n", text)
        lines = [line for line in (re.sub(r"(^|\s+)#.*", "", line) for line in text.splitlines()) if line]
        yield Block(tuple(needs[1].split(", ")) if needs else (), tuple(lines))


def command(line: str) -> Command | None:
    """Return the call of `lab` that a line begins with, with or without `sudo` or `./bootstrap`; None for another's."""
    words = shlex.split(line)
    words = words[: words.index("|")] if "|" in words else words
    while words and words[0] in ("sudo", "./bootstrap"):
        words.pop(0)
    if not words or words[0] != "lab":
        return None
    output = words[-1] if words[-2:-1] == [">"] else None
    return Command(tuple(words[1:-2] if output else words[1:]), output)


_REPORTS: Final = "## Public reports, one by one"


class Report(NamedTuple):
    """What somebody met, and the commands that play it.

    :param files: that the page has for it, by name.
    :param seen: words of what the commands print.
    """

    title: str
    lines: tuple[str, ...]
    files: dict[str, str]
    seen: tuple[str, ...]


def reports(page: Path) -> Iterator[Report]:
    """Yield the public reports that a page plays; nothing of a page without them."""
    for text in page.read_text().partition(_REPORTS)[2].split("\n### ")[1:]:
        found = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        files = re.findall(r"`([\w.-]+)`:\n\n```(?!sh\n)\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        seen = re.search(r"^Seen: (.*)$", text, re.MULTILINE)
        lines = tuple(line for block in found for line in block.splitlines())
        words = tuple(re.findall(r"`([^`]+)`", seen[1])) if seen else ()
        yield Report(text.partition("\n")[0], lines, dict(files), words)


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may end in, by the rule of GitHub and of the site."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> set[tuple[str, str]]:
    """Return the links of a page that stay in the checkout: paths as written, and anchors."""
    found = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", prose(page))
    return {(path, anchor) for path, anchor in found}
