# SPDX-License-Identifier: MIT
"""Which settings a node's kube-proxy may have instead of those that were given.

What a node's rules themselves say (a range, an address, a mark) is read off them; of what they do not say (the node's
name, its zone) everything that the objects name is a candidate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from lab.kubeproxy import changes
from lab.kubeproxy.options import DetectLocalMode
from lab.kubeproxy.said import unfit
from lab.kubeproxy.settings import SETTINGS
from lab.rules.dump import Container, Line, target_of
from lab.rules.whatifs import WhatIf, with_options
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.rules.side import Side
    from lab.rules.source import Proxy

_FEW: Final = 12
"""As many names are tried one after the other; of more, those that most of the node's local endpoints have."""

_NOT_FROM: Final = re.compile(r"! (-[si]) (\S+) ")
_FROM: Final = re.compile(r"(?:^| )(-[si]) (\S+) .*(?:pod traffic for|Redirect pods|pod source rule)")
_HOST: Final = re.compile(r"(?<![0-9a-f.:])(?:(?:[0-9]+\.){3}[0-9]+|[0-9a-f]+:[0-9a-f:]*:[0-9a-f]+)")
_NFT_FROM: Final = re.compile(r'^.*?(ip6? saddr|iif|iifname) != "?([^" ]+)"? (?:jump mark-for|meta mark set|mark set)')


def settings(proxy: Proxy, found: Side) -> Iterator[WhatIf]:
    """Return what may be otherwise in the settings, by what the node's rules say."""
    is_nft = found.dump.mode is ProxyMode.NFTABLES
    lines = [(one, line) for one in found.dump.containers.values() for line in one.lines]
    yield from _node_names(proxy, found)
    yield from _local_pods(proxy, lines, is_nft=is_nft)
    yield from _masquerades_all(proxy, lines, is_nft=is_nft)
    yield from _node_ports(proxy, found, is_nft=is_nft)
    yield from _zones(proxy)
    yield from _gates(proxy)
    if is_nft:
        yield from _service_cidrs(proxy, lines)
    else:
        yield from _of_iptables(proxy, found)


def _node_names(proxy: Proxy, found: Side) -> Iterator[WhatIf]:
    given = proxy.options.node_name
    nodes: dict[str, set[str]] = {}
    for one in proxy.endpoint_slices:
        for endpoint in one.endpoints:
            if endpoint.node_name:
                nodes.setdefault(endpoint.node_name, set()).update(endpoint.addresses)
    if len(nodes) > _FEW:
        local = _local_addresses(found)
        counted = Counter({name: len(local & addresses) for name, addresses in nodes.items()})
        names = [name for name, count in counted.most_common(3) if count]
    else:
        names = list(nodes)
    for name in names:
        if name != given:
            lacks = f"of {name}, none of {given}" if given else f"of {name}, and no name of the node was given"
            sentence = f"The local endpoints there are those {lacks}: is the node's name {name}?"
            yield WhatIf("--node-name", sentence, f"give --node-name {name}", _named(name))
    if given:
        sentence = (
            f"Every local endpoint of {given} is missing: kube-proxy there takes itself for another node, whose name no"
            " endpoint has."
        )
        cure = f"look whether --hostname-override or the host's name is not the Node's name, {given}"
        yield WhatIf("--node-name", sentence, cure, _named(None))


def _named(name: str | None) -> Callable[[Proxy], Proxy]:
    return lambda proxy: replace(proxy, node=name or "", options=replace(proxy.options, node_name=name))


def _local_addresses(found: Side) -> set[str]:
    """Return the addresses that chains of local endpoints lead to."""
    starts = [place for place in found.dump.containers if place[1].startswith(("KUBE-SVL-", "KUBE-XLB-", "local-"))]
    texts = (line.text for place in found.reached(starts) for line in found.dump.containers[place].lines)
    return {
        address for text in texts if "--to-destination" in text or "dnat" in text for address in _HOST.findall(text)
    }


