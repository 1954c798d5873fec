"""Rules in parts: nothing is lost, nothing comes before what it needs, and the kernel has the same as of the whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from lab.errors import LabError
from lab.netns import Namespace, Nft, NftError, ProgramError, Xtables, parts
from lab.netns.xtables import PartlyLoadedError

LINES = [
    ":KUBE-SERVICES - [0:0]",
    ":KUBE-SVC-A - [0:0]",
    ":KUBE-SEP-A - [0:0]",
    ":KUBE-SEP-GONE - [0:0]",
    "-A KUBE-SERVICES -d 10.0.0.1 -j KUBE-SVC-A",
    "-A KUBE-SVC-A -j KUBE-SEP-A",
    "-A KUBE-SEP-A -j KUBE-MARK-MASQ",
    "-A KUBE-SEP-A -j DNAT",
    "-A KUBE-SERVICES -j RETURN",
    "-X KUBE-SEP-GONE",
]

SCRIPT = """\
add table ip t
add chain ip t a
flush chain ip t a
add element ip t m { 1 }
add rule ip t a accept
add chain ip t b
flush chain ip t b
add rule ip t b accept
delete element ip t m { 2 }
add element ip t m { 2 : drop }
delete element ip t m { 3 }
delete element ip t m { 4 }
flush chain ip t gone
table inet x {
chain y {
type filter hook input priority 0; comment "{"
}
}
"""


def test_chains_come_before_what_jumps_to_them_and_deletions_last():
    blocks = parts.restore_blocks(LINES)
    assert sorted(line for block in blocks for line in block) == sorted(LINES)
    assert [block[0].split()[0] for block in blocks] == [
        *(":KUBE-SEP-A", ":KUBE-SVC-A", ":KUBE-SERVICES", ":KUBE-SEP-GONE", "-X"),
    ]
    assert blocks[2] == [LINES[0], LINES[4], LINES[8]]


def test_no_chain_waits_for_its_rules_in_a_script():
    blocks = parts.script_blocks(SCRIPT)
    assert [line for block in blocks for line in block] == SCRIPT.splitlines()
    assert [len(block) for block in blocks] == [1, 4, 3, 2, 1, 1, 1, 5]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_what_is_too_much_is_halved(limit):
    sent = []

    def send(lines):
        if len(lines) > limit:
            return False
        sent.extend(lines)
        return True

    blocks = [[f"{block}.{line}" for line in range(5)] for block in range(6)]
    parts.load(blocks, 20, len, send)
    assert sent == [line for block in blocks for line in block]


def test_a_line_that_is_too_much_alone_is_named():
    with pytest.raises(LabError, match=r"too large for one transaction without root.*: b"):
        parts.load([["a"], ["b"]], 10, len, lambda lines: "b" not in lines)


def many(chains):
    """Return an iptables-restore input: a jump in one table; in the next one to each of many chains of two rules."""
    names = [f"LAB-{number:04}" for number in range(chains)]
    lines = [":LAB - [0:0]", *(f":{name} - [0:0]" for name in names)]
    for name in names:
        lines += [f'-A LAB -m comment --comment "to {name}" -j {name}', f"-A {name} -s 10.0.0.1/32 -j ACCEPT"]
        lines.append(f"-A {name} -p tcp -m tcp --dport 80 -j RETURN")
    return "\n".join(("*filter", ":LAB - [0:0]", "-I FORWARD -j LAB", "COMMIT", "*nat", *lines, "COMMIT", ""))


def many_for_nft(chains):
    """Return an nft script with an element for each of many chains, with two rules each."""
    lines = ["add table ip t", "add map ip t m { type ipv4_addr : verdict ; }"]
    for number in range(chains):
        lines += [f"add chain ip t c{number}", f"flush chain ip t c{number}"]
        lines += [f"add element ip t m {{ 10.0.{number // 250}.{number % 250} : goto c{number} }}"]
        lines += [f"add rule ip t c{number} ip daddr 10.0.0.{port} accept" for port in (1, 2)]
    return "\n".join((*lines, ""))


@pytest.fixture
def namespaces():
    made = [Namespace.create(), Namespace.create()]
    yield made
    for namespace in made:
        namespace.close()


@pytest.fixture
def little_room(monkeypatch):
    """Let as much be sent at once as some 30 rules take."""
    monkeypatch.setattr(parts, "room", lambda *_, **__: 20_000)
    monkeypatch.setattr(parts, "room_of_programs", lambda: 20_000)


@pytest.fixture
def counted(monkeypatch):
    """Count the parts."""
    sizes = []
    load = parts.load

    def counting(blocks, size, weigh, send):
        load(blocks, size, weigh, lambda lines: (sizes.append(len(lines)), send(lines))[1])

    monkeypatch.setattr(parts, "load", counting)
    return sizes


def saved(namespace, version=4):
    xtables = Xtables(namespace, "nft")
    text = re.sub(r"^#.*\n", "", xtables.save(version), flags=re.MULTILINE)
    xtables.close()
    return text


@pytest.mark.lab_kernel
class TestKernel:
    def test_iptables_has_the_same(self, namespaces, counted, request):
        text = many(100)
        whole, in_parts = namespaces
        for namespace in namespaces:
            if namespace is in_parts:
                request.getfixturevalue("little_room")
            for given in (text.replace("-I FORWARD -j LAB\n", ""), text):  # the second time it replaces
                Xtables(namespace, "nft").start_restore(4, given).finish()
            if namespace is whole:
                assert counted == []
        assert len(counted) > 4
        assert saved(in_parts) == saved(whole)
        assert saved(whole).count("-A LAB -m comment") == 100
        # The filter table's jump stands there once, though the nat table did not fit.
        assert saved(in_parts).count("-A FORWARD -j LAB\n") == 1

    def test_what_nobody_uses_yet_comes_in_parts_to_root_as_well(self, namespaces, counted, monkeypatch):
        from lab.netns import xtables

        monkeypatch.setattr(xtables, "_QUICK", 20_000)
        monkeypatch.setattr(parts, "room_of_programs", lambda: 1 << 30)
        whole, in_parts = namespaces
        Xtables(whole, "nft").start_restore(4, many(100)).finish()
        assert counted == []
        Xtables(in_parts, "nft").start_restore(4, many(100), unused=True).finish()
        assert len(counted) > 4
        assert saved(in_parts) == saved(whole)

    def test_nft_has_the_same(self, namespaces, counted, request):
        script = many_for_nft(300)
        listings = []
        for namespace in namespaces:
            nft = Nft(namespace)
            nft.run(script)
            listings.append(nft.run("list ruleset"))
            nft.close()
            if len(listings) == 1:
                assert counted == []
                request.getfixturevalue("little_room")
        assert len(counted) > 4
        assert listings[0] == listings[1]
        assert listings[0].count("goto c") == 300

    def test_so_it_has_of_json(self, namespaces, counted, little_room):
        nft, other = map(Nft, namespaces)
        nft.run(many_for_nft(300))
        counted.clear()
        objects = json.loads(nft.run("list ruleset", json=True))["nftables"]
        order = ("table", "chain", "map", "rule")
        named = sorted(
            ((kind, one) for each in objects for kind, one in each.items() if kind in order),
            key=lambda pair: order.index(pair[0]),
        )
        for _, one in named:
            one.pop("handle", None)
        other.add([{kind: one} for kind, one in named])
        assert len(counted) > 4
        assert sorted(other.run("list ruleset").split("\n")) == sorted(nft.run("list ruleset").split("\n"))
        nft.close()
        other.close()

    def test_an_error_says_what_is_loaded(self, namespaces, little_room):
        first, second = namespaces
        nft = Nft(first)
        with pytest.raises(NftError, match=r"(?s)No such file.*\(after \d+ parts that are loaded\)"):
            nft.run(many_for_nft(300) + "add rule ip t nowhere accept\n")
        assert "chain c7" in nft.run("list ruleset")
        nft.close()
        bad = many(100).replace("-A LAB-0099", "-A LAB -j NOWHERE-AT-ALL\n-A LAB-0099", 1)
        with pytest.raises(PartlyLoadedError, match=r"(?s)NOWHERE-AT-ALL.*\(after \d+ parts of nat that are loaded\)"):
            Xtables(second, "nft").start_restore(4, bad).finish()
        assert ":LAB-0007 " in saved(second)
        with pytest.raises(ProgramError) as refused:
            Xtables(second, "nft").start_restore(4, "*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n").finish()
        assert not isinstance(refused.value, PartlyLoadedError)

    def test_the_sockets_own_limit_is_met(self, in_user_namespace):
        """Both ways to know of it: the room that is asked for, and the kernel's refusal where that says too much."""
        printed = in_user_namespace(
            """
            from tests.netns.test_parts import many, many_for_nft, saved
            programs = parts.room_of_programs
            def small(channel, **_):
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
                return factor * channel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            parts.room = small
            parts.room_of_programs = lambda: factor * programs()
            for factor in (1, 2):
                namespace = Namespace.create()
                nft = Nft(namespace)
                nft.run(many_for_nft(1000))
                print(nft.run("list ruleset").count("goto c"))
                xtables = Xtables(namespace, "nft")
                xtables.start_restore(4, many(400)).finish()
                print(saved(namespace).count("-A LAB -m comment"))
            """
        )
        assert printed.split() == ["1000", "400"] * 2


@pytest.fixture
def in_user_namespace():
    """Run code as an ordinary user, whoever runs the tests, and return what it prints."""
    import textwrap
    from pathlib import Path

    head = (
        "import socket, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from lab.netns import userns\n"
        "assert not userns.privileged()\n"
        "userns.ensure()\n"
        "from lab.netns import Namespace, Nft, Xtables, parts\n"
    )

    def run(code):
        command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable, "-c"]
        done = subprocess.run(
            [*command, head + textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(("namespaces", "privileged"), [(("--user",), False), (("--user", "--net"), True)])
def test_root_of_a_user_namespace_has_a_network_namespace_of_its_own_to_come_home_to(namespaces, privileged):
    """Where he shares the machine's, as in a container with the host's network, he can leave it and not come back."""
    code = (
        "from lab.netns import Namespace, userns\n"
        "print(userns.privileged())\n"
        "userns.ensure(); Namespace.create().close(); print(userns.privileged())\n"
    )
    command = ["unshare", *namespaces, "--map-root-user", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split()) == (0, [str(privileged), "True"]), done.stderr
