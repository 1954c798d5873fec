"""The sysctls that kube-proxy sets, against those that real ones of 26 releases were seen to set."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.fabric.lab import Lab
from lab.kubeproxy import ProxyOptions
from lab.kubeproxy.said import from_words
from lab.kubeproxy.sysctls import CLOSE_WAIT, ESTABLISHED, KERNELS, Sysctl, sysctls, text
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Family, ProxyMode

LOCALNET = "net/ipv4/conf/all/route_localnet"
LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"
FRESH = {**KERNELS, LOCALNET: 0, LIBERAL: 0}

# Built from the proxier's package, with a main program of their own that sets no time-outs.
WITHOUT_MAIN = {"v1.15.3", "v1.19.10", "v1.22.17"}


def seen():
    """What each real program changed, by its version and mode."""
    found = {}
    with tarfile.open(Path(__file__).parent / "dumps.tar.xz") as archive:
        for member in archive:
            if member.name.endswith("/sysctls.txt"):
                version = member.name.partition("/")[0]
                mode = None
                for line in archive.extractfile(member).read().decode().splitlines():
                    if named := re.match(r"#+ (\w+) mode", line):
                        mode = ProxyMode(named[1])
                        found[version, mode] = {}
                    elif line.startswith("> "):
                        key, value = line[2:].split(":")
                        found[version, mode][key] = int(value)
    return found


SEEN = seen()
NAMES = {f"{version}-{mode}": (version, mode) for version, mode in SEEN}


def made(version, mode, **given):
    """What differs from a fresh namespace when such a kube-proxy has started."""
    set_ = sysctls(ProxyOptions(Family.IPV4, version, **given), mode)
    return {one.key: one.of(FRESH[one.key]) for one in set_ if one.of(FRESH[one.key]) != FRESH[one.key]}


def test_every_minor_was_seen():
    assert {version.split(".")[1] for version, _ in SEEN} == {str(minor) for minor in range(14, 37)}
    assert {version.split(".")[1] for version, mode in SEEN if mode is ProxyMode.NFTABLES} == {
        str(minor) for minor in range(29, 37)
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_real_ones_set(name):
    version, mode = NAMES[name]
    ours = made(version, mode)
    if version in WITHOUT_MAIN:
        ours = {LOCALNET: ours[LOCALNET]}
    assert ours == SEEN[version, mode]


@pytest.mark.lab_kernel
@pytest.mark.parametrize("name", NAMES)
def test_a_labs_node_is_made_so(name):
    version, mode = NAMES[name]
    with Lab(with_proxy(load("kube-proxy"), mode, version, None), family=Family.IPV4) as lab:
        node, client = lab.hosts["node"].namespace, lab.hosts["client"].namespace
        assert {key: int(node.sysctl(key)) for key in FRESH} == {**FRESH, **made(version, mode)}
        assert {key: int(client.sysctl(key)) for key in FRESH} == FRESH


@pytest.mark.parametrize(
    ("version", "given", "opened"),
    [
        ("v1.23", {"node_port_addresses": ("192.0.2.0/24",)}, True),
        ("v1.24", {"node_port_addresses": ("192.0.2.0/24",)}, False),
        ("v1.24", {"node_port_addresses": ("192.0.2.0/24", "127.0.0.0/8")}, True),
        ("v1.25", {"localhost_node_ports": False}, True),
        ("v1.26", {"localhost_node_ports": False}, False),
        ("v1.36", {}, True),
    ],
)
@pytest.mark.parametrize("family", list(Family))
def test_route_localnet_by_what_node_ports_want(version, given, opened, family):
    """Whatever the family: a kube-proxy for IPv6 sets it as well (pkg/proxy/iptables/proxier.go, NewProxier)."""
    keys = [one.key for one in sysctls(ProxyOptions(family, version, **given), ProxyMode.IPTABLES)]
    assert (LOCALNET in keys) is opened


@pytest.mark.parametrize(("version", "liberal"), [("v1.28", False), ("v1.29", True)])
def test_be_liberal_by_its_flag(version, liberal):
    assert (made(version, ProxyMode.IPTABLES, conntrack_tcp_be_liberal=True).get(LIBERAL) == 1) is liberal
    assert LIBERAL not in made(version, ProxyMode.IPTABLES)


def test_time_outs_are_only_raised_from_v1_23_to_v1_28():
    for minor in range(14, 37):
        for one in sysctls(ProxyOptions(Family.IPV4, f"v1.{minor}"), ProxyMode.IPTABLES):
            if one.key in KERNELS:
                assert one.only_raised is (23 <= minor <= 28)
                assert one.of(one.value - 1) == one.value
                assert one.of(one.value + 1) == one.value + one.only_raised


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("1.5h", 5400), (".5m", 30), ("+5.s", 5), ("2s900ms", 2), ("300ms", 0)],
)
def test_time_outs_as_they_are_given(duration, seconds):
    """Cut to whole seconds, as cmd/kube-proxy/app/server.go (later server_linux.go) does."""
    given = {"conntrack_tcp_timeout_established": duration, "conntrack_tcp_timeout_close_wait": duration}
    found = sysctls(ProxyOptions(Family.IPV4, "v1.36", **given), ProxyMode.NFTABLES)
    assert found == (Sysctl(ESTABLISHED, seconds), Sysctl(CLOSE_WAIT, seconds))


@pytest.mark.parametrize("nothing", ["0", "0s", "0h0m"])
def test_a_time_out_of_nothing_leaves_the_kernels(nothing):
    given = {"conntrack_tcp_timeout_established": nothing, "conntrack_tcp_timeout_close_wait": nothing}
    assert sysctls(ProxyOptions(Family.IPV4, "v1.36", **given), ProxyMode.NFTABLES) == ()


def test_a_given_time_out_is_only_raised_as_well():
    found = sysctls(ProxyOptions(Family.IPV4, "v1.28", conntrack_tcp_timeout_established="10m"), ProxyMode.IPTABLES)
    assert Sysctl(ESTABLISHED, 600, only_raised=True) in found


@pytest.mark.lab_kernel
def test_a_labs_node_has_the_time_outs_that_are_given():
    said = from_words({"conntrack_tcp_timeout_established": "10m", "conntrack_tcp_timeout_close_wait": "0"})
    with Lab(with_proxy(load("kube-proxy"), None, "v1.33", None, said), family=Family.IPV4) as lab:
        node = lab.hosts["node"].namespace
        assert {key: int(node.sysctl(key)) for key in KERNELS} == {**KERNELS, ESTABLISHED: 600}


def test_an_older_one_has_no_nftables_mode():
    with pytest.raises(InputError, match=r"v1.28 has no nftables mode \(take v1.29 or later\)"):
        sysctls(ProxyOptions(Family.IPV4, "v1.28"), ProxyMode.NFTABLES)


@pytest.mark.parametrize("raised", [False, True])
def test_as_sysctl_takes_them(raised):
    """What ``sysctl -p`` would set is what a kernel has afterwards that had its own values."""
    settings = (Sysctl(ESTABLISHED, 86400, raised), Sysctl(CLOSE_WAIT, 3600, raised), Sysctl(LOCALNET, 1))
    lines = [line for line in text(settings).splitlines() if not line.startswith("#")]
    now = {key.replace("/", "."): value for key, value in FRESH.items()}
    now |= {name: int(value) for name, value in (line.split(" = ") for line in lines)}
    assert now == {one.name: one.of(FRESH[one.key]) for one in settings} | {LIBERAL.replace("/", "."): 0}
    assert text(settings).count("only where it is less") == 2 * raised
