"""What a cluster's workers boot from comes by the hash of its content: by a real scheduler to a real worker."""

import hashlib
import os
import subprocess
import sys

from tests.support.command import lab, python

# Fetches a file, on a worker, into the cache that is named; the result is its path there.
FETCH = """
import sys
from pathlib import Path
from lab.errors import LabError
from lab.kernels import Cache
from lab.kernels.cluster import Cluster, fetched

def go_on():
    pass

address, file, cache = sys.argv[1:]
with Cluster(address) as cluster:
    digest = cluster.offer(Path(file))
    try:
        print(cluster.client.submit(fetched, digest, Cache(Path(cache)), go_on, pure=False).result())
    except LabError as error:
        print(error)
"""


def fetch(*arguments):
    done = python("-c", FETCH, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_file_is_fetched_once_and_checked(cluster, tmp_path):
    file = tmp_path / "root.squashfs"
    file.write_bytes(os.urandom(9_000_000))  # three pieces, the last of them a part
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"

    assert fetch(cluster.address, file, here) == str(here / "artifacts" / digest)
    assert (here / "artifacts" / digest).read_bytes() == file.read_bytes()

    # Now what the scheduler has is damaged: the worker that has the file does not ask, and another one refuses it.
    [kept] = (cluster.directory / "scheduler").glob("lab-depot-*/*")
    assert kept.name == digest
    kept.write_bytes(file.read_bytes()[:-1])
    assert fetch(cluster.address, file, here) == str(here / "artifacts" / digest)
    assert fetch(cluster.address, file, elsewhere) == f"the file {digest} came damaged from the scheduler"
    assert list((elsewhere / "artifacts").iterdir()) == []


def test_a_worker_with_another_lab_is_refused(cluster):
    code = (
        "import sys, lab; lab.__version__ = '9.9'\n"
        f"sys.argv = ['lab', 'matrix', '--kernels', '5.10', '--scheduler', '{cluster.address}']\n"
        "from lab.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "does not have this lab, 9.9, but: 0.1.0" in done.stderr


def test_a_scheduler_without_workers_is_an_error_and_no_waiting(cluster):
    for worker in cluster.workers:
        worker.terminate()
        worker.wait()
    done = lab("matrix", "--kernels", "5.10", "--scheduler", cluster.address)
    assert done.returncode == 2
    assert f"lab: the Dask scheduler at {cluster.address} has no workers" in done.stderr
    assert "Traceback" not in done.stderr
