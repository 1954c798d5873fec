"""What explains the differences from real nodes: found by trying, and said only where it does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lab.kubeproxy.releases import NEWEST, OLDEST, find_release
from lab.kubeproxy.said import NOTHING_SAID, from_words
from lab.rules.check import check, compared, fitted, read_node
from lab.rules.effects import Effect
from lab.rules.expected import expected, printed
from lab.rules.other_releases import place_of, releases, span
from lab.rules.other_settings import settings
from lab.rules.output import conclusion
from lab.rules.read_dump import given
from lab.rules.scratch import saved_uncounted
from lab.rules.side import Side
from lab.rules.source import Choice
from lab.topology.reader import load_either
from lab.vocabulary import ProxyMode
from tests.support import cover

pytestmark = pytest.mark.lab_kernel  # nftables mode's rules are loaded where their form is not known


UNREADY = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {
    clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints: [{addresses: [10.244.1.1], conditions: {ready: false}}]
  ports: [{name: http, port: 8080}]
"""


def explained(comparison):
    return [(cause.setting, cause.cure) for cause in comparison.causes]


# What was said wrongly of a real node, and what is to be said instead.
WRONG = {
    "node name": ("v1.33.13/iptables-v4", {"node_name": "worker-2"}, "--node-name", "give --node-name worker-1"),
    "node name, nft": ("v1.36.3/nft-v4", {"node_name": "worker-2"}, "--node-name", "give --node-name worker-1"),
    "no node name": ("v1.14.0/iptables-v4", {"node_name": None}, "--node-name", "give --node-name worker-1"),
    "cluster CIDR": (
        "v1.20.0-rc.0/iptables-v4",
        {"cluster_cidrs": ("10.0.0.0/8",)},
        "--cluster-cidr",
        "give --cluster-cidr 10.244.0.0/16",
    ),
    "no cluster CIDR": (
        "v1.31.14/nft-v6",
        {"cluster_cidrs": ()},
        "--cluster-cidr",
        "give --cluster-cidr fd44::/16",
    ),
    "masquerade-all": (
        "v1.28.3/iptables-v6",
        {"masquerade_all": True},
        "--masquerade-all",
        "leave out --masquerade-all",
    ),
    "masquerade-all, nft": (
        "v1.36.3/nft-v6",
        {"masquerade_all": True},
        "--masquerade-all",
        "leave out --masquerade-all",
    ),
    "be-liberal": (
        "v1.30.3/iptables-v6",
        {"conntrack_tcp_be_liberal": True},
        "--conntrack-tcp-be-liberal",
        "leave out --conntrack-tcp-be-liberal",
    ),
    "bit": (
        "v1.25.1/iptables-v6",
        {"masquerade_bit": 15},
        "--iptables-masquerade-bit",
        "give --iptables-masquerade-bit 14",
    ),
    "localhost": (
        "v1.32.13/iptables-v4",
        {"localhost_node_ports": False},
        "--iptables-localhost-nodeports",
        "give --iptables-localhost-nodeports=true",
    ),
    "node port addresses": (
        "v1.26.0/iptables-v4",
        {"node_port_addresses": ("172.16.0.0/12",)},
        "--nodeport-addresses",
        "give --nodeport-addresses 0.0.0.0/0",
    ),
    "no node address, nft": (
        "v1.34.9/nft-v4",
        {"node_addresses": ()},
        "--node-address",
        "give --node-address 192.168.50.10",
    ),
    "zone": ("v1.35.6/iptables-v4", {"node_zone": "zone-b"}, "--node-zone", "give --node-zone zone-a"),
    "service CIDR": (
        "v1.33.13/nft-v4",
        {"service_cidrs": ()},
        "--service-cidr",
        "give --service-cidr 10.96.0.0/12",
    ),
}


ONLY_HERE = ("zone", "no node address, nft", "no node name")  # what the cheaper ones below do not have
SOME_WRONG = [*ONLY_HERE, *cover.sample([name for name in WRONG if name not in ONLY_HERE], 2)]


