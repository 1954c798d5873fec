"""Rules of this kernel against themselves, and against what was changed in them."""

from __future__ import annotations

import dataclasses
import re

import pytest

from lab.errors import InputError
from lab.rules import diff
from lab.rules.check import check
from lab.rules.read_dump import read
from lab.rules.scratch import saved, saved_uncounted
from lab.rules.source import Choice
from lab.vocabulary import Backend, Family, ProxyMode

pytestmark = pytest.mark.lab_kernel


def said(comparison):
    return [(str(one.kind), one.name, one.expected, one.found) for one in comparison.differences]


def other_text(text, mode):
    """Write a dump in other words: with counters, handles, CRs, and the rules of others."""
    if mode is ProxyMode.IPTABLES:
        text = re.sub("^-A", "[12:3456] -A", text, flags=re.MULTILINE)
        text = text.replace("[0:0]\n", "[7:8]\n").replace('"', "")  # quotes are only needed around spaces
        text = re.sub(r"--comment (.*?)(?= -[mjpsd] |$)", r'--comment "\1"', text, flags=re.MULTILINE)
        return text.replace("COMMIT", "-A FORWARD -j DOCKER\n-A DOCKER -j RETURN\nCOMMIT")
    text = re.sub(r"^(\t\t.*[^{},\n;])$", r"\1 # handle 7", text, flags=re.MULTILINE)
    return f"table inet other {{\n\tchain a {{\n\t\tdrop\n\t}}\n}}\n{text}"


def test_its_own_save_is_the_same(proxy, own_save):
    assert check(proxy, own_save, "own").differences == ()


def test_so_it_is_when_every_line_is_compared(proxy, own_save, monkeypatch):
    monkeypatch.setattr(diff, "_plainly_equal", lambda *_: False)
    assert check(proxy, own_save, "own").same


def test_other_words_are_no_difference(proxy, own_save):
    text = other_text(own_save, proxy.mode)
    assert text != own_save
    comparison = check(proxy, text, "other")
    assert said(comparison) == []
    assert len(comparison.left_out) == 1


def test_the_backends_save_the_same(make_proxy, iptables_choice, family):
    choice = iptables_choice
    other = Backend.NFT if choice.backend is Backend.LEGACY else Backend.LEGACY
    text = saved(make_proxy(dataclasses.replace(choice, backend=other), family))
    assert check(make_proxy(choice, family), text, "other").same


def test_the_other_mode_is_refused(proxy, own_save):
    other = ProxyMode.NFTABLES if proxy.mode is ProxyMode.IPTABLES else ProxyMode.IPTABLES
    version = "v1.36"
    options = dataclasses.replace(proxy.options, version=version)
    with pytest.raises(InputError, match=f"a dump of a node in {proxy.mode} mode.*give --proxy-mode {proxy.mode}"):
        check(dataclasses.replace(proxy, mode=other, options=options), own_save, "own")


def test_the_other_family_is_refused(proxy, own_save):
    other = next(family for family in Family if family is not proxy.options.family)
    with pytest.raises(InputError, match=r"a rule of|there is no table"):
        check(dataclasses.replace(proxy, options=dataclasses.replace(proxy.options, family=other)), own_save, "own")


def test_a_rule_that_is_gone_is_missing(proxy, own_save):
    """Each rule, one after the other, but for what is declared: nothing can be left out without a word."""
    lines = own_save.split("\n")
    if proxy.mode is ProxyMode.IPTABLES:
        rules = [number for number, line in enumerate(lines) if line.startswith("-A")]
    else:
        rules = [n for n, line in enumerate(lines) if re.match(r"\t\t\w.*[^{,]$", line) and "elements" not in line]
        rules = [n for n in rules if not lines[n].startswith("\t\tsize")]
    expected = read(own_save, "", proxy.options.family)
    assert len(rules) > 40
    for number in rules:
        text = "\n".join([*lines[:number], *lines[number + 1 :]])
        differences = diff.compare(expected, read(text, "", proxy.options.family)).differences
        kinds = {str(one.kind) for one in differences}
        words = lines[number].strip().partition(" -m" if "-A" in lines[number] else "\n")[0]
        assert "missing" in kinds, words