def _local_pods(proxy: Proxy, lines: Iterable[tuple[Container, Line]], *, is_nft: bool) -> Iterator[WhatIf]:
    """Read how the node's kube-proxy tells local pods."""
    options = proxy.options
    counted: Counter[tuple[str, str]] = Counter()
    for _, line in lines:
        if is_nft:
            if said := _NFT_FROM.search(line.text):
                counted["-s" if said[1].endswith("saddr") else "-i", said[2].replace("*", "+")] += 1
        elif said := (_NOT_FROM.search(line.text) if "-j KUBE-MARK-MASQ" in line.text else _FROM.search(line.text)):
            counted[said[1], said[2]] += 1
    given = options.pods_match
    before = f" instead of {given[1]}" if given else ""
    for (option, value), _count in counted.most_common(2):
        if (option, value) == given:
            return
        if option == "-s":
            others = tuple(cidr for cidr in options.cluster_cidrs if not options.of_family(cidr))
            cidrs = (value, *others)
            sentence = f"Local pods are told there by the range {value}{before}."
            change = with_options(cluster_cidrs=cidrs, detect_local_mode=DetectLocalMode.CLUSTER_CIDR)
            yield WhatIf("--cluster-cidr", sentence, f"give --cluster-cidr {value}", change)
        elif value.endswith("+"):
            prefix = value.removesuffix("+")
            mode = DetectLocalMode.INTERFACE_PREFIX
            sentence = f"Local pods are told there by interfaces that begin with {prefix}{before}."
            cure = f"give --detect-local-mode {mode} --pod-interface-name-prefix {prefix}"
            change = with_options(detect_local_mode=mode, pod_interface_name_prefix=prefix)
            yield WhatIf("--cluster-cidr", sentence, cure, change)
        else:
            mode = DetectLocalMode.BRIDGE
            sentence = f"Local pods are told there by the bridge {value}{before}."
            cure = f"give --detect-local-mode {mode} --pod-bridge-interface {value}"
            yield WhatIf(
                "--cluster-cidr", sentence, cure, with_options(detect_local_mode=mode, pod_bridge_interface=value)
            )
    if given:
        others = tuple(cidr for cidr in options.cluster_cidrs if not options.of_family(cidr))
        sentence = f"Nothing tells local pods there, not even {given[1]}: kube-proxy has no --cluster-cidr."
        yield WhatIf(
            "--cluster-cidr",
            sentence,
            "leave out --cluster-cidr",
            with_options(cluster_cidrs=others, detect_local_mode=DetectLocalMode.CLUSTER_CIDR),
        )


def _masquerades_all(proxy: Proxy, lines: Iterable[tuple[Container, Line]], *, is_nft: bool) -> Iterator[WhatIf]:
    if is_nft:
        marking = [line.text for _, line in lines if re.search(r"masquerade all| daddr .* jump mark-for", line.text)]
        told = ("saddr", "iif")
    else:
        marking = [line.text for _, line in lines if "-j KUBE-MARK-MASQ" in line.text and " cluster IP" in line.text]
        told = ("! -s", "! -i")
    all_of_it = any(not any(word in text for word in told) for text in marking)
    if all_of_it is not proxy.options.masquerade_all:
        word = "is masqueraded" if all_of_it else "is not masqueraded"
        yield WhatIf(
            "--masquerade-all",
            f"What goes to cluster IPs {word} there, whoever sends it.",
            f"{'give' if all_of_it else 'leave out'} --masquerade-all",
            with_options(masquerade_all=all_of_it),
        )