@pytest.mark.parametrize(("name", "changes", "setting", "cure"), [WRONG[one] for one in SOME_WRONG], ids=SOME_WRONG)
def test_what_was_said_wrongly_is_named(dumps, name, changes, setting, cure):
    comparison = check(dumps.proxy(name, **changes), dumps.text(name), name)
    assert explained(comparison) == [(setting, cure)]
    assert {one.cause for one in comparison.differences} == {0}
    assert span(comparison.fitting, dumps.proxy(name).mode)  # and nothing is left


# What was said of other nodes than those that wrote these rules: this costs little, so each run tries every one.
NODES = {
    "another cluster CIDR there": ("cluster_cidrs", ("10.9.0.0/16",), "--cluster-cidr"),
    "none there": ("cluster_cidrs", (), "--cluster-cidr"),
    "masquerade-all there": ("masquerade_all", True, "--masquerade-all"),
    "be-liberal there": ("conntrack_tcp_be_liberal", True, "--conntrack-tcp-be-liberal"),
    "bit there": ("masquerade_bit", 20, "--iptables-masquerade-bit"),
    "localhost closed there": ("localhost_node_ports", False, "--iptables-localhost-nodeports"),
    "node port addresses there": ("node_port_addresses", ("192.0.2.0/24",), "--nodeport-addresses"),
    "another node name there": ("node_name", "worker-2", "--node-name"),
    "another node name there, nft": ("node_name", "worker-2", "--node-name"),
    "another cluster CIDR there, nft": ("cluster_cidrs", ("10.9.0.0/16",), "--cluster-cidr"),
    "masquerade-all there, nft": ("masquerade_all", True, "--masquerade-all"),
    "another service CIDR there, nft": ("service_cidrs", ("10.96.0.0/12",), "--service-cidr"),
}


@pytest.mark.parametrize("name", NODES)
def test_what_is_otherwise_on_the_node_is_named(make_proxy, name):
    field, value, setting = NODES[name]
    choice = Choice(ProxyMode.NFTABLES, "v1.36") if name.endswith("nft") else Choice(ProxyMode.IPTABLES, "v1.32")
    proxy = make_proxy(choice)
    options = dataclasses.replace(proxy.options, nfacct=False, **{field: value})
    there = dataclasses.replace(proxy, options=options)
    comparison = check(proxy, saved_uncounted(there), "node")
    assert [cause.setting for cause in comparison.causes] == [setting]
    assert {one.cause for one in comparison.differences} == {0}


OLDER = ("v1.14", "v1.21", "v1.26", "v1.33", "v1.36")


@pytest.mark.parametrize("said", OLDER)
@pytest.mark.parametrize("name", ["v1.18.2/iptables-v6", "v1.28.3/iptables-v6", "v1.36.3/iptables-v6"])
def test_the_release_is_named(dumps, name, said):
    comparison = check(dumps.proxy(name, version=said), dumps.text(name), name)
    own = dumps.proxy(name).options.release
    every = [names for names in releases(ProxyMode.IPTABLES) if set(names) <= set(comparison.fitting)]
    if comparison.same:
        assert comparison.fitting == (said,)
        return
    # What wrote the dump is among them, by its place or by the patch up to which all wrote the same.
    assert releases(ProxyMode.IPTABLES)[place_of(own, ProxyMode.IPTABLES)] in every
    assert [cause.setting for cause in comparison.causes] == ["--proxy-version"]
    assert all(one.cause == 0 for one in comparison.differences)


@pytest.mark.parametrize(
    "name",
    cover.sample(["v1.14.0/iptables-v4", "v1.22.17/iptables-v4-dual", "v1.33.5/nft-v4", "v1.36.3/nft-v6"], 1),
)
def test_auto_chooses_it(dumps, name):
    proxy = dumps.proxy(name, version="v1.14")  # with which some of these fail
    own = dumps.proxy(name)
    chosen, comparison = fitted(proxy, read_node(given(dumps.text(name), name), proxy))
    assert (comparison.same, comparison.fitting[-1]) == (True, chosen.options.version)
    assert check(chosen, dumps.text(name), name).same
    assert chosen.options.release.minor >= own.options.release.minor


