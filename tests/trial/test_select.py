"""What a user chooses is used, or refused with its reason, and is said where it was not all that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cases import CASES, DEFAULT_CASES, HEADLINE
from lab.errors import InputError
from lab.fixes import NONE
from lab.kubeproxy.said import from_words
from lab.topology.reader import load, parse, shipped
from lab.topology.with_settings import with_proxy
from lab.trial.batch import select
from lab.vocabulary import Backend, Family, ProxyMode
from tests.support.families import OF_IPV4

HERE = Path(__file__).parent
NOTHING = (None, None, None)


def choose(names, topology, service=None, *, named=True, proxy=NOTHING, family=Family.IPV4):
    cases = [CASES[name] for name in names]
    place = None if topology is None else load(HERE / topology if topology.endswith(".yaml") else topology)
    return select(cases, [NONE], place, family, proxy, service, named=named)


@pytest.mark.parametrize("family", list(Family))
def test_every_case_runs_in_its_own_topology(family):
    cases = {name: case for name, case in CASES.items() if family is Family.IPV4 or name not in OF_IPV4}
    chosen = choose(cases, None, family=family)
    assert [setting.topology.name for setting in chosen.settings] == [case.topology for case in cases.values()]
    assert chosen.remarks == ()


def test_what_a_family_knows_nothing_of_is_left_out_and_said():
    chosen = choose(CASES, None, named=False, family=Family.IPV6)
    assert {setting.case.name for setting in chosen.settings} == {*CASES} - {*OF_IPV4}
    [remark] = chosen.remarks
    assert "IPv6 the kernel validates no source: source-filtered, source-filtered-loosely, source-conflicts" in remark


def test_mode_and_version_are_for_every_topology():
    chosen = choose(CASES, None, proxy=(ProxyMode.NFTABLES, "v1.34", None))
    nodes = {(node.proxy_mode, node.proxy_version) for one in chosen.settings for node in one.topology.nodes}
    assert nodes == {(ProxyMode.NFTABLES, "v1.34")}


def test_settings_are_for_every_topology():
    said = from_words({"masquerade_all": True, "node_zone": "a"})
    chosen = select([HEADLINE, CASES["in-window"]], [NONE], None, Family.IPV4, NOTHING, settings=said)
    nodes = {(node.masquerade_all, node.node_zone) for one in chosen.settings for node in one.topology.nodes}
    assert nodes == {(True, "a")}
    assert {one.trial.settings for one in chosen.settings} == {("--masquerade-all=true", "--node-zone=a")}


def test_what_has_to_be_known_of_a_node_is_said_beforehand():
    text = dict(shipped())["kube-proxy"].read_text().replace("v1.14", "v1.33")
    hinted = parse(text.replace("conditions: {ready: true}", "hints: {forZones: [{name: a}]}"))
    assert hinted != parse(text)
    nftables = (ProxyMode.NFTABLES, "1.33", None)
    patches, hints = select([HEADLINE], [NONE], hinted, Family.IPV4, nftables).remarks
    assert patches.startswith("v1.33 stands for its newest patch: ")
    assert hints.endswith("hints for zones, which are not used: the node's zone is not known (node-zone says it).")
    said = from_words({"node_zone": "a"})
    assert select([HEADLINE], [NONE], hinted, Family.IPV4, NOTHING, settings=said).remarks == ()


def test_a_topology_is_for_every_case_that_can_run_in_it():
    chosen = choose(["in-window", "client-on-node", "stale-udp-entry"], "dns")
    assert [setting.topology.name for setting in chosen.settings] == ["dns"] * 3
    assert chosen.remarks == ("in dns instead of their own topologies: client-on-node (uplink)",)


@pytest.mark.parametrize(
    ("case", "topology", "reason"),
    [
        ("client-on-node", "kube-proxy", "it needs node to have a default route, or one to the VIP"),
        ("client-beyond-window", "uplink", "it needs node to have no route to the VIP, nor a default route"),
        ("client-masqueraded", "kube-proxy", "it needs a client outside of the cluster"),
        ("client-masqueraded", "dns", "kube-system/kube-dns:dns-tcp has no node port"),
        ("client-outside-cluster", "dns", "it needs cluster-cidrs of node without outside, or masquerade-all"),
        ("judged-on-both-nodes", "uplink", "it needs every endpoint behind a second node, other than the client's"),
        ("judged-on-both-nodes", "two-nodes", "it needs every endpoint behind a second node, other than the client's"),
        ("icmp-error-without-entry", "endpoints", "it needs a Service with one endpoint: among several the rules"),
        ("stale-udp-entry", "statsd.yaml", "it needs a Service with two endpoints or more"),
        ("udp-before-service", "kube-proxy", "no UDP service with an ipv4 endpoint that a host has, but default/web"),
        ("beyond-window", "statsd.yaml", "no TCP service with an ipv4 endpoint that a host has, but metrics/stats:udp"),
        ("asymmetric-route", "kube-proxy", "it needs answers that pass node while what the client sends does not"),
        ("congested", "kube-proxy", "it needs a router with two links between the node and server"),
        ("tour-of-states", "across-nodes", "it needs node-a to be the only node on the way to server, and node-b is"),
        ("client-on-node", "two-nodes", "it needs node-a to be the only node on the way to server-b, and node-b is"),
        ("egress-fin-unknown", "dns", "it needs outside to have no route to client"),
        ("snat-port-race", "uplink", "it needs a second client pod on node"),
        ("snat-port-race", "branch.yaml", "it needs a route from world to desk-1, for the lab's own datagrams"),
        ("redirected-in-pod", "asymmetric", "it needs packets for server on that address's link"),
    ],
)
def test_a_case_that_cannot_run_says_why(case, topology, reason):
    with pytest.raises(InputError) as refused:
        choose([case], topology)
    name = topology.removesuffix(".yaml")
    assert str(refused.value).startswith(f"{case} cannot run in {name}: {reason}")
    assert f"without a topology given it runs in {CASES[case].topology}" in str(refused.value)


@pytest.mark.parametrize(
    ("topology", "says"),
    [("sctp.yaml", "`lab reach` asks by SCTP)"), ("statsd.yaml", "`lab reach` asks by UDP)")],
)
def test_what_can_be_done_without_tcp_is_said(topology, says):
    with pytest.raises(InputError) as refused:
        choose(["client-beyond-window"], topology)
    assert str(refused.value).endswith(says)


@pytest.mark.parametrize(("version", "runs"), [("v1.19", False), ("v1.20", True)])
def test_a_node_port_that_is_cleaned_instead_of_the_vip(version, runs):
    given = dict(shipped())["dns"].read_text().replace("type: ClusterIP", "type: NodePort")
    place = parse(given.replace("port: 53, targetPort: 53}", "port: 53, targetPort: 53, nodePort: 30053}"))
    place = with_proxy(place, None, version, None)
    case = CASES["stale-udp-entry-cleaned"]
    if runs:
        assert case.roles(place, Family.IPV4)
    else:
        with pytest.raises(InputError, match=r"it needs kube-proxy v1.20 or later: up to v1.19 a node port is cleaned"):
            case.roles(place, Family.IPV4)


def test_a_node_that_one_direction_passes_by_is_said_beforehand():
    chosen = choose(["beyond-window", "asymmetric-route"], "asymmetric")
    assert len(chosen.settings) == 2
    [remark] = chosen.remarks
    assert remark == (
        "in asymmetric, node is not both on the way from client to server and on the way back:"
        " what comes of these is a finding and not as expected: beyond-window"
    )


def test_what_was_not_named_is_left_out_and_said_by_reason():
    chosen = choose(CASES, "kube-proxy", named=False)
    chosen_cases = {setting.case.name for setting in chosen.settings}
    remarks = [remark for remark in chosen.remarks if "left out for kube-proxy: " in remark]
    left_out = [name for remark in remarks for name in remark.rpartition(": ")[2].split(", ")]
    assert sorted([*left_out, *chosen_cases]) == sorted(CASES)
    assert "client-on-node" in left_out
    reasons = [remark.partition(": ")[2].rpartition(": ")[0] for remark in remarks]
    assert len(reasons) == len(set(reasons))
    assert "1 case is left out for kube-proxy: it needs answers that pass" in " ".join(chosen.remarks)


def test_all_of_a_topologys_claims_can_be_chosen():
    for name, _path in shipped():
        chosen = choose(CASES, name, named=False)
        assert {setting.topology.name for setting in chosen.settings} == {name}


@pytest.mark.parametrize(
    ("topology", "there", "can"),
    [
        (
            "statsd.yaml",
            "metrics/stats:udp (UDP)",
            "promiscuous-bridge, promiscuous-bridge-off, kube-proxy-restarted, udp-before-service, udp-before-service-",
        ),
        ("sctp.yaml", "shop/edge:web (SCTP)", "egress-late-reset, egress-reset-again, egress-data-unknown"),
    ],
)
def test_a_topology_of_another_protocol_says_which_and_who_could_run(topology, there, can):
    with pytest.raises(InputError) as refused:
        choose([case.name for case in DEFAULT_CASES], topology, named=False)
    assert f"no TCP service with an ipv4 endpoint that a host has, but {there}" in str(refused.value)
    assert f"can run: {can}" in str(refused.value)


# --- Services -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "asked", "address"),
    [
        (None, "blue/web", "172.22.0.1:80"),
        ("green/web", "green/web", "172.22.0.2:80"),
        ("db", "green/db:sql", "172.22.0.3:5432"),
        ("db:admin", "green/db:admin", "172.22.0.3:8080"),
        ("green/db:8080", "green/db:admin", "172.22.0.3:8080"),
    ],
)
def test_the_service_that_is_named_is_asked(service, asked, address):
    chosen = choose(["in-window"], "several.yaml", service)
    [setting] = chosen.settings
    assert setting.trial.service == setting.service == asked
    roles = setting.case.roles(setting.topology, setting.family, setting.service)
    assert str(roles.service_address) == address
    said = "in several, blue/web is asked and not green/web, green/db:sql, green/db:admin: --service takes another"
    assert chosen.remarks == (() if service else (said,))


def test_where_there_is_one_service_nothing_is_said():
    [setting] = choose(["in-window"], "kube-proxy").settings
    assert setting.trial.service is None


@pytest.mark.parametrize(
    ("case", "service", "reason"),
    [
        ("in-window", "db:gossip", "db:gossip has no TCP port, but green/db:gossip (UDP)"),
        ("dns-race-one-endpoint", "blue/web", "blue/web has no UDP port, but blue/web (TCP)"),
        ("egress-data-unknown", "blue/web", "it asks no Service"),
    ],
)
def test_a_service_that_cannot_be_asked_says_why(case, service, reason):
    with pytest.raises(InputError) as refused:
        choose([case], "several.yaml", service)
    assert f"{case} cannot run in several: {reason}" in str(refused.value)


@pytest.mark.parametrize("case", ["in-window", "dns-race-one-endpoint", "egress-data-unknown"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("web", "several: several Services are named web (one of: blue/web, green/web)"),
        ("web:80", "several: several Services are named web (one of: blue/web, green/web)"),
        ("web:81", "several: several Services are named web (one of: blue/web, green/web)"),
        ("nix", "several: there is no Service nix (known: blue/web, green/db, green/web)"),
        ("green/we", "several: there is no Service green/we (did you mean 'green/web'?)"),
        ("gren/db:sql", "several: there is no Service gren/db:sql (did you mean 'green/db:sql'?)"),
        ("db:nix", "several: green/db has no port nix (its ports: sql, admin, gossip)"),
        *(
            (word, f"{word!r} names no Service (write [NAMESPACE/]NAME[:PORT], such as shop/web:http)")
            for word in ("", " ", "/web", "blue/", ":http", "web:", "web:http:x", "a/b/web", "a web")
        ),
    ],
)
def test_a_name_of_no_service_is_told_before_any_case(case, named, service, words):
    with pytest.raises(InputError) as refused:
        choose([case], "several.yaml", service, named=named)
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("changed", "family", "words"),
    [
        (("10.71.2.2]}", "10.71.2.2], conditions: {ready: false}}"), Family.IPV4, "no ready ipv4 endpoint"),
        (
            ("kubernetes.io/service-name: db", "kubernetes.io/service-name: other"),
            Family.IPV4,
            "no ready ipv4 endpoint",
        ),
        (("clusterIP: 172.22.0.3", "clusterIP: None"), Family.IPV4, "no ipv4 cluster IP"),
        (("", ""), Family.IPV6, "no ipv6 cluster IP"),
    ],
)
def test_a_service_that_nobody_can_ask_says_what_it_lacks(tmp_path, changed, family, words):
    file = tmp_path / "lacking.yaml"
    head, db = (HERE / "several.yaml").read_text().split("metadata: {name: db, namespace: green}\n", 1)
    file.write_text(f"{head}metadata: {{name: db, namespace: green}}\n{db.replace(changed[0], changed[1], 1)}")
    with pytest.raises(InputError) as refused:
        choose(["in-window"], str(file), "db", family=family)
    can = "none" if family is Family.IPV6 else "blue/web, green/web"
    which = "green/db:sql, green/db:admin, green/db:gossip" if "endpoint" in words else "green/db"
    assert str(refused.value) == f"several: {which} has {words} (can be asked: {can})"


def test_a_service_may_be_one_of_some_topologies_alone():
    chosen = choose(["in-window", "dns-race-one-endpoint"], None, "kube-dns", named=False)
    assert [one.trial.service for one in chosen.settings] == ["kube-system/kube-dns:dns"]
    assert "1 case is left out: there is no Service kube-dns: in-window" in chosen.remarks
    with pytest.raises(InputError, match="kube-proxy: there is no Service kube-dns"):
        choose(["in-window", "dns-race-one-endpoint"], None, "kube-dns")


def test_a_service_that_was_chosen_is_named_in_the_trial_though_it_is_the_only_one():
    [setting] = choose(["in-window"], "kube-proxy", "web").settings
    assert setting.trial.service == "default/web:http"


def test_a_service_of_a_protocol_that_no_case_asks_by_is_said():
    words = "no case asks a Service by SCTP: in {}, {} left unasked"
    chosen = choose(CASES, "sctp.yaml", named=False)
    assert words.format("sctp", "shop/edge:web is") in chosen.remarks
    assert words.format("sctp", "shop/edge:web is") in choose(["egress-data-unknown"], "sctp.yaml").remarks


def test_a_service_that_another_case_would_ask_is_not_said_to_be_left_unasked(tmp_path):
    file = tmp_path / "several.yaml"
    text = (HERE / "several.yaml").read_text()
    file.write_text(text)
    assert not any("no case asks" in remark for remark in choose(["in-window"], str(file)).remarks)
    file.write_text(text.replace("protocol: UDP", "protocol: SCTP"))
    remarks = choose(["in-window"], str(file)).remarks
    assert "no case asks a Service by SCTP: in several, green/db:gossip is left unasked" in remarks
    assert not any("no case asks" in remark for remark in choose(["in-window"], str(file), "green/web").remarks)


# --- kube-proxy's mode, version and backend -----------------------------------------------------------


def test_a_backend_without_a_node_in_iptables_mode_is_refused():
    for backend in Backend:
        with pytest.raises(InputError, match=f"backend {backend} is for iptables mode"):
            choose([HEADLINE.name], None, proxy=(ProxyMode.NFTABLES, None, backend))


def test_a_setting_without_a_node_is_refused(tmp_path):
    from lab.cli.arguments import Proxy, read_topology

    file = tmp_path / "pair.yaml"
    file.write_text("topology: pair\nhosts: {a: {}, b: {}}\n")
    assert read_topology(str(file), Proxy()).nodes == ()
    for proxy in ((ProxyMode.NFTABLES, None, None), (None, "v1.31", None), (None, None, Backend.LEGACY)):
        with pytest.raises(InputError, match="no host has proxy-mode"):
            read_topology(str(file), Proxy(*proxy))


def test_a_backend_is_for_the_nodes_in_iptables_mode(tmp_path):
    from lab.cli.arguments import Proxy, read_topology

    file = tmp_path / "mixed.yaml"
    file.write_text("topology: mixed\nhosts: {a: {proxy-mode: iptables}, b: {proxy-mode: nftables}}\n")
    chosen = read_topology(str(file), Proxy(backend=Backend.LEGACY))
    assert [node.backend for node in chosen.nodes] == [Backend.LEGACY, Backend.NFT]
