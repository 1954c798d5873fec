"""Which kube-proxy writes which rules: the differences between versions as data.

Sources: ``pkg/proxy/iptables/proxier.go`` and ``pkg/proxy/nftables/proxier.go`` of the named releases, and
the pull requests given with each field.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import InputError


@dataclass(frozen=True)
class Version:
    """What one kube-proxy release does.

    :param name: as ``kube-proxy --version`` counts: ``v1.29``.
    :param drops_invalid: writes the INVALID drop into KUBE-FORWARD (kubernetes #74840, v1.15).
    :param heeds_be_liberal: leaves that rule out where ``nf_conntrack_tcp_be_liberal`` is set when it starts
        (#120412, v1.29).
    :param counts_invalid: that rule carries an nfacct match, a metric (#122812, v1.31).
    :param counts_localhost: node ports by 127.0.0.0/8 carry an nfacct match (#125015, v1.32).
    :param xlb_chains: the chains of v1.14: KUBE-XLB and KUBE-MARK-DROP, no KUBE-EXT, no canaries.
    :param invalid_only: the chains are those of v1.29; only the handling of INVALID is this version's own.
    :param nftables: has nftables mode as it is since its beta (v1.31).
    :param filters_after_dnat: nftables mode refuses after DNAT, not before (#132456, v1.34), and masquerades
        to a cluster IP whatever the port (#131492, v1.34).
    :param endpoint_maps: nftables mode balances by a map of addresses, not by chains of endpoints (v1.36).
    """

    name: str
    drops_invalid: bool = True
    heeds_be_liberal: bool = False
    counts_invalid: bool = False
    counts_localhost: bool = False
    xlb_chains: bool = False
    invalid_only: bool = False
    nftables: bool = False
    filters_after_dnat: bool = False
    endpoint_maps: bool = False


def _minor(minor: int) -> Version:
    return Version(
        name=f"v1.{minor}",
        drops_invalid=minor >= 15,
        heeds_be_liberal=minor >= 29,
        counts_invalid=minor >= 31,
        counts_localhost=minor >= 32,
        xlb_chains=minor <= 15,
        invalid_only=16 <= minor <= 28,
        nftables=minor >= 31,
        filters_after_dnat=minor >= 34,
        endpoint_maps=minor >= 36,
    )


VERSIONS: dict[str, Version] = {version.name: version for version in map(_minor, range(14, 37))}
"""Every version that is known, by name, oldest first."""


def find_version(name: str) -> Version:
    """Return the version of this name.

    :raises InputError: for a name that is not known.
    """
    try:
        return VERSIONS[name]
    except KeyError:
        first, *_, last = VERSIONS
        cure = f"known are {first} to {last}"
        raise InputError(f"no kube-proxy version {name!r} is known", cure=cure) from None