@pytest.mark.parametrize("mode", list(ProxyMode), ids=str)
def test_each_release_is_one_that_is_tried(mode):
    """Whatever set of changes a patch release has."""
    every = releases(mode)
    for minor in range(OLDEST, NEWEST + 1):
        for patch in (None, *range(40)):
            release = find_release(f"v1.{minor}" if patch is None else f"v1.{minor}.{patch}")
            if release.has_mode(mode):
                tried = find_release(every[place_of(release, mode)][0])
                own, its = ({one for one in some.changes if mode in one.modes} for some in (release, tried))
                assert not any(one.shapes_rules for one in own ^ its), release.name


@pytest.mark.parametrize(
    ("version", "first", "last", "words"),
    [
        ("v1.22.0", "v1.22.0", "v1.22.3", "v1.22.0 to v1.22.3"),
        ("v1.22.3", "v1.22.0", "v1.22.3", "v1.22.0 to v1.22.3"),
        ("v1.22.4", "v1.22.4", "v1.22", "v1.22 from v1.22.4 on"),
    ],
)
def test_patch_releases_that_write_otherwise_are_told(lab_rules, tmp_path, version, first, last, words):
    """From v1.22.0 to v1.22.3 a Service whose endpoints are all unready is served."""
    objects = tmp_path / "unready.yaml"
    objects.write_text(UNREADY)
    node = tmp_path / "node.txt"
    node.write_text(lab_rules(objects, "--saved", "--proxy-version", version, code=0).stdout)
    done = lab_rules(objects, "--diff", node, "--proxy-version", "auto", code=0)
    assert f"{node} has the rules of kube-proxy {words} (iptables, ipv4).\n" in done.stdout
    [answer] = lab_rules(objects, "--diff", node, "--proxy-version", "auto", "--json", code=0).json()
    assert (answer["fitting_first"], answer["fitting_last"]) == (first, last)
    said = lab_rules(objects, "--diff", node, "--proxy-version", "v1.33", code=1).stdout
    assert f"The rules are those of kube-proxy {words} (give" in said
    assert f"\n{words} fit without a difference" in said


def test_several_causes_are_told_apart(dumps):
    name = "v1.33.13/iptables-v4"
    proxy = dumps.proxy(name, version="v1.28", node_name="worker-2", cluster_cidrs=())
    comparison = check(proxy, dumps.text(name), name)
    assert {cause.setting for cause in comparison.causes} == {"--node-name", "--cluster-cidr", "--proxy-version"}
    assert {one.cause for one in comparison.differences} == {0, 1, 2}
    assert comparison.fitting[-1] == "v1.33"


def test_a_release_and_a_setting_that_explain_nothing_alone_are_found_together(dumps):
    """Without the cluster CIDR v1.33 and v1.34 write the same: which it is, the rules with one say."""
    name = "v1.34.9/nft-v6"
    comparison = check(dumps.proxy(name, version="v1.33", cluster_cidrs=()), dumps.text(name), name)
    assert {cause.setting for cause in comparison.causes} == {"--cluster-cidr", "--proxy-version"}
    assert {one.cause for one in comparison.differences} == {0, 1}  # none is said to explain nothing
    assert "v1.34" in comparison.fitting


@pytest.mark.parametrize(
    "name",
    cover.sample(["v1.16.0/iptables-v4", "v1.33.13/iptables-v4", "v1.33.13/nft-v4", "v1.36.3/nft-v4"], 1),
)
def test_a_service_that_the_objects_lack_is_named(dumps, name):
    proxy = dumps.proxy(name)
    gone = {"default/nodeport", "default/lb-ranges"}
    fewer = dataclasses.replace(
        proxy,
        services=tuple(one for one in proxy.services if one.key not in gone),
        endpoint_slices=tuple(one for one in proxy.endpoint_slices if one.service_key not in gone),
    )
    comparison = check(fewer, dumps.text(name), name)
    [cause] = comparison.causes
    assert cause.sentence.startswith("2 Services (default/lb-ranges, default/nodeport) are on the node")
    assert {one.cause for one in comparison.differences} == {0}
    assert {one.service for one in comparison.differences} <= {*gone, None}


