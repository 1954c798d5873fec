# SPDX-License-Identifier: MIT
"""kube-proxy's own configuration file: a ``KubeProxyConfiguration``, as ``--config`` of kube-proxy takes it.

Its fields are those of every release from v1.14 to v1.36 (k8s.io/kube-proxy/config/v1alpha1/types.go). What shapes no
rule is known and left out; a field that is not known is warned of, as kube-proxy does. What a file leaves empty, as
kubeadm's does of most, is as kube-proxy has it by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.errors import InputError, misspelt, warn
from lab.kubeproxy.gates import warn_of_gates
from lab.kubeproxy.said import Said, Settings
from lab.kubeproxy.settings import SETTINGS
from lab.kubernetes import manifest
from lab.kubernetes.errors import found, spell
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.kubeproxy.settings import ProxySetting

_API_VERSION: Final = "kubeproxy.config.k8s.io/v1alpha1"
_KIND: Final = "KubeProxyConfiguration"
_WHAT: Final = f"a {_KIND}"
_CURE: Final = (
    "give kube-proxy's --config; kubeadm keeps it in a ConfigMap:"
    r" kubectl -n kube-system get configmap kube-proxy -o jsonpath='{.data.config\.conf}'"
)
_MAX_BYTES: Final = 1 << 20
_ANY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - bindAddress where the node's own is meant

_SECTIONS: Final = {
    "": "apiVersion kind featureGates clientConnection logging hostnameOverride bindAddress healthzBindAddress"
    " metricsBindAddress bindAddressHardFail enableProfiling showHiddenMetricsForVersion mode iptables ipvs nftables"
    " winkernel detectLocalMode detectLocal clusterCIDR nodePortAddresses oomScoreAdj conntrack configSyncPeriod"
    " portRange resourceContainer udpIdleTimeout windowsRunAsService",
    "clientConnection": "kubeconfig acceptContentTypes contentType qps burst",
    "iptables": "masqueradeBit masqueradeAll localhostNodePorts syncPeriod minSyncPeriod",
    "ipvs": "syncPeriod minSyncPeriod scheduler excludeCIDRs strictARP tcpTimeout tcpFinTimeout udpTimeout",
    "nftables": "masqueradeBit masqueradeAll syncPeriod minSyncPeriod",
    "winkernel": "networkName sourceVip enableDSR rootHnsEndpointName forwardHealthCheckVip",
    "detectLocal": "bridgeInterface interfaceNamePrefix",
    "conntrack": "maxPerCore min tcpEstablishedTimeout tcpCloseWaitTimeout tcpBeLiberal udpTimeout udpStreamTimeout",
}
"""The fields of each part that is no list or map of its own."""


def read_configuration(path: str) -> Settings:
    """Return the settings that a file says.

    :raises InputError: it cannot be read, is no KubeProxyConfiguration, or has a value that cannot be; with the line.
    """
    file = _File(_text(path), "<stdin>" if path == "-" else path)
    documents = file.documents()
    if not documents:
        raise InputError(f"empty: there is no {_KIND} in it", source=file.name, cure=_CURE)
    first, *others = documents
    if (first.get("apiVersion"), first.get("kind")) != (_API_VERSION, _KIND):
        field = "kind" if first.get("kind") != _KIND else "apiVersion"
        wanted = _KIND if field == "kind" else _API_VERSION
        raise file.refusal((field,), f"must be {wanted}, not {found(first.get(field))}", _CURE)
    if others:
        raise InputError("more than one document", source=file.name, cure="keep the KubeProxyConfiguration alone")
    file.warn_of_unknown(first)
    return Settings(tuple(file.said(first)), file.mode(first), first)


def _text(path: str) -> str:
    import sys

    name = "<stdin>" if path == "-" else path
    try:
        data = sys.stdin.buffer.read(_MAX_BYTES) if path == "-" else _bytes(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {reason}", source=repr(path)) from None
    if len(data) == _MAX_BYTES:
        raise InputError(f"is larger than {_MAX_BYTES >> 20} MiB", source=name)
    return manifest.text_of(data, name, _WHAT)


def _bytes(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_MAX_BYTES)


class _File:
    """The text of a file, for errors that name its lines."""

    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self.name = name

    def documents(self) -> list[dict[str, Any]]:
        return list(manifest.documents(self._text, self.name, what=_WHAT))

    def mode(self, document: dict[str, Any]) -> ProxyMode | None:
        """Return the mode that is asked for; None where the default is left."""
        mode = document.get("mode")
        if mode in (None, ""):
            return None
        if mode not in list(ProxyMode):
            cure = f"rules are written for {' and '.join(ProxyMode)} mode"
            raise self.refusal(("mode",), f"{found(mode)} is no mode that is known here", cure)
        return ProxyMode(mode)

    def said(self, document: dict[str, Any]) -> Iterator[Said]:
        """Yield what the file says of each setting."""
        for setting in SETTINGS.values():
            for path, mode in setting.paths:
                given = _at(document, path)
                if given in (None, "", [], {}) or (path == "bindAddress" and given in _ANY_ADDRESS):
                    continue
                place = f"{self._place(tuple(path.split('.')))}: {path}"
                value = setting.value(given, place)
                if setting.field == "feature_gates":
                    warn_of_gates(value, place)
                yield Said(setting, value, place, mode, by_file=True, called=_called)

    def warn_of_unknown(self, document: dict[str, Any]) -> None:
        """Warn of each field that no release has."""
        for section, names in _SECTIONS.items():
            known, part = set(names.split()), document.get(section) if section else document
            if part is None:
                continue
            if not isinstance(part, dict):
                raise self.refusal((section,), f"must be a mapping, not {found(part)}", None)
            for name in part:
                if name not in known:
                    path = (section, name) if section else (name,)
                    hint = misspelt(name, known)
                    words = f"unknown field of {_KIND}, left out{f' ({hint})' if hint else ''}"
                    warn(f"{self._place(path)}: {spell(path)}: {words}")

    def refusal(self, path: tuple[str, ...], problem: str, cure: str | None) -> InputError:
        line = manifest.line_of(self._text, 0, path)
        return InputError(f"{spell(path)}: {problem}", source=self.name, line=line, cure=cure)

    def _place(self, path: tuple[str, ...]) -> str:
        return f"{self.name}:{manifest.line_of(self._text, 0, path)}"


def _called(setting: ProxySetting) -> str:
    """Return what a setting is called in a file, or as an option where a file has no field for it."""
    return setting.paths[0][0] if setting.paths else f"--{setting.option}"


def _at(document: Any, path: str) -> Any:  # noqa: ANN401 - anything may stand in a file
    for key in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document
