"""Any valid set of services renders, loads, and reads back to the same services and endpoints."""

from __future__ import annotations

import re

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lab.kubeproxy import ProxyOptions, iptables, nftables
from lab.kubeproxy.services import service_ports
from lab.rules.listed import listed
from lab.rules.read_dump import read
from lab.rules.restored import as_dump, restored
from lab.vocabulary import Family

CONDITIONS = st.fixed_dictionaries({}, optional={name: st.booleans() for name in ("ready", "serving", "terminating")})
ENDPOINTS = st.lists(
    st.fixed_dictionaries(
        {"n": st.integers(1, 5), "nodeName": st.sampled_from(["node", "other"]), "conditions": CONDITIONS}
    ),
    max_size=4,
    unique_by=lambda endpoint: endpoint["n"],
)
POLICY = st.sampled_from(["Cluster", "Local"])
KINDS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]),
        "protocol": st.sampled_from(["TCP", "UDP", "SCTP"]),
        "external": st.booleans(),
        "internalTrafficPolicy": POLICY,
        "externalTrafficPolicy": POLICY,
        "sessionAffinity": st.sampled_from(["None", "ClientIP"]),
        "endpoints": ENDPOINTS,
    }
)


def expected(world, number, kind):
    """What each destination of a service must reach, said once more without the code under test."""
    usable = [e for e in kind["endpoints"] if e["conditions"].get("ready", True)] or [
        e
        for e in kind["endpoints"]
        if e["conditions"].get("serving", True) and e["conditions"].get("terminating", False)
    ]
    here = [e for e in kind["endpoints"] if e["nodeName"] == "node"]
    local = [e for e in here if e["conditions"].get("ready", True)] or [
        e for e in here if e["conditions"].get("serving", True) and e["conditions"].get("terminating", False)
    ]

    def texts(endpoints):
        return frozenset(world.target(e["n"]) for e in endpoints)

    protocol = kind["protocol"].lower()
    internal = texts(local if kind["internalTrafficPolicy"] == "Local" else usable)
    if not internal:
        internal = "DROP" if usable or local else "REJECT"
    result = {(world.vip(number), protocol, 80): internal}
    # With Local policy what the node itself and pods send goes to all endpoints, the rest to the local ones.
    external = texts([*usable, *(local if kind["externalTrafficPolicy"] == "Local" else [])]) or "REJECT"
    if kind["external"]:
        result[world.outside(number), protocol, 80] = external
    if kind["type"] != "ClusterIP":
        result["node", protocol, 30000 + number] = external
    if kind["type"] == "LoadBalancer":
        result[world.outside(100 + number), protocol, 80] = external
    return result


def add(world, number, kind):
    port = {"port": 80, "protocol": kind["protocol"]}
    spec = {key: kind[key] for key in ("type", "internalTrafficPolicy", "sessionAffinity")}
    status = []
    if kind["type"] != "ClusterIP":
        port["nodePort"] = 30000 + number
    if kind["external"]:
        spec["externalIPs"] = [world.outside(number)]
    if kind["type"] == "LoadBalancer":
        status = [{"ip": world.outside(100 + number)}]
    if kind["external"] or kind["type"] != "ClusterIP":
        spec["externalTrafficPolicy"] = kind["externalTrafficPolicy"]
    world.add(f"s{number}", kind["endpoints"], ports=[port], status=status, **spec)


def worlds(make_world, family, kinds):
    world, wanted = make_world(family), {}
    for number, kind in enumerate(kinds, 1):
        add(world, number, kind)
        wanted |= expected(world, number, kind)
    return world, wanted


SETS = st.lists(KINDS, min_size=1, max_size=5)


