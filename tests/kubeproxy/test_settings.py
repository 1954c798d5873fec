"""kube-proxy's settings: each way to say one, what knows it from when on, and which word counts."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path

import pytest

from lab.errors import InputError, InputWarning
from lab.kubeproxy.configuration import read_configuration
from lab.kubeproxy.gates import GATES
from lab.kubeproxy.options import DetectLocalMode, ProxyOptions
from lab.kubeproxy.releases import find_release
from lab.kubeproxy.said import Settings, from_words, plain, settled, unfit
from lab.kubeproxy.settings import KEYS, SETTINGS, find_word
from lab.topology.kube_proxy import node_release, proxy_options
from lab.topology.model import Host
from lab.topology.node_change import NodeChange
from lab.topology.reader import load, parse
from lab.topology.with_settings import with_proxy
from lab.vocabulary import Family, ProxyMode

IPTABLES, NFTABLES = ProxyMode
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

# By field: an option's text, the value, a KubeProxyConfiguration that says the same, first release, mode.
SAID = {
    "cluster_cidrs": ("10.1.0.0/16,fd01::/64", ("10.1.0.0/16", "fd01::/64"), "clusterCIDR: '10.1.0.0/16,fd01::/64'"),
    "masquerade_all": ("true", True, "iptables: {masqueradeAll: true}"),
    "detect_local_mode": ("BridgeInterface", DetectLocalMode.BRIDGE, "detectLocalMode: BridgeInterface"),
    "pod_bridge_interface": ("cni0", "cni0", "detectLocal: {bridgeInterface: cni0}"),
    "pod_interface_name_prefix": ("veth", "veth", "detectLocal: {interfaceNamePrefix: veth}"),
    "node_port_addresses": ("10.0.0.0/8,::/0", ("10.0.0.0/8", "::/0"), "nodePortAddresses: [10.0.0.0/8, '::/0']"),
    "localhost_node_ports": ("false", False, "iptables: {localhostNodePorts: false}"),
    "masquerade_bit": ("3", 3, "iptables: {masqueradeBit: 3}"),
    "conntrack_tcp_be_liberal": ("true", True, "conntrack: {tcpBeLiberal: true}"),
    "conntrack_tcp_timeout_established": ("10m", "10m", "conntrack: {tcpEstablishedTimeout: 10m}"),
    "conntrack_tcp_timeout_close_wait": ("1m30s", "1m30s", "conntrack: {tcpCloseWaitTimeout: 1m30s}"),
    "feature_gates": ("IPv6DualStack=true", (("IPv6DualStack", True),), "featureGates: {IPv6DualStack: true}"),
    "node_name": ("worker-1", "worker-1", "hostnameOverride: worker-1"),
    "node_addresses": ("192.0.2.9", ("192.0.2.9",), "bindAddress: 192.0.2.9"),
    "node_zone": ("zone-a", "zone-a", None),
    "node_pod_cidrs": ("10.1.2.0/24", ("10.1.2.0/24",), None),
    "service_cidrs": ("10.96.0.0/12", ("10.96.0.0/12",), None),
}

FIRST = {  # FACTS of each release's flags: k8s.io/kubernetes cmd/kube-proxy/app/options.go
    "detect_local_mode": ("NodeCIDR", "v1.18"),
    "pod_bridge_interface": ("cni0", "v1.24"),
    "pod_interface_name_prefix": ("veth", "v1.24"),
    "localhost_node_ports": ("true", "v1.26"),
    "conntrack_tcp_be_liberal": ("true", "v1.29"),
    "service_cidrs": ("10.96.0.0/12", "v1.33"),
    "feature_gates": ("IPv6DualStack=false", "v1.14"),  # as it is there; see below of what is asked for besides
}
MODES = {"localhost_node_ports": IPTABLES, "masquerade_bit": IPTABLES, "service_cidrs": NFTABLES}  # of one mode alone


@pytest.fixture
def configuration(tmp_path):
    def read(text):
        path = tmp_path / "kube-proxy.yaml"
        path.write_text(HEAD + text)
        return read_configuration(str(path))

    return read


def before(version):
    return f"v1.{int(version.removeprefix('v1.')) - 1}"


def values(settings, mode=None, version="v1.36"):
    mode = mode or next((MODES[one.setting.field] for one in settings.said if one.setting.field in MODES), IPTABLES)
    return {field: plain(one.value) for field, one in settings.fitting(mode, find_release(version)).items()}


# --- the table ------------------------------------------------------------------------------------


def test_every_setting_is_one_of_kube_proxys_and_of_a_host():
    options = {field.name for field in dataclasses.fields(ProxyOptions)}
    assert set(SETTINGS) <= options
    assert options - set(SETTINGS) == {"family", "version", "own_cluster", "nfacct"}  # no settings
    assert set(KEYS) <= {field.name for field in dataclasses.fields(Host)}
    assert set(SAID) == set(SETTINGS)


@pytest.mark.parametrize("field", SETTINGS)
def test_what_an_option_says(field):
    text, value, _yaml = SAID[field]
    said = from_words({field: [text] if SETTINGS[field].many else text})
    assert values(said) == {field: value}
    assert values(from_words({field: text})) == {field: value}  # as a test of the plugin's users may
    [one] = said.said
    assert one.place == f"--{SETTINGS[field].option}"
    assert one.text == f"{one.place}={text}"
    assert find_word(SETTINGS[field].option.replace("-", "_")).field == field


@pytest.mark.parametrize("field", [field for field, said in SAID.items() if said[2]])
def test_a_file_says_the_same(configuration, field):
    assert values(configuration(SAID[field][2])) == {field: SAID[field][1]}


def test_what_python_gives_is_taken():
    said = {"feature_gates": {"AllowServiceExternalIPs": False}, "cluster_cidrs": ["10.0.0.0/8"], "masquerade_bit": 7}
    assert values(from_words({**said, "masquerade_all": False})) == {
        "feature_gates": (("AllowServiceExternalIPs", False),),
        "cluster_cidrs": ("10.0.0.0/8",),
        "masquerade_bit": 7,
        "masquerade_all": False,
    }


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        ("cluster_cidrs", "10.0.0", "--cluster-cidr: '10.0.0' is no CIDR (write it as 10.0.0.0/24 or fd00::/64)"),
        (
            "cluster_cidrs",
            "10.0.0.1/8",
            "--cluster-cidr: '10.0.0.1/8' has bits set beyond its prefix (write 10.0.0.0/8)",
        ),
        (
            "cluster_cidrs",
            "10.0.0.0/8,11.0.0.0/8",
            "--cluster-cidr: a second CIDR of ipv4; kube-proxy takes one a family",
        ),
        ("node_pod_cidrs", ["fd00::/64", "fd01::/64"], "--node-pod-cidr: a second CIDR of ipv6"),
        ("masquerade_all", "maybe", "--masquerade-all: must be true or false, not 'maybe'"),
        ("detect_local_mode", "ByName", "--detect-local-mode: must be one of ClusterCIDR, NodeCIDR, BridgeInterface, "),
        ("pod_bridge_interface", "a/b", "--pod-bridge-interface: 'a/b' is no name of an interface"),
        ("pod_interface_name_prefix", "x" * 16, "is no name of an interface (at most 15 characters, such as cni0)"),
        (
            "node_port_addresses",
            "primary,10.0.0.0/8",
            "--nodeport-addresses: primary and others (primary stands alone)",
        ),
        ("node_port_addresses", "all", "--nodeport-addresses: 'all' is no CIDR"),
        ("masquerade_bit", "32", "--iptables-masquerade-bit: must be a bit of the packet mark, 0 to 31, not '32'"),
        ("masquerade_bit", True, "0 to 31, not True"),
        (
            "conntrack_tcp_timeout_established",
            "10",
            "--conntrack-tcp-timeout-established: must be a duration, not '10' (write it as 10m, 1h30m or 30s; 0s",
        ),
        ("conntrack_tcp_timeout_established", "-1s", "must be a duration, not '-1s'"),
        ("conntrack_tcp_timeout_close_wait", 10, "--conntrack-tcp-timeout-close-wait: must be a duration, not 10"),
        ("conntrack_tcp_timeout_close_wait", "25d", "must be a duration, not '25d'"),
        ("conntrack_tcp_timeout_close_wait", "600h", "600h is longer than kernels take (at most 2147483s"),
        ("feature_gates", "A", "--feature-gates: 'A' says neither true nor false (write A=true)"),
        ("feature_gates", "A=2", "--feature-gates: A must be true or false, not '2'"),
        ("node_addresses", "here", "--node-address: 'here' does not appear to be an IPv4 or IPv6 address"),
        ("node_name", 5, "--node-name: must be text, not 5"),
    ],
)
def test_what_cannot_be_is_refused(field, given, words):
    with pytest.raises(InputError, match=re.escape(words)):
        from_words({field: given})


def test_a_word_that_is_none():
    with pytest.raises(
        InputError, match=r"no setting 'masquerade_al' of kube-proxy \(did you mean 'masquerade_all'\?\)"
    ):
        find_word("masquerade_al")


# --- by release and mode --------------------------------------------------------------------------


@pytest.mark.parametrize("field", SETTINGS)
def test_which_releases_know_it(field):
    text, first = FIRST.get(field, (SAID[field][0], "v1.14"))
    said, mode = from_words({field: text}), MODES.get(field, IPTABLES)
    assert said.fitting(mode, find_release(first))
    if first != "v1.14":
        words = f"^--{SETTINGS[field].option}: kube-proxy {before(first)} does not know it \\({first} is the first"
        with pytest.raises(InputError, match=words):
            said.fitting(mode, find_release(before(first)))


@pytest.mark.parametrize(
    ("field", "value", "first"),
    [
        ("detect_local_mode", "BridgeInterface", "v1.24"),
        ("detect_local_mode", "InterfaceNamePrefix", "v1.24"),
        ("node_port_addresses", "primary", "v1.31"),
    ],
)
def test_which_releases_know_a_value(field, value, first):
    said = from_words({field: value})
    assert said.fitting(IPTABLES, find_release(first))
    with pytest.raises(InputError, match=f"kube-proxy {before(first)} does not know {value} \\({first} is the first"):
        said.fitting(IPTABLES, find_release(before(first)))


@pytest.mark.parametrize("field", SETTINGS)
def test_which_modes_have_it(field):
    said = from_words({field: SAID[field][0]})
    for mode in ProxyMode:
        if MODES.get(field, mode) is mode:
            assert values(said, mode) == {field: SAID[field][1]}
        else:
            with pytest.raises(InputError, match=f"is for {MODES[field]} mode"):
                values(said, mode)


def test_nftables_mode_without_its_gate():
    said = from_words({"feature_gates": "NFTablesProxyMode=false"})
    with pytest.raises(InputError, match=r"^--feature-gates: NFTablesProxyMode is off"):
        said.fitting(NFTABLES, find_release("v1.30"))
    assert said.fitting(IPTABLES, find_release("v1.30"))


# By gate: what is not known of its rules, and which releases do not know it. By the notes of releases.
@pytest.mark.parametrize(
    ("gate", "version", "words"),
    [
        ("ProxyTerminatingEndpoints=true", "v1.21", "(v1.22 is the first that does)"),
        ("ProxyTerminatingEndpoints=true", "v1.22", None),
        ("ProxyTerminatingEndpoints=true", "v1.25", None),
        ("ProxyTerminatingEndpoints=false", "v1.26", None),
        ("TopologyAwareHints=true", "v1.21", None),
        ("TopologyAwareHints=true", "v1.23", None),
        ("TopologyAwareHints=false", "v1.24", None),
        ("ServiceInternalTrafficPolicy=true", "v1.21", None),
        ("ServiceInternalTrafficPolicy=false", "v1.22", None),
        ("EndpointSliceProxying=true", "v1.18", None),
        ("EndpointSliceProxying=true", "v1.17", "(v1.18 is the first that does)"),
        ("ExternalPolicyForExternalIP=true", "v1.18", None),
        ("PreferSameTrafficDistribution=true", "v1.33", None),
        ("PreferSameTrafficDistribution=true", "v1.32", "(v1.33 is the first that does)"),
        ("AllowServiceExternalIPs=false", "v1.35", "(v1.36 is the first that does)"),
        ("NFTablesProxyMode=true", "v1.28", "(v1.29 is the first that does)"),
        ("LoadBalancerIPMode=true", "v1.28", "(v1.29 is the first that does)"),
        ("IPv6DualStack=true", "v1.15", "(v1.16 is the first that does)"),
        ("IPv6DualStack=false", "v1.25", "(v1.24 is the last that does)"),
    ],
)
def test_a_gate_that_cannot_be_heeded_is_refused(configuration, gate, version, words):
    name = gate.partition("=")[0]
    what = f"{gate} shapes rules of kube-proxy {version}, and how is not known here"
    wanted = what if words is None else f"kube-proxy {version} does not know the feature gate {name} {words}"
    with pytest.raises(InputError, match=f"^--feature-gates: {re.escape(wanted)}"):
        from_words({"feature_gates": gate}).fitting(IPTABLES, find_release(version))
    with pytest.raises(InputError, match=f":3: featureGates: {re.escape(wanted)}"):
        configuration(f"featureGates: {{{gate.replace('=', ': ')}}}\n").fitting(IPTABLES, find_release(version))
    host = f"proxy-mode: iptables, proxy-version: {version}, feature-gates: {{{gate.replace('=', ': ')}}}"
    with pytest.raises(InputError, match=rf"hosts\.n\.feature-gates: {re.escape(wanted)}"):
        parse(f"topology: a\nhosts: {{n: {{{host}}}}}\n")


@pytest.mark.parametrize(
    ("gate", "version"),
    [
        ("ProxyTerminatingEndpoints=false", "v1.22"),
        ("ProxyTerminatingEndpoints=true", "v1.26"),
        ("TopologyAwareHints=true", "v1.36"),
        ("AllowServiceExternalIPs=true", "v1.14"),
        ("AllowServiceExternalIPs=false", "v1.36"),
        ("LoadBalancerIPMode=true", "v1.29"),
        ("LoadBalancerIPMode=false", "v1.31"),
        ("LoadBalancerIPMode=true", "v1.36"),
        ("NFTablesProxyMode=true", "v1.29"),
        ("IPv6DualStack=true", "v1.16"),
        ("IPv6DualStack=true", "v1.36"),
    ],
)
def test_a_gate_that_is_heeded_or_says_what_is_so_is_taken_without_a_word(gate, version):
    assert from_words({"feature_gates": gate}).fitting(IPTABLES, find_release(version))


# By gate, the first release in which it is locked: LockToDefault in upstream's pkg/features/kube_features.go.
@pytest.mark.parametrize(
    ("gate", "first"),
    [
        ("IPv6DualStack", 23),
        ("LoadBalancerIPMode", 32),
        ("NFTablesProxyMode", 33),
        ("PreferSameTrafficDistribution", 35),
        ("ProxyTerminatingEndpoints", 28),
        ("ServiceInternalTrafficPolicy", 26),
    ],
)
def test_a_gate_that_is_locked_cannot_be_off(gate, first):
    """kube-proxy does not start with it."""
    off = from_words({"feature_gates": f"{gate}=false"})
    wanted = (
        f"--feature-gates: kube-proxy v1.{first} does not start with {gate}=false: the feature gate is locked"
        f" (v1.{first - 1} is the last in which it can be off)"
    )
    with pytest.raises(InputError) as error:
        off.fitting(IPTABLES, find_release(f"v1.{first}"))
    assert str(error.value) == wanted
    before = unfit(SETTINGS["feature_gates"], ((gate, False),), IPTABLES, find_release(f"v1.{first - 1}"))
    assert before is None or "how is not known here" in before.message
    assert from_words({"feature_gates": f"{gate}=true"}).fitting(IPTABLES, find_release(f"v1.{first}"))


def test_gates_that_shape_no_rule_are_named():
    with pytest.warns(
        InputWarning, match=r"^--feature-gates: the feature gate AllAlpha shapes no rule that is known here"
    ):
        from_words({"feature_gates": "AllAlpha=true,IPv6DualStack=true"})


def test_the_gates_that_are_known_are_those_that_renderers_ask_for():
    sources = (path.read_text() for path in (Path(__file__).parents[2] / "lab/kubeproxy").glob("*.py"))
    asked = {name for text in sources for name in re.findall(r'\.gate\(\s*"(\w+)"', text)}
    assert asked | {"NFTablesProxyMode"} == set(GATES)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"detect_local_mode": "NodeCIDR"},
            r"--detect-local-mode: NodeCIDR wants --node-pod-cidr \(give --node-pod-cidr as",
        ),
        ({"detect_local_mode": "BridgeInterface"}, "--detect-local-mode: BridgeInterface wants --pod-bridge-interface"),
        (
            {"detect_local_mode": "BridgeInterface", "pod_interface_name_prefix": "veth"},
            "--detect-local-mode: BridgeInterface wants --pod-bridge-interface",
        ),
        (
            {"pod_interface_name_prefix": "veth"},
            "--pod-interface-name-prefix: says nothing without --detect-local-mode Inter",
        ),
    ],
)
def test_a_setting_that_wants_another(said, words):
    with pytest.raises(InputError, match=f"^{words}"):
        settled({}, from_words(said).fitting(IPTABLES, find_release("v1.24")))


# --- a KubeProxyConfiguration ---------------------------------------------------------------------

KUBEADM = """\
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kube-proxy/k.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null,
   udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs:
  {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s,
   tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 0, options: {info: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"""


@pytest.mark.parametrize("mode", ProxyMode)
@pytest.mark.parametrize("version", ["v1.14", "v1.29", "v1.36"])
def test_kubeadms_file_is_taken_without_a_word(configuration, mode, version):
    """It has every field of its own release, most of them empty; an older kube-proxy has nothing to refuse there."""
    read = configuration(KUBEADM)
    assert read.mode is None
    known = {"conntrack_tcp_be_liberal": False} if version != "v1.14" else {}
    assert values(read, mode, version) == {"cluster_cidrs": ("10.244.0.0/16",), "masquerade_all": False, **known}


def test_each_mode_has_its_own_part(configuration):
    read = configuration(
        "mode: nftables\nnftables: {masqueradeAll: true, masqueradeBit: 5}\niptables: {masqueradeBit: 3}\n"
    )
    assert read.mode is NFTABLES
    assert values(read, NFTABLES) == {"masquerade_all": True}
    assert values(read, IPTABLES) == {"masquerade_bit": 3}


def test_what_the_release_does_not_know_is_refused_where_it_asks_for_something(configuration, tmp_path):
    read = configuration("mode: iptables\niptables:\n  localhostNodePorts: false\n")
    words = f"^{tmp_path}/kube-proxy.yaml:5: iptables.localhostNodePorts: kube-proxy v1.25 does not know it"
    with pytest.raises(InputError, match=words):
        read.fitting(IPTABLES, find_release("v1.25"))
    assert read.fitting(NFTABLES, find_release("v1.30")) == {}
    assert configuration("iptables: {localhostNodePorts: true}").fitting(IPTABLES, find_release("v1.25")) == {}


def test_what_a_file_says_to_no_effect_is_taken(configuration):
    read = configuration("detectLocalMode: ClusterCIDR\ndetectLocal: {bridgeInterface: cni0}\n")
    assert set(settled({}, read.fitting(IPTABLES, find_release("v1.24")))) == {"detect_local_mode"}
    with pytest.raises(InputError, match=r":3: detectLocalMode: BridgeInterface wants detectLocal\.bridgeInterface "):
        settled({}, configuration("detectLocalMode: BridgeInterface").fitting(IPTABLES, find_release("v1.24")))
    with pytest.raises(InputError, match=r":3: detectLocalMode: NodeCIDR wants --node-pod-cidr "):
        settled({}, configuration("detectLocalMode: NodeCIDR").fitting(IPTABLES, find_release("v1.24")))
    with pytest.raises(InputError, match=r"^<inline>:2: hosts\.n\.detect-local-mode: NodeCIDR wants node-pod-cidrs "):
        parse("topology: a\nhosts: {n: {proxy-mode: iptables, proxy-version: v1.24, detect-local-mode: NodeCIDR}}\n")


def test_a_pytest_users_words_are_called_as_they_are_given():
    said = from_words({"detect_local_mode": "NodeCIDR"}, lambda row: row.word)
    with pytest.raises(InputError, match=r"^detect_local_mode: NodeCIDR wants node_pod_cidr "):
        settled({}, said.fitting(IPTABLES, find_release("v1.24")))


def test_what_a_file_is_that_is_no_text(tmp_path):
    path = tmp_path / "kube-proxy.yaml"
    for data in b"Jt\xdf\xce", b"a\x00b":
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"not a text file: .* \(a KubeProxyConfiguration is YAML in UTF-8\)"):
            read_configuration(str(path))


def test_a_hosts_gates_that_shape_no_rule_are_named():
    host = "{proxy-mode: iptables, feature-gates: {AllAlpha: true, IPv6DualStack: false}}"
    with pytest.warns(InputWarning, match=r"^<inline>:2: hosts\.n\.feature-gates: the feature gate AllAlpha") as warned:
        parse(f"topology: a\nhosts: {{n: {host}}}\n")
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: {n: {service-cidr: [10.0.0.0/8]}}", "did you mean 'service-cidrs', beside hosts?"),
        ("hosts: {n: {service-cidrs: [10.0.0.0/8]}}", "did you mean 'service-cidrs', beside hosts?"),
        ("hosts: {n: {cluster-cidr: [10.0.0.0/8]}}", "did you mean 'cluster-cidrs'?"),
        ("cluster-cidr: [10.0.0.0/8]", "did you mean 'cluster-cidrs', in a host?"),
        ("proxy-mode: iptables", "did you mean 'proxy-mode', in a host?"),
        ("service-cidr: [10.0.0.0/8]", "did you mean 'service-cidrs'?"),
    ],
)
def test_a_key_in_the_wrong_place_is_told_the_right_one(text, words):
    with pytest.raises(InputError, match=rf"unknown key.*\({re.escape(words)}\)$"):
        parse(f"topology: a\n{text}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "clusterCidr: 10.0.0.0/8\n",
            "3: clusterCidr: unknown field of KubeProxyConfiguration, left out (did you mean",
        ),
        (
            "iptables:\n  masqueradeal: true\n",
            "4: iptables.masqueradeal: unknown field of KubeProxyConfiguration, left",
        ),
        ("featureGates: {AllAlpha: true}\n", "3: featureGates: the feature gate AllAlpha shapes no rule that is known"),
    ],
)
def test_unknown_fields_are_warned_of(configuration, tmp_path, text, words):
    with pytest.warns(InputWarning, match=re.escape(f"{tmp_path}/kube-proxy.yaml:{words}")):
        configuration(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty: there is no KubeProxyConfiguration in it (give kube-proxy's --config"),
        ("apiVersion: v1\nkind: ConfigMap\n", "2: kind: must be KubeProxyConfiguration, not 'ConfigMap'"),
        (HEAD.replace("v1alpha1", "v1"), "1: apiVersion: must be kubeproxy.config.k8s.io/v1alpha1, not "),
        (f"{HEAD}---\nkind: Other\n", "more than one document"),
        (
            f"{HEAD}mode: ipvs\n",
            "3: mode: 'ipvs' is no mode that is known here (rules are written for iptables and nft",
        ),
        (f"{HEAD}iptables: 5\n", "3: iptables: must be a mapping, not the number 5"),
        (f"{HEAD}iptables:\n  masqueradeBit: 99\n", "4: iptables.masqueradeBit: must be a bit of the packet mark"),
        (f"{HEAD}nodePortAddresses: [10.0.0.0/8, 5]\n", "3: nodePortAddresses: must be text, not 5"),
        (f"{HEAD}clusterCIDR: [\n", "not YAML"),
        ("\x00", "not a text file"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, text, words):
    path = tmp_path / "kube-proxy.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_configuration(str(path))
    assert words in str(raised.value)
    assert str(raised.value).startswith(f"{path}:")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["no/such", ".", "a\0b"])
def test_a_file_that_cannot_be_read(name):
    with pytest.raises(InputError, match="cannot be read: "):
        read_configuration(name)


# --- which word counts ----------------------------------------------------------------------------


def test_an_option_before_the_file_before_the_topology(configuration):
    place = parse(
        "topology: a\nhosts: {n: {proxy-mode: iptables, cluster-cidrs: [10.1.0.0/16], masquerade-all: true}}\n"
    )

    def found(settings):
        built = with_proxy(place, None, None, None, settings)
        options = proxy_options(built, built.host("n"), Family.IPV4, NodeChange())
        return options.cluster_cidrs, options.masquerade_all

    file = configuration("clusterCIDR: 10.2.0.0/16\niptables: {masqueradeAll: false}\n")
    option = from_words({"cluster_cidrs": "10.3.0.0/16"})
    assert found(Settings()) == (("10.1.0.0/16",), True)
    assert found(file) == (("10.2.0.0/16",), False)
    assert found(file + option) == (("10.3.0.0/16",), False)
    assert found(from_words({"cluster_cidrs": ""})) == ((), True)  # said to be none


def test_the_mode_of_a_file_is_the_nodes_unless_an_option_says_otherwise(configuration):
    file = configuration("mode: nftables\n")
    assert with_proxy(load("kube-proxy"), None, "v1.33", None, file).nodes[0].proxy_mode is NFTABLES
    assert with_proxy(load("kube-proxy"), IPTABLES, "v1.33", None, file).nodes[0].proxy_mode is IPTABLES


def test_what_one_mode_has_goes_with_it():
    place = parse("topology: a\nhosts: {n: {proxy-mode: iptables, iptables-masquerade-bit: 3, node-zone: z}}\n")
    with pytest.warns(
        InputWarning, match=r"^hosts\.n\.iptables-masquerade-bit: not used: it is for iptables mode$"
    ) as warned:
        [node] = with_proxy(place, NFTABLES, None, None).nodes
    assert (node.masquerade_bit, node.node_zone, len(warned)) == (None, "z", 1)


def test_a_backend_goes_with_its_mode():
    place = parse("topology: a\nhosts: {n: {proxy-mode: iptables, backend: legacy}}\n")
    with pytest.warns(InputWarning, match=r"^hosts\.n\.backend: not used: it is for iptables mode$"):
        with_proxy(place, NFTABLES, None, None)


@pytest.mark.parametrize(
    ("given", "mode", "expected"),
    [
        ("proxy-mode: iptables, proxy-version: v1.36", NFTABLES, "v1.36"),
        ("proxy-mode: iptables, proxy-version: v1.29.3", NFTABLES, "v1.29.3"),
        ("proxy-mode: nftables, proxy-version: v1.33", IPTABLES, "v1.33"),
        ("proxy-mode: iptables, proxy-version: v1.14", NFTABLES, "v1.31"),  # as the shipped ones say
        ("proxy-mode: iptables", NFTABLES, "v1.31"),
        ("proxy-mode: nftables", IPTABLES, "v1.14"),
    ],
)
def test_another_mode_keeps_the_topologys_version_that_has_it(given, mode, expected):
    place = parse(f"topology: a\nhosts: {{n: {{{given}}}}}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [node] = with_proxy(place, mode, None, None).nodes
    assert (node.proxy_mode, node_release(node).name) == (mode, expected)


def test_a_version_without_the_mode_gives_way_to_the_default_which_is_said():
    place = parse("topology: a\nhosts: {n: {proxy-mode: iptables, proxy-version: v1.28}}\n")
    words = r"^hosts\.n\.proxy-version: not used: kube-proxy v1\.28 has no nftables mode; v1\.31 is taken$"
    with pytest.warns(InputWarning, match=words):
        [node] = with_proxy(place, NFTABLES, None, None).nodes
    assert node_release(node).name == "v1.31"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [node] = with_proxy(place, NFTABLES, "v1.33", None).nodes
    assert node_release(node).name == "v1.33"


def test_a_topologys_setting_that_a_chosen_release_does_not_know_is_refused():
    text = "topology: a\nhosts: {n: {proxy-mode: iptables, proxy-version: v1.29, conntrack-tcp-be-liberal: true}}\n"
    with pytest.raises(InputError, match=r"^hosts\.n\.conntrack-tcp-be-liberal: kube-proxy v1.28"):
        with_proxy(parse(text), None, "v1.28", None)


def test_a_files_node_is_not_the_topologys_which_is_said(configuration):
    file = configuration("hostnameOverride: worker-1\nbindAddress: 192.0.2.9\n")
    with pytest.warns(InputWarning, match=r":\d: \w+: not used: the topology kube-proxy decides that") as warned:
        with_proxy(load("kube-proxy"), None, None, None, file)
    assert len(warned) == 2


KEYS_GIVEN = {
    "cluster-cidrs": "[10.1.0.0/16]",
    "masquerade-all": "true",
    "detect-local-mode": "InterfaceNamePrefix",
    "pod-interface-name-prefix": "veth",
    "nodeport-addresses": "[primary]",
    "iptables-localhost-nodeports": "false",
    "iptables-masquerade-bit": "3",
    "conntrack-tcp-be-liberal": "true",
    "conntrack-tcp-timeout-established": "10m",
    "conntrack-tcp-timeout-close-wait": "0s",
    "feature-gates": "{AllowServiceExternalIPs: true}",
    "node-zone": "zone-a",
    "node-pod-cidrs": "[10.1.2.0/24]",
}


def test_the_keys_of_a_host_reach_its_kube_proxy():
    given = ", ".join(f"{key}: {value}" for key, value in KEYS_GIVEN.items())
    place = parse(f"topology: a\nhosts: {{n: {{proxy-mode: iptables, proxy-version: 1.33, {given}}}}}\n")
    options = proxy_options(place, place.host("n"), Family.IPV4, NodeChange())
    assert options == ProxyOptions(
        Family.IPV4,
        "v1.33",
        cluster_cidrs=("10.1.0.0/16",),
        masquerade_all=True,
        node_name="n",
        node_zone="zone-a",
        node_pod_cidrs=("10.1.2.0/24",),
        detect_local_mode=DetectLocalMode.INTERFACE_PREFIX,
        pod_interface_name_prefix="veth",
        node_port_addresses=("primary",),
        localhost_node_ports=False,
        masquerade_bit=3,
        conntrack_tcp_be_liberal=True,
        conntrack_tcp_timeout_established="10m",
        conntrack_tcp_timeout_close_wait="0s",
        feature_gates=(("AllowServiceExternalIPs", True),),
        own_cluster=True,
    )
    assert {row.key for row in KEYS.values()} - set(KEYS_GIVEN) == {"pod-bridge-interface"}  # of the other mode
