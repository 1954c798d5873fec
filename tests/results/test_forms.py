"""The table for people, CI systems and browsers: made from the matrix alone."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from markdown_it import MarkdownIt
from rich.console import Console

from lab.report import forms, table
from lab.report.closing import remarks
from lab.report.timeline import timeline_text
from lab.report.tone import Tone
from lab.results.matrix import Column, merge
from lab.results.result import Tally

pytestmark = pytest.mark.lab_kernel


def written(form, found):
    return forms.write(form, found).decode()


def printed(matrix, width=160):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(*table.tables(matrix, width), sep="\n")
        for line in table.lines(matrix):
            console.print(line, soft_wrap=True)
    return capture.get()


def cells(text):
    """Return the table's rows: of a terminal's or of Markdown's."""
    rows = [
        [cell.strip() for cell in line[1:-1].split(line[0])] for line in text.splitlines() if line[:1] in ("│", "|")
    ]
    return [row for row in rows if any(row)]


class TestTerminal:
    def test_a_row_a_trial_and_a_column_a_kernel(self, matrix):
        rows = cells(printed(matrix))
        assert len(rows) == len(matrix.rows)
        assert rows[0] == ["beyond-window", "none", *["reset, INVALID"] * 3]
        assert rows[9] == [
            "upstream-regression",
            "none",
            "reset, INVALID",
            "≠ delivered, ignored",
            "delivered, ignored",
        ]
        assert rows[10][1:] == ["drop-forward", "dropped, INVALID", "≠ delivered, ignored", "delivered, ignored"]

    def test_the_answer_comes_first_and_the_count_last(self, matrix):
        lines = printed(matrix).splitlines()
        first = next(index for index, line in enumerate(lines) if line.startswith("AFFECTED"))
        assert lines[first] == (
            "AFFECTED: on Linux 5.10, 6.1 and 7.3.1 (newest), a node of kube-proxy v1.14 in iptables mode"
            " (iptables-nft, ipv4, topology kube-proxy) lets one packet reset a healthy connection;"
            " drop-forward or be-liberal prevents it."
        )
        assert lines[first + 1].startswith("AFFECTED by upstream-regression: on Linux 5.10, with kube-proxy v1.14")
        assert lines[-2] == "10 of 12 trials gave the same on all 3 kernels."
        assert lines[-1] == "36 of 36 trials gave what their kernel is expected to give."

    def test_what_went_wrong_is_said(self, broken_matrix):
        text = printed(broken_matrix, 200)
        [stalled] = [row for row in cells(text) if row[:2] == ["in-window", "none"]]
        assert stalled[2:] == ["delivered, accepted", "≠ stalled, accepted", "not run", "≠ delivered, accepted"]
        assert "sockets and captures" in text
        assert "6.12, Linux 6.12.1-cloud-amd64, gave no results: panicked: not syncing\n    [   12.3] Kernel" in text
        assert "6.1: not as expected: in-window with none: expected accepted, delivered; seen accepted, stalled" in text
        assert "6.1: not run: without-nat with none: iptables_nat: <no> such table" in text
        assert "6.1: not run: without-nat with drop-forward: no nfacct: boot one with CONFIG_X=y" in text
        assert text.splitlines()[-1] == (
            "2 of 35 trials did not give what their kernel is expected to give, and 1 of 4 kernels gave no results."
        )

    def test_a_kernel_that_lacks_what_it_takes_is_not_held_against_it_but_said(self, matrix):
        old, *others = matrix.columns
        lacking = tuple(Tally(tally.trial, missing="no x: boot one with y") for tally in old.report.tallies)
        idle = dataclasses.replace(old, report=dataclasses.replace(old.report, tallies=lacking))
        some = merge("0.1.0", [idle, *others])
        assert some.good
        assert printed(some, 200).splitlines()[-1] == (
            "24 of 24 trials gave what their kernel is expected to give,"
            " and NOTHING WAS TRIED on 1 of 3 kernels: they lack what it takes."
        )
        assert [*remarks(some)][-1].tone is Tone.HARMFUL  # and loudly
        only = merge("0.1.0", [idle])
        assert only.good
        assert printed(only, 200).splitlines()[-1] == "NOTHING WAS TRIED: what it takes is missing."

    def test_a_narrow_terminal_gets_several_tables_with_whole_words(self, matrix):
        text = printed(matrix, 66).split("AFFECTED")[0]
        assert max(map(len, text.splitlines())) <= 66
        assert text.count("case") == 3
        assert text.count("reset,") == 4
        assert text.count("delivered,") == text.count("delivered") == 25

    def test_no_results_at_all_are_no_table_but_the_reason(self):
        text = printed(merge("0.1.0", [Column("6.1", "6.1.0", "6.1.1", failure="hung: no sign of life for 60 s")]))
        assert "6.1, Linux 6.1.0, gave no results: hung: no sign of life for 60 s" in text


