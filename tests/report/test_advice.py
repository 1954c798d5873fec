"""What is said of other versions of kube-proxy is what their rules are."""

import re

import pytest

from lab.fixes import NONE
from lab.kubeproxy.changes import NFT_ALPHA
from lab.kubeproxy.releases import MINORS, find_release
from lab.report.advice import advice, drops_invalid
from lab.topology.kube_proxy import proxy_options, render_rules
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Family, ProxyMode

PAIRS = [
    (mode, version)
    for mode in ProxyMode
    for version in MINORS
    if mode is ProxyMode.IPTABLES or NFT_ALPHA in find_release(version)
]


def rules(mode, version):
    topology = with_proxy(load("kube-proxy"), mode, version, None)
    [node] = topology.nodes
    options = proxy_options(topology, node, Family.IPV4, NONE.change)
    return "\n".join(render_rules(topology, options, NONE.change, mode))


@pytest.mark.parametrize(("mode", "version"), PAIRS, ids=lambda value: str(value))
def test_a_version_drops_if_its_rules_do(mode, version):
    rule = re.search(r"^.*\binvalid\b.*\bdrop\b.*$", rules(mode, version), re.IGNORECASE | re.MULTILINE)
    assert drops_invalid(mode, version) is (rule is not None)


@pytest.mark.parametrize(("mode", "version"), PAIRS, ids=lambda value: str(value))
def test_the_sentence_has_every_version_where_it_belongs(mode, version):
    *_, sentence = advice()
    [of_mode] = re.findall(rf"in {mode} mode ([^;]*)", sentence)
    for part in of_mode.rstrip(".").split(", "):
        first, *last = re.findall(r"v1\.(\d+)", part)
        if int(first) <= int(version[3:]) <= int((last or [first])[0]):
            assert ("not dropped" not in part) is drops_invalid(mode, version)
            assert ("unless be_liberal" in part) is (
                drops_invalid(mode, version) and not drops_invalid(mode, version, be_liberal=True)
            )
            break
    else:
        pytest.fail(f"{version} is in no part of: {sentence}")


def test_the_default_that_is_named_is_what_the_first_topology_says():
    [node] = load("kube-proxy").nodes
    first, _second = advice()
    assert f"by default one of kube-proxy {node.proxy_version} in {node.proxy_mode} mode" in first
    assert "`lab doctor`" in first


def test_no_default_is_named_where_it_was_not_taken():
    for one, words in (
        ({"programs": True}, "the kube-proxy that was given wrote its rules"),
        ({"standing": True}, "as `lab up` had it"),
    ):
        first, _second = advice(**one)
        assert words in first
        assert "by default" not in first
        assert "`lab doctor`" in first
