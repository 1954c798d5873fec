"""Results in files: with a version and by a schema, without packets unless wanted, and read from every version."""

import dataclasses
import gzip
import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.cli.packed import packing, unpacked
from lab.errors import InputError, MissingError
from lab.report import forms
from lab.report.timeline import timeline_text
from lab.results import reach_saved, saved
from lab.results.matrix import alone
from lab.results.saved import VERSION, from_json, schema, to_json
from lab.results.shared import Named, Shared
from lab.verdict import Outcome
from lab.vocabulary import Family

#: One of each version; of those before there was a number, from a lab of before (`lab run beyond-window
#: upstream-regression --json`, on Linux 6.18).
VERSIONS = {
    1: Path(__file__).parents[1] / "report" / "results.json",
    2: Path(__file__).parent / "version-2.json",
    3: Path(__file__).parent / "version-3.json",
}

TREES = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["$", "$7", "$$", "x" * 30, '"\u00e9\\']),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from('ab"$'), inner),
        max_leaves=8,
    ),
    max_size=4,
)


def read(version):
    return from_json(VERSIONS[version].read_bytes())


def test_there_is_a_file_of_every_version():
    assert max(VERSIONS) == VERSION
    assert json.loads(VERSIONS[VERSION].read_text())["version"] == VERSION


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_every_version_is_read_and_told_in_every_form(version):
    report = read(version)
    assert from_json(to_json(report)) == report
    for form in ("json", "html", "junit", "md", "pcapng"):
        assert forms.write(form, report)


def with_bytes(report):
    """Return the report with bytes for every packet, among them such as are no text."""

    def changed(tally):
        timeline = tally.sample.timeline
        seen = tuple(dataclasses.replace(one, data=b"\x45\x00\xff\xfe\x00") for one in timeline.sightings)
        sample = dataclasses.replace(tally.sample, timeline=dataclasses.replace(timeline, sightings=seen))
        return dataclasses.replace(tally, sample=sample)

    return dataclasses.replace(report, tallies=tuple(map(changed, report.tallies)))


@pytest.mark.parametrize("kind", saved.KINDS)
@pytest.mark.parametrize("packets", [False, True])
def test_what_is_written_fits_the_schema(kind, packets):
    report = with_bytes(read(1))
    text = to_json(report if kind == "result" else alone(report), packets=packets).decode()
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    jsonschema.validate(json.loads(text), schema(kind), cls=jsonschema.Draft202012Validator)
    broken = json.loads(text.replace('"kind":"connection"', '"kind":"nonsense"'))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema(kind), cls=jsonschema.Draft202012Validator)


def test_bytes_come_back_as_they_were():
    report = with_bytes(read(1))
    [again] = {one.data for tally in from_json(to_json(report)).tallies for one in tally.sample.timeline.sightings}
    assert again == b"\x45\x00\xff\xfe\x00"
    assert b'"data":"RQD//gA="' in to_json(report)  # the usual alphabet of base64, RFC 4648, 4


def test_packets_are_left_out_and_that_is_said_and_a_line_is_a_trial():
    report = read(1)
    text = to_json(report, packets=False).decode()
    assert len(text) < 2700 * len(report.tallies)
    trials, _shared = text.split("\n]", 1)
    lines = [json.loads(line.rstrip(",")) for line in trials.splitlines()[1:]]
    assert [line["trial"]["fix"] for line in lines] == [tally.trial.fix for tally in report.tallies]
    lean = from_json(text)
    for before, after in zip(report.tallies, lean.tallies, strict=True):
        assert (after.sample.verdict, after.outcomes) == (before.sample.verdict, before.outcomes)
        assert after.sample.timeline.sightings == ()
        assert after.sample.timeline.left_out == len(before.sample.timeline.sightings) > 20
        assert after.sample.timeline.judgement_of(before.sample.timeline.injected.packet) is not None
        # What is told of it is less, and nothing else.
        *told, not_kept = timeline_text(after.sample.timeline).splitlines()
        assert not_kept.startswith("not kept: ")
        assert set(told) <= set(timeline_text(before.sample.timeline).splitlines())
    assert from_json(to_json(lean, packets=False)) == lean
    assert "not kept: " in forms.write("html", lean).decode()
    assert "not kept: " not in forms.write("html", report).decode()


