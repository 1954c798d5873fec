"""What goes into a guest's image, as far as that shows without a guest."""

import tomllib
from pathlib import Path

import pytest

from lab.errors import InputError, MissingError
from lab.kernels import Cache, distribution, kernel_layers, python_layers
from lab.kernels.kernel import Kernel
from lab.kernels.programs import require

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_tests_of_the_lab_find_what_they_import():
    pyproject = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert set(python_layers.TEST_REQUIREMENTS) <= set(pyproject["dependency-groups"]["dev"])
    assert set(pyproject["project"]["dependencies"]) <= {line.replace(" ", "") for line in python_layers.requirements()}


def test_a_project_is_its_own_files(tmp_path):
    for name in (
        "pyproject.toml", ".gitignore", ".ci/run", "lab/a.py", "lab/__pycache__/a.pyc", ".git/HEAD", ".venv/pyvenv.cfg",
        ".venv/bin/x", ".mypy_cache/x", "a.egg-info/x", ".hypothesis/x", "tests/b.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    found = {str(path.relative_to(tmp_path)) for path in python_layers._files(tmp_path)}
    assert found == {"pyproject.toml", ".gitignore", ".ci/run", "lab/a.py", "tests/b.py"}


def test_a_project_that_is_none(tmp_path):
    with (tmp_path / "data").open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(InputError, match="more than 256 MiB, which is too much to be copied into a guest"):
        python_layers.project_layer(tmp_path, tmp_path, Cache(tmp_path / "cache"))


def test_modules_are_loaded_after_what_they_need(tmp_path):
    (tmp_path / "modules.dep").write_text(
        "kernel/drivers/block/virtio_blk.ko.xz: kernel/virtio/virtio.ko.xz kernel/virtio/virtio_ring.ko.xz\n"
        "kernel/fs/overlayfs/overlay.ko.xz:\n"
        "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\n"
        "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/virtio/virtio_ring.ko.xz\n"
    )
    kernel = Kernel("x", "x", "x", tmp_path, tmp_path)
    names = [path.name.removesuffix(".ko.xz") for path in kernel_layers._in_order(kernel)]
    assert names == ["virtio_ring", "virtio_pci", "virtio", "virtio_blk", "overlay"]


def test_all_that_is_missing_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.netns.program.EXTRA_PATH", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("apt-get", "dpkg-deb", "setpriv", "cpio", "depmod"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "busybox").write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    (tmp_path / "busybox").chmod(0o755)
    with pytest.raises(MissingError) as caught:
        require()
    assert str(caught.value) == (
        "busybox, mksquashfs, mmdebstrap, qemu-system-x86_64 are not installed: "
        "apt-get install --no-install-recommends busybox-static mmdebstrap qemu-system-x86 squashfs-tools"
    )


def test_an_ordinary_user_needs_uidmap_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.netns.program.EXTRA_PATH", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingError, match=r"^newuidmap is not installed: .*uidmap$"):
        distribution._make_root(tmp_path / "root")
