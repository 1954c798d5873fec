# SPDX-License-Identifier: MIT
"""What a kube-proxy program is told on a node of the lab: its flags, or its configuration file.

The flags are those of cmd/kube-proxy/app/options.go that every release from v1.14 to v1.36 has. Up to the newest,
``--master`` counts beside ``--config`` as well.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lab.errors import warn
from lab.kubeproxy.program import ProxyProgram
from lab.kubeproxy.settings import SETTINGS, ProxySetting
from lab.kubeproxy.values import spell
from lab.vocabulary import ProxyMode

#: Settings that are no flags: the API server's objects say them.
_OF_OBJECTS: Final = ("node_zone", "node_pod_cidrs")

#: Where a file is written for the program, in the directory that is its own.
FILE: Final = "config.json"

#: Where every release serves its metrics unless it is told otherwise.
METRICS: Final = "127.0.0.1:10249"


def flags(
    program: ProxyProgram, mode: ProxyMode, node: str, settings: Mapping[str, Any], url: str, bind: str | None
) -> tuple[str, ...]:
    """Return the words of a program's command, without the program.

    :param node: the node's name.
    :param settings: of kube-proxy, by field.
    :param url: of the API server.
    :param bind: the address by which a program of one family knows which that is; None where it is IPv4.
    """
    said = [
        f"--master={url}",
        f"--hostname-override={node}",
        f"--proxy-mode={mode}",
        "--kube-api-content-type=application/json",
        # One limit for all namespaces of a machine: it is not a program's to set.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        # Else it waits for up to a second before it writes a change.
        "--iptables-min-sync-period=0s",
    ]
    said += [f"--bind-address={bind}"] if bind else []
    known = (SETTINGS[field] for field in settings if field not in _OF_OBJECTS)
    said += [f"--{row.option}={spell(settings[row.field])}" for row in known]
    return (*said, *program.arguments)


def configured(url: str, node: str, directory: str) -> tuple[str, ...]:
    """Return the words of the command of a program that reads a file.

    :param directory: where the file is.
    """
    # The name is given here as well: up to v1.19 a file's counts for the node, and not for all that asks for it.
    return (f"--config={directory}/{FILE}", f"--master={url}", f"--hostname-override={node}")


def configuration(
    program: ProxyProgram, mode: ProxyMode, node: str, settings: Mapping[str, Any], bind: str | None
) -> dict[str, Any]:
    """Return a user's KubeProxyConfiguration as a program gets it here: what the lab decides is the lab's.

    Of what is changed so that it means something else, the user is warned.

    :param settings: of kube-proxy, by field: those of the file, of options and of the topology.
    """
    document = copy.deepcopy(dict(program.document or {}))
    ours: dict[str, Any] = {
        "clientConnection.kubeconfig": "",
        "clientConnection.contentType": "application/json",
        "hostnameOverride": node,
        "metricsBindAddress": METRICS,
        "conntrack.maxPerCore": 0,
        "conntrack.min": 0,
        "mode": str(mode),
    }
    ours |= {"bindAddress": bind} if bind else {}
    for path, value in ours.items():
        before = _at(document, path)
        if before not in (None, "", value) and path not in ("mode", "clientConnection.contentType", "bindAddress"):
            warn(f"--kube-proxy-config: {path}: not used: in the lab it is {spell(value) or 'empty'}")
        _put(document, path, value)
    for field, given in settings.items():
        for path, value in _fields(SETTINGS[field], given, mode):
            _put(document, path, value)
    return document


def _fields(row: ProxySetting, value: object, mode: ProxyMode) -> Iterator[tuple[str, Any]]:
    """Yield where a configuration says a setting in a mode, and how."""
    for path, its_mode in row.paths:
        if its_mode in (None, mode):
            yield path, _written(row, value)


def _written(row: ProxySetting, value: Any) -> Any:  # noqa: ANN401 - each setting has its own type
    if row.field == "feature_gates":
        return dict(value)
    if row.field == "node_port_addresses":
        return [str(one) for one in value]
    return value if isinstance(value, bool | int) else spell(value)


def _at(document: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - anything may stand in a file
    found: Any = document
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _put(document: dict[str, Any], path: str, value: object) -> None:
    *parts, last = path.split(".")
    for part in parts:
        if not isinstance(document.get(part), dict):
            document[part] = {}
        document = document[part]
    document[last] = value
