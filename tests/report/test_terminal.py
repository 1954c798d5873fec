"""The reports are made from results alone, so these tests need no kernel: the results come from a file."""

import dataclasses
import re
from typing import cast

import pytest
from rich.console import Console

from lab.evidence.packet import ICMP, IcmpHeader, Packet, SocketAddress
from lab.evidence.sighting import Sighting
from lab.fixes import FIXES
from lab.report.table import lines
from lab.report.terminal import heading, tables
from lab.report.timeline import timeline_text
from lab.report.tone import style_of
from lab.results.matrix import alone
from lab.results.result import Tally
from lab.results.saved import from_json, to_json
from lab.verdict import Outcome

from .conftest import RESULTS, tally


def printed(thing):
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def table(tallies, width=160):
    [drawn] = tables(tallies, width)
    return drawn


def conclusion(report):
    return list(lines(alone(report)))


def many(report, **others):
    """Return both cases with every fix; each fix came out as the one it is like, none where nobody says."""
    like = dict.fromkeys(FIXES, "none") | {name.replace("_", "-"): other for name, other in others.items()}
    return [
        dataclasses.replace(one, trial=dataclasses.replace(one.trial, fix=fix))
        for fix, other in like.items()
        for one in report.tallies
        if one.trial.fix == other
    ]


def changed(report, case, fix, **verdict):
    """Return the report with another verdict for one trial."""

    def other(one):
        if (one.trial.case, one.trial.fix) != (case, fix):
            return one
        result = dataclasses.replace(one.sample, verdict=dataclasses.replace(one.sample.verdict, **verdict))
        return Tally(one.trial).and_then(result)

    return dataclasses.replace(report, tallies=tuple(map(other, report.tallies)))


def test_the_figure_can_be_read_off_the_timeline(report):
    lines = timeline_text(tally(report, "beyond-window", "none").sample.timeline).splitlines()
    numbered = {line[-3:]: line for line in lines if line.endswith((")",)) and line[-3] == "("}
    assert "10.0.0.2:34567 > 192.168.0.2:80" in numbered["(1)"]
    assert "10.0.0.2:34567 > 10.0.1.2:80" in numbered["(2)"]
    assert "10.0.1.2:80 > 10.0.0.2:34567" in numbered["(3)"]
    assert "INVALID" in numbered["(3)"]
    assert "node client > client eth0  10.0.1.2:80 > 10.0.0.2:34567" in numbered["(4)"]
    assert "10.0.0.2:34567 > 10.0.1.2:80" in numbered["(5)"]
    assert "RST seq 16" in numbered["(5)"]
    after_leak = lines[lines.index(numbered["(4)"]) + 1]
    assert after_leak.strip() == "OOPS: from the pod's address; the client only knows 192.168.0.2:80"
    assert "             kernel: SEQ is over upper bound" in "\n".join(lines)
    assert "             server's socket: ECONNRESET" in lines
    assert "             client's socket: ECONNRESET" in lines


def test_every_sighting_of_the_connection_is_in_the_timeline(report):
    timeline = tally(report, "beyond-window", "drop-forward").sample.timeline
    text = timeline_text(timeline)
    places = [line.split("ms  ")[1].split("  ")[0] for line in text.splitlines() if " ms  " in line]
    ends = [place.strip() for place in places for place in place.split(" > ")]
    tcp = [sighting for sighting in timeline.sightings if sighting.packet.tcp]
    assert len([end for end in ends if end != "?"]) == len(tcp)
    assert "the packet did not reach client: 1 dropped by rule" in text


def test_numbers_are_relative_and_states_are_named(report):
    text = timeline_text(tally(report, "beyond-window", "none").sample.timeline)
    assert "SYN seq 0  NEW, entry SYN_SENT" in text
    assert "SYN,ACK seq 0 ack 1  ESTABLISHED, entry SYN_RECV" in text
    assert "ACK seq 1 ack 1  ESTABLISHED, entry ESTABLISHED" in text
    assert "seq 536871913 len 7 ack 16" in text  # 2^29 beyond the 1,000 bytes that were sent


