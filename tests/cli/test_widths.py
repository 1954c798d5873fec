"""Nothing that a terminal shows is wider than it, but for a word that is; what is piped stays whole lines."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import pytest

from tests.support.command import lab
from tests.support.cover import some
from tests.support.documents import commands

WIDTHS = (40, 60, 80, 120)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

#: What says something long: helps, tables, stories, errors, and what is told of progress.
SHOWN = (
    ("run", "--help"),
    ("conntrack", "create", "--help"),
    ("list",),
    ("show", "beyond-window"),
    ("show", "--reasons"),
    ("schema",),
    ("run", "in-window", "--fix", "none"),
    ("run", "--topology", "nowhere"),
    ("reach", "--proxy-mode", "nonsense"),
    ("trace", "beyond-window"),
    ("explain", "tests/capture/texts/dmesg.txt"),
    ("report", "tests/results/version-3.json"),
    ("report", "--compare", "tests/results/version-2.json", "tests/results/version-3.json"),
    ("rules", "--since", "v1.14"),
    ("rules", "tests/rules/objects.yaml", "--diff", "tests/rules/kubelet-chains-v115.txt"),
    ("doctor", "--all"),
)


def shown(words, width, **environment):
    """Return what a terminal of a width shows of a command, both its streams."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "lab", *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=inherited | {"TERM": "xterm"} | environment
    ):
        os.close(its)
        heard = b""
        with suppress(OSError):  # EIO: the other end is closed
            while part := os.read(ours, 65536):
                heard += part
    os.close(ours)
    return heard.decode()


def fits(line, width):
    """Report whether a line fits, or has no place to be broken at: it is one word, or an option with its value."""
    return len(line.rstrip()) <= width or re.fullmatch(r" *((-\w, )?--\S+ )?\S+ *", line)


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_nothing_is_wider_than_the_terminal(words):
    for width in some(WIDTHS, " ".join(words)):
        printed = CONTROL.sub("", shown(words, width))
        assert "Traceback" not in printed
        for line in re.split(r"[\r\n]+", printed):
            assert fits(line, width), (width, line)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_help_fits(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for words, command in commands():
        context = command.make_context(f"lab {' '.join(words)}", [], resilient_parsing=True)
        for line in command.get_help(context).splitlines():
            assert fits(line, width), (words, line)


def test_an_error_that_is_piped_is_one_line():
    done = lab("run", "--topology", "nowhere", COLUMNS="40")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) > 80


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_control_sequences_where_none_are_wanted(environment):
    for words in (("show", "beyond-window"), ("report", "tests/results/version-3.json")):
        assert "\x1b" not in shown(words, 80, **environment)
