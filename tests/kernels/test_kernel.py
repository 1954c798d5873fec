"""Versions and images of kernels, and the names that users give them."""

import itertools
import subprocess
from pathlib import Path

import pytest

from lab.errors import InputError
from lab.kernels import Cache, resolve
from lab.kernels.kernel import order, read_banner, series, upstream

VERSIONS = [
    "5.10.262-1", "6.1-1", "6.1.9-1", "6.1.10-1", "6.1.192-2", "6.1.192-2~deb11u1", "6.12.117-1~deb12u1", "6.12.118-1",
    "7.3~rc7-1~exp1", "7.3-1~exp1", "7.3-1", "7.3.4-1~bpo13+1", "7.3.4-1", "7.3.4-1+b1", "7.3.4+dfsg-1", "7.3.4a-1",
]  # fmt: skip


@pytest.mark.lab_needs_tool("dpkg")
def test_versions_sort_as_dpkg_sorts_them():
    for one, other in itertools.combinations(VERSIONS, 2):
        done = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False)
        assert (order(one) < order(other)) is (done.returncode == 0), (one, other)


def test_parts_of_versions():
    assert series("6.1.192-2") == "6.1"
    assert upstream("7.3~rc7-1~exp1") == "7.3~rc7"
    assert upstream("6.1.192-2") == "6.1.192"
    assert upstream("6.1.192") == "6.1.192"


@pytest.mark.parametrize(
    ("text", "release", "version"),
    [
        ("6.1.0-56-cloud-amd64 (d@d) #1 SMP Debian 6.1.192-2 (2026-11-16)", "6.1.0-56-cloud-amd64", "6.1.192"),
        ("6.8.0-31-generic (b@l) #31-Ubuntu SMP Sat Apr 20", "6.8.0-31-generic", "6.8.0"),
        ("7.4.0-rc1+ (me@here) #3 SMP", "7.4.0-rc1+", "7.4.0"),
    ],
)
def test_the_banner(tmp_path, banner, text, release, version):
    (tmp_path / "vmlinuz").write_bytes(banner(text))
    assert read_banner(tmp_path / "vmlinuz") == (release, version)


def test_what_is_no_kernel(tmp_path):
    (tmp_path / "vmlinuz").write_bytes(b"\x7fELF")
    with pytest.raises(InputError, match="vmlinuz: no x86 kernel image"):
        read_banner(tmp_path / "vmlinuz")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_banner(tmp_path / "nowhere")


@pytest.fixture
def tree(tmp_path, banner):
    """Gives a kernel in a tree of its own, with its modules at ``modules``."""

    def make(modules):
        (tmp_path / "boot").mkdir(parents=True)
        vmlinuz = tmp_path / "boot/vmlinuz-6.9.1"
        vmlinuz.write_bytes(banner("6.9.1 (x) #1"))
        (tmp_path / modules).mkdir(parents=True)
        (tmp_path / modules / "modules.dep").touch()
        return vmlinuz

    return make


@pytest.mark.parametrize("modules", ["lib/modules/6.9.1", "usr/lib/modules/6.9.1", "boot/lib/modules/6.9.1"])
def test_modules_are_found_beside_their_image(tmp_path, tree, modules):
    vmlinuz = tree(modules)
    kernel = resolve(str(vmlinuz), Cache(tmp_path / "cache"))
    assert (kernel.release, kernel.version, kernel.modules) == ("6.9.1", "6.9.1", tmp_path / modules)


def test_modules_that_are_named(tmp_path, tree):
    vmlinuz = tree("somewhere")
    kernel = resolve(f"{vmlinuz}:{tmp_path}/somewhere", Cache(tmp_path / "cache"))
    assert kernel.modules == tmp_path / "somewhere"
    with pytest.raises(InputError, match=r"vmlinuz-6\.9\.1: no modules of 6\.9\.1 in .*give .*:DIRECTORY"):
        resolve(str(vmlinuz), Cache(tmp_path / "cache"))


@pytest.mark.lab_needs_tool("depmod")
def test_the_users_modules_are_only_read(tmp_path, tree):
    vmlinuz = tree("lib/modules/6.9.1")
    (tmp_path / "lib/modules/6.9.1/modules.dep").unlink()
    (tmp_path / "lib/modules/6.9.1/kernel").mkdir()
    kernel = resolve(str(vmlinuz), Cache(tmp_path / "cache"))
    assert (kernel.modules / "modules.dep").exists()
    assert kernel.modules.is_relative_to(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "lib/modules/6.9.1").iterdir()] == ["kernel"]
    (tmp_path / "lib/modules/6.9.1/kernel/new.ko").touch()
    assert resolve(str(vmlinuz), Cache(tmp_path / "cache")).modules != kernel.modules


@pytest.mark.lab_needs_tool("dpkg-deb", "depmod", "gpg")
@pytest.mark.parametrize("parts", [("image",), ("image", "binary", "modules", "base")])
def test_a_package_by_its_path(repository, cache, parts):
    repository.add("7.3.4-cloud-amd64", "7.3.4-1", parts=parts)
    [deb] = repository.pool.glob("linux-binary-*" if len(parts) > 1 else "linux-image-*")
    kernel = resolve(str(deb), cache)
    assert (kernel.release, kernel.version) == ("7.3.4-cloud-amd64", "7.3.4")
    assert (kernel.modules / "modules.dep").exists()
    assert resolve(str(deb), cache) == kernel


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("old", "'old' is no kernel"),
        ("6", "'6' is no kernel"),
        ("./nowhere", "nowhere: cannot be read"),
        ("nowhere.deb", "nowhere.deb: there is no such file"),
    ],
)
def test_names_that_mean_nothing(name, told):
    with pytest.raises(InputError, match=told):
        resolve(name, Cache(Path("/nowhere")))