def iptables_back(text):
    """Read iptables rules: for each destination the endpoints that it can reach, or what refuses it."""
    rules = {}
    for table, body in re.findall(r"^\*(\w+)\n(.*?)^COMMIT", text, re.DOTALL | re.MULTILINE):
        for chain, rule in re.findall(r"^-A (\S+) (.*)$", body, re.MULTILINE):
            rules.setdefault((table, chain), []).append(rule)

    def endpoints(chain):
        found = set()
        for rule in rules.get(("nat", chain), []):
            target = re.search(r"-j (\S+)", rule)
            if target and target[1] == "DNAT":
                found.add(re.search(r"--to-destination (\S+)", rule)[1])
            elif target and target[1] != "KUBE-MARK-MASQ":
                found |= endpoints(target[1])
        return found

    result = {}
    chains = [("nat", "KUBE-SERVICES"), ("nat", "KUBE-NODEPORTS")]
    chains += [("filter", "KUBE-SERVICES"), ("filter", "KUBE-EXTERNAL-SERVICES")]
    for table, chain in chains:
        for rule in rules.get((table, chain), []):
            port = re.search(r"--dport (\d+)", rule)
            target = re.search(r"-j (\S+)", rule)[1]
            if not port or target == "KUBE-MARK-MASQ":
                continue
            address = re.search(r"-d (\S+)", rule)
            key = (
                address[1].split("/")[0] if address else "node",
                re.search(r"-p (\S+)", rule)[1],
                int(port[1]),
            )
            value = frozenset(endpoints(target)) if table == "nat" else target
            result.setdefault(key, value)
    return result


