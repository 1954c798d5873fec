"""Debian's archive: what its lists say, and that only what was signed comes into the cache."""

import subprocess
import threading

import pytest

from lab.errors import InputError, LabError
from lab.kernels import archive, find
from lab.kernels.archive import kernels_in, newest_of_each_series, parse

pytestmark = [pytest.mark.lab_needs_tool("apt-get", "dpkg-deb", "depmod", "gpg")]

SPLIT = ("image", "binary", "modules", "base")

# As bookworm-security, trixie-backports and experimental had them; without the fields that nobody reads.
LISTS = """\
Package: linux-image-6.1.0-56-cloud-amd64-dbg
Version: 6.1.192-2
Filename: pool/dbg.deb
Size: 9
SHA256: 00

Package: linux-image-6.1.0-56-cloud-amd64
Source: linux-signed-amd64 (6.1.192+2)
Version: 6.1.192-2
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description: Linux 6.1 for x86-64 cloud (signed)
 The Linux kernel 6.1: for cloud platforms.
Filename: pool/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb
Size: 26713492
SHA256: e7d0

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1~deb12u1
Depends: linux-image-6.12.117+deb12-cloud-amd64 (= 6.12.117-1~deb12u1)
Filename: pool/linux-image-6.12-cloud-amd64_6.12.117-1~deb12u1_amd64.deb
Size: 1512
SHA256: ab2b

Package: linux-image-6.19.14+deb13-cloud-amd64
Version: 6.19.14-1~bpo13+1
Depends: kmod, linux-base-6.19.14+deb13-cloud-amd64 (= 6.19.14-1~bpo13+1), \
linux-binary-6.19.14+deb13-cloud-amd64 (= 6.19.14-1~bpo13+1), \
linux-modules-6.19.14+deb13-cloud-amd64 (= 6.19.14-1~bpo13+1)
Filename: pool/linux-image-6.19.14+deb13-cloud-amd64_6.19.14-1~bpo13+1_amd64.deb
Size: 1928
SHA256: 4545

Package: linux-binary-6.19.14+deb13-cloud-amd64
Version: 6.19.14-1~bpo13+1
Filename: pool/linux-binary-6.19.14+deb13-cloud-amd64_6.19.14-1~bpo13+1_amd64.deb
Size: 13030208
SHA256: 2c7b

Package: linux-image-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1
Depends: dracut | linux-initramfs-tool, linux-base-7.3-cloud-amd64 (= 7.3~rc7-1~exp1), \
linux-binary-7.3-cloud-amd64 (= 7.3~rc7-1~exp1), linux-modules-7.3-cloud-amd64 (= 7.3~rc7-1~exp1)
Filename: pool/image.deb
Size: 1
SHA256: 01

Package: linux-binary-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1
Filename: pool/binary.deb
Size: 20
SHA256: 02

Package: linux-modules-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1
Filename: pool/modules.deb
Size: 300
SHA256: 03

Package: linux-base-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1
Filename: pool/base.deb
Size: 4000
SHA256: 04

Package: zlib1g
Version: 1
"""


def test_kernels_are_those_with_all_their_packages():
    whole, split = kernels_in(parse(LISTS.encode()), "a suite", "http://mirror/debian/")
    assert (whole.release, whole.version, whole.series) == ("6.1.0-56-cloud-amd64", "6.1.192-2", "6.1")
    [package] = whole.packages
    assert package.uri == "http://mirror/debian/pool/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb"
    assert (package.size, package.sha256) == (26713492, "e7d0")
    assert (split.release, split.series, split.size) == ("7.3-cloud-amd64", "7.3", 4320)
    assert [one.sha256 for one in split.packages] == ["02", "03", "04"]


def test_mirrors_are_the_systems_own(tmp_path, monkeypatch):
    sources = tmp_path / "sources.list"
    configuration = tmp_path / "apt.conf"
    configuration.write_text(f'Dir::Etc::SourceList "{sources}";\nDir::Etc::SourceParts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    sources.write_text(
        "deb https://example.org/other stable main\n"
        "deb http://ftp.example.org/debian bookworm main\n"
        "deb http://ftp.example.org/pub/debian-security bookworm-security main\n"
    )
    assert archive.mirrors() == ("http://ftp.example.org/debian", "http://ftp.example.org/pub/debian-security")
    sources.write_text("deb http://archive.ubuntu.com/ubuntu noble main\n")
    assert archive.mirrors() == ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")