@pytest.mark.filterwarnings("ignore:.* both claim")
@pytest.mark.parametrize("said", cover.sample(["v1.29", "v1.33", None], 1))
def test_services_with_which_a_release_loads_nothing_are_left_out_by_name(dumps, said):
    """v1.29's dump is from before they came: with them it would load no rule, and its old ones stay."""
    name = "v1.29.1/nft-v4"
    proxy = dumps.proxy(name, version=said or "v1.36")
    own = {one.key for one in proxy.services}
    every = dumps.proxy("v1.36.3/nft-v4")
    proxy = dataclasses.replace(proxy, services=every.services, endpoint_slices=every.endpoint_slices)
    node = read_node(given(dumps.text(name), name), proxy)
    if said is None:
        chosen, comparison = fitted(proxy, node)
        assert chosen.options.version == "v1.29"
    else:
        comparison = compared(proxy, node)
    if said == "v1.33":
        assert {cause.setting for cause in comparison.causes} >= {"--proxy-version", "Services of the objects"}
        assert "v1.29" in comparison.fitting
        return
    left_out = [note for note in comparison.notes if note.endswith("is not compared.")]
    assert len(left_out) == 3
    assert any(
        "198.51.100.0/25 of default/ranges-overlap:web's source ranges overlap. What is here was written before that:"
        " default/ranges-overlap is not compared." in note
        for note in left_out
    )
    missing = {one.service for one in comparison.differences}
    assert missing.isdisjoint(own)


def test_a_service_that_the_node_lacks_is_named(make_proxy, tmp_path, objects):
    given = load_either(str(objects))
    proxy = make_proxy(Choice(ProxyMode.IPTABLES, "v1.32"))
    [first, *_] = [one for one in given.services if one.spec.cluster_ip not in (None, "None")]
    there = dataclasses.replace(proxy, services=tuple(one for one in proxy.services if one.key != first.key))
    comparison = check(proxy, saved_uncounted(there), "node")
    [cause] = comparison.causes
    assert cause.sentence == f"The Service {first.key} is among the objects, but without a rule on the node."


def with_endpoints(proxy, key, change):
    """Return a kube-proxy that has heard of other endpoints of a Service."""
    slices = tuple(
        one.model_copy(update={"endpoints": change(one.endpoints)})
        if one.service_key == key and one.address_type == "IPv4"
        else one
        for one in proxy.endpoint_slices
    )
    options = dataclasses.replace(proxy.options, nfacct=False)
    return dataclasses.replace(proxy, endpoint_slices=slices, options=options)


def unready(endpoint):
    return endpoint.model_copy(update={"conditions": endpoint.conditions.model_copy(update={"ready": False})})


ENDPOINTS = {
    "one is missing": (
        lambda some: some[1:],
        "The endpoint 10.244.1.1:8080 of shop/web:http is missing on the node.",
    ),
    "one was not ready": (
        lambda some: (unready(some[0]), *some[1:]),
        "The endpoint 10.244.1.1:8080 of shop/web:http is missing on the node.",
    ),
    "all are missing": (
        lambda _some: (),
        "3 endpoints of shop/web:http (10.244.1.1:8080, 10.244.1.2:8080, 10.244.1.3:8080) are missing on the node.",
    ),
    "one is extra": (
        lambda some: (*some, some[0].model_copy(update={"addresses": ("10.244.9.9",)})),
        "The endpoint 10.244.9.9:8080 of shop/web:http is on the node, but not among the objects' ready ones.",
    ),
    "one is another": (
        lambda some: (*some[1:], some[0].model_copy(update={"addresses": ("10.244.9.9",)})),
        (
            "The endpoint 10.244.1.1:8080 of shop/web:http is missing on the node."
            " The endpoint 10.244.9.9:8080 of shop/web:http is on the node, but not among the objects' ready ones."
        ),
    ),
}