def nft_back(text):
    """Read nft's listing, or the input to it, in the same way."""
    maps, chains = {}, {}
    for name, body in re.findall(r"^add element ip6? kube-proxy (\S+) \{ (.*) \}$", text, re.MULTILINE):
        maps.setdefault(name, []).append(body)
    for name, rule in re.findall(r"^add rule ip6? kube-proxy (\S+) (.*)$", text, re.MULTILINE):
        chains.setdefault(name, []).append(rule)
    for kind, name, body in re.findall(r"^\t(map|chain) (\S+) \{\n(.*?)^\t\}", text, re.DOTALL | re.MULTILINE):
        if kind == "chain":
            chains[name] = [line.strip() for line in body.splitlines()]
        elif found := re.search(r"elements = \{(.*)\}", body, re.DOTALL):
            maps[name] = [element.strip() for element in found[1].split(",")]

    def endpoints(chain):
        found = set()
        for rule in chains.get(chain, []):
            if plain := re.search(r"dnat to (\S+)", rule):
                found.add(plain[1])
            elif mapped := re.search(r"dnat .* map \{ (.*) \}", rule):
                for address, port in re.findall(r"\d+ : (\S+) \. (\d+)", mapped[1]):
                    found.add(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
            else:
                for target in re.findall(r"goto (\S+?)(?:,|$| )", rule):
                    found |= endpoints(target)
        return found

    result = {}
    for name in ("service-ips", "service-nodeports", "no-endpoint-services", "no-endpoint-nodeports"):
        for element in maps.get(name, []):
            key, _, verdict = re.sub(r' comment "[^"]*"', "", element).rpartition(" : ")
            *address, protocol, port = key.split(" . ")
            refused = {"drop": "DROP", "goto reject-chain": "REJECT"}.get(verdict)
            value = refused or frozenset(endpoints(verdict.removeprefix("goto ")))
            result.setdefault((*(address or ["node"]), protocol, int(port)), value)
    return result


# A failure in the kernel is shown as it was found: making it smaller would take minutes.
IN_KERNEL = settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def options(family, version):
    return ProxyOptions(family, version=version, node_name="node", node_addresses=("10.0.0.1", "fd00::1"), nfacct=False)


SOME = given(family=st.sampled_from(list(Family)), kinds=SETS)


@SOME
@settings(max_examples=60, deadline=None)
def test_iptables_text(make_world, family, kinds):
    world, wanted = worlds(make_world, family, kinds)
    rules = iptables.render(world.services, world.endpoint_slices, options(family, "v1.29"))
    assert iptables_back(rules.restore) == wanted


@pytest.mark.parametrize("version", ["v1.31", "v1.34", "v1.36"])
@SOME
@settings(max_examples=30, deadline=None)
def test_nft_text(make_world, version, family, kinds):
    world, wanted = worlds(make_world, family, kinds)
    script = nftables.render(world.services, world.endpoint_slices, options(family, version))
    assert nft_back(script) == wanted


@pytest.mark.lab_kernel
@pytest.mark.parametrize("backend", ["nft", "legacy"])
@SOME
@IN_KERNEL
def test_iptables_in_the_kernel(make_world, in_namespace, backend, family, kinds):
    world, wanted = worlds(make_world, family, kinds)
    rules = iptables.render(world.services, world.endpoint_slices, options(family, "v1.29"))
    program = f"ip{'6' if family is Family.IPV6 else ''}tables-{backend}"
    load = f"{program}-restore --noflush --counters"
    script = f"{load} <restore; {load} <jumps; {load} <restore; {program}-save"
    saved = in_namespace(script, restore=rules.restore, jumps=rules.jumps)
    assert iptables_back(saved) == wanted
    unloaded = restored([rules.restore, rules.jumps], family)
    assert contents(read(saved, "saved", family)) == contents(as_dump(unloaded))


@pytest.mark.lab_kernel
@pytest.mark.parametrize("version", ["v1.31", "v1.36"])
@SOME
@IN_KERNEL
def test_nft_in_the_kernel(make_world, in_namespace, version, family, kinds):
    world, wanted = worlds(make_world, family, kinds)
    script = nftables.render(world.services, world.endpoint_slices, options(family, version))
    listing = in_namespace("nft -f rules; nft -f rules; nft list ruleset", rules=script)
    assert nft_back(listing) == wanted
    assert contents(read(listing, "listed", family)) == contents(listed(script, family).as_dump())


def contents(dump):
    """What of a dump does not depend on where it stands."""
    return {
        place: (one.kind, [line.text for line in one.lines], {line.text for line in one.elements})
        for place, one in dump.containers.items()
    }


def nat_chains(text):
    return sorted(re.findall(r"^:(KUBE-\S+)", text[text.index("*nat") :], re.MULTILINE))


TWO = given(family=st.sampled_from(list(Family)), change=st.tuples(SETS, SETS))


@pytest.mark.lab_kernel
@pytest.mark.parametrize("version", ["v1.14", "v1.29"])
@TWO
@IN_KERNEL
def test_iptables_after_a_change(make_world, in_namespace, version, family, change):
    (old, _), (new, wanted) = (worlds(make_world, family, kinds) for kinds in change)
    proxy = options(family, version)
    first, last = (iptables.render(w.services, w.endpoint_slices, proxy) for w in (old, new))
    before, after = (service_ports(w.services, w.endpoint_slices, proxy) for w in (old, new))
    program = f"ip{'6' if family is Family.IPV6 else ''}tables-nft"
    load = f"{program}-restore --noflush --counters"
    saved = in_namespace(
        f"{load} <kubelet; {load} <restore; {load} <jumps; {load} <change; {program}-save",
        kubelet=first.kubelet,
        restore=first.restore,
        jumps=first.jumps,
        change=iptables.sync(before, after, proxy),
    )
    if version == "v1.29":
        assert iptables_back(saved) == wanted
    assert iptables_back(saved) == iptables_back(last.restore)
    kept = {"KUBE-PROXY-CANARY", "KUBE-MARK-DROP"}
    assert set(nat_chains(saved)) - kept == set(nat_chains(last.restore)) - kept


@pytest.mark.lab_kernel
@pytest.mark.parametrize("version", ["v1.31", "v1.36"])
@TWO
@IN_KERNEL
def test_nft_after_a_change(make_world, in_namespace, version, family, change):
    (old, _), (new, wanted) = (worlds(make_world, family, kinds) for kinds in change)
    proxy = options(family, version)
    first, last = (nftables.render(w.services, w.endpoint_slices, proxy) for w in (old, new))
    before, after = (service_ports(w.services, w.endpoint_slices, proxy) for w in (old, new))
    synced = nftables.sync(before, after, proxy)
    show = "nft list ruleset"
    script = f"nft -f first; nft -f change; nft -f stale; {show} >found; nft flush ruleset; nft -f last"
    listed = in_namespace(
        f"{script}; {show} >wanted; cat found; echo ======; cat wanted",
        first=first,
        change=synced.script,
        stale=synced.afterwards,
        last=last,
    )
    found, fresh = listed.split("======\n")
    assert nft_back(found) == wanted
    assert sorted(re.split(r"[\s,]+", found)) == sorted(re.split(r"[\s,]+", fresh))
