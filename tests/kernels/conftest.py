"""A small Debian archive in a directory, signed by a key that the test made, with kernels that cannot boot."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.kernels import Cache, archive
from lab.kernels.archive import Source

CONTROL = (
    "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\nDepends: {needs}\nDescription: x\n"
)


def image_with(text):
    """A file that looks like a kernel image as far as its banner goes."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x300 - 0x200).to_bytes(2, "little")
    head[0x300 : 0x300 + len(text) + 1] = text.encode() + b"\0"
    return bytes(head)


@dataclass
class Archive:
    """A repository ``deb file:...``: what was published is signed and in its lists."""

    directory: Path
    keys: Path

    @property
    def sources(self):
        return (Source(f"file:{self.directory}", "stable", f"signed-by={self.keys / 'public.gpg'}"),)

    @property
    def pool(self):
        return self.directory / "pool"

    def add(self, release, version, *, parts=("image",)):
        """Puts a kernel there: in one package, or split into several."""
        for part in parts:
            tree = self.directory.parent / "build" / f"linux-{part}-{release}"
            shutil.rmtree(tree, ignore_errors=True)
            modules = tree / "usr/lib/modules" / release
            modules.mkdir(parents=True)
            if part == "image" and len(parts) == 1:
                (tree / "boot").mkdir()
                (tree / "boot" / f"vmlinuz-{release}").write_bytes(
                    image_with(f"{release} (x) #1 SMP Debian {version} (x)")
                )
            if part == "binary":
                (modules / "vmlinuz").write_bytes(image_with(f"{release} (x) #1 SMP Debian {version} (x)"))
            if part == "modules" or len(parts) == 1:
                (modules / "kernel").mkdir()
            (tree / "DEBIAN").mkdir()
            others = (f"linux-{one}-{release} (= {version})" for one in parts if one != "image")
            needs = ", ".join(others) if part == "image" and len(parts) > 1 else "kmod"
            name = tree.name
            (tree / "DEBIAN/control").write_text(CONTROL.format(name=name, version=version, needs=needs))
            deb = self.pool / f"{name}_{version}_amd64.deb"
            deb.parent.mkdir(exist_ok=True)
            subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, deb], check=True, stdout=-3)
        self.publish()

    def publish(self):
        lists = self.directory / "dists/stable/main/binary-amd64"
        lists.mkdir(parents=True, exist_ok=True)
        stanzas = []
        for deb in sorted(self.pool.glob("*.deb")):
            control = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout
            facts = f"Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {archive.checksum(deb)}\n"
            stanzas.append(control + facts)
        packages = lists / "Packages"
        packages.write_text("\n".join(stanzas))
        entry = f"{archive.checksum(packages)} {packages.stat().st_size} main/binary-amd64/Packages"
        release = self.directory / "dists/stable/InRelease"
        text = (
            "Suite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64\n"
            f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {entry}\n"
        )
        release.unlink(missing_ok=True)
        gpg(self.keys, "--clearsign", "--output", str(release), text=text)


def gpg(home, *arguments, text=""):
    subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *arguments],
        input=text.encode(), check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    home = tmp_path_factory.mktemp("keys")
    home.chmod(0o700)
    gpg(home, "--quick-generate-key", "nobody@example.org", "ed25519", "sign", "never")
    gpg(home, "--output", str(home / "public.gpg"), "--export")
    yield home
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)


@pytest.fixture
def repository(tmp_path, keys, monkeypatch):
    directory = tmp_path / "archive"
    directory.mkdir()
    made = Archive(directory, keys)
    monkeypatch.setattr(archive, "sources", lambda: made.sources)
    return made


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def banner():
    return image_with