def test_the_newest_of_each_series_is_fetched_and_kept(repository, cache):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    repository.add("6.1.0-56-cloud-amd64", "6.1.192-2")
    repository.add("7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", parts=SPLIT)
    newest, six = find.fetch(["newest", "6.1"], cache)
    assert (newest.name, newest.release, newest.version) == ("newest", "7.3.4+deb13-cloud-amd64", "7.3.4")
    assert (six.name, six.release, six.version) == ("6.1", "6.1.0-56-cloud-amd64", "6.1.192")
    for kernel in (newest, six):
        assert kernel.vmlinuz.exists()
        assert (kernel.modules / "modules.dep").exists()
        assert kernel.modules.name == kernel.release
    assert [one.series for one in newest_of_each_series(archive.look(cache, repository.sources)[0])] == ["7.3", "6.1"]
    assert [release for release, _version, _path in find.cached(cache)] == [newest.release, six.release]


def test_a_name_means_what_was_fetched_until_it_is_fetched_again(repository, cache):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    first = find.resolve("newest", cache)
    repository.add("6.1.0-10-cloud-amd64", "6.1.10-1")
    assert find.resolve("newest", cache) == first
    assert find.resolve("6.1", cache).release == "6.1.0-9-cloud-amd64"
    assert find.fetch(["newest"], cache)[0].version == "6.1.10"
    assert find.resolve("newest", cache).version == find.resolve("6.1", cache).version == "6.1.10"
    assert find.resolve("6.1.9", cache).release == "6.1.0-9-cloud-amd64"


def test_a_series_that_the_archive_has_not(repository, cache):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    with pytest.raises(InputError, match=r"the archive has no kernel 6\.10 \(it has 6\.1\)"):
        find.resolve("6.10", cache)


def test_two_fetches_at_once_fetch_once(repository, cache, capfd):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    fetched = []
    threads = [threading.Thread(target=lambda: fetched.append(find.fetch(["6.1"], cache))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 4
    assert fetched.count(fetched[0]) == 4
    assert capfd.readouterr().err.count("fetching linux-image") == 1


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_what_is_not_as_signed_does_not_come_in(repository, cache, harm):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    [deb] = repository.pool.glob("*.deb")
    data = deb.read_bytes()
    deb.write_bytes(data[:-100] if harm == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(LabError, match="cannot fetch"):
        find.fetch(["6.1"], cache)
    assert not list((cache.directory / "kernels").iterdir())
    deb.write_bytes(data)
    assert find.fetch(["6.1"], cache)[0].version == "6.1.9"


def test_the_packages_own_check_catches_what_apt_let_through(tmp_path):
    path = tmp_path / "package.deb"
    path.write_bytes(b"whole")
    whole = archive.Package("name", "1", "http://mirror/name.deb", 5, archive.checksum(path))
    archive.verify(path, whole)
    path.write_bytes(b"whol")
    with pytest.raises(LabError, match="was cut: 4 of 5 bytes"):
        archive.verify(path, whole)
    path.write_bytes(b"other")
    with pytest.raises(LabError, match="checksum differs"):
        archive.verify(path, whole)


def test_lists_that_nobody_signed_are_refused(repository, cache):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    release = repository.directory / "dists/stable/InRelease"
    release.write_text(release.read_text().replace("Suite: stable", "Suite: other"))
    found, trouble = archive.look(cache, repository.sources)
    assert any("signature" in line for line in trouble)
    assert found == []


def test_a_kernel_that_changed_in_the_cache_is_not_used(repository, cache):
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    kernel = find.resolve("6.1", cache)
    kernel.vmlinuz.write_bytes(kernel.vmlinuz.read_bytes() + b"x")
    with pytest.raises(LabError, match="has changed since it was fetched; remove"):
        find.resolve("6.1", cache)


def test_the_systems_apt_stays_as_it_is(repository, cache):
    def state():
        places = ("/etc/apt", "/var/lib/apt", "/var/cache/apt", "/var/lib/dpkg")
        return subprocess.run(
            ["find", *places, "-printf", "%p %s %T@ %C@\n"], capture_output=True, text=True, check=False
        ).stdout

    before = state()
    repository.add("6.1.0-9-cloud-amd64", "6.1.9-1")
    archive.mirrors()
    find.fetch(["newest"], cache)
    assert state() == before


def test_a_mirror_that_cannot_be_reached(repository, cache):
    with pytest.raises(LabError, match="no list of kernels could be had"):
        find.fetch(["6.1"], cache)
