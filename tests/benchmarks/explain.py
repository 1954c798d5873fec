"""How fast captures are explained, beside `tshark -q -z conv,tcp` and `tcpdump -r` on the same file.

    python tests/benchmarks/explain.py [PACKETS]

Captures are made of what nothing is wrong with: downloads in full-size packets, the same cut to 64 bytes, short
connections that ask and are answered, and DNS, a question and its answer from each port; and a flood of SYNs.
Others have something to tell of everybody: these measure memory.
Each program reads each of them three times, in turns, and its best time counts; a time is of a processor, with the
program's start. Ratios are of times: above 1 the lab is the slower one. Nothing is judged here.
"""

from __future__ import annotations

import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from itertools import chain, count, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.evidence.packet import ACK, FIN, PSH, RST, SYN
from tests.support.captures import MOMENT, linked, tcp, udp

SIZE = 1448  # bytes of data in a packet
EACH = 5000  # packets of a connection
ROUNDS = 3
LAB = "lab explain"
PROGRAMS = {
    LAB: (sys.executable, "-m", "lab", "explain"),
    "tshark": ("tshark", "-q", "-z", "conv,tcp", "-r"),
    "tcpdump": ("tcpdump", "-nnr"),
}
STAMPS = b"\x01\x01\x08\x0a" + struct.pack("!II", 1, 2)
#: As Linux sends them: MSS, SACK permitted, timestamps, window scale.
OPTIONS = b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + struct.pack("!II", 1, 0) + b"\x01\x03\x03\x07"


def download(port, packets):
    """Make the packets of one download by a VIP, as the client's side of a node has it: an ACK for every second one."""
    client, vip = ("10.0.0.2", port), ("192.168.0.2", 80)
    asked, sent, data = port * 1000, 5000, bytes(SIZE)
    yield tcp(client, vip, SYN, asked - 1, 0, options=OPTIONS)
    yield tcp(vip, client, SYN | ACK, sent - 1, asked, options=OPTIONS)
    yield tcp(client, vip, ACK, asked, sent, options=STAMPS, window=2000)
    for number in range(packets):
        if number % 3 == 2:
            yield tcp(client, vip, ACK, asked, sent, options=STAMPS, window=2000, number=number)
        else:
            yield tcp(vip, client, ACK, sent, asked, data, options=STAMPS, window=2000, number=number)
            sent += SIZE


def client_of(number):
    """Return an address and a port that no other number has."""
    host, port = divmod(number, 28_000)
    return f"10.{host // 250 % 250}.{host % 250}.2", 1024 + 2 * port


