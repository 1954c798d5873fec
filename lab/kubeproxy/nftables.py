# SPDX-License-Identifier: MIT
"""nftables mode: the transaction that kube-proxy gives to nft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.kubeproxy import changes
from lab.kubeproxy.nftables_alpha import AlphaWriter
from lab.kubeproxy.nftables_names import table_of
from lab.kubeproxy.nftables_writer import Writer
from lab.kubeproxy.options import ProxyOptions
from lab.kubeproxy.services import ServicePort, changed_services, service_ports
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lab.kubernetes.objects import EndpointSlice, Service

__all__ = ["NftablesChange", "render", "sync", "table_of"]


def render(services: Iterable[Service], endpoint_slices: Iterable[EndpointSlice], options: ProxyOptions) -> str:
    """Write all rules as one transaction, as kube-proxy does in its first sync.

    It can be loaded where the table exists already: what is in it is replaced, but affinities stay, and
    the chains and affinity sets of services that are gone.

    :raises InputError: for a version that is not known or has no nftables mode, and for services that claim
        the same address and port.
    """
    options.require_mode(ProxyMode.NFTABLES)
    ports = service_ports(services, endpoint_slices, options)
    writer = _writer(options)
    writer.write_setup()
    for port in ports:
        writer.write_port(port)
    return writer.text()


@dataclass(frozen=True)
class NftablesChange:
    """What kube-proxy gives to nft when services or endpoints change.

    :param script: one transaction; chains that are left over lose their rules.
    :param afterwards: deletes those chains; empty where there are none. kube-proxy does so in the first sync
        that is a second later: before Linux 6.2 the kernel takes a moment to see that no map leads to them.
    """

    script: str
    afterwards: str


def sync(before: Sequence[ServicePort], after: Sequence[ServicePort], options: ProxyOptions) -> NftablesChange:
    """Write kube-proxy's partial sync: the chains of the services that changed, and the elements that differ.

    :param before: the ports that the loaded rules are for, of :func:`~lab.kubeproxy.services.service_ports`.
    :param after: the ports that there are now.
    """
    changed = changed_services(before, after)
    old, new = _writer(options), _writer(options)
    for writer, ports in ((old, before), (new, after)):
        for port in ports:
            writer.write_port(port, chains=port.service in changed)
    table, lines = new.table, [line for line in new.lines if line.split(" ", 2)[1] != "element"]
    for container, elements in new.elements.items():
        loaded = old.elements.get(container, {})
        for key, element in elements.items():
            if loaded.get(key) != element:
                if key in loaded:
                    lines.append(f"delete element {table} {container} {{ {key} }}")
                lines.append(f"add element {table} {container} {{ {element} }}")
    stale = [name for name in old.chains if name not in new.chains]
    lines += [f"flush chain {table} {name}" for name in stale]
    lines += [f"delete set {table} {name}" for name in old.affinities if name not in new.affinities]
    for container, elements in old.elements.items():
        left = new.elements.get(container, {})
        lines += [f"delete element {table} {container} {{ {key} }}" for key in elements if key not in left]
    afterwards = [f"delete chain {table} {name}" for name in stale]
    return NftablesChange("\n".join([*lines, ""]), "\n".join([*afterwards, ""]) if afterwards else "")


def _writer(options: ProxyOptions) -> Writer:
    return Writer(options) if changes.NFT_MAPS in options.release else AlphaWriter(options)
