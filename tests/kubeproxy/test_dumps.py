"""The rules that the lab writes are those that real kube-proxies of 26 releases wrote: see dumps.md."""

from __future__ import annotations

import dataclasses

import pytest

from lab.kubeproxy.changes import CHANGES, Area
from lab.kubeproxy.jumps import kubelets_chains
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.services import service_ports
from lab.rules.check import check
from lab.vocabulary import ProxyMode
from tests.support import cover

RELEASES = tuple(
    f"v1.{one}"
    for one in (
        *(
            "14.0",
            "15.3",
            "16.0",
            "17.2",
            "18.2",
            "18.6",
            "19.10",
            "20.0-rc.0",
            "21.1",
            "22.0-rc.0",
            "22.17",
            "23.4",
            "24.3",
        ),
        *("25.1", "26.0", "27.1", "28.3", "29.1", "30.3", "31.14", "32.13", "33.5", "33.13", "34.9", "35.6", "36.3"),
    )
)


def kinds(version):
    minor = find_release(version).minor
    found = ["iptables-v4", "iptables-v6"]
    found += ["iptables-v4-dual"] if minor >= 18 else []
    return found + (["nft-v4", "nft-v6"] if minor >= 29 else [])


NAMES = [f"{version}/{kind}" for version in RELEASES for kind in kinds(version)]
#: Of each release and mode one, by the seed; in a full run all.
SOME = [
    f"{version}/{kind}"
    for version in RELEASES
    for mode in ("iptables", "nft")
    for kind in cover.some([one for one in kinds(version) if one.startswith(mode)], of=f"{version} {mode}")
]


@pytest.mark.lab_kernel
@pytest.mark.parametrize("name", SOME)
def test_a_real_ones_rules(dumps, name):
    comparison = check(dumps.proxy(name), dumps.text(name), name)
    assert comparison.differences == ()
    for said in comparison.left_out:
        # Nothing is excused but chance, and what is another family's.
        assert "default/slice-conflict" in said or "not compared: ip" in said


# --- Each change is of the release that its dumps say ---------------------------------------------------

# What no dump of these objects shows: changes of the node and of entries, and what was read in upstream's source.
NOT_OF_RULES = {Area.NODE, Area.ENTRIES}
SHOWN = [change for change in CHANGES.values() if change.area not in NOT_OF_RULES and not change.read]


def with_release(proxy, release):
    return dataclasses.replace(proxy, options=proxy.options.with_release(release))


def written(proxy):
    """What it writes, and what its rules are for; an error of its own where it cannot."""
    try:
        ports = service_ports(proxy.services, proxy.endpoint_slices, proxy.options)
        chains = kubelets_chains(proxy.options.release)
        return proxy.render(), [port.endpoints for port in ports], chains, proxy.options.drops_invalid(proxy.mode)
    except Exception as error:
        return repr(error)


@pytest.mark.parametrize("change", SHOWN, ids=lambda change: change.name)
def test_a_change_shows_in_the_dumps_of_its_first_release_and_not_before(dumps, change):
    """Taken from the first release that has it, or given to the last that has not, it changes the rules."""
    has = [version for version in RELEASES if change in find_release(version)]
    lacks = [version for version in RELEASES if change not in find_release(version)]
    first, last = has[0], lacks[-1]

    def shows(version, release):
        for kind in kinds(first):
            # Of a release that fails with some objects, the dump has none of these: those of the other one do.
            for proxy in (dumps.proxy(f"{one}/{kind}", version=version) for one in (first, last) if kind in kinds(one)):
                if proxy.mode in change.modes and written(proxy) != written(with_release(proxy, release)):
                    return True
        return False

    has_it, lacks_it = find_release(first), find_release(last)
    assert shows(first, dataclasses.replace(has_it, changes=has_it.changes - {change}))
    if ProxyMode.IPTABLES in change.modes or lacks_it.minor >= 29:
        assert shows(last, dataclasses.replace(lacks_it, changes=lacks_it.changes | {change}))