def test_a_changed_rule_is_named(proxy, own_save):
    if proxy.mode is ProxyMode.IPTABLES:
        old, new = "--dport 80 ", "--dport 81 "
        text = own_save.replace(old, new, 1)
    else:
        old, new = "masquerade fully-random", "masquerade random"
        text = own_save.replace(old, new, 1)
    [difference] = check(proxy, text, "changed").differences
    assert difference.kind == "different"
    assert difference.expected.replace(old.strip(), new.strip()) == difference.found
    assert text.split("\n")[difference.line - 1].endswith(difference.found)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_an_endpoint_less_is_named(make_proxy, objects, tmp_path, choice, family, place):
    """The node's kube-proxy has not heard of one endpoint; nothing else is said to differ."""
    address = f"10.244.1.{place}" if family is Family.IPV4 else f"fd00:244::{place}"
    first_slice = objects.read_text().index(f"name: web-{'v4' if family is Family.IPV4 else 'v6'}")
    head, rest = objects.read_text()[:first_slice], objects.read_text()[first_slice:]
    endpoint = re.compile(rf"  - addresses:\n    - {address}\n    nodeName: \S+\n    conditions:\n      ready: true\n")
    fewer = tmp_path / "fewer.yaml"
    fewer.write_text(head + endpoint.sub("", rest, count=1))
    text = saved(make_proxy(choice, family, fewer))
    differences = check(make_proxy(choice, family), text, "fewer").differences
    assert {str(one.kind) for one in differences} == {"missing"}
    if choice.version not in ("v1.36",):  # the chain of the endpoint, its rules, and the rule that chooses it
        assert any(one.expected == "(chain)" for one in differences)
    assert any(address in one.expected for one in differences)
    # Of the others' shares nothing is said, though the numbers differ.
    assert len(differences) <= 5


def test_an_extra_rule_in_a_chain_of_kube_proxy_is_named(proxy, own_save):
    if proxy.mode is ProxyMode.IPTABLES:
        rule = "-m comment --comment stray -j RETURN"
        text = own_save.replace("*nat\n", f"*nat\n:KUBE-STRAY - [0:0]\n-A KUBE-STRAY {rule}\n")
        text = text.replace("-A KUBE-MARK-MASQ", f"-A KUBE-MARK-MASQ {rule}\n-A KUBE-MARK-MASQ", 1)
        wanted = [("KUBE-MARK-MASQ", rule), ("KUBE-STRAY", "(chain)"), ("KUBE-STRAY", rule)]
    else:
        text = own_save.replace("\tchain services {\n", "\tchain stray {\n\t}\n\n\tchain services {\n\t\tdrop\n")
        wanted = [("services", "drop"), ("stray", "(chain)")]
    differences = check(proxy, text, "stray").differences
    assert [(one.name, one.found) for one in differences] == wanted
    assert {str(one.kind) for one in differences} == {"extra"}


def test_the_kubelets_chains_are_not_extra(make_proxy, iptables_choice):
    proxy = make_proxy(iptables_choice)
    text = saved(proxy).replace("*nat\n", "*nat\n:KUBE-KUBELET-CANARY - [0:0]\n")
    text += "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n" * ("*mangle" not in text)
    assert check(proxy, text, "node").same


def test_a_table_that_was_not_dumped_is_not_compared(make_proxy, iptables_choice):
    proxy = make_proxy(iptables_choice)
    text = saved(proxy)
    [nat] = re.findall(r"^\*nat\n.*?^COMMIT\n", text, re.MULTILINE | re.DOTALL)
    comparison = check(proxy, nat, "nat alone")
    assert comparison.same
    assert "The dump has no table filter: not compared." in comparison.left_out


@pytest.mark.parametrize("nfacct", [True, False])
def test_whether_rules_count_by_name_is_up_to_the_nodes_kernel(make_proxy, nfacct):
    """Where it has no nfacct, kube-proxy leaves out the matches, and a rule that does nothing but count."""
    proxy = make_proxy(Choice(ProxyMode.IPTABLES, "v1.32"))
    text = saved_uncounted(dataclasses.replace(proxy, options=dataclasses.replace(proxy.options, nfacct=nfacct)))
    assert ("-d 127.0.0.0/8 -p tcp" in text) == nfacct
    if nfacct:
        counting = " -m nfacct --nfacct-name ct_state_invalid_dropped_pkts"
        text = text.replace("--ctstate INVALID -j", f"--ctstate INVALID{counting} -j")
        assert counting in text
    assert check(proxy, text, "node").same
