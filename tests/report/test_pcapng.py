"""The capture as tshark reads it: interfaces, times, bytes and the lab's findings."""

import csv
import shutil
import subprocess

import pytest

from lab.evidence.sighting import LOCAL
from lab.report import forms
from lab.report.pcapng import without_packets
from lab.results.saved import from_json, to_json
from tests.support.command import lab

pytestmark = [
    pytest.mark.lab_kernel,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed: apt-get install tshark"),
]
FIELDS = (
    *("frame.interface_name", "frame.interface_description", "frame.time_epoch", "frame.len"),
    *("ip.src", "tcp.flags.reset", "frame.comment"),
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("capture") / "run.json"
    done = lab("run", "beyond-window", "--fix", "none", "--fix", "drop-forward", "--packets", "--json", path)
    assert done.returncode == 0, done.stderr
    return from_json(path.read_bytes())


def read(path, *options):
    done = subprocess.run(["tshark", "-r", path, *options], capture_output=True, text=True, timeout=60, check=True)
    assert "cut short" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packets(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("capture") / "run.pcapng"
    path.write_bytes(forms.write("pcapng", report))
    options = ("-T", "fields", "-E", "quote=d", "-E", "separator=,", "-E", "aggregator=|")
    lines = read(path, *options, *(word for field in FIELDS for word in ("-e", field))).splitlines()
    return [dict(zip(FIELDS, row, strict=True)) for row in csv.reader(lines)]


def sightings(report):
    """Return what was seen at interfaces, trial by trial and in its order."""
    timelines = [tally.sample.timeline for tally in report.tallies]
    return [
        sorted((one for one in timeline.sightings if one.interface != LOCAL), key=lambda one: one.time)
        for timeline in timelines
    ]


def test_every_packet_is_there_at_its_interface_to_the_nanosecond(report, packets):
    seen = [one for trial in sightings(report) for one in trial]
    assert len(packets) == len(seen) > 60
    for packet, sighting in zip(packets, seen, strict=True):
        assert packet["frame.interface_name"] == f"{sighting.host}:{sighting.interface}"
        assert packet["frame.time_epoch"].replace(".", "") == str(sighting.time)
        assert packet["ip.src"] == sighting.packet.source.address
        assert int(packet["frame.len"]) == len(sighting.data)


def test_an_interface_says_whose_namespace_it_is_in(packets):
    said = {packet["frame.interface_name"]: packet["frame.interface_description"] for packet in packets}
    assert said["client:eth0"] == "eth0 in the network namespace of client (the client)"
    assert said["node:server"] == "server in the network namespace of node (the node whose conntrack is followed)"
    assert set(said) == {"client:eth0", "node:client", "node:server", "server:eth0"}


def commented(packets, words):
    return [packet for packet in packets if words in packet["frame.comment"]]


def test_the_findings_are_comments(report, packets):
    first = len(sightings(report)[0])  # those of the trial without a fix; the other resets nothing
    [injected] = commented(packets[:first], "injected: +536,870,912 from the next byte")
    assert injected["frame.interface_name"] == "node:server"
    assert "(3) of the report's figure" in injected["frame.comment"]
    assert "ctstate INVALID at node|" in injected["frame.comment"]
    assert "kernel: SEQ is over upper bound" in injected["frame.comment"]
    [leak] = commented(packets, "OOPS: from the pod's address; the client only knows 192.168.0.2:80")
    assert (leak["frame.interface_name"], leak["ip.src"]) == ("client:eth0", "10.0.1.2")
    [killer, answer] = commented(packets, "socket: ECONNRESET")
    assert (killer["frame.interface_name"], killer["tcp.flags.reset"]) == ("server:eth0", "1")
    assert "client's socket" in answer["frame.comment"]
    for number in range(1, 6):
        assert commented(packets, f"({number}) of the report's figure")
    translated = commented(packets, "node translated 10.0.1.2:80 > 10.0.0.2:34567 to 192.168.0.2:80 > 10.0.0.2:34567")
    assert {(one["frame.interface_name"], one["ip.src"]) for one in translated} == {("node:client", "192.168.0.2")}
    assert commented(packets[first:], "seen at no other interface") == []


def test_a_section_is_a_trial_and_says_what_came_of_it(report, tmp_path):
    data = forms.write("pcapng", report)
    assert data.count(b"\x0a\x0d\x0d\x0a") == 2
    assert b"beyond-window, fix none: reset: leaked, RST, ECONNRESET" in data
    assert b"beyond-window, fix drop-forward: dropped: 1 dropped by rule" in data
    assert list(without_packets(report)) == []
    lean = from_json(to_json(report, packets=False))
    [words] = without_packets(lean)
    assert words.startswith("2 of 2 trials come without packets: ")
    empty = tmp_path / "empty.pcapng"
    empty.write_bytes(forms.write("pcapng", lean))
    assert read(empty) == ""
    assert b"Its packets were not kept." in empty.read_bytes()


def test_the_command_writes_it_compressed_by_its_name(tmp_path):
    capture = tmp_path / "x.pcapng.gz"
    assert lab("run", "in-window", "--fix", "none", "--pcapng", capture, "--family", "ipv6").returncode == 0
    assert capture.read_bytes().startswith(b"\x1f\x8b")
    assert "accepted" not in read(capture)
    assert "[PSH, ACK] Seq=1" in read(capture)
