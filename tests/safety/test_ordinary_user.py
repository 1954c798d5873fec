"""An ordinary user can do what root can, in a user namespace; where that is forbidden, one line says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

#: No right at all; the files of the caller are still his own.
WITHOUT_RIGHTS = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")

#: A user namespace in which no further one may be made, and nobody has any right.
FORBIDDEN = ("unshare", "--user", "--map-root-user", "sh", "-c")
FORBIDDEN += ('echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"', "sh")

WAYS = {
    "nft": ("--backend", "nft"),
    "legacy": ("--backend", "legacy"),
    "nftables mode": ("--proxy-mode", "nftables"),
}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_works_without_rights(run_lab, way, family):
    code, output, errors = run_lab("run", "beyond-window", *WAYS[way], "--family", family, prefix=WITHOUT_RIGHTS)
    assert code == 0, output + errors
    assert "reset" in output


@pytest.mark.needs_root
def test_the_whole_run_works_as_nobody(run_lab, environment):
    """Not only without rights, but as a user who has no files of his own, and no home that he may enter."""
    readable = subprocess.run(
        [*NOBODY, sys.executable, "-P", "-c", "import lab.cli"], env=environment, cwd="/", check=False
    )
    if readable.returncode != 0:
        pytest.skip(f"nobody may read {sys.executable} or the checkout")
    code, output, errors = run_lab("run", prefix=NOBODY)
    assert code == 0, output + errors


def test_one_line_where_user_namespaces_are_forbidden(run_lab):
    code, output, errors = run_lab("run", prefix=FORBIDDEN)
    assert (code, output) == (2, "")
    assert errors.startswith("lab: no root and no user namespace: ")
    assert "max_user_namespaces" in errors
    assert len(errors.splitlines()) == 1
