"""The settings of kube-proxy that shape its rules or its node: one table of the ways in which each can be said.

A setting is said by an option named as kube-proxy's own flag, by a key of a topology's host, by a word of the pytest
plugin (the option's name with underscores), or by a field of a KubeProxyConfiguration
(:mod:`lab.kubeproxy.configuration`). What an option says counts before what the file says, and that before the
topology.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from lab.errors import InputError, nearest, warn
from lab.kubeproxy.durations import seconds_of
from lab.vocabulary import Family, ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.changes import Change
    from lab.kubeproxy.releases import Release

#: Whose rules a node has that names no version: the last one with the bug, and the first with nftables mode in beta.
DEFAULT_VERSIONS: Final = {ProxyMode.IPTABLES: "v1.14", ProxyMode.NFTABLES: "v1.31"}


class Gate(NamedTuple):
    """A feature gate that shapes rules.

    :param first: the first minor that has it, and ``last`` the last; None where that is yet to come.
    :param by: the change, by its name, that has it on by default; empty where it is so in every release.
    :param locked: the first minor in which it is on for good: with it off kube-proxy does not start (LockToDefault in
        pkg/features/kube_features.go); None where there is none.
    :param known: whether rules are written by it here; of others the default alone is.
    """

    first: int
    last: int | None
    by: str
    locked: int | None = None
    known: bool = False


#: By name; of others it is said that they change nothing here. By the notes of releases.
_GATES: Final = {
    "AllowServiceExternalIPs": Gate(36, None, "", known=True),
    "IPv6DualStack": Gate(16, 24, "dual-stack", locked=23, known=True),
    "LoadBalancerIPMode": Gate(29, None, "ip-mode", locked=32, known=True),
    "NFTablesProxyMode": Gate(29, None, "nft-beta", locked=33, known=True),
    "EndpointSliceProxying": Gate(18, 24, "slices"),
    "ExternalPolicyForExternalIP": Gate(18, 21, "external-ip-local"),
    "PreferSameTrafficDistribution": Gate(33, None, "hints-nodes", locked=35),
    "ProxyTerminatingEndpoints": Gate(22, 29, "terminating", locked=28),
    "ServiceInternalTrafficPolicy": Gate(21, 27, "internal-policy", locked=26),
    "TopologyAwareHints": Gate(21, None, "hints-annotated"),
}

#: Feature gates by which rules are written here.
GATES: Final = tuple(name for name, gate in _GATES.items() if gate.known)

_TRUE: Final = {"true", "1", "t"}  # strconv.ParseBool, by which kube-proxy reads its flags
_FALSE: Final = {"false", "0", "f"}
_LONGEST: Final = 2_147_483  # seconds: INT_MAX jiffies at 1,000 a second (proc_dointvec_jiffies in kernel/sysctl.c)
_INTERFACE_LENGTH: Final = 15  # IFNAMSIZ less the closing zero (linux/if.h)


class BadValueError(ValueError):
    """A value that a setting cannot have.

    :param message: what is wrong; :param cure: what to write instead.
    """

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


#: Makes a setting's value of what an option, a YAML file or a test gives.
Read: TypeAlias = Callable[[object], Any]


# --- values ---------------------------------------------------------------------------------------


def _items(given: object) -> list[str]:
    """Return the items of a list, or of texts with commas."""
    texts = [_text(one) for one in (given if isinstance(given, list | tuple) else [given])]
    return [item.strip() for text in texts for item in text.split(",") if item.strip()]


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise BadValueError(f"must be text, not {given!r}", "put it in quotes")
    return given


def _network(text: str) -> Any:  # noqa: ANN401 - of either family
    try:
        wide = ip_network(text, strict=False)
        exact = ip_interface(text)
    except ValueError:
        raise BadValueError(f"{text!r} is no CIDR", "write it as 10.0.0.0/24 or fd00::/64") from None
    if exact.ip != wide.network_address:
        raise BadValueError(f"{text!r} has bits set beyond its prefix", f"write {wide}")
    return wide


def _cidrs(given: object) -> tuple[Any, ...]:
    return tuple(map(_network, _items(given)))


def _cidr_a_family(given: object) -> tuple[Any, ...]:
    cidrs = _cidrs(given)
    families = [Family.of(cidr) for cidr in cidrs]
    for index, family in enumerate(families):
        if family in families[:index]:
            raise BadValueError(f"a second CIDR of {family}; kube-proxy takes one a family", "keep one")
    return cidrs


def _addresses(given: object) -> tuple[str, ...]:
    try:
        return tuple(str(ip_address(item)) for item in _items(given))
    except ValueError as error:
        raise BadValueError(str(error), "write it as 10.0.0.1 or fd00::1") from None


def _node_ports(given: object) -> tuple[str, ...]:
    from lab.kubeproxy.options import PRIMARY

    items = _items(given)
    if PRIMARY in items:
        if len(items) > 1:  # ValidateProxyNodePortAddresses, pkg/proxy/apis/config/validation
            raise BadValueError(f"{PRIMARY} and others", f"{PRIMARY} stands alone")
        return (PRIMARY,)
    return tuple(str(_network(item)) for item in items)


def _flag(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in _TRUE | _FALSE:
        return given.lower() in _TRUE
    raise BadValueError(f"must be true or false, not {given!r}")


def _bit(given: object) -> int:
    number = int(given) if isinstance(given, str) and given.isdecimal() else given
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 31:
        raise BadValueError(f"must be a bit of the packet mark, 0 to 31, not {given!r}")
    return number


def _time_out(given: object) -> str:
    seconds = seconds_of(given) if isinstance(given, str) else None
    if seconds is None or seconds < 0:
        raise BadValueError(
            f"must be a duration, not {given!r}", "write it as 10m, 1h30m or 30s; 0s leaves the kernel's"
        )
    if seconds > _LONGEST:
        raise BadValueError(f"{given} is longer than kernels take", f"at most {_LONGEST}s, some 24 days")
    return str(given)


def _detect_local(given: object) -> Any:  # noqa: ANN401 - imported late
    from lab.kubeproxy.options import DetectLocalMode

    if given not in list(DetectLocalMode):
        raise BadValueError(f"must be one of {', '.join(DetectLocalMode)}, not {given!r}")
    return DetectLocalMode(str(given))


def _interface(given: object) -> str:
    name = _text(given)
    if len(name.encode()) > _INTERFACE_LENGTH or any(one.isspace() or one in '/:"+*' for one in name):
        raise BadValueError(
            f"{name!r} is no name of an interface", f"at most {_INTERFACE_LENGTH} characters, such as cni0"
        )
    return name


def _gates(given: object) -> tuple[tuple[str, bool], ...]:
    if isinstance(given, Mapping):
        pairs = [(str(name), value) for name, value in given.items()]
    else:
        pairs = []
        for item in _items(given):
            name, separator, value = item.partition("=")
            if not separator:
                raise BadValueError(f"{item!r} says neither true nor false", f"write {name}=true")
            pairs.append((name.strip(), value.strip()))
    read: dict[str, bool] = {}
    for name, value in pairs:
        try:
            read[name] = _flag(value)
        except BadValueError as error:
            raise BadValueError(f"{name} {error.message}") from None
    return tuple(sorted(read.items()))


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProxySetting:
    """One setting, and how it is said.

    :param field: its name among :class:`~lab.kubeproxy.options.ProxyOptions`, and of a topology's host.
    :param option: kube-proxy's own flag for it, without the dashes, or what is nearest to one.
    :param read: makes its value of what was given.
    :param what: what it means, for help.
    :param key: of a topology's host; empty where the topology says it otherwise, and then ``otherwise`` tells how.
    :param paths: where a KubeProxyConfiguration says it, each with the mode in which that counts.
    :param since: the change that brought it, by its name; empty where every release knows it.
    :param mode: the one mode that has it.
    :param metavar: of the option; empty for one that is on or off.
    :param many: the option may be repeated.
    """

    field: str
    option: str
    read: Read
    what: str
    key: str = ""
    otherwise: str = ""
    paths: tuple[tuple[str, ProxyMode | None], ...] = ()
    since: str = ""
    mode: ProxyMode | None = None
    metavar: str = ""
    many: bool = False

    @property
    def word(self) -> str:
        """Its name in Python: an argument of the pytest plugin."""
        return self.option.replace("-", "_")

    def value(self, given: object, place: str) -> Any:  # noqa: ANN401 - each setting has its own type
        """Return the value of what was given.

        :param place: where, for the error.
        :raises InputError: it is none.
        """
        try:
            return self.read(given)
        except BadValueError as error:
            raise InputError(f"{place}: {error.message}", cure=error.cure) from None

    def changes(self, value: object) -> Iterator[Change]:
        """Yield what brought the setting, and this value of it."""
        from lab.kubeproxy.changes import CHANGES
        from lab.kubeproxy.options import PRIMARY, DetectLocalMode

        if self.since:
            yield CHANGES[self.since]
        if value in (DetectLocalMode.BRIDGE, DetectLocalMode.INTERFACE_PREFIX):
            yield CHANGES["detects-by-interface"]
        if value == (PRIMARY,):
            yield CHANGES["primary-node-ports"]


def _table(*rows: ProxySetting) -> dict[str, ProxySetting]:
    return {row.field: row for row in rows}


_LINKS: Final = "the links' ends say which addresses a host has, and node-ips which of them are its own"

#: All settings by field, in the order of help.
SETTINGS: Final = _table(
    ProxySetting(
        "cluster_cidrs",
        "cluster-cidr",
        _cidr_a_family,
        "The pods' range, one a family: what comes from outside to a cluster IP is masqueraded.",
        key="cluster-cidrs",
        paths=(("clusterCIDR", None),),
        metavar="CIDR,...",
        many=True,
    ),
    ProxySetting(
        "masquerade_all",
        "masquerade-all",
        _flag,
        "Masquerade whatever goes to a cluster IP.",
        key="masquerade-all",
        paths=(("iptables.masqueradeAll", ProxyMode.IPTABLES), ("nftables.masqueradeAll", ProxyMode.NFTABLES)),
    ),
    ProxySetting(
        "detect_local_mode",
        "detect-local-mode",
        _detect_local,
        "How local pods are told (v1.18): ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.",
        key="detect-local-mode",
        paths=(("detectLocalMode", None),),
        since="detects-local",
        metavar="MODE",
    ),
    ProxySetting(
        "pod_bridge_interface",
        "pod-bridge-interface",
        _interface,
        "The pods' bridge, for BridgeInterface (v1.24).",
        key="pod-bridge-interface",
        paths=(("detectLocal.bridgeInterface", None),),
        since="detects-by-interface",
        metavar="NAME",
    ),
    ProxySetting(
        "pod_interface_name_prefix",
        "pod-interface-name-prefix",
        _interface,
        "How the names of pods' interfaces begin, for InterfaceNamePrefix (v1.24).",
        key="pod-interface-name-prefix",
        paths=(("detectLocal.interfaceNamePrefix", None),),
        since="detects-by-interface",
        metavar="PREFIX",
    ),
    ProxySetting(
        "node_port_addresses",
        "nodeport-addresses",
        _node_ports,
        "Ranges of the node's addresses that take node ports, or primary (v1.31).",
        key="nodeport-addresses",
        paths=(("nodePortAddresses", None),),
        metavar="CIDR,...",
        many=True,
    ),
    ProxySetting(
        "localhost_node_ports",
        "iptables-localhost-nodeports",
        _flag,
        "In iptables mode, whether node ports work by 127.0.0.1 (v1.26); else they do.",
        key="iptables-localhost-nodeports",
        paths=(("iptables.localhostNodePorts", ProxyMode.IPTABLES),),
        since="localnet-by-option",
        mode=ProxyMode.IPTABLES,
    ),
    ProxySetting(
        "masquerade_bit",
        "iptables-masquerade-bit",
        _bit,
        "In iptables mode, which bit of a packet's mark asks for masquerading; else 14.",
        key="iptables-masquerade-bit",
        paths=(("iptables.masqueradeBit", ProxyMode.IPTABLES),),
        mode=ProxyMode.IPTABLES,
        metavar="BIT",
    ),
    ProxySetting(
        "conntrack_tcp_be_liberal",
        "conntrack-tcp-be-liberal",
        _flag,
        "Set nf_conntrack_tcp_be_liberal on the node (v1.29): then there is no drop of INVALID.",
        key="conntrack-tcp-be-liberal",
        paths=(("conntrack.tcpBeLiberal", None),),
        since="heeds-be-liberal",
    ),
    ProxySetting(
        "conntrack_tcp_timeout_established",
        "conntrack-tcp-timeout-established",
        _time_out,
        "How long the node keeps conntrack entries of established connections; else 24h. 0s leaves the kernel's.",
        key="conntrack-tcp-timeout-established",
        paths=(("conntrack.tcpEstablishedTimeout", None),),
        metavar="TIME",
    ),
    ProxySetting(
        "conntrack_tcp_timeout_close_wait",
        "conntrack-tcp-timeout-close-wait",
        _time_out,
        "How long it keeps those that one side has closed (CLOSE_WAIT); else 1h. 0s leaves the kernel's.",
        key="conntrack-tcp-timeout-close-wait",
        paths=(("conntrack.tcpCloseWaitTimeout", None),),
        metavar="TIME",
    ),
    ProxySetting(
        "feature_gates",
        "feature-gates",
        _gates,
        f"Feature gates. Those that shape rules: {', '.join(GATES)}.",
        key="feature-gates",
        paths=(("featureGates", None),),
        metavar="GATE=true,...",
        many=True,
    ),
    ProxySetting(
        "node_name",
        "node-name",
        _text,
        "The node: which of the topology's; without one, whose endpoints are local.",
        otherwise="a host's name is the node's",
        paths=(("hostnameOverride", None),),
        metavar="NAME",
    ),
    ProxySetting(
        "node_addresses",
        "node-address",
        _addresses,
        "Without a topology: an address of the node, its own ones first.",
        otherwise=_LINKS,
        paths=(("bindAddress", None),),
        metavar="ADDRESS,...",
        many=True,
    ),
    ProxySetting(
        "node_zone",
        "node-zone",
        _text,
        "The node's zone, by which hints choose endpoints.",
        key="node-zone",
        metavar="ZONE",
    ),
    ProxySetting(
        "node_pod_cidrs",
        "node-pod-cidr",
        _cidr_a_family,
        "The node's own pods' range, one a family, for NodeCIDR.",
        key="node-pod-cidrs",
        metavar="CIDR,...",
        many=True,
    ),
    ProxySetting(
        "service_cidrs",
        "service-cidr",
        _cidrs,
        "Ranges of cluster IPs: nftables mode drops what goes to one that no Service has (v1.33).",
        otherwise="the topology's own service-cidrs, beside its hosts",
        since="drops-unallocated",
        mode=ProxyMode.NFTABLES,
        metavar="CIDR,...",
        many=True,
    ),
)

#: Those that a topology's hosts have keys for.
KEYS: Final = {row.field: row for row in SETTINGS.values() if row.key}

#: Those that may be said of a topology: its hosts', and the cluster's own.
TOPOLOGYS: Final = (*KEYS, "service_cidrs")


# --- what was said --------------------------------------------------------------------------------


#: Says what a setting is called where others are said.
Called: TypeAlias = Callable[[ProxySetting], str]


def _as_option(row: ProxySetting) -> str:
    return f"--{row.option}"


class Said(NamedTuple):
    """A setting that somebody gave.

    :param place: where: an option, or a file with its line and field.
    :param mode: counts in this mode alone.
    :param by_file: a KubeProxyConfiguration says it: there every field stands, whether its release knows it or not.
    :param called: what others are called there.
    """

    setting: ProxySetting
    value: Any
    place: str
    mode: ProxyMode | None = None
    by_file: bool = False
    called: Called = _as_option

    @property
    def text(self) -> str:
        """The same as an option."""
        return f"--{self.setting.option}={_spell(self.value)}"


@dataclass(frozen=True)
class Settings:
    """What was said of a kube-proxy, the last word on each setting being the one that counts.

    :param mode: which mode a KubeProxyConfiguration asks for.
    """

    said: tuple[Said, ...] = ()
    mode: ProxyMode | None = None

    def __add__(self, later: Settings) -> Settings:
        return Settings(self.said + later.said, later.mode or self.mode)

    def get(self, field: str) -> Said | None:
        """Return what was said of a setting, whatever the mode."""
        return next((one for one in reversed(self.said) if one.setting.field == field), None)

    def without(self, *fields: str) -> Settings:
        """Return the others."""
        return Settings(tuple(one for one in self.said if one.setting.field not in fields), self.mode)

    def fitting(self, mode: ProxyMode, release: Release) -> dict[str, Said]:
        """Return what counts for a kube-proxy of this mode and release, by field.

        Of a file, what asks for nothing besides what a release does that does not know the field is left out.

        :raises InputError: mode or release do not know a setting.
        """
        chosen = {one.setting.field: one for one in self.said if one.mode in (None, mode)}
        for field, one in tuple(chosen.items()):
            wrong = unfit(one.setting, one.value, mode, release)
            if wrong and one.by_file and _is_default(one):
                del chosen[field]
            elif wrong:
                raise InputError(f"{one.place}: {wrong.message}", cure=wrong.cure)
        return chosen


NOTHING_SAID: Final = Settings()


def from_words(words: Mapping[str, object], called: Called = _as_option) -> Settings:
    """Return what options or arguments say, by field; None is not said.

    :param called: how to call a setting in errors.
    :raises InputError: a value is none.
    """
    said = []
    for field, given in words.items():
        if given is None:
            continue
        row = SETTINGS[field]
        value = row.value(given, called(row))
        if field == "feature_gates":
            warn_of_gates(value, called(row))
        said.append(Said(row, value, called(row), called=called))
    return Settings(tuple(said))


def find_word(word: str) -> ProxySetting:
    """Return the setting that an argument of the pytest plugin means.

    :raises InputError: there is none.
    """
    by_word = {row.word: row for row in SETTINGS.values()}
    if word not in by_word:
        raise InputError(f"there is no setting {word!r} of kube-proxy", cure=nearest(word, by_word))
    return by_word[word]


def plain(value: Any) -> Any:  # noqa: ANN401 - each setting has its own type
    """Return a value as :class:`~lab.kubeproxy.options.ProxyOptions` has it: networks as text."""
    return tuple(one if isinstance(one, tuple) else str(one) for one in value) if isinstance(value, tuple) else value


def unfit(setting: ProxySetting, value: object, mode: ProxyMode, release: Release) -> BadValueError | None:
    """Return why a kube-proxy of this mode and release cannot be given a value; None where it can."""
    if setting.mode not in (None, mode):
        return BadValueError(f"is for {setting.mode} mode: {mode} mode makes nothing of it", "leave it away")
    if lacking := next((change for change in setting.changes(value) if change not in release), None):
        what = "it" if lacking.name == setting.since else _spell(value)
        return BadValueError(
            f"kube-proxy {release.name} does not know {what}", f"v1.{lacking.minor} is the first that does"
        )
    if setting.field != "feature_gates":
        return None
    return next(filter(None, (_unfit_gate(name, on, mode, release) for name, on in value)), None)  # type: ignore[attr-defined]


def _unfit_gate(name: str, on: bool, mode: ProxyMode, release: Release) -> BadValueError | None:
    """Return why a feature gate cannot be heeded; None where it can, or says what the release does anyway."""
    from lab.kubeproxy.changes import CHANGES

    gate = _GATES.get(name)
    if gate is None:
        return None  # it is warned of
    if name == "NFTablesProxyMode" and mode is ProxyMode.NFTABLES and not on:
        return BadValueError("NFTablesProxyMode is off, and without it there is no nftables mode", "leave it away")
    if on is (not gate.by or CHANGES[gate.by] in release):
        return None
    lacks = f"kube-proxy {release.name} does not know the feature gate {name}"
    if release.minor < gate.first:
        return BadValueError(lacks, f"v1.{gate.first} is the first that does")
    if gate.last is not None and release.minor > gate.last:
        return BadValueError(lacks, f"v1.{gate.last} is the last that does")
    if gate.locked is not None and release.minor >= gate.locked:
        locked = f"kube-proxy {release.name} does not start with {name}={_spell(on)}: the feature gate is locked"
        return BadValueError(locked, f"v1.{gate.locked - 1} is the last in which it can be off")
    if gate.known:
        return None
    what = f"{name}={_spell(on)} shapes rules of kube-proxy {release.name}, and how is not known here"
    return BadValueError(what, "leave it away: then the rules are those of its default")


def settled(known: Mapping[str, Any], said: Mapping[str, Said]) -> dict[str, Said]:
    """Return what was said, without what a file says to no effect, as kube-proxy takes it.

    :param known: what is set besides, by field.
    :raises InputError: something said wants another setting, or says nothing without one.
    """
    left = dict(said)

    def called(field: str, other: ProxySetting) -> str:
        return left[field].called(other) if field in left else other.key

    while lacking := incomplete({**known, **{field: one.value for field, one in left.items()}}, called):
        field, wrong = lacking
        if field not in left:
            break  # not of what was said
        if not left[field].by_file or field == "detect_local_mode":
            raise InputError(f"{left[field].place}: {wrong.message}", cure=wrong.cure)
        del left[field]
    return left


def incomplete(
    values: Mapping[str, Any], called: Callable[[str, ProxySetting], str] = lambda _field, other: other.key
) -> tuple[str, BadValueError] | None:
    """Return the first setting that wants another, or that says nothing without another; None where all is well.

    :param values: what is set, by field.
    :param called: says what a setting is called where the one of a field is set; else as a topology's host does.
    """
    from lab.kubeproxy.options import DetectLocalMode

    mode = values.get("detect_local_mode", DetectLocalMode.CLUSTER_CIDR)
    needs = {
        DetectLocalMode.NODE_CIDR: "node_pod_cidrs",  # kube-proxy waits for it, and gives up after 5 minutes
        DetectLocalMode.BRIDGE: "pod_bridge_interface",
        DetectLocalMode.INTERFACE_PREFIX: "pod_interface_name_prefix",
    }
    needed = needs.get(mode)
    if needed and not values.get(needed):
        other = called("detect_local_mode", SETTINGS[needed])
        return "detect_local_mode", BadValueError(f"{mode} wants {other}", f"give {other} as well")
    for wanted, field in needs.items():
        if field != "node_pod_cidrs" and values.get(field) and mode is not wanted:
            other = called(field, SETTINGS["detect_local_mode"])
            return field, BadValueError(f"says nothing without {other} {wanted}", "give both, or none")
    return None


def warn_of_gates(gates: Iterable[tuple[str, bool]], place: str) -> None:
    """Warn of feature gates that shape no rules."""
    for name, _on in gates:
        if name not in _GATES:
            hint = nearest(name, _GATES)
            warn(f"{place}: the feature gate {name} shapes no rule that is known here; it is left out ({hint})")


def _is_default(one: Said) -> bool:
    from lab.kubeproxy.options import ProxyOptions

    return bool(plain(one.value) == getattr(ProxyOptions, one.setting.field))


def _spell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(f"{one[0]}={_spell(one[1])}" if isinstance(one, tuple) else str(one) for one in value)
    return str(value)