class TestMarkdown:
    def test_it_is_a_table_to_a_markdown_parser(self, broken_matrix):
        html = MarkdownIt("commonmark").enable("table").render(written("md", broken_matrix))
        rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
        assert len(rows) == 1 + len(broken_matrix.rows)
        assert {row.count("<td>") + row.count("<th>") for row in rows} == {6}
        # What was said by others is text there, and no markup.
        assert "sockets and captures | disagree" in html
        assert "iptables_nat: &lt;no&gt; such table" in html
        assert "| `end`" in html

    def test_what_was_not_expected_has_its_timeline(self, broken_matrix, matrix):
        title = "in-window, fix none, on Linux 6.1: stalled (not as expected: expected accepted, delivered; "
        timeline = timeline_text(
            next(row.tallies[1] for row in broken_matrix.rows if row.trial.case == "in-window").sample.timeline
        )
        text = written("md", broken_matrix)
        assert title in text
        assert timeline in text
        html = MarkdownIt("commonmark").enable("table").render(text)
        assert html.count("<details>") == html.count("</details>") == 1
        assert "<details>" not in written("md", matrix)
        text = "\n".join(line.plain.rstrip() for line in table.timelines(broken_matrix))
        assert text.startswith(title)
        assert timeline in text
        assert list(table.timelines(matrix)) == []

    def test_it_says_what_the_terminal_says(self, matrix):
        text = written("md", matrix)
        assert [[cell.strip("*").replace("**,", ",") for cell in row] for row in cells(text)[2:]] == cells(
            printed(matrix)
        )
        assert "**reset**, INVALID" in text
        assert "* 36 of 36 trials gave what their kernel is expected to give." in text

    def test_the_matrix_in_the_docs_is_what_is_written(self, strict_report, lenient_report):
        names = {"5.10": "5.10", "6.1": "6.1", "6.12": "6.12", "6.18": "6.18", "newest": "7.3.4"}
        reports = dict.fromkeys(names, lenient_report) | {"5.10": strict_report}
        columns = [Column(name, version, version, reports[name]) for name, version in names.items()]
        page = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
        assert written("md", merge("0.1.0", columns)) in page


def counts(suite):
    return tuple(suite.get(name) for name in ("tests", "failures", "errors", "skipped"))


