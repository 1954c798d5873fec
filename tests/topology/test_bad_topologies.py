"""Bad input: each gives one error with its file, its line and what to write instead."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from lab.errors import InputError, InputWarning
from lab.topology.reader import load

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
topology: pair
hosts:
  client:
    routes:
      - {to: default, via: 10.0.0.1}
  node: {forwarding: true, proxy-mode: iptables, proxy-version: v1.14}
  server: {}
links:
  - - {host: client, interface: eth0, addresses: [10.0.0.2/24]}
    - {host: node, interface: client, addresses: [10.0.0.1/24]}
  - - {host: node, interface: server, addresses: [10.0.1.1/24]}
    - {host: server, interface: eth0, addresses: [10.0.1.2/24]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 192.168.0.2
  ports:
    - {port: 80}
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Service
    metadata: {name: alone}
    spec: {clusterIP: 192.168.0.3, ports: [{port: 80}]}
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
    addressType: IPv4
    ports: [{port: 80}]
    endpoints:
      - addresses: [10.0.1.2]
"""

# (what is written instead, the line, what the error says): each is GOOD with one place changed.
CHANGES = {
    "unknown key": (
        "forwarding: true",
        "forwardin: true",
        6,
        "hosts.node.forwardin: unknown key (did you mean 'forwarding'?)",
    ),
    "snake case": (
        "proxy-mode: ",
        "proxy_mode: ",
        6,
        "hosts.node.proxy_mode: unknown key (did you mean 'proxy-mode'?)",
    ),
    "unknown top key": ("links:", "linkz:", 8, "unknown key 'linkz' (did you mean 'links'?)"),
    "unknown key far from all": (
        "via:",
        "zzz:",
        5,
        "hosts.client.routes[0].zzz: unknown key (known: table, to, via)",
    ),
    "missing key": (", via: 10.0.0.1", "", 5, "hosts.client.routes[0]: 'via' is missing"),
    "missing hosts": ("topology: pair\nhosts:", "topology: pair\ndescription:", 1, "'hosts' is missing"),
    "wrong type: list for mapping": (
        "server: {}",
        "server: [forwarding]",
        7,
        "hosts.server: must be a mapping, not a list",
    ),
    "wrong type: text for flag": (
        "forwarding: true",
        "forwarding: maybe",
        6,
        "hosts.node.forwarding: must be true or false, not 'maybe'",
    ),
    "wrong type: quoted flag": (
        "forwarding: true",
        "forwarding: 'true'",
        6,
        "must be true or false, not 'true'",
    ),
    "wrong type: number for text": (
        "interface: client",
        "interface: 1",
        10,
        "links[0][1].interface: must be text, not the number 1 (put it in quotes)",
    ),
    "wrong type: bool for text": (
        "host: client",
        "host: no",
        9,
        "links[0][0].host: must be text, not false (put it in quotes)",
    ),
    "wrong type: text for list": (
        "addresses: [10.0.0.2/24]",
        "addresses: 10.0.0.2/24",
        9,
        "links[0][0].addresses: must be a list, not '10.0.0.2/24'",
    ),
    "wrong type: null": ("topology: pair", "topology:", 1, "topology: must be text, not nothing"),
    "unknown word": (
        "proxy-mode: iptables",
        "proxy-mode: ipvs",
        6,
        "hosts.node.proxy-mode: must be 'iptables' or 'nftables', not 'ipvs'",
    ),
    "duplicate host": ("  server: {}\n", "  server: {}\n  node: {}\n", 8, "duplicate key 'node' (keep one)"),
    "duplicate key in a Service": (
        "  clusterIP: 192.168.0.2\n",
        "  clusterIP: 192.168.0.2\n  clusterIP: 192.168.0.4\n",
        19,
        "duplicate key 'clusterIP'",
    ),
    "name of the topology": ("topology: pair", "topology: Pair", 1, "topology: 'Pair' is no name"),
    "name of a host": ("  server: {}", "  ser_ver: {}", 7, "hosts.ser_ver: 'ser_ver' is no name of a host"),
    "version": (
        "v1.14",
        "v1.x",
        6,
        "hosts.node.proxy-version: 'v1.x' is no version of kube-proxy (write it as v1.33, v1.33.6 or v1.33.6-gke.1)",
    ),
    "version before all": ("v1.14", "v1.13", 6, "hosts.node.proxy-version: no kube-proxy version 'v1.13' is known"),
    "setting of a later release": (
        "v1.14",
        "v1.17, detect-local-mode: ClusterCIDR",
        6,
        "hosts.node.detect-local-mode: kube-proxy v1.17 does not know it (v1.18 is the first that does)",
    ),
    "value of a later release": (
        "v1.14",
        "v1.30, nodeport-addresses: [primary]",
        6,
        "hosts.node.nodeport-addresses: kube-proxy v1.30 does not know primary (v1.31 is the first that does)",
    ),
    "setting of the other mode": (
        "proxy-mode: iptables, proxy-version: v1.14",
        "proxy-mode: nftables, iptables-masquerade-bit: 3",
        6,
        "hosts.node.iptables-masquerade-bit: is for iptables mode: nftables mode makes nothing of it (leave it away)",
    ),
    "setting that wants another": (
        "v1.14",
        "v1.24, detect-local-mode: InterfaceNamePrefix",
        6,
        "hosts.node.detect-local-mode: InterfaceNamePrefix wants pod-interface-name-prefix",
    ),
    "setting that says nothing alone": (
        "v1.14",
        "v1.24, pod-bridge-interface: cni0",
        6,
        "hosts.node.pod-bridge-interface: says nothing without detect-local-mode BridgeInterface",
    ),
    "setting without a mode": (
        "proxy-mode: iptables, proxy-version: v1.14",
        "node-zone: a",
        6,
        "hosts.node.node-zone: says nothing without proxy-mode",
    ),
    "no such way to tell pods": (
        "v1.14",
        "v1.24, detect-local-mode: ByName",
        6,
        "hosts.node.detect-local-mode: must be 'ClusterCIDR', 'NodeCIDR', 'BridgeInterface' or 'InterfaceNamePrefix'",
    ),
    "no list of addresses": ("v1.14", "v1.31, nodeport-addresses: primary", 6, "must be a list, not 'primary'"),
    "node port address with host bits": (
        "v1.14",
        "v1.14, nodeport-addresses: [10.0.0.1/8]",
        6,
        "nodeport-addresses: '10.0.0.1/8' has bits set beyond its prefix (write 10.0.0.0/8)",
    ),
    "no bit": ("v1.14", "v1.14, iptables-masquerade-bit: 32", 6, "must be a bit of the packet mark, 0 to 31, not 32"),
    "no gate": ("v1.14", "v1.14, feature-gates: {A: maybe}", 6, "feature-gates: A must be true or false, not 'maybe'"),
    "quoted setting": (
        "v1.14",
        "v1.29, conntrack-tcp-be-liberal: 'true'",
        6,
        "conntrack-tcp-be-liberal: must be true or false, not 'true'",
    ),
    "second range of a node": (
        "v1.14",
        "v1.18, node-pod-cidrs: [10.1.0.0/16, 10.2.0.0/16]",
        6,
        "hosts.node.node-pod-cidrs[1]: a second CIDR of ipv4",
    ),
    "version without a mode": (
        "proxy-mode: iptables, ",
        "",
        6,
        "hosts.node.proxy-version: says nothing without proxy-mode",
    ),
    "legacy without a mode": (
        "server: {}",
        "server: {backend: legacy}",
        7,
        "hosts.server.backend: says nothing without proxy-mode",
    ),
    "masquerade-all without a mode": (
        "server: {}",
        "server: {masquerade-all: true}",
        7,
        "hosts.server.masquerade-all: says nothing without proxy-mode",
    ),
    "cluster-cidrs without a mode": (
        "server: {}",
        "server: {cluster-cidrs: [10.0.0.0/8]}",
        7,
        "hosts.server.cluster-cidrs: says nothing without proxy-mode",
    ),
    "legacy in nftables mode": (
        "proxy-mode: iptables",
        "backend: legacy, proxy-mode: nftables",
        6,
        "hosts.node.backend: legacy is a backend of iptables mode alone",
    ),
    "two CIDRs of a family": (
        "proxy-version: v1.14",
        "cluster-cidrs: [10.0.0.0/8, 'fd00::/8', 11.0.0.0/8]",
        6,
        "hosts.node.cluster-cidrs[2]: a second CIDR of ipv4",
    ),
    "one end": (
        "    - {host: node, interface: client, addresses: [10.0.0.1/24]}\n",
        "",
        9,
        "links[0]: a link has two ends or more, not 1",
    ),
    "a host twice on one segment": (
        "  - - {host: node",
        "    - {host: node, interface: eth1}\n  - - {host: node",
        9,
        "links[0]: node is linked to itself",
    ),
    "link to an unknown host": (
        "host: server",
        "host: sever",
        12,
        "links[1][1].host: no host is named 'sever' (did you mean 'server'?)",
    ),
    "link to itself": (
        "{host: node, interface: client",
        "{host: client, interface: client",
        9,
        "links[0]: client is linked to itself",
    ),
    "duplicate interface": (
        "interface: server",
        "interface: client",
        11,
        "links[1][0].interface: node has an interface 'client' already (it is in links[0]",
    ),
    "long interface": (
        "interface: client",
        "interface: abcdefghijklmnop",
        10,
        "links[0][1].interface: 'abcdefghijklmnop' is no name of an interface (1 to 15 of",
    ),
    "interface with a slash": (
        "interface: client",
        "interface: eth/0",
        10,
        "'eth/0' is no name of an interface",
    ),
    "interface with a space": (
        "interface: client",
        "interface: eth 0",
        10,
        "'eth 0' is no name of an interface",
    ),
    "interface with a colon": (
        "interface: client",
        "interface: 'eth:0'",
        10,
        "'eth:0' is no name of an interface",
    ),
    "interface with a pattern": (
        "interface: client",
        "interface: 'eth%d'",
        10,
        "'eth%d' is no name of an interface",
    ),
    "empty interface": ("interface: client", "interface: ''", 10, "'' is no name of an interface"),
    "interface with a line feed": (
        "interface: client",
        'interface: "eth0\\n"',
        10,
        "'eth0\\n' is no name of an interface",
    ),
    "interface ..": ("interface: client", "interface: ..", 10, "'..' is no name of an interface"),
    "loopback": ("interface: client", "interface: lo", 10, "'lo' is a name that the kernel keeps for itself"),
    "sysctl's all": ("interface: client", "interface: all", 10, "'all' is a name that the kernel keeps"),
    "sysctl's default": (
        "interface: client",
        "interface: default",
        10,
        "'default' is a name that the kernel keeps",
    ),
    "no address": (
        "10.0.0.2/24",
        "10.0.0.300/24",
        9,
        "links[0][0].addresses[0]: '10.0.0.300/24' is no address with a prefix length",
    ),
    "no prefix length": (
        "10.0.0.2/24",
        "10.0.0.2",
        9,
        "'10.0.0.2' has no prefix length (write it with its subnet's prefix length, as 10.0.0.1/24",
    ),
    "long prefix length": (
        "10.0.0.2/24",
        "10.0.0.2/33",
        9,
        "'10.0.0.2/33' is no address with a prefix length",
    ),
    "netmask": (
        "10.0.0.2/24",
        "10.0.0.2/255.255.255.0",
        9,
        "'10.0.0.2/255.255.255.0' is no address with a prefix length",
    ),
    "address as a number": ("[10.0.0.2/24]", "[167772162]", 9, "the number 167772162 is no address"),
    "zone": ("10.0.0.2/24", "'fe80::1%eth0/64'", 9, "'fe80::1%eth0/64' is no address"),
    "duplicate address": (
        "10.0.1.2/24",
        "10.0.1.1/24",
        12,
        "links[1][1].addresses[0]: node has 10.0.1.1 already",
    ),
    "duplicate address at one end": (
        "[10.0.1.2/24]",
        "[10.0.1.2/24, 10.0.1.2/24]",
        12,
        "links[1][1].addresses[1]: server has 10.0.1.2 already",
    ),
    "multicast": ("10.0.1.2/24", "224.0.0.1/24", 12, "224.0.0.1 is no unicast address"),
    "loopback address": ("10.0.1.2/24", "127.0.0.1/8", 12, "127.0.0.1 is no unicast address"),
    "link-local": (
        "10.0.1.2/24",
        "'fe80::1/64'",
        12,
        "fe80::1 is link-local (each interface has one by itself",
    ),
    "network address": (
        "10.0.1.2/24",
        "10.0.1.0/24",
        12,
        "10.0.1.0 is the address of the subnet 10.0.1.0/24 (take 10.0.1.1)",
    ),
    "IPv6 network address": (
        "10.0.1.2/24",
        "'fd00::/64'",
        12,
        "fd00:: is the address of the subnet fd00::/64 (take fd00::1)",
    ),
    "broadcast address": (
        "10.0.1.2/24",
        "10.0.1.255/24",
        12,
        "10.0.1.255 is the broadcast address of 10.0.1.0/24 (take 10.0.1.254)",
    ),
    "no common subnet": (
        "10.0.1.2/24",
        "10.0.2.2/24",
        11,
        "10.0.1.1/24 of node and the other end, server, are in no common subnet (give server an address in",
    ),
    "other prefix length": (
        "10.0.1.2/24",
        "10.0.1.2/16",
        11,
        "10.0.1.1/24 of node and the other end, server, are in no common subnet",
    ),
    "family at one end": (
        "[10.0.1.2/24]",
        "[10.0.1.2/24, 'fd00::2/64']",
        12,
        "links[1][1].addresses[1]: fd00::2/64 of server and the other end, node, are in no common subnet",
    ),
    "overlap": (
        "10.0.1.1/24]}\n    - {host: server, interface: eth0, addresses: [10.0.1.2/24",
        "10.0.0.129/25]}\n    - {host: server, interface: eth0, addresses: [10.0.0.130/25",
        11,
        "links[1][0].addresses[0]: subnet 10.0.0.128/25 overlaps 10.0.0.0/24 of links[0]",
    ),
    "gateway": (
        "via: 10.0.0.1",
        "via: 10.0.1.1",
        5,
        "hosts.client.routes[0].via: 10.0.1.1 is on no link of client (its neighbours are 10.0.0.1)",
    ),
    "gateway is itself": ("via: 10.0.0.1", "via: 10.0.0.2", 5, "10.0.0.2 is on no link of client"),
    "gateway of the other family": (
        "via: 10.0.0.1",
        "via: 'fd00::1'",
        5,
        "fd00::1 is on no link of client (add a link, or an address to one)",
    ),
    "destination of the other family": (
        "to: default",
        "to: 'fd00::/8'",
        5,
        "hosts.client.routes[0].via: fd00::/8 is ipv6, the gateway 10.0.0.1 is not",
    ),
    "destination with host bits": (
        "to: default",
        "to: 10.9.0.1/24",
        5,
        "hosts.client.routes[0].to: '10.9.0.1/24' has bits set beyond its prefix (write 10.9.0.0/24)",
    ),
    "no destination": (
        "to: default",
        "to: everywhere",
        5,
        "hosts.client.routes[0].to: 'everywhere' is no CIDR",
    ),
    "no gateway": ("via: 10.0.0.1", "via: node", 5, "hosts.client.routes[0].via: 'node' is no IP address"),
    "destination at hand": (
        "to: default",
        "to: 10.0.0.0/24",
        5,
        "hosts.client.routes[0].to: client has a route to 10.0.0.0/24 already",
    ),
    "route twice": (
        "      - {to: default, via: 10.0.0.1}\n",
        "      - {to: default, via: 10.0.0.1}\n      - {to: 0.0.0.0/0, via: 10.0.0.1}\n",
        6,
        "hosts.client.routes[1].to: client has a route to 0.0.0.0/0 already",
    ),
    "endpoint of no host": (
        "addresses: [10.0.1.2]\n",
        "addresses: [10.0.1.3]\n",
        35,
        "items[1].endpoints[0].addresses[0]: no host has the address 10.0.1.3 (give it to a host",
    ),
    "endpoint is a VIP": (
        "addresses: [10.0.1.2]\n",
        "addresses: [192.168.0.2]\n",
        35,
        "no host has the address 192.168.0.2",
    ),
    "range of cluster IPs": (
        "topology: pair",
        "topology: pair\nservice-cidrs: [192.168.0.1/16]",
        2,
        "service-cidrs[0]: '192.168.0.1/16' has bits set beyond its prefix (write 192.168.0.0/16)",
    ),
    "range of cluster IPs in snake case": (
        "topology: pair",
        "topology: pair\nservice_cidrs: [192.168.0.0/16]",
        2,
        "unknown key 'service_cidrs' (did you mean 'service-cidrs'?)",
    ),
    "too many ranges of cluster IPs": (
        "topology: pair",
        f"topology: pair\nservice-cidrs: [{'192.168.0.0/16, ' * 101}]",
        2,
        "service-cidrs: 101 ranges are too many (keep 100 at most)",
    ),
    "range of cluster IPs over a link": (
        "topology: pair",
        "topology: pair\nservice-cidrs: ['fd00::/8', 10.0.0.0/12]",
        2,
        "service-cidrs[1]: 10.0.0.0/12 overlaps 10.0.0.0/24, which a link has (take a range",
    ),
    "range of cluster IPs over pods": (
        "  server: {}\nlinks:\n",
        "  server: {proxy-mode: iptables, cluster-cidrs: [192.168.0.0/17]}\nservice-cidrs: [192.168.0.0/16]\nlinks:\n",
        8,
        "service-cidrs[0]: 192.168.0.0/16 overlaps 192.168.0.0/17, which pods have",
    ),
    "cluster IP outside of its range": (
        "topology: pair",
        "topology: pair\nservice-cidrs: [10.96.0.0/12, 192.168.0.0/31]",
        19,
        "spec.clusterIP: 192.168.0.2 is outside of the topology's service-cidrs, 10.96.0.0/12, 192.168.0.0/31 (write",
    ),
    "second cluster IP outside of its range": (
        "topology: pair",
        "topology: pair\nservice-cidrs: [192.168.0.0/31, 192.168.0.2/32]",
        29,
        "items[0].spec.clusterIP: 192.168.0.3 is outside of the topology's service-cidrs",
    ),
    "second Service": (
        "{name: alone}",
        "{name: web}",
        27,
        "items[0].metadata.name: a second Service default/web",
    ),
    "unknown kind": (
        "kind: Service\nmetadata: {name: web}",
        "kind: Pod\nmetadata: {name: web}",
        15,
        "kind: must be ",
    ),
    "wrong type in a Service": (
        "    - {port: 80}",
        "    - {port: http}",
        20,
        "spec.ports[0].port: must be a whole number, not 'http'",
    ),
    "alternatives in a Service": (
        "    - {port: 80}",
        "    - {port: 80, targetPort: [1]}",
        20,
        "spec.ports[0].targetPort: must be",
    ),
    "item that is no object": ("items:\n", "items:\n  - 5\n", 25, "items[0]: must be a Kubernetes object"),
    "second topology": (
        "---\napiVersion: v1\nkind: Service",
        "---\ntopology: two\n---\napiVersion: v1\nkind: Service",
        14,
        "a second topology (give it a file of its own)",
    ),
    "document that is a list": (
        "---\napiVersion: v1\nkind: List",
        "---\n- 1\n---\napiVersion: v1\nkind: List",
        22,
        "a document must be a mapping",
    ),
    "alias": ("server: {}", "server: *node", 7, "anchors and aliases are not taken (write the value out)"),
    "anchor": ("node: {for", "node: &node {for", 6, "anchors and aliases are not taken"),
    "tag": (
        "server: {}",
        "server: !!python/object:os.system {}",
        7,
        "the tag 'tag:yaml.org,2002:python/object:os.system' is not taken",
    ),
    "key that is a list": ("server: {}", "? [a]\n  : {}", 7, "a key must be text"),
    "tab": ("  server: {}", "\tserver: {}", 7, "(indent with spaces, not tabs)"),
    "unclosed": ("addresses: [10.0.0.2/24]}", "addresses: [10.0.0.2/24}", 9, "not YAML: "),
    "bare colon": ("10.0.0.2/24", "::2/64", 9, "put a value with ':' in quotes"),
    "control character": (
        "server: {}",
        "server: \x07{}",
        7,
        "not a text file: it has the control character 0x07",
    ),
}


