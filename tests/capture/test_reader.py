"""Captures of every form that programs write, cut and broken ones too."""

import gzip
import importlib.util
import io
import lzma
import random
import shutil
import struct
import subprocess
from contextlib import suppress

import pytest

from lab.capture.reader import Reader
from lab.errors import InputError, MissingError
from lab.evidence.packet import ACK, SYN, TcpHeader, decode
from lab.verdict import Outcome
from tests.support.captures import MOMENT, block, linked, pcap, pcapng, tcp
from tests.support.explaining import explained

CLIENT, VIP = ("10.0.0.2", 34567), ("192.168.0.2", 80)
STAMPS = b"\x01\x01\x08\x0a" + struct.pack("!II", 111, 222)
SYN_OPTIONS = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + struct.pack("!II", 7, 0) + b"\x01\x03\x03\x07"
SACK = b"\x01\x01\x05\x0a" + struct.pack("!II", 500, 900)
IPV4 = [
    tcp(CLIENT, VIP, SYN, 1000, 0, options=SYN_OPTIONS),
    tcp(VIP, CLIENT, ACK, 5000, 1001, b"x" * 100, options=STAMPS, number=77),
    tcp(VIP, CLIENT, ACK, 5100, 1001, options=SACK),
]
IPV6 = [tcp(("fd00::1", 1), ("fd00::2", 2), ACK, 2**32 - 1, 9, b"abc")]
TIMED = [(MOMENT + number, packet) for number, packet in enumerate(IPV4 + IPV6)]


def read(data, name="x.pcap"):
    reader = Reader(io.BufferedReader(io.BytesIO(data)), name)
    return list(reader), list(reader.notes)


def packets(data):
    found, notes = read(data)
    assert notes == []
    return [frame.packet for frame in found]


WHOLE = [decode(packet) for _time, packet in TIMED]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
@pytest.mark.parametrize("link", [101, 12, 1, 113, 276])
@pytest.mark.parametrize("form", [pcap, pcapng])
def test_every_form_and_link_gives_the_same_packets(form, link, pack, order):
    data = form([(time, linked(packet, link)) for time, packet in TIMED], link=link, order=order)
    assert packets(pack(data)) == WHOLE


@pytest.mark.parametrize(("link", "raw"), [(228, IPV4), (229, IPV6)])
def test_links_of_one_family(link, raw):
    assert packets(pcap([(MOMENT, packet) for packet in raw], link=link)) == [decode(packet) for packet in raw]


def test_the_packets_are_what_was_made():
    first = WHOLE[0]
    assert str(first) == "10.0.0.2:34567 > 192.168.0.2:80 SYN"
    assert first.tcp == TcpHeader(1000, 0, SYN, 64240, window_scale=7, sack_permitted=True, timestamps=(7, 0))
    assert (WHOLE[1].payload_length, WHOLE[1].identification) == (100, 77)
    assert WHOLE[2].tcp.sack_blocks == ((500, 900),)


@pytest.mark.parametrize(
    ("data", "unit"),
    [
        (pcap(TIMED), 1000),
        (pcap(TIMED, nano=True), 1),
        (pcapng(TIMED), 1),
        (pcapng(TIMED, resolution=6), 1000),
        (pcapng(TIMED, order=">", resolution=0x80 | 30), 2),
    ],
)
def test_times_are_of_the_capture(data, unit):
    found, _notes = read(data)
    assert [abs(frame.time - time) < unit for frame, (time, _packet) in zip(found, TIMED, strict=True)] == [True] * 4
    assert [frame.number for frame in found] == [1, 2, 3, 4]


def test_behind_a_vlan_tag():
    assert packets(pcap([(MOMENT, linked(IPV4[0], 1, vlan=True))], link=1)) == WHOLE[:1]


def test_which_way_and_at_which_interface():
    [frame] = read(pcapng(TIMED[:1], way=2, name="node:client"))[0]
    assert (frame.interface, frame.outgoing) == ("node:client", True)
    [frame] = read(pcapng(TIMED[:1], way=1))[0]
    assert frame.outgoing is False
    [frame] = read(pcapng(TIMED[:1]))[0]
    assert frame.outgoing is None
    [frame] = read(pcap([(MOMENT, linked(IPV4[0], 276, outgoing=False, index=9))], link=276))[0]
    assert (frame.interface, frame.outgoing) == ("interface 9", False)


@pytest.mark.parametrize(("name", "called"), [("", "interface 9"), ("any", "any 9")])
def test_an_interface_of_any_is_called_by_its_number_where_any_has_no_name(name, called):
    [frame] = read(pcapng([(MOMENT, linked(IPV4[0], 276, index=9))], link=276, name=name))[0]
    assert frame.interface == called


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_snaplen_in_the_middle_of_the_options_leaves_them_out(form):
    """64 bytes of Ethernet end within the timestamps."""
    data = form([(time, linked(packet, 1)) for time, packet in TIMED], link=1, snaplen=64)
    frames, [note] = read(data)
    assert (
        "1 packet is neither TCP, UDP nor an ICMP error, or cut within the headers" in note
    )  # that of IPv6, whose headers have 74 bytes
    found = [frame.packet for frame in frames]
    assert len(found) == 3
    assert found[1].tcp.timestamps is None
    assert found[1].payload_length == 100
    assert found[1].tcp.sequence == 5000


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_file_that_is_cut_is_read_until_there(form):
    data = form(TIMED)
    last = len(form(TIMED[:3]))
    for end in (last + 3, last + 20, len(data) - 1):
        found, [note] = read(data[:end])
        assert [frame.packet for frame in found] == WHOLE[:3]
        assert note == f"x.pcap: cut short at byte {last:,}: read until there"
    packed = gzip.compress(data)
    found, [note] = read(packed[:-20])
    assert "cut short at byte" in note