class TestJunit:
    def test_it_fits_the_usual_schema(self, matrix, broken_matrix, report):
        schema = xmlschema.XMLSchema(Path(__file__).parent / "junit.xsd")
        for found in (matrix, broken_matrix, report):
            schema.validate(written("junit", found))

    def test_a_suite_a_kernel_and_a_case_a_trial(self, matrix):
        suites = ElementTree.fromstring(written("junit", matrix)).findall("testsuite")
        assert [suite.get("name") for suite in suites] == ["Linux 5.10", "Linux 6.1", "Linux 7.3.1 (newest)"]
        assert {(suite.get("tests"), suite.get("failures"), suite.get("errors")) for suite in suites} == {
            ("12", "0", "0")
        }
        case = suites[0].find("testcase")
        assert (case.get("classname"), case.get("name")) == ("beyond-window", "beyond-window with none")
        sample = matrix.rows[0].tallies[0].sample
        assert case.findtext("system-out").splitlines()[1:] == timeline_text(sample.timeline).splitlines()

    def test_the_times_are_those_of_the_trials(self, report):
        [suite] = ElementTree.fromstring(written("junit", report)).findall("testsuite")
        times = [float(case.attrib["time"]) for case in suite.findall("testcase")]
        assert times == [pytest.approx(one.seconds, abs=1e-6) for one in report.tallies]
        assert all(time > 0 for time in times)
        assert float(suite.attrib["time"]) == pytest.approx(sum(times), abs=0.001)

    def test_a_suite_says_what_was_judged_and_its_answer(self, broken_matrix):
        suites = ElementTree.fromstring(written("junit", broken_matrix)).findall("testsuite")
        judged = "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4), topology kube-proxy"
        for suite, kernel in zip(suites, ("5.10", "6.1", None, "7.3.1 (newest)"), strict=True):
            said = [(one.get("name"), one.get("value")) for one in suite.findall("properties/property")]
            assert (("judged", judged) in said) is (kernel is not None)
            answers = [value.partition(", ")[0] for name, value in said if name == "answer"]
            cases = ["", " by upstream-regression"] if kernel == "5.10" else [""] if kernel else []
            assert answers == [f"AFFECTED{case}: on Linux {kernel}" for case in cases]

    def test_what_went_wrong_is_failure_error_or_skipped(self, broken_matrix):
        _old, wrong, panicked, _new = ElementTree.fromstring(written("junit", broken_matrix)).findall("testsuite")
        counts = [
            (suite.get(name)) for suite in (wrong, panicked) for name in ("tests", "failures", "errors", "skipped")
        ]
        assert counts == ["12", "1", "1", "1", "1", "0", "1", "0"]
        failure = wrong.find("testcase/failure")
        assert failure.get("message") == "stalled, accepted"
        assert failure.text.splitlines() == [
            "not as expected: expected accepted, delivered; seen accepted, stalled",
            "sockets and captures | disagree",
        ]
        assert wrong.find("testcase/skipped").get("message") == "no nfacct: boot one with CONFIG_X=y"
        error = panicked.find("testcase/error")
        assert error.get("message") == "panicked: not syncing"
        assert "Kernel panic - not syncing: <VFS> & co" in error.text


class Page(HTMLParser):
    """Balanced tags, what they ask of other places, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.asks, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.asks += [value for name, value in attributes if name in ("src", "href", "onclick", "srcset")]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


class TestHtml:
    def test_it_is_one_page_that_needs_nothing_else(self, broken_matrix):
        text = written("html", broken_matrix)
        page = Page(text)
        assert page.open == []
        assert all(place.startswith("#") for place in page.asks)
        assert not {"link", "img", "iframe"} & set(page.seen)
        assert "url(" not in text
        assert "@import" not in text
        assert "default-src 'none'" in text

    def test_every_cell_leads_to_its_trial_with_its_timeline(self, matrix):
        text = written("html", matrix)
        page = Page(text)
        trials = [place for place in page.asks if place.startswith("#t") and place != "#table"]
        assert len(set(trials)) == len(trials) == 36
        assert all(f'id="{place[1:]}"' in text for place in trials)
        for row in matrix.rows:
            for tally in row.tallies:
                assert timeline_text(tally.sample.timeline) in page.text

    def test_what_others_said_is_text_and_not_markup(self, broken_matrix):
        page = Page(written("html", broken_matrix))
        assert "Kernel panic - not syncing: <VFS> & co" in page.text
        assert "iptables_nat: <no> such table" in page.text
        assert "vfs" not in page.seen

    def test_it_says_what_the_terminal_says(self, broken_matrix):
        text = " ".join(Page(written("html", broken_matrix)).text.split())
        for line in table.lines(broken_matrix):
            assert " ".join(line.plain.split()) in text


def test_a_report_is_written_as_a_matrix_with_one_kernel_but_its_json_is_its_own(report):
    assert '"tallies":[\n{"trial"' in written("json", report)[:400]
    rows = cells(written("md", report).partition("\n\n")[2])
    assert rows[0][:2] == ["case", "fix"]
    assert len(rows[0]) == 3
    assert len(rows) == 2 + len(report.tallies)