@pytest.mark.parametrize(("change", "sentence"), ENDPOINTS.values(), ids=ENDPOINTS)
@pytest.mark.parametrize(
    ("mode", "version"),
    [
        (ProxyMode.IPTABLES, "v1.17"),
        (ProxyMode.IPTABLES, "v1.32"),
        *((ProxyMode.NFTABLES, f"v1.{n}") for n in (29, 32, 36)),
    ],
    ids=str,
)
def test_endpoints_that_are_others_are_named(make_proxy, mode, version, change, sentence):
    proxy = make_proxy(Choice(mode, version))
    comparison = check(proxy, saved_uncounted(with_endpoints(proxy, "shop/web", change)), "node")
    [cause] = comparison.causes
    assert (cause.setting, cause.sentence) == ("endpoints of shop/web", sentence)
    assert {one.cause for one in comparison.differences} == {0}
    assert version in comparison.fitting


def test_endpoints_are_told_beside_another_cause(make_proxy):
    proxy = make_proxy(Choice(ProxyMode.IPTABLES, "v1.32"))
    there = with_endpoints(proxy, "shop/web", lambda some: some[1:])
    there = with_endpoints(there, "shop/sticky", lambda some: some[:1])
    there = dataclasses.replace(there, options=dataclasses.replace(there.options, cluster_cidrs=("10.9.0.0/16",)))
    comparison = check(proxy, saved_uncounted(there), "node")
    assert {cause.setting for cause in comparison.causes} == {
        "--cluster-cidr",
        "endpoints of shop/web",
        "endpoints of shop/sticky",
    }
    assert {one.cause for one in comparison.differences} == {0, 1, 2}


@pytest.mark.parametrize(
    "name",
    cover.sample(["v1.16.0/iptables-v4", "v1.33.13/iptables-v4", "v1.33.13/nft-v4", "v1.36.3/nft-v6"], 1),
)
def test_endpoints_of_many_services_are_one_cause(dumps, name):
    """But for those of which more is otherwise then."""
    proxy = dumps.proxy(name)
    kind = "IPv6" if "v6" in name else "IPv4"
    slices = [one for one in proxy.endpoint_slices if len(one.endpoints) > 1 and one.address_type == kind]
    known = {id(one) for one in slices[:12]}
    fewer = tuple(
        one.model_copy(update={"endpoints": one.endpoints[:1]}) if id(one) in known else one
        for one in proxy.endpoint_slices
    )
    comparison = check(dataclasses.replace(proxy, endpoint_slices=fewer), dumps.text(name), name)
    [cause] = comparison.causes
    assert cause.setting == "endpoints"
    assert re.match(r"Endpoints of \d+ Services \(.*\) are other ones: \d+ only there\.", cause.sentence)
    left = {one.service for one in comparison.differences if one.cause is None}
    assert left <= {"default/terminating"}  # where it serves besides while it ends


FEW = {"default/lb-local", "default/lb-ranges", "default/affinity", "default/nodeport"}


def few(dumps, name):
    """A real node's Services but for most, and what kube-proxy writes of them: what is asked here any Services show."""
    proxy = dumps.proxy(name)
    fewer = dataclasses.replace(
        proxy,
        services=tuple(one for one in proxy.services if one.key in FEW),
        endpoint_slices=tuple(one for one in proxy.endpoint_slices if one.service_key in FEW),
    )
    return fewer, printed(fewer, fewer.render())


def other(proxy, **options):
    return dataclasses.replace(proxy, options=dataclasses.replace(proxy.options, **options))


def test_nothing_is_said_that_does_not_explain(dumps):
    """An endpoint that is missing for one way in alone has none of these causes; the release is right, and so said."""
    name = "v1.33.13/iptables-v4"
    proxy, text = few(dumps, name)
    [rule, *_] = re.findall(r"^-A KUBE-SVL-.*default/lb-local:web.*\n", text, re.MULTILINE)
    comparison = check(proxy, text.replace(rule, ""), name)
    assert comparison.causes == ()
    [difference] = comparison.differences
    assert (difference.cause, difference.effect, difference.service) == (None, Effect.TRAFFIC, "default/lb-local")
    assert (comparison.fitting, comparison.nearest, comparison.left) == ((), "v1.33.13", 1)