def short(number, packets):
    """Make the packets of a connection that asks, is answered, and ends; some 10, 100 or so, four to a question."""
    client, vip = client_of(number), ("192.168.0.2", 80)
    asked, sent = number * 506_816 % 2**32, number * 6_710_856 % 2**32
    common = {"options": STAMPS, "window": 502}
    yield tcp(client, vip, SYN, asked - 1, 0, options=OPTIONS)
    yield tcp(vip, client, SYN | ACK, sent - 1, asked, options=OPTIONS)
    yield tcp(client, vip, ACK, asked, sent, **common)
    for question in range((packets - 6) // 4):
        yield tcp(client, vip, ACK | PSH, asked, sent, bytes(100), number=2 * question, **common)
        yield tcp(vip, client, ACK, sent, asked + 100, number=2 * question, **common)
        yield tcp(vip, client, ACK | PSH, sent, asked + 100, bytes(1000), number=2 * question + 1, **common)
        asked, sent = asked + 100, sent + 1000
        yield tcp(client, vip, ACK, asked, sent, number=2 * question + 1, **common)
    yield tcp(client, vip, ACK | FIN, asked, sent, **common)
    yield tcp(vip, client, ACK | FIN, sent, asked + 1, **common)
    yield tcp(client, vip, ACK, asked + 1, sent + 1, **common)


def lookup(number):
    """Make a question to a DNS server from a port of its own, and the answer."""
    client, server = client_of(number), ("10.96.0.10", 53)
    name, head = b"\x03www\x07example\x03com\0\0\x01\0\x01", number * 31 % 2**16
    question = struct.pack("!HHHHHH", head, 0x0100, 1, 0, 0, 0) + name
    answer = struct.pack("!HHHHHH", head, 0x8180, 1, 1, 0, 0) + name + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
    yield udp(client, server, question, number=number % 2**16)
    yield udp(server, client, answer, number=number * 3 % 2**16)


def flood(number):
    """Make a SYN that nobody answers."""
    yield tcp(client_of(number), ("192.168.0.2", 80), SYN, number * 506_816 % 2**32, 0, options=OPTIONS)


def refused(number):
    """Make a SYN that a closed port refuses, as a scan has it."""
    client, server = client_of(number), ("192.168.0.2", 80)
    asked = number * 506_816 % 2**32
    yield tcp(client, server, SYN, asked, 0, options=OPTIONS)
    yield tcp(server, client, RST | ACK, 0, asked + 1)


def again(number):
    """Make a connection with a segment that is sent again."""
    packets = list(short(number, 10))
    yield from (*packets[:4], *packets[3:])


def unanswered(number):
    """Make 70 questions of one port that nobody answers."""
    for question in range(70):
        head = struct.pack("!H", (number + question * 977) % 2**16)
        payload = head + b"\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01"
        yield udp(client_of(number), ("10.96.0.10", 53), payload, number=(number * 70 + question) % 2**16)


def write(path, packets, snaplen):
    """Write a capture; return its size."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, 1))
        for number, packet in enumerate(packets):
            whole = linked(packet, 1)
            second, part = divmod(MOMENT // 1000 + number, 10**6)
            kept = whole[:snaplen]
            file.write(struct.pack("<IIII", second, part, len(kept), len(whole)) + kept)
    return path.stat().st_size


def seconds(*command):
    """Return how long a command takes on a processor, and the most memory that it had, in MiB."""
    started = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere)
        _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 1), command
    return min(time.perf_counter() - started, used.ru_utime + used.ru_stime), used.ru_maxrss / 1024


KINDS = {
    "full-size": (lambda number: download(10_000 + number, EACH), 65535),
    "64 bytes": (lambda number: download(10_000 + number, EACH), 64),
    "98 packets a connection": (lambda number: short(number, 98), 65535),
    "10 packets a connection": (lambda number: short(number, 10), 65535),
    "DNS": (lookup, 65535),
    "a flood of SYNs": (flood, 65535),
    "a scan that is refused": (refused, 65535),
    "a segment sent again in each connection": (again, 65535),
    "70 questions a port that nobody answers": (unanswered, 65535),
}


def main():
    packets = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    there = {name: command for name, command in PROGRAMS.items() if name == LAB or shutil.which(command[0])}
    for name in PROGRAMS.keys() - there.keys():
        print(f"{name} is not installed")
    with tempfile.TemporaryDirectory() as directory:
        for kind, (make, snaplen) in KINDS.items():
            path = Path(directory) / "capture.pcap"
            size = write(path, islice(chain.from_iterable(map(make, count())), packets), snaplen)
            took = {name: [] for name in there}
            for _ in range(ROUNDS):
                for name, command in there.items():
                    took[name].append(seconds(*command, path))
            own, memory = min(took[LAB])
            print(f"{kind}: {packets:,} packets, {size / 1e6:,.0f} MB: {own:.2f} s of processor, {memory:.0f} MiB")
            print(f"  {packets / own:,.0f} packets a second, {size / own / 1e6:,.0f} MB/s")
            for other in there.keys() - {LAB}:
                theirs, much = min(took[other])
                print(f"  {own / theirs:.2f} times as long as {other}, which takes {theirs:.2f} s, {much:.0f} MiB")


if __name__ == "__main__":
    print(f"{os.cpu_count()} processors; {resource.getpagesize()} bytes a page")
    main()
