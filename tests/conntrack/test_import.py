"""What reads conntrack's messages is a part of pyroute2, and leaves the whole to others."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("first", ["", "import pyroute2.netlink"])
def test_who_imports_pyroute2_later_gets_the_whole(first):
    code = (
        f"import sys; {first}\n"
        "from lab.conntrack.netlink import of_pyroute2\n"
        "module = of_pyroute2()\n"
        "loaded = {name for name in sys.modules if name.startswith('pyroute2')}\n"
        "import pyroute2.netlink.nfnetlink.nfctsocket\n"
        "assert pyroute2.netlink.nfnetlink.nfctsocket.nfct_msg and pyroute2.IPRoute and module.nfct_msg\n"
        "print(len(loaded))"
    )
    done = subprocess.run([sys.executable, "-Werror", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert (int(done.stdout) == 0) is (first == "")
