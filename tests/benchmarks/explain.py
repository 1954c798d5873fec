"""How fast captures are explained, beside `tshark -q -z conv,tcp` and `tcpdump -r` on the same file.

    python tests/benchmarks/explain.py [PACKETS]

Three captures are made: downloads in full-size packets, the same cut to 64 bytes, and such of many short downloads.
Ratios are of times: above 1 the lab is the slower one. Nothing is judged here.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lab.evidence.packet import ACK, SYN
from tests.support.captures import MOMENT, linked, tcp

SIZE = 1448  # bytes of data in a packet
EACH = 5000  # packets of a connection
OTHERS = {"tshark": ("tshark", "-q", "-z", "conv,tcp", "-r"), "tcpdump": ("tcpdump", "-nnr")}


def download(port, packets):
    """Make the packets of one download by a VIP, as the client's side of a node has it: an ACK for every second one."""
    client, vip = ("10.0.0.2", port), ("192.168.0.2", 80)
    stamps = b"\x01\x01\x08\x0a" + struct.pack("!II", 1, 2)
    scale = b"\x01\x03\x03\x07"
    asked, sent, data = port * 1000, 5000, bytes(SIZE)
    yield tcp(client, vip, SYN, asked - 1, 0, options=scale)
    yield tcp(vip, client, SYN | ACK, sent - 1, asked, options=scale)
    yield tcp(client, vip, ACK, asked, sent, options=stamps, window=2000)
    for number in range(packets):
        if number % 3 == 2:
            yield tcp(client, vip, ACK, asked, sent, options=stamps, window=2000, number=number)
        else:
            yield tcp(vip, client, ACK, sent, asked, data, options=stamps, window=2000, number=number)
            sent += SIZE


def write(path, count, snaplen, each=EACH):
    """Write a capture of so many packets; return its size."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, 1))
        made = 0
        while made < count:
            for packet in download(10000 + made // each, min(each, count - made)):
                whole = linked(packet, 1)
                second, part = divmod(MOMENT // 1000 + made, 10**6)
                kept = whole[:snaplen]
                file.write(struct.pack("<IIII", second, part, len(kept), len(whole)) + kept)
                made += 1
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


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with tempfile.TemporaryDirectory() as directory:
        for name, snaplen, each in (
            ("full-size", 65535, EACH),
            ("64 bytes", 64, EACH),
            ("64 bytes, 100 packets a connection", 64, 100),
        ):
            path = Path(directory) / "capture.pcap"
            size = write(path, count, snaplen, each)
            own, memory = seconds(sys.executable, "-m", "lab", "explain", path)
            print(f"{name}: {count:,} packets, {size / 1e6:,.0f} MB: {own:.2f} s of processor, {memory:.0f} MiB")
            print(f"  {count / own:,.0f} packets a second, {size / own / 1e6:,.0f} MB/s")
            for other, command in OTHERS.items():
                if shutil.which(other) is None:
                    print(f"  {other} is not installed")
                    continue
                theirs, _memory = seconds(*command, path)
                print(f"  {own / theirs:.2f} times as long as {other}, which takes {theirs:.2f} s")


if __name__ == "__main__":
    print(f"{os.cpu_count()} processors; {resource.getpagesize()} bytes a page")
    main()
