"""`lab reach --node`: what a node's rules lead to, and what nobody says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import lab

pytestmark = pytest.mark.lab_kernel


@pytest.mark.parametrize(
    ("name", "proxies", "fate"),
    [
        # Up to v1.24 it is a kubelet's rule that drops what is marked so, and that dump has none of a kubelet's.
        ("v1.20.0-rc.0/iptables-v4.txt", "iptables of its own (nft)", "no way"),
        ("v1.36.3/iptables-v4.txt", "iptables of its own (nft)", "times out"),
        ("v1.33.13/nft.txt", "nftables of its own", "times out"),
    ],
)
def test_no_release_is_named_and_the_load_balancers_address_is_asked(
    name: str, proxies: str, fate: str, dump: Callable[[str], str], tmp_path: Path
):
    file = tmp_path / "rules.txt"
    file.write_text(dump(name))
    ran = lab("reach", "--node", str(file), "--service", "default/lb-local:web", "--json")
    assert ran.returncode == 0, ran.stderr
    [found] = json.loads(ran.stdout)["reaches"]
    assert found["proxies"] == proxies
    asked = {(cell["client"]["host"], cell["asked"]["target"]): cell for cell in found["cells"]}
    balanced = asked["client", "loadbalancer"]
    assert balanced["asked"]["address"]["address"] == "203.0.113.35"
    assert {one["fate"] for one in balanced["reached"]} == {fate}  # the source is in none of its ranges
    assert {one["server"] for one in asked["client", "vip"]["reached"]} == {"endpoint-1", "endpoint-2"}
    assert ("may be an external IP" in ran.stderr) == ("nftables" in proxies)
    beyond = {target for host, target in asked if host == "endpoint-1"}
    assert beyond == {"nodeport", "endpoint"}
    assert "A router stands for all beyond the node" in found["remarks"][1]


def test_what_the_stand_in_network_does_is_no_documented_outcome(dump: Callable[[str], str], tmp_path: Path):
    file = tmp_path / "rules.txt"
    file.write_text(dump("v1.36.3/iptables-v4.txt"))
    ran = lab(
        "reach", "--node", str(file), "--service", "default/ext-local-lb:web", "--from", "endpoint-1", "--to", "vip"
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == ("1 cell: nobody says what is to become of any; 0 of 1 questions got through")
