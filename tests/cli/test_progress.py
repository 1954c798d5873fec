"""How far `lab explain` has come: said on a terminal alone, and of what takes its time."""

import io

from lab.cli.progress import Progress, Told


def told_of(*, size, seconds=0.25):
    """Read a megabyte in ten steps, each of which takes so long; return what was said."""
    now = [0.0]
    said = []
    progress = Progress(said.append, lambda: now[0])
    progress.expect(size)
    for _ in range(10):
        now[0] += seconds
        progress.add(100_000)
    return said


def test_what_takes_a_second_is_told_with_what_is_left():
    assert told_of(size=1_000_000) == [
        "40% of 1 MB read, about 2 s left",
        "60% of 1 MB read, about 1 s left",
        "80% of 1 MB read, about 0 s left",
        "100% of 1 MB read, about 0 s left",
    ]
    assert told_of(size=1_000_000, seconds=0.09) == []
    assert told_of(size=10_000_000, seconds=60)[0] == "1% of 10 MB read, about 99 min 0 s left"


def test_of_a_pipe_nobody_knows_what_is_left():
    assert told_of(size=None)[-1] == "1 MB read"
    assert told_of(size=10)[-1] == "1 MB read"  # it grew meanwhile


def test_a_file_tells_how_much_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000_000))
    now = iter(range(100))
    said = []
    file = Told(path)
    file.tell_to(Progress(said.append, lambda: next(now)))
    with io.BufferedReader(file, 100_000) as reader:
        while reader.read(100_000):
            pass
    assert said[0] == "10% of 1 MB read, about 9 s left"
    assert said[-1] == "100% of 1 MB read, about 0 s left"
