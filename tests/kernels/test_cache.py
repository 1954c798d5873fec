"""The cache: what is in it is whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.kernels import Cache

CHECKOUT = Path(__file__).resolve().parents[2]


def test_made_once(cache):
    makings = []

    def make(path):
        makings.append(path)
        path.mkdir()
        (path / "a").write_text("b")

    for _ in range(2):
        assert (cache.make("some/thing", make) / "a").read_text() == "b"
    assert len(makings) == 1
    assert [path.name for path in (cache.directory / "some").iterdir()] == ["thing"]


def test_what_failed_is_not_there(cache):
    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(LabError, match=r"cannot make .*thing: No space left on device"):
        cache.make("thing", fail)
    assert {path.name for path in cache.directory.iterdir()} == {"locks"}
    assert cache.make("thing", lambda path: path.write_text("whole")).read_text() == "whole"


def test_what_a_killed_maker_left_is_not_taken_for_whole(cache):
    program = f"""
import os, pathlib
from lab.kernels import Cache

def make(path):
    path.write_text("half")
    print("half", flush=True)
    os.read(0, 1)

Cache(pathlib.Path({str(cache.directory)!r})).make("thing", make)
"""
    maker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert maker.stdout.readline() == "half\n"
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    assert not (cache.directory / "thing").exists()
    assert cache.make("thing", lambda path: path.write_text("whole")).read_text() == "whole"
    assert {path.name for path in cache.directory.iterdir()} == {"locks", "thing"}


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.delenv("LAB_KERNELS_CACHE", raising=False)
    assert Cache.default().directory == Path("/elsewhere/kube-proxy-lab/kernels")
    monkeypatch.setenv("LAB_KERNELS_CACHE", "relative")
    monkeypatch.chdir(tmp_path)
    assert Cache.default().directory == tmp_path / "relative"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_may_be_written():
    with pytest.raises(LabError, match=r"cannot write to the cache /proc/nowhere: .*LAB_KERNELS_CACHE names another"):
        Cache(Path("/proc/nowhere")).make("thing", Path.touch)