def test_an_icmp_error_is_drawn_with_what_it_is_about(report):
    timeline = tally(report, "beyond-window", "none").sample.timeline
    node, client, vip = SocketAddress("10.0.0.1", 0), SocketAddress("10.0.0.2", 0), timeline.target
    error = Packet(node, client, ICMP, 1, 60, icmp=IcmpHeader(3, 0, (timeline.client_address, vip)))
    echo = Packet(node, client, ICMP, 2, 60, icmp=IcmpHeader(8, 0))
    last = timeline.sightings[-1].time
    more = tuple(Sighting(last + 1, "client", "eth0", False, packet) for packet in (error, echo))
    before = timeline_text(timeline).splitlines()
    text = timeline_text(dataclasses.replace(timeline, sightings=timeline.sightings + more))
    assert "10.0.0.1 > 10.0.0.2" in text
    assert "ICMP type 3 code 0 about 10.0.0.2:34567 > 192.168.0.2:80" in text
    assert len(text.splitlines()) == len(before) + 1  # the echo is no error, and none of the connection's


def test_the_table_has_every_verdict_and_what_decided_it(report):
    text = printed(table(report.tallies))
    assert "INVALID, leaked, RST, ECONNRESET" in text
    assert "INVALID, 1 dropped by rule" in text
    assert "ignored, came from 192.168.0.2" in text
    assert "NOT AS EXPECTED" not in text


def test_the_last_words_name_what_helps(report):
    first, second, last = (line.plain for line in conclusion(report))
    assert first.startswith("AFFECTED: ")
    assert first.endswith("lets one packet reset a healthy connection; drop-forward or be-liberal prevents it.")
    assert "is not INVALID on Linux 6.18.44 but ignored" in second
    assert second.endswith("passes there with every fix off, and proves nothing.")
    assert last == "6 of 6 trials gave what this kernel is expected to give."


def test_a_node_that_is_not_affected(report):
    [first, *_] = conclusion(changed(report, "beyond-window", "none", outcome=Outcome.DROPPED))
    assert first.plain.startswith("NOT AFFECTED: ")


def test_what_was_not_expected_is_said_in_table_and_end(report):
    wrong = changed(report, "beyond-window", "be-liberal", outcome=Outcome.LEAKED, disagreements=("a b c",))
    text = printed(table(wrong.tallies))
    for line in ("NOT AS EXPECTED", "expected accepted, delivered", "seen accepted, leaked"):
        assert f"│ {line}  " in text
    assert "a b c" in text
    assert [line.plain for line in conclusion(wrong)[-2:]] == [
        "not as expected: beyond-window with be-liberal: expected accepted, delivered; seen accepted, leaked",
        "1 of 6 trials did not give what this kernel is expected to give.",
    ]
    assert not wrong.good


def test_what_could_not_be_run_is_named(report):
    failed = Tally(tally(report, "beyond-window", "none").trial, failure="x is not installed: apt install y")
    only = dataclasses.replace(report, tallies=(failed,))
    assert "NOT RUN" in printed(table(only.tallies))
    lines = [line.plain for line in conclusion(only)]
    assert "not run: beyond-window with none: x is not installed: apt install y" in lines


def test_what_this_machine_lacks_is_named_and_not_held_against_it(report):
    lacking = Tally(tally(report, "beyond-window", "none").trial, missing="x is not installed: apt install y")
    some = dataclasses.replace(report, tallies=(lacking, tally(report, "beyond-window", "drop-forward")))
    assert some.good
    assert [line.plain for line in conclusion(some)][-2:] == [
        "not run: beyond-window with none: x is not installed: apt install y",
        "1 of 1 trials gave what this kernel is expected to give.",
    ]
    only = dataclasses.replace(report, tallies=(lacking,))
    assert only.good
    assert [line.plain for line in conclusion(only)] == [
        "not run: beyond-window with none: x is not installed: apt install y",
        "NOTHING WAS TRIED: what it takes is missing.",
    ]


def test_what_is_good(report):
    result = tally(report, "beyond-window", "none").sample
    wrong = dataclasses.replace(result, verdict=dataclasses.replace(result.verdict, outcome=Outcome.STALLED))
    fresh = Tally(result.trial)
    counted = {
        "never run": (fresh, False),
        "failed": (dataclasses.replace(fresh, failure="f"), False),
        "missing": (dataclasses.replace(fresh, missing="m"), True),
        "as expected": (fresh.and_then(result), True),
        "not as expected": (fresh.and_then(wrong), False),
        "then failed": (dataclasses.replace(fresh.and_then(result), failure="f"), False),
        "then missing": (dataclasses.replace(fresh.and_then(result), missing="m"), True),
        "wrong, then missing": (dataclasses.replace(fresh.and_then(wrong), missing="m"), False),
    }
    for name, (counts, good) in counted.items():
        assert counts.good is good, name
        assert dataclasses.replace(report, tallies=(counts,)).good is good, name
        assert not dataclasses.replace(report, tallies=(counts, counted["never run"][0])).good, name
    assert not dataclasses.replace(report, tallies=()).good


