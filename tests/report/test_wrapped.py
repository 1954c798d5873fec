"""Lines on a narrow terminal: broken between words, all of them there, and as wide as they may be."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.text import Text

from lab.report.wrapped import wrapped
from tests.support.command import lab, shown_on_terminal

PACKET = (
    "   0.062 ms  server eth0 > node server  10.0.1.2:80 > 10.0.0.2:34567     PSH,ACK seq 536871913 len 7 ack 16"
    "  INVALID  (3)"
)


def parts(text, width):
    return [part.plain for part in wrapped(Text(text), width)]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text("ab  \n", max_size=120), st.integers(20, 60))
def test_every_word_is_there_and_no_line_is_too_wide(text, width):
    lines = parts(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(len(line.rstrip()) <= width or len(line.split()) == 1 for line in lines)


def test_a_line_is_broken_between_its_columns_and_continued_below_the_second():
    assert parts(PACKET, 80) == [
        "   0.062 ms  server eth0 > node server  10.0.1.2:80 > 10.0.0.2:34567",
        "             PSH,ACK seq 536871913 len 7 ack 16  INVALID  (3)",
    ]
    assert parts(PACKET, 130) == [PACKET]
    assert parts("one two three four five six", 20) == ["one two three four", "  five six"]


def test_a_word_too_long_for_its_column_begins_before_it():
    setting = "net.netfilter.nf_conntrack_tcp_be_liberal=1:"
    assert parts(f"  be-liberal                  sets {setting} it counts", 60) == [
        "  be-liberal                  sets",
        f"                {setting}",
        "                              it counts",
    ]


def test_styles_stay_with_their_words():
    line = Text.assemble("a plain beginning of it, ", ("and a red end", "red"))
    first, second = wrapped(line, 30)
    assert [(second.plain[span.start : span.end], span.style) for span in second.spans] == [("red end", "red")]
    assert [first.plain[span.start : span.end] for span in first.spans] == ["and a"]


@pytest.mark.lab_kernel
@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    "words", ["run beyond-window --fix none --trace", "list", "show beyond-window", "reach --trace"]
)
def test_nothing_is_wider_than_a_terminal_and_without_colours_there_are_none(words, width):
    shown = shown_on_terminal(*words.split(), both=True, COLUMNS=str(width), NO_COLOR="1").decode()
    assert "\x1b" not in shown
    lines = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").splitlines()]
    wide = [line for line in lines if len(line.rstrip()) > width]
    assert all(re.fullmatch(r" *\S+", line) for line in wide), wide
    assert len(lines) > 10


def test_a_pipe_gets_whole_lines():
    done = lab("list", COLUMNS="60")
    assert "  in-window                            control: the same injection, with the bytes that" in done.stdout
