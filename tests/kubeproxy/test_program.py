"""What a kube-proxy program is, and what it is told. None runs here."""

import pytest

from lab.errors import InputError, InputWarning
from lab.kubeproxy.command import METRICS, configuration, flags
from lab.kubeproxy.configuration import read_configuration
from lab.kubeproxy.program import ProxyProgram, checked_arguments, version_said
from lab.topology.reader import load
from lab.topology.with_settings import with_proxy
from lab.vocabulary import ProxyMode

PROGRAM = ProxyProgram("/kp", "v1.33.1")
URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("Kubernetes v1.20.2\n", "v1.20.2"),
        ("Kubernetes v1.33.6-gke.1\n", "v1.33.6-gke.1"),
        ("Kubernetes v1.36.0-alpha.1+abc\n", "v1.36.0-alpha.1+abc"),
        ("Kubernetes v0.0.0-master+$Format:%H$\n", ""),  # of a build that set none
    ],
)
def test_versions_as_programs_say_them(printed, version):
    assert version_said("/kp", printed) == version


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("", "/kp is no kube-proxy: asked for --version it printed 'nothing'"),
        ("ls (GNU coreutils) 9.1\nmore", "printed 'ls (GNU coreutils) 9.1'"),
        ("Kubernetes v1.9.0\n", "no kube-proxy version 'v1.9.0' is known"),
    ],
)
def test_what_is_no_kube_proxy_is_refused(printed, words):
    with pytest.raises(InputError) as refused:
        version_said("/kp", printed)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "word", ["--master=http://x", "--config=x", "--hostname_override=x", "--cleanup", "--proxy-mode"]
)
def test_what_the_lab_decides_is_not_a_users_flag(word):
    with pytest.raises(InputError, match="not for the lab's kube-proxy"):
        checked_arguments(("--v=4", word))


def test_a_users_flags_come_last():
    program = ProxyProgram("/kp", "v1.33.1", checked_arguments(("--v=4", "--iptables-min-sync-period=1s")))
    words = flags(program, ProxyMode.IPTABLES, "n1", {}, URL, None)
    assert words[:3] == (f"--master={URL}", "--hostname-override=n1", "--proxy-mode=iptables")
    assert words[-2:] == ("--v=4", "--iptables-min-sync-period=1s")
    assert {"--conntrack-max-per-core=0", "--conntrack-min=0"} <= set(words)


def test_settings_are_flags():
    settings = {
        "cluster_cidrs": ("10.244.0.0/16", "fd00::/56"),
        "masquerade_all": True,
        "feature_gates": (("A", True), ("B", False)),
        "node_zone": "z",
    }
    words = flags(PROGRAM, ProxyMode.NFTABLES, "n1", settings, URL, "fd00::1")
    assert "--cluster-cidr=10.244.0.0/16,fd00::/56" in words
    assert "--masquerade-all=true" in words
    assert "--feature-gates=A=true,B=false" in words
    assert "--bind-address=fd00::1" in words
    assert not [word for word in words if "zone" in word]  # the Node object says it


FILE = """apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 7}
clusterCIDR: 10.244.0.0/16
conntrack: {maxPerCore: 32768, min: 131072, tcpEstablishedTimeout: 1h}
hostnameOverride: worker-1
metricsBindAddress: 0.0.0.0:10249
iptables: {masqueradeBit: 9, syncPeriod: 30s}
nodePortAddresses: []
"""


def test_a_users_file_is_given_to_the_program_but_for_what_the_lab_decides(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(FILE)
    settings = read_configuration(str(file))
    program = ProxyProgram("/kp", "v1.33.1", document=settings.document)
    said = {one.setting.field: one.value for one in settings.said if one.setting.field != "node_name"}
    with pytest.warns(InputWarning) as told:
        document = configuration(program, ProxyMode.IPTABLES, "node", {**said, "masquerade_all": True}, None)
    assert document["clientConnection"] == {"kubeconfig": "", "qps": 7, "contentType": "application/json"}
    assert document["conntrack"] == {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "1h"}
    assert document["iptables"] == {"masqueradeBit": 9, "syncPeriod": "30s", "masqueradeAll": True}
    assert (document["hostnameOverride"], document["metricsBindAddress"]) == ("node", METRICS)
    assert (document["mode"], document["clusterCIDR"]) == ("iptables", "10.244.0.0/16")
    places = [str(one.message).split(": ")[1] for one in told]
    assert places == [
        "clientConnection.kubeconfig",
        "hostnameOverride",
        "metricsBindAddress",
        "conntrack.maxPerCore",
        "conntrack.min",
    ]
    assert settings.document is not None
    assert settings.document["conntrack"]["min"] == 131072  # what was read stays as it was


def test_a_program_that_does_not_know_its_version_is_told():
    unknown = ProxyProgram("/kp", "", over=ProxyProgram("/old", "v1.20.2"))
    told = unknown.of_version("1.36")
    assert (told.version, told.over and told.over.version) == ("v1.36", "v1.20.2")
    with pytest.raises(InputError, match="/kp does not know its version"):
        unknown.of_version(None)


def test_a_topologys_nodes_have_the_programs_version():
    from lab.kubeproxy.said import Settings

    settings = Settings(program=PROGRAM)
    topology = with_proxy(load("two-nodes"), None, None, None, settings)
    assert {(node.proxy_version, node.program) for node in topology.nodes} == {("v1.33.1", PROGRAM)}
    with pytest.raises(InputError, match="--kube-proxy and --proxy-version"):
        with_proxy(load("two-nodes"), None, "v1.33", None, settings)
    both = Settings(program=ProxyProgram("/kp", "v1.33.1", ("--v=4",)), document={"kind": "KubeProxyConfiguration"})
    with pytest.raises(InputError, match="--kube-proxy-config and flags after --"):
        with_proxy(load("two-nodes"), None, None, None, both)
