"""The ways to install it, on machines that have nothing yet: many minutes, so only where LAB_ROOTFS=1 asks for it.

Each machine is a root file system with what its distribution requires, and apt; nothing but a copy of the checkout is
put into it. mmdebstrap makes it, from the mirror that this machine's apt names for the distribution, or that
LAB_ROOTFS_DEBIAN or LAB_ROOTFS_UBUNTU names. Its processes, mounts, /proc and /run are its own; kernel, network and
/dev are this machine's. LAB_ROOTFS_PYTEST has arguments for its pytest, which runs everything unless they say less.
Where this machine's apt does not trust the other distribution's keys, the mirror begins with its keyring, as in
sources.list(5): LAB_ROOTFS_UBUNTU="[signed-by=KEYRING] URL".
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MINE = (".git", ".venv*", ".*_cache", "__pycache__")  # of the checkout, what is this machine's alone

DISTRIBUTIONS = {
    "debian-12": ("debian", "bookworm", "main"),
    "debian-13": ("debian", "trixie", "main"),
    "ubuntu-22.04": ("ubuntu", "jammy", "main universe"),
    "ubuntu-24.04": ("ubuntu", "noble", "main universe"),
}

pytestmark = [
    pytest.mark.skipif("LAB_ROOTFS" not in os.environ, reason="makes root file systems, for minutes: set LAB_ROOTFS=1"),
    pytest.mark.lab_needs_root,
    pytest.mark.lab_needs_tool("apt-get", "mmdebstrap", "unshare"),
]

# Enters the first argument as the root of everything; each further one up to "--" is a place of this machine's that
# is to be seen in it, under /machine. The kernel gives nobody in a chroot(2) a user namespace, hence pivot_root(2).
ENTER = """
set -eu
root=$1 && shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 run "$root/run"
while [ "$1" != -- ]; do
    there=$root/machine$1
    if [ -d "$1" ]; then mkdir -p "$there"; else mkdir -p "${there%/*}" && : >"$there"; fi
    mount --bind "$1" "$there"
    shift
done
shift
cd "$root"
pivot_root . mnt
umount -l mnt
exec "$@"
"""


def mirror(distribution: str) -> str | None:
    """Return where a distribution's packages are to be had; None where nobody says."""
    asked = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True, check=True)
    uris = re.findall(r"^'(\S+)/dists/", asked.stdout, re.MULTILINE)
    named = next((uri for uri in uris if uri.endswith(f"/{distribution}")), None)
    return os.environ.get(f"LAB_ROOTFS_{distribution.upper()}", named)