def test_the_heading(report):
    assert heading(tally(report, "beyond-window", "none").sample).plain == "beyond-window, fix none: reset"


def test_json_is_the_whole_of_it(report):
    assert from_json(to_json(report)) == report
    timed = dataclasses.replace(report, tallies=tuple(one.and_took(1.25) for one in report.tallies))
    assert from_json(to_json(timed)) == timed


def test_json_from_before_times_were_kept_is_read(report):
    assert '"seconds"' not in RESULTS.read_text()
    assert {one.seconds for one in report.tallies} == {0.0}


def test_findings_are_in_the_timeline(report):
    timeline = tally(report, "beyond-window", "none").sample.timeline
    found = dataclasses.replace(timeline, findings=("the entry has the timeout of CLOSE",))
    assert timeline_text(found).splitlines()[-1] == "found: the entry has the timeout of CLOSE"


def test_an_outcome_that_nobody_knows_yet_has_a_look():
    assert style_of(Outcome("connected")) == style_of(Outcome.DELIVERED) == "green"
    assert style_of(cast("Outcome", "exploded")) == style_of(Outcome.RESET)
    assert {style_of(outcome) for outcome in Outcome} == {"green", "magenta", "bold red"}


def test_a_tally_with_a_timeline_but_no_run_is_not_run(report):
    before = tally(report, "beyond-window", "none")
    bound = Tally(before.trial, sample=before.sample, failure="no end within 10 s")
    text = printed(table([bound]))
    assert "\u2502 NOT RUN " in text
    assert "then NOT RUN" not in text
    after = dataclasses.replace(before, failure="no end within 10 s")
    assert "then NOT RUN" in printed(table([after]))


def test_a_run_that_was_bad_is_not_excused_by_what_is_missing_later(report):
    before = tally(report, "beyond-window", "none")
    assert dataclasses.replace(before, missing="no nginx").good
    assert not dataclasses.replace(before, runs=2, missing="no nginx").good
    assert Tally(before.trial, missing="no nginx").good
    assert not Tally(before.trial).good


def test_a_tally_keeps_the_first_result_that_was_not_expected(report):
    good = tally(report, "beyond-window", "none").sample
    bad = dataclasses.replace(good, verdict=dataclasses.replace(good.verdict, outcome=Outcome.STALLED))
    counted = Tally(good.trial).and_then(good).and_then(bad).and_then(good)
    assert (counted.runs, counted.as_expected, counted.sample, counted.good) == (3, 2, bad, False)
    assert dict(counted.outcomes) == {Outcome.RESET: 2, Outcome.STALLED: 1}


LIKE = {"drop_forward": "drop-forward", "drop_prerouting": "drop-forward", "be_liberal": "be-liberal"}


@pytest.mark.parametrize("width", [80, 120, 200])
def test_many_fixes_fit_into_any_terminal(report, width):
    drawn = list(tables(many(report, **LIKE), width))
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        for one in drawn:
            console.print(one)
    text = capture.get()
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert all(part in text for fix in FIXES for part in re.findall(r"[a-z]+", fix))


def test_fixes_that_came_out_alike_share_a_column_and_conntracks_word_is_told_once(report):
    [drawn] = tables(many(report, **LIKE), 120)
    rows = [line.split() for line in printed(drawn).splitlines()]
    assert ["beyond-window", "INVALID", "reset", "dropped", "delivered"] in rows
    assert ["upstream-regression", "ignored", "delivered", "delivered", "delivered"] in rows
    assert rows.count(["accepted"]) == 2  # be-liberal's word on both packets is another one
    assert printed(drawn).count("INVALID") == 1


def test_what_was_not_expected_is_said_among_many_fixes_as_well(report):
    wrong = changed(report, "beyond-window", "be-liberal", outcome=Outcome.LEAKED, disagreements=("a b c",))
    text = "".join(printed(one) for one in tables(many(wrong, **LIKE), 160))
    assert "NOT AS EXPECTED" in text
    assert "a b c" in text
