"""A process with very many descriptors gets an error, where libnftables would have the C library end it."""

from __future__ import annotations

import resource
import sys

import pytest

pytestmark = pytest.mark.lab_kernel

PROGRAM = """
import os, resource
from lab.errors import LabError
from lab.netns import Namespace, Nft

resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
namespace = Namespace.create()
opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
try:
    Nft(namespace)
except LabError as error:
    print(error)
for descriptor in opened:
    os.close(descriptor)
Nft(namespace).run("table ip works")
print("and below it works")
"""


def test_too_many_for_libnftables(start):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this user may not open 1,100 files")
    process = start(sys.executable, "-P", "-c", PROGRAM)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    first, second = output.splitlines()
    assert "select(2)" in first
    assert second == "and below it works"