def settings_of_apt() -> str:
    """Return how this machine's apt reaches its mirrors."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    wanted = re.compile(r"Acquire::(http|https|Check-|Retries|ForceIPv)")
    return "".join(f"{line}\n" for line in dumped.splitlines() if wanted.match(line))


def settings_of_pip() -> tuple[dict[str, str], list[str]]:
    """Return how this machine's pip reaches its index, as variables for pip and uv, and the places that these name."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    variables, places = {}, []
    # What the environment says goes over what files say.
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _equals, value = line.partition("=")
        words = []
        for word in ast.literal_eval(value).split():
            path = Path(word.removeprefix("file://"))
            local = path.is_absolute() and path.exists()
            words.append(word.replace(str(path), f"/machine{path}") if local else word)
            # What the pages of an index of one's own link to lies beside them.
            places += [str(path.parent if word.startswith("file://") else path)] if local else []
        variables[f"PIP_{name.rpartition('.')[2].upper().replace('-', '_')}"] = " ".join(words)
    # uv asks for its own: https://docs.astral.sh/uv/reference/environment/
    for mine, of_uv in (("PIP_CERT", "SSL_CERT_FILE"), ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")):
        if mine in variables:
            variables[of_uv] = variables[mine]
    return variables, list(dict.fromkeys(places))


@dataclass
class Machine:
    """A root file system with a copy of the checkout, and who calls in it."""

    root: Path
    user: str = "root"
    variables: dict[str, str] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    def run(self, *command: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout; what it says is both returned and shown where the test fails."""
        user = user or self.user
        home = "/root" if user == "root" else f"/home/{user}"
        directories = "/usr/sbin:/usr/bin:/sbin:/bin" if user == "root" else "/usr/bin:/bin"
        start = ["env", "-i", f"HOME={home}", f"PATH={directories}", *(f"{k}={v}" for k, v in self.variables.items())]
        if user != "root":
            start += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        alone = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
        inside = [*start, "sh", "-c", 'cd /home/checkout && exec "$@"', "sh", *command]
        done = subprocess.run(
            [*alone, "sh", "-c", ENTER, "sh", str(self.root), *self.places, "--", *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        print(f"$ {shlex.join(command)}\n{done.stdout}-> {done.returncode}", flush=True)
        return done

    def must(self, *command: str, user: str = "") -> str:
        """Run a command that has to succeed, and return what it said."""
        done = self.run(*command, user=user)
        assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-60:])
        return done.stdout


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def distribution(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A bare root file system, to be copied."""
    name, suite, components = DISTRIBUTIONS[request.param]
    where = mirror(name)
    if where is None:
        pytest.skip(f"{request.param} was not tried: apt names no mirror here, LAB_ROOTFS_{name.upper()}=URL would")
    directory = tmp_path_factory.mktemp(request.param)
    options, root = directory / "apt.conf", directory / "root"
    options.write_text(settings_of_apt())
    sources = [f"deb {where} {one} {components}" for one in (suite, f"{suite}-updates")]
    # Ubuntu calls apt important, Debian required, which is what minbase has.
    chosen = ["--variant=minbase", "--include=apt", f"--aptopt={options}"]
    command = ["mmdebstrap", "--quiet", *chosen, suite, str(root), *sources]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    # A keyring that the mirror came with is this machine's; in there the distribution's own is at its place.
    lines = [re.sub(r"\[.*\] ", "", line) for line in sources]
    (root / "etc/apt/sources.list").write_text("\n".join([*lines, ""]))
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    yield root
    shutil.rmtree(directory)


@pytest.fixture
def machine(distribution: Path, tmp_path: Path):
    """One that nothing was done to yet."""
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", distribution, root], check=True)
    shutil.copytree(CHECKOUT, root / "home/checkout", symlinks=True, ignore=shutil.ignore_patterns(*MINE))
    subprocess.run(["chown", "-R", "0:0", root / "home/checkout"], check=True)
    yield Machine(root, "root", *settings_of_pip())
    shutil.rmtree(root)


def ordinary_user(machine: Machine) -> None:
    """Make a user, whose the checkout is then."""
    machine.must("useradd", "--create-home", "lab")
    machine.must("chown", "-R", "lab:lab", "/home/checkout")
    machine.user = "lab"


def both_commands(machine: Machine) -> str:
    """Run both as their caller, and return what pytest said."""
    said = machine.must("sh", "-c", "./bootstrap lab run && echo processes: $(cat /proc/[0-9]*/comm)")
    assert "\nAFFECTED: " in said or "\nNOT AFFECTED: " in said
    assert "nginx" not in said.rpartition("processes: ")[2].split()  # its package has not started it
    assert "bootstrap:" not in machine.must("./bootstrap", "true")
    return machine.must("./bootstrap", "pytest", *shlex.split(os.environ.get("LAB_ROOTFS_PYTEST", "")))


def lacking(said: str) -> set[str]:
    """Return the packages for want of which tests were skipped."""
    return {package for words in re.findall(r"is not installed: apt install (.*)", said) for package in words.split()}


BROUGHT = {"curl", "iproute2", "iptables", "libnftables1", "mount", "nftables", "nginx", "util-linux"}


def test_as_root(machine: Machine) -> None:
    said = both_commands(machine)
    assert not lacking(said) & BROUGHT
    assert "downloads whole" in machine.must("./bootstrap", "lab", "run", "congested", "--fix=none", "--no-timeline")


def test_as_an_ordinary_user_with_sudo(machine: Machine) -> None:
    machine.must("sh", "-c", "apt-get update && apt-get install --yes --no-install-recommends sudo")
    (machine.root / "etc/sudoers.d/lab").write_text("lab ALL=(ALL) NOPASSWD: ALL\n")
    ordinary_user(machine)
    said = both_commands(machine)
    assert not lacking(said) & BROUGHT
    assert "downloads whole" in machine.must("./bootstrap", "lab", "run", "congested", "--fix=none", "--no-timeline")


def test_as_an_ordinary_user_for_whom_root_installs_what_is_asked_for(machine: Machine) -> None:
    ordinary_user(machine)
    refused = machine.run("./bootstrap", "lab", "run")
    assert refused.returncode == 2
    [cure] = re.findall(r"^bootstrap: packages are missing; run as root: (.*)$", refused.stdout, re.MULTILINE)
    machine.must("sh", "-c", cure.replace("apt-get install", "apt-get install --yes"), user="root")
    said = both_commands(machine)
    assert lacking(said) & BROUGHT <= {"curl", "iproute2", "nginx"}
    alone = machine.must("./bootstrap", "lab", "run", "congested", "--fix=none", "--no-timeline")
    assert re.search(r"^not run: congested\b.*: \w+ is not installed: apt install \w+$", alone, re.MULTILINE)
    assert alone.splitlines()[-1].startswith("NOTHING WAS TRIED")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel and the source distribution."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install --group dev")
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True)
    return sorted(directory.iterdir())