def test_what_was_not_as_expected_keeps_its_packets():
    report = read(1)
    first, *others = report.tallies
    verdict = dataclasses.replace(first.sample.verdict, outcome=Outcome.STALLED)
    wrong = dataclasses.replace(first, sample=dataclasses.replace(first.sample, verdict=verdict))
    lean = from_json(to_json(dataclasses.replace(report, tallies=(wrong, *others)), packets=False))
    assert lean.tallies[0].sample.timeline == first.sample.timeline
    assert all(not tally.sample.timeline.sightings for tally in lean.tallies[1:])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: [data], "no results"),
        (lambda data: {"version": 2}, "neither tallies nor columns"),
        (lambda data: data | {"version": 99}, "in version 99: this one reads files up to version 3"),
        (lambda data: data | {"version": "x" * 500}, "in version 'xxx"),
        (lambda data: data | {"tallies": [3]}, r"tallies\.0: "),
        (lambda data: with_first(data, "trial", "proxy_version", "v9999999999"), "v9999999999"),
        (lambda data: with_first(data, "trial", "proxy_version", "[bold]x"), "bold"),
        (lambda data: data | {"x": 10**30}, "larger"),
        (lambda data: with_first(data, "sample", "behaviour", "nice"), "behaviour"),
        (lambda data: with_timeline(data, "judged", lambda judged: judged | {"state": "nice"}), "makes nothing 'nice'"),
        (lambda data: with_timeline(data, "sightings", scaled), "a window scale of -1 fits into no packet"),
    ],
)
def test_what_no_lab_wrote_is_refused(change, complaint):
    data = json.loads(VERSIONS[1].read_text())
    with pytest.raises(ValueError, match=complaint) as caught:
        from_json(json.dumps(change(data)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def scaled(sighting):
    packet = sighting["packet"]
    return sighting | {"packet": packet | {"tcp": packet["tcp"] | {"window_scale": -1}}}


def with_timeline(data, field, change):
    """Return the data with another first of something in the first trial's timeline."""
    sample = data["tallies"][0]["sample"]
    first, *others = sample["timeline"][field]
    return with_first(data, "sample", "timeline", sample["timeline"] | {field: [change(first), *others]})


def with_first(data, part, field, value):
    first, *others = data["tallies"]
    return data | {"tallies": [first | {part: first[part] | {field: value}}, *others]}


def test_what_a_terminal_would_obey_is_not_kept():
    data = json.loads(VERSIONS[1].read_text()) | {"kernel": "6.1\x1b]0;x\x07\x9b31m"}
    assert from_json(json.dumps(data)).kernel == "6.1\ufffd]0;x\ufffd\ufffd31m"
    assert from_json(json.dumps(data, ensure_ascii=False).replace("\x1b", "\\u001B").replace("\x07", "\\u0007")).kernel


def test_the_name_says_how_a_file_is_compressed():
    data = b"{}" * 5000
    packed = packing("x.json.gz")(data)
    assert gzip.decompress(packed) == data
    assert packed == packing("y.gz")(data)  # nothing of when or where
    assert (packing("x.json")(data), unpacked(packed, "x"), unpacked(data, "x")) == (data, data, data)
    with pytest.raises(InputError, match="x: broken"):
        unpacked(packed[:-9], "x")


def test_zstd_is_used_where_it_is_and_named_where_it_is_not():
    if importlib.util.find_spec("zstandard") is None:  # an extra of whoever wants it
        for refused in (lambda: packing("x.zst"), lambda: unpacked(b"\x28\xb5\x2f\xfd", "x")):
            with pytest.raises(MissingError, match=r"x.*: zstandard is not installed: pip install zstandard"):
                refused()
    else:
        packed = packing("x.zst")(b"{}" * 500)
        assert unpacked(packed, "x") == b"{}" * 500
        for broken in (packed[:-2], packed[:4] + b"garbage"):
            with pytest.raises(InputError, match="x: broken"):
                unpacked(broken, "x")


# --- what stands in several places ------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # of a machine that is busy
@given(TREES)
def test_whatever_is_shared_comes_back_as_it_was_and_stands_once(trees):
    shared = Shared()
    numbers = [shared.take(tree) for tree in trees]
    told = [json.loads(shared.text(number)) for number in numbers]
    named = Named(json.loads(f"[{','.join(shared.table)}]"))
    assert [named.whole(one) for one in told] == trees
    assert len(set(shared.table)) == len(shared.table)


def test_of_trials_that_are_alike_the_second_takes_little_room():
    report = read(3)
    one, two = (to_json(dataclasses.replace(report, tallies=report.tallies[:1] * count)) for count in (1, 2))
    assert len(two) - len(one) < len(one) / 20
    assert from_json(two).tallies == report.tallies[:1] * 2


@pytest.mark.parametrize(
    ("table", "timeline", "complaint"),
    [
        (None, "$0", "shared: it is not there"),
        ([], "$0", r"nothing stands for \$0"),
        (["$1", {}], "$0", r"nothing stands for \$1"),
        ([], "$x", r"nothing stands for \$x"),
        ([[0] * 10, *([f"${number}"] * 10 for number in range(30))], "$30", "stands for more than 50,000,000 values"),
    ],
)
def test_names_of_nothing_and_of_too_much_are_refused(table, timeline, complaint):
    data = json.loads(VERSIONS[3].read_text())
    data["tallies"][0]["sample"]["timeline"] = timeline
    with pytest.raises(ValueError, match=complaint):
        from_json(json.dumps(data | {"shared": table}))


# --- of `lab reach` ---------------------------------------------------------------------------------------

REACH_VERSIONS = {1: Path(__file__).parent / "reach-version-1.json"}


@pytest.mark.parametrize("version", REACH_VERSIONS)
def test_a_file_of_every_version_of_reach_is_read_and_written_by_its_schema(version):
    assert max(REACH_VERSIONS) == reach_saved.VERSION
    found = reach_saved.from_data(*saved.parsed(REACH_VERSIONS[version].read_bytes()))
    assert (len(found.reaches), found.good, sum(len(one.cells) for one in found.reaches)) == (2, False, 26)
    again = reach_saved.to_json(found)
    assert reach_saved.from_data(*saved.parsed(again)) == found
    jsonschema.validate(json.loads(again), reach_saved.schema())
    [line] = {line for line in again.decode().splitlines() if '"as_expected": false' in line and "30080" in line}
    assert json.loads(line.rstrip(","))["surprises"] == ["times out at node"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 2}, "in version 2: this one reads files up to version 1"),
        ({"reaches": []}, "reaches: nothing was asked"),
        ({"reaches": [3]}, r"reaches\.0: "),
    ],
)
def test_what_is_no_file_of_reach_is_refused(change, complaint):
    data, text = saved.parsed(REACH_VERSIONS[1].read_bytes())
    with pytest.raises(ValueError, match=complaint):
        reach_saved.from_data(data | change, text)


@pytest.mark.parametrize("what", ["kernel", "topology", "family"])
def test_results_of_reach_that_are_no_one_table_are_not_joined(what):
    found = reach_saved.from_data(*saved.parsed(next(iter(REACH_VERSIONS.values())).read_bytes()))
    [*reaches] = found.reaches
    if what == "topology":
        reaches = [dataclasses.replace(one, topology="other") for one in reaches]
    elif what == "family":
        reaches = [dataclasses.replace(one, family=Family.IPV6) for one in reaches]
    kernel = "5.10.0" if what == "kernel" else found.kernel
    other = dataclasses.replace(found, kernel=kernel, reaches=tuple(reaches))
    with pytest.raises(ValueError, match="are no one table"):
        reach_saved.joined([found, other])
    assert len(reach_saved.joined([found, found]).reaches) == 2 * len(found.reaches)
