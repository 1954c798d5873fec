"""Prints what the network of the namespace it is started in is set to, as one JSON object of names and texts.

It only reads, and asks nothing that would make the kernel set something up: iptables-legacy-save without a
table's name saves the tables that are there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

COMMANDS = (
    "ip -details address",  # links and their settings as well
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -4 rule",
    "ip -6 rule",
    "ip neighbour",
    "ip maddress",
    "ip tunnel",
    "ip netns",
    "ip xfrm state",
    "ip xfrm policy",
    "tc qdisc",
    "nft list ruleset",
    "nft list hooks",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
    "iptables-nft-save",
    "ip6tables-nft-save",
)

FILES = (
    "/proc/net/ip_tables_names",
    "/proc/net/ip6_tables_names",
    "/proc/net/ip_tables_matches",
    "/proc/net/netfilter/nf_log",
    "/proc/net/netfilter/nfnetlink_log",
    "/proc/net/netfilter/nfnetlink_queue",
    "/proc/net/if_inet6",
    "/proc/net/ipv6_route",
    "/proc/net/tcp",
    "/proc/net/tcp6",
    "/proc/net/udp",
    "/proc/net/udp6",
    "/proc/net/raw",
    "/proc/net/packet",
    "/proc/modules",
)

DIRECTORIES = ("/run/netns", "/var/run/netns", "/etc/netns")
SYSCTLS = ("/proc/sys/net", "/proc/sys/kernel", "/proc/sys/user")


def output(command: str) -> str:
    try:
        run = subprocess.run(command.split(), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        return "not installed"
    # iptables-save writes the time of day into its comments.
    text = re.sub(r"^# (Generated|Completed) .*$", "", run.stdout, flags=re.MULTILINE)
    return f"{text}{run.stderr}exit code {run.returncode}"


def content(path: str | Path) -> str:
    try:
        return Path(path).read_bytes().decode(errors="replace")
    except OSError as error:
        return f"not readable: {error.strerror}"


def listing(path: str) -> str:
    try:
        return "\n".join(sorted(os.listdir(path)))
    except OSError as error:
        return f"not readable: {error.strerror}"


def lock() -> str:
    path = Path("/run/xtables.lock")
    with contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        return f"inode {facts.st_ino}, {facts.st_size} bytes, last changed {facts.st_mtime_ns}"
    return "not there"


def sysctls() -> dict[str, str]:
    found = {}
    for root in SYSCTLS:
        for directory, _directories, names in os.walk(root):
            for name in names:
                path = os.path.join(directory, name)
                if os.stat(path).st_mode & 0o444:
                    found[path] = content(path)
    return found


if __name__ == "__main__":
    seen = {command: output(command) for command in COMMANDS}
    seen |= {path: content(path) for path in FILES}
    seen |= {path: listing(path) for path in DIRECTORIES}
    seen |= {"/run/xtables.lock": lock(), "mounts": content("/proc/self/mountinfo"), "hostname": os.uname().nodename}
    print(json.dumps(seen | sysctls()))