def answers(machine: Machine, *lab: str, user: str = "") -> None:
    """Check that a command of an installation runs the main job, from a directory that has nothing to do with it."""
    said = machine.must("sh", "-c", 'cd / && "$@" --version && exec "$@" run --no-timeline', "sh", *lab, user=user)
    assert re.search(r"^kube-proxy-lab \d", said, re.MULTILINE)
    assert "\nAFFECTED: " in said or "\nNOT AFFECTED: " in said


def python_of(machine: Machine) -> str:
    """Install what a distribution brings for the lab, and return its Python that is new enough."""
    machine.must("apt-get", "update", "-qq")
    newer = "python3.11" if "jammy" in (machine.root / "etc/os-release").read_text() else "python3"
    wanted = (f"{newer}-venv", "iptables", "nftables", "pipx", "sudo")
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "--yes", "--no-install-recommends")
    machine.must(*apt, *wanted)
    return newer


def test_the_wheel_and_the_source_distribution_by_each_installer(machine: Machine, built: list[Path]) -> None:
    """By pip, with and without the lock file, pipx and uv: `lab run` answers, as root and as an ordinary user."""
    python = python_of(machine)
    machine.must("useradd", "--create-home", "lab")
    (machine.root / "dist").mkdir()
    source, wheel = (shutil.copy(path, machine.root / "dist").removeprefix(str(machine.root)) for path in
                     sorted(built, key=lambda path: path.suffix))  # fmt: skip
    for name, *words in (
        ("wheel", wheel),
        ("source", source),
        ("locked", "--require-hashes", "-r", "requirements.txt"),
    ):
        machine.must(python, "-m", "venv", f"/opt/{name}")
        machine.must(f"/opt/{name}/bin/pip", "install", "--quiet", *words)
    machine.must("/opt/locked/bin/pip", "install", "--quiet", "--no-deps", wheel)
    for name in ("wheel", "source", "locked"):
        answers(machine, f"/opt/{name}/bin/lab")
        answers(machine, f"/opt/{name}/bin/lab", user="lab")

    found = machine.must("sh", "-c", f"command -v {python}").strip()
    machine.user = "lab"
    machine.must("pipx", "install", "--python", found, wheel)
    answers(machine, "/home/lab/.local/bin/lab")
    completes(machine, "/home/lab/.local/bin/lab")
    machine.must("pipx", "uninstall", "kube-proxy-lab")
    machine.must("sh", "-c", f"{python} -m venv ~/uv && ~/uv/bin/pip install --quiet uv")
    machine.must("/home/lab/uv/bin/uv", "tool", "install", "--python", found, wheel)
    answers(machine, "/home/lab/.local/bin/lab")
    machine.must("/home/lab/uv/bin/uv", "tool", "uninstall", "kube-proxy-lab")


def completes(machine: Machine, lab: str) -> None:
    """Check that a shell gets from it what `lab --install-completion` had asked it to ask."""
    asked = ("env", "_LAB_COMPLETE=complete_bash", "COMP_WORDS=lab ru", "COMP_CWORD=1", lab)
    assert {"run", "rules"} <= set(machine.must(*asked).split())


def test_the_launcher_serves_everybody(machine: Machine) -> None:
    """Root's checkout by root, by sudo and by another user; and one's own checkout by its owner and by sudo."""
    python_of(machine)
    machine.must("useradd", "--create-home", "lab")
    (machine.root / "etc/sudoers.d/lab").write_text("lab ALL=(ALL) NOPASSWD: ALL\n")
    machine.must("./bootstrap", "install")
    for user in ("root", "lab"):
        answers(machine, "/usr/local/bin/lab", user=user)
        completes(machine, "/usr/local/bin/lab")
    machine.user = "lab"
    answers(machine, "sudo", "lab")
    assert "there is root's as well" in machine.must("./bootstrap", "uninstall")
    machine.must("sudo", "./bootstrap", "uninstall")
    assert not (machine.root / "usr/local/bin/lab").exists()

    machine.must("cp", "-r", "/home/checkout", "/home/lab/a copy of 'his'")
    machine.must("rm", "-rf", "/home/lab/a copy of 'his'/.venv")
    machine.must("/home/lab/a copy of 'his'/bootstrap", "install")
    answers(machine, "/home/lab/.local/bin/lab")
    machine.must("sudo", "/home/lab/a copy of 'his'/bootstrap", "install")
    answers(machine, "sudo", "lab")
    owners = machine.must("find", "/home/lab", "-user", "root")
    assert not owners  # root left nothing that its owner could not remove