def _node_ports(proxy: Proxy, found: Side, *, is_nft: bool) -> Iterator[WhatIf]:
    options = proxy.options
    if is_nft:
        table = next((place[0] for place in found.dump.containers), "")
        ips = found.dump.containers.get((table, "nodeport-ips"))
        addresses = [line.text.split(" ")[0] for line in ips.elements] if ips else None
    else:
        services = found.dump.containers.get(("nat", "KUBE-SERVICES"))
        entries = [line.text for line in services.lines if target_of(line.text) == "KUBE-NODEPORTS"] if services else []
        said = [re.search(r"(?<!! )-d ([^ /]+)", text) for text in entries]
        addresses = [one[1] for one in said if one] or None
        closed = any("! -d " in text for text in entries)
        if entries and options.family is Family.IPV4 and closed is options.localhost_node_ports:
            word = "do not work" if closed else "work"
            yield WhatIf(
                "--iptables-localhost-nodeports",
                f"Node ports {word} by 127.0.0.1 there.",
                f"give --iptables-localhost-nodeports={str(not closed).lower()}",
                with_options(localhost_node_ports=not closed),
            )
    if addresses:
        others = tuple(one for one in options.node_addresses if one not in addresses)
        known = (*(one for one in addresses if not one.startswith("127.")), *others)
        listed = ", ".join(addresses)
        if is_nft and len(addresses) == 1:
            yield WhatIf(
                "--node-address",
                f"Node ports are taken by {listed} there: is that the node's address?",
                f"give --node-address {listed}",
                with_options(node_addresses=known, node_port_addresses=()),
            )
        bits = 128 if options.family is Family.IPV6 else 32
        cidrs = tuple(f"{one}/{bits}" for one in addresses)
        yield WhatIf(
            "--nodeport-addresses",
            f"Node ports are taken by {listed} alone there.",
            f"give --nodeport-addresses {','.join(cidrs)}" + "".join(f" --node-address {one}" for one in known),
            with_options(node_port_addresses=cidrs, node_addresses=known),
        )
    elif is_nft or options.node_port_addresses:
        everywhere = options.family.everything
        yield WhatIf(
            "--nodeport-addresses",
            "Node ports are taken by every local address there.",
            f"give --nodeport-addresses {everywhere}",
            with_options(node_port_addresses=(everywhere,)),
        )


def _zones(proxy: Proxy) -> Iterator[WhatIf]:
    given = proxy.options.node_zone
    endpoints = [endpoint for one in proxy.endpoint_slices for endpoint in one.endpoints]
    zones = {zone.name for one in endpoints if one.hints for zone in one.hints.for_zones}
    for zone in sorted(zones)[:_FEW]:
        if zone != given:
            lacks = f", not {given}" if given else ""
            sentence = (
                f"The endpoints that hints leave to the zone {zone} are used there: is the node's zone {zone}{lacks}?"
            )
            yield WhatIf("--node-zone", sentence, f"give --node-zone {zone}", with_options(node_zone=zone))
    if given and zones:
        sentence = f"Hints for the zone {given} are not heeded there: kube-proxy does not know the node's zone."
        cure = "look at the Node's label topology.kubernetes.io/zone"
        if changes.LOSES_ZONE in proxy.options.release:
            cure += f"; kube-proxy {proxy.options.release.name} can also lose it when it starts"
        yield WhatIf("--node-zone", sentence, cure, with_options(node_zone=None))


def _gates(proxy: Proxy) -> Iterator[WhatIf]:
    """Return the feature gates that decide of rules, each the other way round, where the release can have it so."""
    options, release = proxy.options, proxy.options.release
    ranges = any(service.spec.load_balancer_source_ranges for service in proxy.services)
    outside = any(service.spec.external_ips for service in proxy.services)
    ingress = (one for service in proxy.services for one in service.status.load_balancer.ingress)
    defaults = {
        "IPv6DualStack": (changes.DUAL_STACK in release, ranges),
        "LoadBalancerIPMode": (changes.IP_MODE in release, any(one.ip_mode == "Proxy" for one in ingress)),
        "AllowServiceExternalIPs": (True, outside),
    }
    for name, (default, matters) in defaults.items():
        on = not options.gate(name, default=default)
        if matters and unfit(SETTINGS["feature_gates"], ((name, on),), proxy.mode, release) is None:
            gates = (*(gate for gate in options.feature_gates if gate[0] != name), (name, on))
            written = f"{name}={str(on).lower()}"
            yield WhatIf(
                f"--feature-gates {name}",
                f"The feature gate {name} is {'on' if on else 'off'} there.",
                f"give --feature-gates {written}",
                with_options(feature_gates=gates),
            )


