import os
import re
import threading
from pathlib import Path

import pytest

from lab.doctor import machine
from lab.errors import MissingError
from lab.kernels import programs
from lab.netns import Namespace, Nft, NftError, ProgramError, Xtables, packages, program, running
from lab.netns.program import Program, find
from lab.netns.reaper import close_all
from lab.netns.running import WITH_ALL_IT_STARTS

TABLE = "*filter\n:LAB - [0:0]\n-A LAB -m comment --comment mine -j ACCEPT\nCOMMIT\n"


@pytest.fixture
def namespace():
    made = Namespace.create()
    yield made
    made.close()


@pytest.mark.lab_kernel
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_what_is_restored_is_saved_and_what_was_there_stays(namespace, backend, version):
    xtables = Xtables(namespace, backend)
    xtables.start_restore(version, TABLE).finish()
    xtables.start_restore(version, TABLE.replace("LAB", "OTHER")).finish()
    saved = xtables.save(version, "filter")
    assert "-A LAB -m comment --comment mine -j ACCEPT" in saved
    assert "-A OTHER -m comment --comment mine -j ACCEPT" in saved
    xtables.close()


@pytest.mark.lab_kernel
def test_a_refused_input_tells_the_programs_words(namespace):
    # iptables 1.8.7 (Ubuntu 22.04) names the line of the COMMIT instead.
    with pytest.raises(ProgramError, match=r"iptables-nft-restore .* exit code 1: .*line [23] failed"):
        Xtables(namespace, "nft").start_restore(4, "*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n").finish()


@pytest.mark.lab_kernel
def test_nft_loads_lists_and_refuses_as_a_whole(namespace):
    nft = Nft(namespace)
    nft.run("table ip mine {\nchain one {\n}\n}\n")
    with pytest.raises(NftError, match="No such file"):
        nft.run("table ip mine {\nchain two {\n}\n}\nadd rule ip mine three accept\n")
    listed = nft.run("list ruleset")
    assert "chain one" in listed
    assert "chain two" not in listed
    assert '"nftables"' in nft.run("list ruleset", json=True)
    nft.close()


@pytest.mark.lab_kernel
def test_programs_run_inside_with_their_input(namespace):
    printed = Program(namespace, ("sh", "-c", "readlink /proc/self/ns/net; cat"), text="given").finish()
    assert printed == f"net:[{namespace.inode}]\ngiven"


@pytest.mark.lab_kernel
def test_a_program_that_fails_keeps_its_words(namespace):
    with pytest.raises(ProgramError, match=r"sh -c .* exit code 3: on stdout\non stderr"):
        Program(namespace, ("sh", "-c", "echo on stdout; echo on stderr >&2; exit 3")).finish()


def test_a_missing_program_names_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("lab.netns.program.EXTRA_PATH", ())
    with pytest.raises(MissingError, match="iptables-legacy-restore is not installed: apt install iptables"):
        find("iptables-legacy-restore")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuchprog", "there is no program 'nosuchprog' on PATH: mend its name, or install what brings it"),
        ("./nosuchprog", "there is no program './nosuchprog': mend its name, or install what brings it"),
    ],
)
def test_no_package_is_made_up_for_a_users_program(name, words):
    with pytest.raises(MissingError) as caught:
        find(name)
    assert str(caught.value) == words


def test_each_program_that_the_lab_calls_has_its_package():
    """Those that are written where they are looked for; an sh is everywhere."""
    lab = Path(program.__file__).parents[1]
    texts = [path.read_text() for path in lab.rglob("*.py")]
    called = {name for text in texts for name in re.findall(r"(?<!\.)\b(?:find|call)\(\s*\[?\"([\w-]+)\"", text)}
    called |= {*programs.ALL, *(name for name, _ in machine._PROGRAMS), WITH_ALL_IT_STARTS[0], running._WITH_THE_LAB[0]}
    assert {"sqfstar", "unsquashfs", "cpio", "depmod", "nginx", "setpriv", "unshare"} <= called
    assert {name for name in called if not packages.is_known(name)} == set()


DISTRIBUTIONS = {
    "debian": ({"ID": "debian"}, "apt install iproute2"),
    "mint": ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt install iproute2"),
    "rocky": ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install iproute-tc"),
    "alpine": ({"ID": "alpine"}, "apk add iproute2-tc"),
    "manjaro": ({"ID": "manjaro", "ID_LIKE": "arch"}, "pacman -S iproute2"),
    "leap": ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper install iproute2"),
    "nixos": ({"ID": "nixos"}, "install your distribution's package of it (Debian's: iproute2)"),
    "without os-release": (None, "install your distribution's package of it (Debian's: iproute2)"),
}


def on(distribution, monkeypatch):
    """Have this machine call itself another."""

    def said():
        if (words := DISTRIBUTIONS[distribution][0]) is None:
            raise OSError("there is no os-release")
        return words

    monkeypatch.setattr("platform.freedesktop_os_release", said)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_what_is_missing_is_named_as_the_distribution_at_hand_has_it(distribution, monkeypatch):
    on(distribution, monkeypatch)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("lab.netns.program.EXTRA_PATH", ())
    with pytest.raises(MissingError) as caught:
        find("tc")
    assert str(caught.value) == f"tc is not installed: {DISTRIBUTIONS[distribution][1]}"


def test_several_are_one_command_and_what_a_distribution_has_not_is_said(monkeypatch):
    on("leap", monkeypatch)
    assert packages.cure("mksquashfs", "mmdebstrap", "sqfstar", "busybox", no_more=True) == (
        "zypper install --no-recommends busybox-static squashfs; zypper has none that brings mmdebstrap,"
        " as far as is known"
    )
    on("nixos", monkeypatch)
    assert (
        packages.cure("nginx", "setpriv") == "install your distribution's packages of them (Debian's: nginx util-linux)"
    )


def test_slow_things_are_closed_at_once_and_off_the_callers_thread():
    begun, may_end = threading.Barrier(3), threading.Event()

    class Slow:
        slow_to_close = True

        def close(self):
            begun.wait(10)  # both of them, or this breaks
            may_end.wait(10)

    class Fast:
        closed_by = None

        def close(self):
            self.closed_by = threading.get_ident()

    fast = Fast()
    close_all([Slow(), Slow(), fast])
    begun.wait(10)
    assert fast.closed_by == threading.get_ident()
    may_end.set()


@pytest.mark.lab_kernel
def test_the_lock_of_the_machine_is_left_alone(namespace):
    before = os.stat("/run/xtables.lock") if os.path.exists("/run/xtables.lock") else None
    Xtables(namespace, "legacy").start_restore(4, TABLE).finish()
    after = os.stat("/run/xtables.lock") if os.path.exists("/run/xtables.lock") else None
    assert after == before
