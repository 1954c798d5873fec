"""An ordinary user can do what root can, in a user namespace; where that is forbidden, one line says so."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from lab.topology.reader import shipped
from lab.vocabulary import Family
from tests.support import cover

pytestmark = pytest.mark.lab_kernel

#: No right at all; the files of the caller are still his own.
WITHOUT_RIGHTS = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")

#: A user namespace in which no further one may be made, and nobody has any right.
FORBIDDEN = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    *('echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"', "sh"),
)

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


@pytest.fixture
def many_services(tmp_path):
    """Return a file with so many Services that their rules are more than an ordinary user's socket sends at once."""
    pieces = []
    for number in range(1, 121):
        for version, network, kind in ((4, "10.{}.{}.{}", "IPv4"), (6, "fd00:{}:{}::{}", "IPv6")):
            vip = network.format(96, number, 1)
            pods = ", ".join(f'{{addresses: ["{network.format(97, number, pod)}"]}}' for pod in range(1, 11))
            pieces.append(
                f"""
apiVersion: v1
kind: Service
metadata: {{name: many-{number}-{version}}}
spec: {{clusterIP: "{vip}", clusterIPs: ["{vip}"], ipFamilies: [{kind}], ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: many-{number}-{version}, labels: {{kubernetes.io/service-name: many-{number}-{version}}}}}
addressType: {kind}
endpoints: [{pods}]
ports: [{{name: http, port: 8080}}]
"""
            )
    path = tmp_path / "many.yaml"
    path.write_text("---".join(pieces))
    return path


LARGE = cover.sample([(way, family) for way in WAYS for family in Family], 1)


@pytest.mark.parametrize(("way", "family"), LARGE)
def test_large_rule_sets_load_as_they_do_for_root(run_lab, many_services, way, family):
    version = "v1.31" if way == "nftables mode" else "v1.29"
    words = ("rules", str(many_services), *WAYS[way], "--family", family, "--proxy-version", version)
    code, output, errors = run_lab(*words, "--saved", prefix=WITHOUT_RIGHTS)
    assert (code, errors) == (0, "")
    assert len(re.findall(r"^\t\tdnat to|DNAT --to-destination", output, re.MULTILINE)) in (0, 1200)
    assert output.count("8080") >= 1200
    assert run_lab(*words, "--saved") == (0, output, "")
    code, output, errors = run_lab(*words, "--diff", "-", given=output.partition("\n")[2], prefix=WITHOUT_RIGHTS)
    assert (code, "--backend makes no difference" in errors) == (0, "--backend" in words)
    assert "has the rules of kube-proxy" in output


@pytest.mark.parametrize("way", cover.some(list(WAYS), of="many services"))
def test_a_lab_with_many_services_runs(run_lab, many_services, tmp_path, way):
    topology = tmp_path / "large.yaml"
    many = re.sub(r"endpoints: .*10\..*", "endpoints: [{addresses: [10.0.1.2]}]", many_services.read_text())
    many = re.sub(r"endpoints: .*fd.*", 'endpoints: [{addresses: ["fd00:10:0:1::2"]}]', many)
    place = dict(shipped())["kube-proxy"].read_text()
    place = place.replace("service-cidrs: [", 'service-cidrs: [10.96.0.0/12, "fd00:96::/32", ')
    topology.write_text(f"{place}---{many}")
    words = ("run", "beyond-window", "--fix", "none", "--topology", str(topology), *WAYS[way], "--no-timeline")
    code, output, errors = run_lab(*words, prefix=WITHOUT_RIGHTS)
    assert code == 0, output + errors
    assert "reset" in output


@pytest.mark.lab_needs_root
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
