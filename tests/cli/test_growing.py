"""A file that grows has whole pieces in it, also where it is a shell's standard output."""

import os
import resource
import signal

import pytest

from lab.cli.growing import Growing


@pytest.fixture
def limited():
    """Have no file be longer than 1,000 bytes, which is an error instead of a signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[0][1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
    signal.signal(signal.SIGXFSZ, before[1])


@pytest.mark.parametrize("flags", [os.O_APPEND, os.O_TRUNC], ids=[">>", ">"])
def test_each_piece_is_in_a_shell_s_output_at_once_and_whole(tmp_path, flags, limited):
    path = tmp_path / "out"
    path.write_bytes(b"before")
    kept = b"before" if flags == os.O_APPEND else b""
    shell = os.open(path, os.O_WRONLY | flags)
    try:
        with Growing(shell) as file:
            file.write(b"x" * 600)
            assert path.read_bytes() == kept + b"x" * 600  # nothing waits in a buffer that a signal would leave cut
            with pytest.raises(OSError, match="too large"):
                file.write(b"y" * 600)
        assert path.read_bytes() == kept + b"x" * 600
        os.write(shell, b"!")  # it is not closed
    finally:
        os.close(shell)