def _service_cidrs(proxy: Proxy, lines: Iterable[tuple[Container, Line]]) -> Iterator[WhatIf]:
    options = proxy.options
    cidrs: list[str] = []
    for one, line in lines:
        said = re.match(r"ip6? daddr (?:\{ ([^}]*) \}|(\S+)) drop", line.text)
        if one.name == "cluster-ips-check" and said:
            cidrs += (said[1] or said[2]).split(", ")
    if set(cidrs) == {cidr for cidr in options.service_cidrs if options.of_family(cidr)}:
        return
    others = tuple(cidr for cidr in options.service_cidrs if not options.of_family(cidr))
    if cidrs:
        sentence = f"What goes to unallocated cluster IPs of {', '.join(cidrs)} is dropped there."
        cure = f"give {' '.join(f'--service-cidr {cidr}' for cidr in cidrs)}"
    else:
        sentence = (
            "What goes to unallocated cluster IPs is not dropped there: kube-proxy knew no ServiceCIDR at its last full"
            " sync."
        )
        cure = "the next full sync of kube-proxy adds it, if the API server has ServiceCIDRs"
    yield WhatIf("--service-cidr", sentence, cure, with_options(service_cidrs=(*cidrs, *others)))


def _of_iptables(proxy: Proxy, found: Side) -> Iterator[WhatIf]:
    options = proxy.options
    forward = found.dump.containers.get(("filter", "KUBE-FORWARD"))
    on = forward is not None and not any("--ctstate INVALID" in line.text for line in forward.lines)
    if on is not options.conntrack_tcp_be_liberal:
        found_so = "is missing" if on else "is there"
        yield WhatIf(
            "--conntrack-tcp-be-liberal",
            f"The drop of INVALID packets {found_so}: was nf_conntrack_tcp_be_liberal {'set' if on else 'not set'} when"
            " kube-proxy started there?",
            f"{'give' if on else 'leave out'} --conntrack-tcp-be-liberal",
            with_options(conntrack_tcp_be_liberal=on),
        )
    marking = found.dump.containers.get(("nat", "KUBE-MARK-MASQ"))
    marks = [re.search(r"0x([0-9a-fA-F]+)", line.text) for line in marking.lines] if marking else []
    for mark in marks:
        number = int(mark[1], 16) if mark else 0
        if number and number & (number - 1) == 0 and (bit := number.bit_length() - 1) != options.masquerade_bit:
            yield WhatIf(
                "--iptables-masquerade-bit",
                f"Bit {bit} of the mark ({number:#x}) asks for masquerading there, not bit {options.masquerade_bit}.",
                f"give --iptables-masquerade-bit {bit}",
                with_options(masquerade_bit=bit),
            )
    yield from _balancers_node(proxy, found)


def _balancers_node(proxy: Proxy, found: Side) -> Iterator[WhatIf]:
    """Read whether chains of load balancers let the node itself in: of its address they say that it is in a range."""
    options = proxy.options
    sources = {
        (service, said[1])
        for place, one in found.dump.containers.items()
        if place[1].startswith("KUBE-FW-")
        for service in found.services[place]
        for line in one.lines
        if (said := re.match(r"-s ([^ /]+)/(?:32|128) ", line.text))
    }
    ranges: dict[str, bool] = {}
    for service in proxy.services:
        own = [one.strip() for one in service.spec.load_balancer_source_ranges if options.of_family(one)]
        ips = {one.ip for one in service.status.load_balancer.ingress if one.ip}
        lets_in = any((service.key, ip) in sources for ip in ips)
        for one in own:
            ranges[one] = ranges.get(one, False) or lets_in
    for one in [one for one, lets_in in sorted(ranges.items()) if lets_in and not options.inside((one,))][:_FEW]:
        address = str(ip_network(one, strict=False)[0])
        sentence = f"A load balancer's chain lets the node itself in: its address is in {one}."
        cure = f"give --node-address with the node's address in {one}"
        yield WhatIf("--node-address", sentence, cure, with_options(node_addresses=(address, *options.node_addresses)))
    if options.inside([one for one, lets_in in ranges.items() if not lets_in]):
        rest = tuple(one for one in options.node_addresses if not options.of_family(one))
        sentence = f"No load balancer's chain lets the node itself in: its address is not {options.primary_address}."
        yield WhatIf(
            "--node-address", sentence, "give the node's own --node-address", with_options(node_addresses=rest)
        )