def test_what_nothing_leads_to_any_more_is_no_leftover(dumps):
    """What is left is as much as differs: chains that kube-proxy writes were not left behind."""
    name = "v1.33.13/iptables-v4"
    proxy, text = few(dumps, name)
    text = re.sub(r"^-A KUBE-SERVICES .* -j KUBE-NODEPORTS\n", "", text, flags=re.MULTILINE)
    comparison = check(proxy, text, name)
    assert [(one.kind, one.name) for one in comparison.differences] == [("missing", "KUBE-SERVICES")]
    assert (comparison.causes, comparison.nearest, comparison.left) == ((), "v1.33.13", 1)
    comparison = check(other(proxy, version="v1.29"), text, name)
    assert [cause.setting for cause in comparison.causes] == ["--proxy-version"]
    assert comparison.left == 1


def test_the_nearest_release_is_said_where_it_is_another(dumps):
    """What is left is counted as in the last line, which says it of the release that was given."""
    name = "v1.33.13/iptables-v4"
    own, text = few(dumps, name)
    text = text.replace("-A KUBE-MARK-MASQ -j MARK", "-A KUBE-MARK-MASQ -p tcp -j MARK")
    older = other(own, version="v1.22")
    said = "\n".join(conclusion(check(own, text, name), own, name))
    assert "No release fits" not in said
    assert "1 different; it changes" in said
    said = "\n".join(conclusion(check(older, text, name), older, name))
    assert re.search(r"No release fits: v1\.3\d\S* comes nearest, with 1 difference left\.", said)
    assert "are not shown (--json has all)" in said


def test_a_cause_makes_no_other_differences(dumps):
    """What the cause explains is what differs without it and not with it."""
    name = "v1.33.13/iptables-v4"
    proxy, text = few(dumps, name)
    text = text.replace("-A KUBE-MARK-MASQ -j MARK", "-A KUBE-MARK-MASQ -p tcp -j MARK")
    comparison = check(other(proxy, node_name="worker-2"), text, name)
    [cause] = comparison.causes
    assert cause.setting == "--node-name"
    [left] = [one for one in comparison.differences if one.cause is None]
    assert left.name == "KUBE-MARK-MASQ"
    assert comparison.left == 1


def test_what_makes_other_differences_is_no_cause(dumps):
    """Bit 15 would explain most of these rules, but not the one that accepts what bit 14 marks."""
    name = "v1.33.13/iptables-v6"
    lines = dumps.text(name).split("\n")
    text = "\n".join(line if "KUBE-FORWARD" in line else line.replace("0x4000", "0x8000") for line in lines)
    comparison = check(dumps.proxy(name), text, name)
    assert comparison.differences
    assert comparison.causes == ()


def test_some_release_is_always_nearest(make_proxy):
    """That one rule less is missing of v1.14 does not make it the node's release."""
    here = Path(__file__).parent
    proxy = make_proxy(Choice(ProxyMode.IPTABLES, "v1.15"), reference=here / "any-range.yaml", node=NOTHING_SAID)
    comparison = check(proxy, (here / "comment-jump.txt").read_text(), "node")
    assert comparison.causes == ()
    assert comparison.nearest == "v1.14"
    assert comparison.left > 1


@pytest.mark.parametrize("version", ["v1.22", "v1.24", "v1.28", "v1.31", "v1.35", "v1.36"])
def test_a_gate_that_the_release_cannot_have_so_is_not_advised(dumps, version):
    """Of those that matter for these objects, which are all."""
    proxy = dumps.proxy("v1.36.3/iptables-v4", version=version)
    rules = Side(expected(proxy))
    advised = [one.cure for one in settings(proxy, rules) if one.setting.startswith("--feature-gates")]
    for cure in advised:
        said = from_words({"feature_gates": cure.removeprefix("give --feature-gates ")})
        assert said.fitting(ProxyMode.IPTABLES, proxy.options.release)
    names = {cure.split()[-1].partition("=")[0] for cure in advised}
    own = {"v1.22": {"IPv6DualStack"}, "v1.31": {"LoadBalancerIPMode"}, "v1.36": {"AllowServiceExternalIPs"}}
    assert names == own.get(version, set())


def test_chance_is_no_difference_and_is_said(dumps):
    name = "v1.24.3/iptables-v4"
    comparison = check(dumps.proxy(name), dumps.text(name), name)
    assert comparison.same
    assert any("default/slice-conflict, kube-proxy leaves to chance" in note for note in comparison.notes)
    assert any("stand in another order: kube-proxy leaves it to chance" in note for note in comparison.notes)


