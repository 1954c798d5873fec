"""What the collecting script brings from a node, and that it leaves the node as it was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest

from lab.node.read import read
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.command import lab

SCRIPT = files("lab.node").joinpath("collect.sh").read_text()
NAMES = ("before", "after")
STATE = """
state() {
    { iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; nft list ruleset; } | grep -v "^#"
    ip -4 addr; ip route
    cat /proc/net/ip_tables_names /proc/net/ip6_tables_names /proc/modules 2>/dev/null || :
    ls /sys/module; find /proc/sys/net -type f -name 'nf_*' ! -name '*_count' -exec grep -H '' {} + 2>/dev/null || :
}
"""
NODE = f"""
set -e
export XTABLES_LOCKFILE="$PWD/lock"
ip link add cni0 type bridge && ip addr add 10.244.1.1/24 dev cni0 && ip link set cni0 up && ip link set lo up
ip route add 10.244.2.0/24 via 10.244.1.9
sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1
iptables-nft-restore <<'RULES'
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
RULES
ip6tables-nft -A FORWARD -j ACCEPT
iptables-legacy -A INPUT -j ACCEPT
nft add table ip kube-proxy
{STATE}
state >before 2>&1
"$@" -s -- "$PWD/node.tar" <collect.sh 2>said
state >after 2>&1
"""


def in_node(directory, *shell):
    (directory / "collect.sh").write_text(SCRIPT)
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    subprocess.run([*unshare, "sh", "-c", NODE, "sh", *shell], check=True, cwd=directory, timeout=60)
    before, after = (re.sub(r"\d+:\d+\]|packets \d+ bytes \d+", "", (directory / name).read_text()) for name in NAMES)
    assert before == after


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]], ids=" ".join)
def test_all_of_a_node_comes_and_nothing_is_changed(tmp_path, shell):
    if not all(map(shutil.which, [shell[0], "iptables-nft", "iptables-legacy", "nft"])):
        pytest.skip(f"there is no {shell[0]}, iptables of both backends, or nft")
    in_node(tmp_path, *shell)
    bundle = read([str(tmp_path / "node.tar")])
    found = {(one.mode, one.family, one.backend): one for one in bundle.rules}
    ipv4 = found[ProxyMode.IPTABLES, Family.IPV4, Backend.NFT]
    assert "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP" in ipv4.text
    assert (ProxyMode.IPTABLES, Family.IPV6, Backend.NFT) in found
    if os.geteuid() == 0:
        assert (ProxyMode.IPTABLES, Family.IPV4, Backend.LEGACY) in found
    else:  # the names of legacy tables are for the machine's root alone, also in a namespace of one's own
        assert [note for note in bundle.notes if "rules of iptables-legacy are not known" in note]
    assert "table ip kube-proxy {" in found[ProxyMode.NFTABLES, None, None].text
    assert "table ip filter" not in found[ProxyMode.NFTABLES, None, None].text, "iptables-save printed it"
    assert bundle.sysctls["net/netfilter/nf_conntrack_tcp_be_liberal"] == "1"
    assert (bundle.kernel, bundle.name) == (os.uname().release, os.uname().nodename.lower())
    assert "invalid" in bundle.conntrack
    assert bundle.programs["nft"]
    assert not [key for key in bundle.sysctls if "secret" in key or key.endswith("_key")]
    if shell == ["dash"]:  # busybox' own ip knows no -j, and that is said
        [cni] = [one for one in bundle.interfaces if one.name == "cni0"]
        assert [str(one) for one in cni.addresses if one.version == 4] == ["10.244.1.1/24"]
        assert cni.kind == "bridge"
        assert "10.244.2.0/24" in [str(one.to) for one in bundle.routes if str(one.via) == "10.244.1.9"]
    else:
        assert [note for note in bundle.notes if note.startswith("ip -j")]
    assert {path.name for path in tmp_path.iterdir()} == {"collect.sh", "node.tar", "lock", "said", *NAMES}


def test_who_may_not_read_gets_the_rest_and_is_told(tmp_path):
    command = ["sh", "-s", "--", "-"]
    if os.geteuid() == 0:
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            pytest.skip("an ordinary user's tests are root of a user namespace, where nobody else is to be had")
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command]
    done = subprocess.run(command, input=SCRIPT.encode(), capture_output=True, check=True, cwd="/", timeout=60)
    (tmp_path / "node.tar").write_bytes(done.stdout)
    bundle = read([str(tmp_path / "node.tar")])
    assert "not run as root: most of the rules cannot be read" in bundle.notes
    assert b"collect: not run as root" in done.stderr
    assert bundle.kernel
    assert bundle.sysctls


def test_the_command_prints_the_script_or_runs_it(tmp_path):
    assert lab("collect").stdout == SCRIPT
    refused = lab("collect", "node.tar")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "without --here" in refused.stderr
    done = lab("collect", "--here", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "node.tar") as archive:
        assert "./uname.txt" in archive.getnames()
    failed = lab("collect", "--here", tmp_path / "no" / "node.tar")
    assert failed.returncode == 2
    assert failed.stderr.endswith("node.tar: No such file or directory\n")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck")
def test_the_script_is_plain_posix_shell():
    subprocess.run(["shellcheck", "-s", "sh", "-"], input=SCRIPT.encode(), check=True)