def test_what_is_packed_by_xz_is_read_as_far_as_it_is_there():
    found, notes = read(lzma.compress(pcap(TIMED)[:60]) + lzma.compress(pcap(TIMED)[60:]))  # frame behind frame
    assert ([frame.packet for frame in found], notes) == (WHOLE, [])
    many = [(MOMENT + n, random.Random(n).randbytes(60)) for n in range(3000)]
    found, notes = read(lzma.compress(pcap([*TIMED, *many]))[:-40000])
    assert [frame.packet for frame in found[:4]] == WHOLE
    assert any("cut short at byte" in note for note in notes)


def test_zstd_is_read_where_it_can_be_and_what_is_missing_is_named():
    if importlib.util.find_spec("zstandard") is None:  # an extra of whoever wants it
        with pytest.raises(MissingError, match=r"x\.pcap: packed by zstd, .*pip install zstandard, or unpack it first"):
            read(b"\x28\xb5\x2f\xfd" + bytes(9))
        return
    zstd = importlib.import_module("zstandard")
    packed = zstd.ZstdCompressor().compress(pcap(TIMED))
    found, notes = read(packed)
    assert ([frame.packet for frame in found], notes) == (WHOLE, [])
    for broken, words in (
        (packed[:-2], "is cut within its header"),
        (packed[:4] + b"garbage", "cannot be read behind byte"),
    ):
        with pytest.raises(InputError, match=words):
            read(broken)


def test_what_is_left_out_is_counted():
    sctp = bytearray(IPV4[0])
    sctp[9] = 132
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    mixed = [(MOMENT, linked(bytes(sctp), 1)), (MOMENT, arp), (MOMENT, linked(IPV4[0], 1))]
    [frame], [note] = read(pcap(mixed, link=1))
    assert frame.number == 3
    assert note == "x.pcap: 2 packets are neither TCP, UDP nor an ICMP error, or cut within the headers: left out"


GOOD = pcapng(TIMED)
SECTION = 28


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xd4", "x.pcap: is nearly empty"),
        (b"-----BEGIN", "x.pcap: is no capture (give one of pcap or pcapng"),
        (lzma.compress(GOOD)[:20] + b"\xff" * 100, "x.pcap: cannot be read behind byte"),
        (pcap(TIMED, link=147), "x.pcap: link type 147 is not known here (known: Ethernet"),
        (pcap([]) + b"\xff" * 16, "x.pcap: broken: packet 1 at byte 24 is said to have 4,294,967,295 bytes"),
        (b"\x0a\x0d\x0d\x0a" + bytes(24), "x.pcap: broken: the section at byte 0 has no order of bytes"),
        (GOOD + block("<", 6, bytes(8)), "x.pcap: broken: packet 5 before byte"),
        (GOOD + struct.pack("<II", 6, 13), "is said to have 13 bytes"),
        (GOOD + struct.pack("<III", 9, 12, 16), "has another length at its end"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 100, "x.pcap: cannot be read behind byte"),
    ],
)
def test_a_broken_file_is_one_error(data, words):
    with pytest.raises(InputError) as caught:
        read(data)
    assert words in str(caught.value)


@pytest.mark.parametrize("keep", range(0, len(GOOD), 7))
def test_whatever_byte_is_spoilt_there_is_a_clear_answer(keep):
    spoilt = bytearray(GOOD)
    spoilt[keep] ^= 0xFF
    with suppress(InputError):
        read(bytes(spoilt))


@pytest.mark.skipif(
    shutil.which("editcap") is None, reason="editcap is not installed: apt-get install wireshark-common"
)
@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "pcapng"])
def test_as_wireshark_writes_it(kind, tmp_path):
    """That the captures above are what they are held for."""
    given, made = tmp_path / "given.pcapng", tmp_path / "made"
    given.write_bytes(pcapng([(time, linked(packet, 1)) for time, packet in TIMED], link=1))
    subprocess.run(["editcap", "-F", kind, given, made], check=True, timeout=60, capture_output=True)
    assert packets(made.read_bytes()) == WHOLE


ASKS = pcap([(MOMENT + number, tcp(CLIENT, VIP, SYN, 1000, 0, number=number + 1)) for number in range(2)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pcap([]), "has no packet in it: nothing came there while it was captured"),
        (b"", "is empty: it tells nothing"),
    ],
)
@pytest.mark.parametrize("at", [0, 1], ids=["first", "second"])
def test_a_file_without_packets_refuses_no_other(data, words, at):
    files = [("client.pcap", ASKS)]
    files.insert(at, ("server.pcap", data))
    told = explained(dict(files))
    [one] = told.connections
    assert (told.packets, one.outcome, one.findings[0].kind) == (2, Outcome.STALLED, "unanswered")
    assert any(note.startswith(f"server.pcap: {words}") for note in told.notes)
    assert not any("clock" in note for note in told.notes)


@pytest.mark.parametrize(("data", "words"), [(pcap([]), "has no packet in it (capture with"), (b"", "is empty (give")])
@pytest.mark.parametrize("count", [1, 2])
def test_files_without_packets_alone_are_one_error(data, words, count):
    with pytest.raises(InputError) as caught:
        explained({f"{number}.pcap": data for number in range(count)})
    assert str(caught.value).startswith(f"0.pcap: {words}")