@pytest.mark.parametrize(("old", "new", "line", "says"), CHANGES.values(), ids=CHANGES.keys())
def test_one_place_wrong(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert GOOD.count(old) >= 1
    path = tmp_path / "pair.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


# (what is written instead, what is warned of, and what is wrong then, if anything)
UNKNOWN = {
    "in a Service": (
        "  ports:\n    - {port: 80}",
        "  portes: []\n  ports:\n    - {port: 80}",
        "19: spec.portes: unknown field, left out (did you mean 'ports'?)",
        "",
    ),
    "in several places": (
        "spec: {clusterIP: 192.168.0.3, ports: [{port: 80}]}",
        "spec: {clusterIP: 192.168.0.3, ports: [{port: 80, name: a, use: 1}, {port: 81, name: b, use: 2}]}",
        "28: items[0].spec.ports[0].use: unknown field, left out; 1 more like it",
        "",
    ),
    "where a field that is needed is misspelt": (
        "  clusterIP: 192.168.0.2",
        "  clusterIp: 192.168.0.2",
        "18: spec.clusterIp: unknown field, left out (did you mean 'clusterIP'?)",
        "17: spec: must be written down (nothing allocates it here), or be None",
    ),
    "in a List": (
        "addressType: IPv4",
        "addresType: IPv4",
        "32: items[1].addresType: unknown field, left out (did you mean 'addressType'?)",
        "29: items[1]: 'addressType' is missing",
    ),
    "of a List": (
        "kind: List\nitems:\n",
        "kind: List\nother: 1\nitems:\n",
        "24: other: unknown field, left out",
        "",
    ),
}


@pytest.mark.parametrize(("old", "new", "warned", "wrong"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_unknown_fields_of_objects_are_warned_of(tmp_path: Path, old: str, new: str, warned: str, wrong: str) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    expected = pytest.raises(InputError, match=re.escape(f"{path}:{wrong}")) if wrong else contextlib.nullcontext()
    with pytest.warns(InputWarning) as record, expected:
        load(path)
    [message] = [str(one.message) for one in record]
    assert message.startswith(f"{path}:{warned}")


def test_the_unchanged_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(GOOD)
    assert [service.metadata.name for service in load(path).services] == ["web", "alone"]


DEEP = f"topology: x\nhosts: {'[' * 100}{']' * 100}"  # libyaml itself refuses some hundred
FILES = {
    "empty": (b"", "", "empty: there is no topology in it"),
    "only comments": (b"# nothing\n---\n# more\n", "", "empty: there is no topology in it"),
    "no hosts": (b"topology: x\nhosts: {}\n", ":2", "hosts: a topology needs a host"),
    "NUL": (b"topology: x\n\0", ":2", "not a text file: it has the control character 0x00"),
    "ELF": (b"\x7fELF\x02\x01\x01", ":1", "not a text file"),
    "Latin-1": (b"topology: x\ndescription: caf\xe9\n", ":2", "not a text file: the byte 0xe9 is not UTF-8"),
    "UTF-16": ("topology: x".encode("utf-16"), ":1", "not a text file"),
    "text": (b"hello\n", ":1", "a document must be a mapping"),
    "list": (b"\n- topology: x\n", ":2", "a document must be a mapping"),
    "objects first": (
        b"apiVersion: v1\nkind: List\nitems: []\n",
        ":1",
        "the first document must be the topology (put the topology before it",
    ),
    "deep": (DEEP.encode(), ":2", "nested deeper than 64 levels"),
    "deep keys": (b"? " * 100_000, ":1", "a key must be text"),
    "alias bomb": (b"topology: x\na: &a [x]\n", ":2", "unknown key 'a'"),
    "digits": (b"topology: " + b"9" * 100_000 + b"\nhosts: {a: {}}", ":1", "topology: '99999999"),
    "large": (
        b"topology: x\nhosts: {" + b"a: {}, " * 200_000 + b"}",
        ":1",
        "the topology is larger than 1 MiB",
    ),
    "noncharacter": ("topology: x\nhosts: {\ufffe: {}}".encode(), "", "not YAML: "),
}


@pytest.mark.parametrize(("content", "place", "says"), FILES.values(), ids=FILES.keys())
def test_whole_file_wrong(tmp_path: Path, content: bytes, place: str, says: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}{place}: ")
    assert says in str(raised.value)
    assert len(str(raised.value)) < 400


def test_missing_file_suggests_a_shipped_topology() -> None:
    with pytest.raises(InputError, match=re.escape("there is no such file or topology (did you mean 'kube-proxy'?)")):
        load("kube-prxy")


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{tmp_path}/none.yaml: there is no such file"):
        load(tmp_path / "none.yaml")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        load(str(tmp_path))


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "", "\udc80"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(InputError):
        load(name)
