"""Where trials were tried: said of each, and nothing merged that was tried in two places."""

from markdown_it import MarkdownIt
from rich.console import Console

from lab.report import forms, table, terminal
from lab.report.affected import answers
from lab.report.closing import preface
from lab.results.matrix import Column, alone, merge
from lab.results.places import names, place, tried
from lab.vocabulary import Family

from .conftest import elsewhere, joined, only


def trials(report):
    return [tally.trial for tally in report.tallies]


def printed(drawn):
    console = Console(width=200, force_terminal=False)
    with console.capture() as capture:
        console.print(*drawn, sep="\n")
    return capture.get()


def test_one_place_is_said_once(report):
    assert list(tried(trials(report))) == [
        "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4), topology kube-proxy"
    ]
    assert set(names(trials(report)).values()) == {"beyond-window", "upstream-regression"}
    assert {place(trial) for trial in trials(report)} == {
        "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4, topology kube-proxy)"
    }


def test_cases_in_topologies_of_their_own_are_named_with_them(report):
    other = elsewhere(only(report, "beyond-window"), case="client-on-node", topology="uplink")
    assert list(tried(trials(joined(other, report)))) == [
        "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4), topology kube-proxy; uplink for client-on-node"
    ]
    newer = elsewhere(only(report, "beyond-window"), case="in-window", proxy_version="v1.29", topology="mine")
    assert list(tried(trials(joined(report, newer)))) == [
        "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4), topology kube-proxy",
        "kube-proxy v1.29 in iptables mode (iptables-nft, ipv4), topology mine for in-window",
    ]


def test_the_same_case_in_two_places_has_two_names_and_two_rows(report):
    six = elsewhere(report, family=Family.IPV6, topology="mine")
    both = joined(report, six)
    wanted = {
        f"{case} ({where})"
        for case in ("beyond-window", "upstream-regression")
        for where in ("ipv4, topology kube-proxy", "ipv6, topology mine")
    }
    assert set(names(trials(both)).values()) == wanted
    matrix = merge("0", [Column("5.10", "5.10", "5.10", report), Column("6.1", "6.1", "6.1", six)])
    rows = printed(table.tables(matrix, 200))
    assert rows.count("beyond-window (ipv") == 2
    assert printed(terminal.tables(both.tallies, 200)).count("beyond-window (ipv") == 2
    many = [elsewhere(both, fix=f"fix-{number}") for number in range(6)]
    assert "beyond-window (ipv6," in printed(terminal.tables(joined(*many).tallies, 200)).replace("\n", " ")
    for form in ("md", "html", "junit"):
        text = forms.write(form, matrix).decode()
        assert "beyond-window (ipv4, topology kube-proxy)" in text
        assert "beyond-window (ipv6, topology mine)" in text


def test_the_service_that_was_asked_stands_beside_the_topology(report):
    asked = elsewhere(report, topology="mine", service="other/web:http")
    where = "topology mine, Service other/web:http"
    node = "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4"
    assert list(tried(trials(asked))) == [f"{node}), {where}"]
    assert {place(trial) for trial in trials(asked)} == {f"{node}, {where})"}
    assert f"Judged: nodes that the lab made, of {node}), {where}." in preface(alone(asked))
    for form in ("md", "html", "junit"):
        text = forms.write(form, asked).decode()
        assert text.count(f"{node}), {where}") == 1
        assert f"a node of {node}, {where}) lets one packet reset a healthy connection" in text
    lines = "\n".join(line.plain for line in table.lines(alone(asked)))
    assert f"a node of {node}, {where}) lets one packet reset a healthy connection" in lines


def test_two_services_of_one_topology_are_two_places(report):
    first, second = (elsewhere(only(report, "beyond-window"), service=name) for name in ("shop/web", "other/web"))
    both = joined(first, second)
    assert set(names(trials(both)).values()) == {
        f"beyond-window (Service {name})" for name in ("shop/web", "other/web")
    }
    assert len(alone(both).rows) == 2 * len(first.tallies)
    affected = [remark.text for remark in answers(alone(both)) if remark.text.startswith("AFFECTED")]
    assert [name for text in affected for name in ("shop/web", "other/web") if f"Service {name})" in text] == [
        "shop/web",
        "other/web",
    ]
    [line] = tried(trials(both))
    assert line.endswith("topology kube-proxy, Service shop/web; kube-proxy, Service other/web for beyond-window")


def test_every_form_says_what_was_judged(report):
    words = "kube-proxy v1.14 in iptables mode (iptables-nft, ipv4), topology kube-proxy"
    answer = "a node of kube-proxy v1.14 in iptables mode (iptables-nft, ipv4, topology kube-proxy) lets one packet"
    for form in ("html", "junit"):
        text = forms.write(form, report).decode()
        assert words in text
        assert answer in text
    text = MarkdownIt("commonmark").enable("table").render(forms.write("md", report).decode())
    assert text.index(words) < text.index("<table>") < text.index(answer)
    first, second = preface(alone(report))
    assert first == f"Linux {report.kernel}, ipv4: {report.behaviours[Family.IPV4].words}."
    assert second == f"Judged: nodes that the lab made, of {words}."
    assert '"proxy_version":"v1.14"' in forms.write("json", report).decode()
