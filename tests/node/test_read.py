"""Whatever people have of a node is read, or refused with the right words; never written, never a traceback."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.node.read import read
from lab.node.sources import MAX_BYTES, MAX_PARTS
from lab.vocabulary import Backend, Family, ProxyMode

GIVEN = Path(__file__).with_name("given")

REFUSED = {
    "dump-node_L.txt": (1, "what iptables -L prints"),
    "files-ct.txt": (1, "nothing that is known of a node"),
    "bridge-shortcut.yaml": (1, "a topology, and nothing of a node"),
    "record-cut.json": (1, "no JSON"),
}
TAKEN = {
    "dump-node_grep.txt": (ProxyMode.IPTABLES, "7 lines outside of any table"),
    "dump-node_wrongname.txt": (ProxyMode.IPTABLES, ""),
    "nft-ruleset-warnings.txt": (ProxyMode.NFTABLES, ""),
    "nft-ruleset.json": (ProxyMode.NFTABLES, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_node_is_refused_by_its_line(name):
    line, words = REFUSED[name]
    with pytest.raises(InputError, match=words) as caught:
        read([str(GIVEN / name)])
    assert (caught.value.source, caught.value.line) == (str(GIVEN / name), line)
    assert caught.value.cure


@pytest.mark.parametrize("name", TAKEN)
def test_rules_keep_their_lines_and_say_what_is_missing(name):
    mode, partial = TAKEN[name]
    [saved] = read([str(GIVEN / name)]).rules
    assert saved.mode is mode
    assert partial in saved.partial
    assert bool(saved.partial) is bool(partial)
    given = (GIVEN / name).read_text().split("\n")
    for number, line in enumerate(saved.text.split("\n"), 1):
        if line.startswith("-A "):
            assert given[saved.line(number) - 1].strip() == line


def test_every_dump_of_a_real_kube_proxy_is_read_whole(dumps):
    names = [path for path in dumps.path("v1.14.0/iptables-v4").parents[1].glob("*/*.txt") if path.stem in KINDS]
    assert len(names) > 60
    for path in names:
        [saved] = [one for one in read([str(path)]).rules if one.family is KINDS[path.stem]][:1]
        assert saved.partial == ""
        rules = [line.strip() for line in path.read_text().split("\n")]
        assert all(line in ("", rules[number]) for number, line in enumerate(saved.text.split("\n")) if line), path
        if path.stem != "nft":
            assert saved.backend is Backend.NFT


KINDS = {"iptables-v4": Family.IPV4, "iptables-v4-dual": Family.IPV4, "iptables-v6": Family.IPV6, "nft": None}


def test_parts_of_several_sorts_are_one_node(tmp_path):
    files = {
        "a": "Linux Worker-1 6.1.0-9-amd64 #1 SMP x86_64 GNU/Linux\niptables v1.8.9 (nf_tables)\nnftables v1.0.6 (x)\n",
        "b": json.dumps([{"ifname": "eth0", "mtu": 1500, "addr_info": [{"local": "192.0.2.1", "prefixlen": 24}]}]),
        "c": '[{"dst":"default","gateway":"192.0.2.254","dev":"eth0"},{"dst":"192.0.2.0/24","dev":"eth0"}]\n'
        '[{"dst":"fd00::/64","dev":"eth0"},{"dst":"default","gateway":"fe80::1","dev":"eth0"}]\n',
        "d": "/usr/local/bin/kube-proxy\0--config=/a/b\0--hostname-override=w1\0",
        "e": "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n",
        "f": "cpu=0 found=1 invalid=2\ncpu=1 found=1 invalid=3\nnet.ipv4.conf.eth0/1.rp_filter = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name in ("log-dmesg.txt", "files-sysctl.txt", "nft-objs.yaml"):
        (tmp_path / name).write_text((GIVEN / name).read_text())
    bundle = read([str(tmp_path)])
    assert (bundle.name, bundle.kernel) == ("w1", "6.1.0-9-amd64")
    assert bundle.programs == {"iptables": "1.8.9 (nf_tables)", "iptables-nft": "1.8.9", "nft": "1.0.6"}
    assert [str(one) for one in bundle.interfaces[0].addresses] == ["192.0.2.1/24"]
    assert [(str(one.to), str(one.via)) for one in bundle.routes] == [
        ("0.0.0.0/0", "192.0.2.254"),
        ("192.0.2.0/24", "None"),
        ("fd00::/64", "None"),
        ("::/0", "fe80::1"),
    ]
    assert bundle.command_line == ("/usr/local/bin/kube-proxy", "--config=/a/b", "--hostname-override=w1")
    assert bundle.config["mode"] == "nftables"
    assert bundle.conntrack == {"found": 2, "invalid": 5}
    assert bundle.sysctls["net/ipv4/conf/eth0.1/rp_filter"] == "1"
    assert bundle.sysctls["net/netfilter/nf_conntrack_tcp_be_liberal"] == "1"
    assert len(bundle.log) > 3
    assert [one.key for one in bundle.services or ()] == ["pay/api"]
    assert read([str(GIVEN / "files-sysctl.txt")]).services is None


NAT = "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.96.0.1/32 -j RETURN\nCOMMIT\n"


def test_each_rule_is_there_once(tmp_path):
    (tmp_path / "nat").write_text(NAT)
    (tmp_path / "filter").write_text("*filter\n:KUBE-FORWARD - [0:0]\nCOMMIT\n")
    (tmp_path / "nft").write_text("table ip nat {\n\tchain KUBE-SERVICES {\n\t}\n}\ntable inet own {\n}\n")
    nat, nft = (read([str(tmp_path / one)]).rules[0] for one in ("nat", "nft"))
    assert "there is no table filter" in nat.partial
    assert "table ip nat" in nft.text
    rules = {Path(one.source).name: one for one in read([str(tmp_path)]).rules}
    assert (rules["nat"].partial, rules["filter"].partial) == ("", "")
    assert rules["nft"].text.split("\n") == ["", "", "", "", "table inet own {", "}", ""]
    (tmp_path / "other").write_text(NAT.replace("10.96.0.1", "10.96.0.2"))
    with pytest.raises(InputError, match="a second dump of the table nat of ipv4"):
        read([str(tmp_path)])


def archive(tmp_path, *members, compress=False):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        for member, content in members:
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    path = tmp_path / "node.tar"
    path.write_bytes(gzip.compress(data.getvalue()) if compress else data.getvalue())
    return str(path)


def member(name, kind=tarfile.REGTYPE, leads=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, leads
    return made


@pytest.mark.parametrize("compress", [False, True])
def test_an_archive_is_read(tmp_path, compress):
    path = archive(tmp_path, (member("./rules.txt"), NAT.encode()), (member("notes.txt"), b"a\n"), compress=compress)
    bundle = read([path])
    assert [one.source for one in bundle.rules] == [f"{path}: rules.txt"]
    assert bundle.notes == ("a",)


HOSTILE = {
    "out": ([(member("../../etc/passwd"), b"a")], "a name that leads out"),
    "absolute": ([(member("/etc/passwd"), b"a")], "a name that leads out"),
    "link": ([(member("a", tarfile.SYMTYPE, "/etc/shadow"), b"")], "a link in the archive"),
    "hard link": ([(member("a", tarfile.LNKTYPE, "/etc/shadow"), b"")], "a link in the archive"),
    "device": ([(member("a", tarfile.CHRTYPE), b"")], "no plain file"),
    "pipe": ([(member("a", tarfile.FIFOTYPE), b"")], "no plain file"),
    "many": ([(member(f"{number}"), b"a = b") for number in range(MAX_PARTS + 1)], "nothing that is known|more than"),
    "NUL": ([(member("a"), b"*nat\n:A - [0:0]\0\nCOMMIT\n")], "it has a NUL"),
    "binary": ([(member("a"), bytes(range(128, 256)))], "not a text file"),
    "deep JSON": ([(member("a"), b"[" * 100_000)], "JSON, but none of ip"),
    "deep nft": ([(member("a"), b'{"nftables": ' + b"[" * 100_000)], "nested too deep|no JSON"),
    "deep YAML": ([(member("a"), b"kind: List\nitems: " + b"[" * 1000)], "nesting depth|nested deeper"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_means_harm_is_one_error_and_nothing_is_written(tmp_path, name):
    members, words = HOSTILE[name]
    path = archive(tmp_path, *members)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=words):
        read([path])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_an_archive_that_is_broken(tmp_path, share):
    for compress in (False, True):
        path = Path(archive(tmp_path, (member("rules"), NAT.encode() * 100), compress=compress))
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share * 0.5)])
        with pytest.raises(InputError):
            read([str(path)])


def test_a_gzip_that_grows_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.node.sources.MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(InputError, match=r"more than \d MiB"):
        read([str(path)])
    assert MAX_BYTES == 256 << 20


def test_standard_input_is_read_once(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(NAT.encode())))
    assert read(["-"]).rules[0].source == "<stdin>"
    with pytest.raises(InputError, match="standard input twice"):
        read(["-", "-"])