@pytest.mark.filterwarnings("ignore:v/. and v/. both claim")
@pytest.mark.parametrize("mode", list(ProxyMode), ids=str)
def test_which_service_gets_an_address_that_two_claim_is_chance(make_proxy, mode):
    here = Path(__file__).parent
    proxy = make_proxy(Choice(mode, "v1.33"), reference=here / "same-external-ip.yaml", node=NOTHING_SAID)
    there = dataclasses.replace(proxy, services=proxy.services[::-1])
    comparison = check(proxy, saved_uncounted(there), "node")
    assert comparison.same
    said = "Which of v/a, v/b gets 192.0.2.77 80/tcp, kube-proxy leaves to chance: here it is v/b."
    assert (said in comparison.notes) is (mode is ProxyMode.NFTABLES)  # in iptables mode there are rules of both


def test_chance_is_found_beside_a_cause(dumps):
    name = "v1.24.3/iptables-v4"
    comparison = check(dumps.proxy(name, node_name="worker-2"), dumps.text(name), name)
    assert [cause.setting for cause in comparison.causes] == ["--node-name"]
    assert any("default/slice-conflict" in note for note in comparison.notes)
    assert {one.cause for one in comparison.differences} == {0}


def large(dumps):
    """Make a cluster of over 3,000 endpoints on 20 nodes."""
    proxy = dumps.proxy("v1.33.13/iptables-v4")
    [service] = [one for one in proxy.services if one.key == "default/np-local"]
    slices = [one for one in proxy.endpoint_slices if one.service_key == service.key]
    services, endpoint_slices = [], []
    for number in range(160):
        copy = {"name": f"{service.metadata.name}-{number}"}
        ip = f"10.100.{number // 250}.{number % 250 + 1}"
        ports = tuple(port.model_copy(update={"node_port": 20000 + number}) for port in service.spec.ports)
        spec = service.spec.model_copy(update={"cluster_ip": ip, "cluster_ips": (ip,), "ports": ports})
        services.append(service.model_copy(update={"metadata": service.metadata.model_copy(update=copy), "spec": spec}))
        for one in slices:
            labels = {**one.metadata.labels, "kubernetes.io/service-name": copy["name"]}
            metadata = one.metadata.model_copy(update={"name": f"{one.metadata.name}-{number}", "labels": labels})
            endpoints = tuple(
                one.endpoints[0].model_copy(
                    update={"addresses": (f"10.244.{place % 20}.{place}",), "node_name": f"worker-{place % 20}"}
                )
                for place in range(1, 22)
            )
            endpoint_slices.append(one.model_copy(update={"metadata": metadata, "endpoints": endpoints}))
    return dataclasses.replace(proxy, services=tuple(services), endpoint_slices=tuple(endpoint_slices))


def test_a_service_that_the_objects_of_a_large_cluster_lack_is_taken_out_of_the_whole_dump(dumps):
    """What was found with a part of the Services leaves the others of the node where they are."""
    there = large(dumps)
    there = dataclasses.replace(there, options=dataclasses.replace(there.options, version="v1.24"))
    here = dataclasses.replace(there, services=there.services[1:], endpoint_slices=there.endpoint_slices)
    comparison = check(here, saved_uncounted(there), "node")
    assert [cause.setting for cause in comparison.causes] == ["Services on the node"]
    assert here.options.release.name in comparison.fitting
    assert (comparison.nearest, comparison.left) == (None, 0)


def test_a_large_cluster_is_explained_by_a_part_of_it(dumps):
    """With over 3,000 endpoints some Services are tried, with over 12 nodes those that the local endpoints are of."""
    proxy = large(dumps)
    there = dataclasses.replace(
        proxy, options=dataclasses.replace(proxy.options, node_name="worker-3", version="v1.24")
    )
    text = saved_uncounted(there)
    comparison = check(proxy, text, "node")
    assert [cause.setting for cause in comparison.causes] == ["--node-name", "--proxy-version"]
    assert all(one.cause is not None for one in comparison.differences)
