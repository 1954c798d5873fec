# SPDX-License-Identifier: MIT
"""The ``--lab-...`` options, the arguments of the mark ``lab_topology``, and what both mean.

They are named as the keys of a topology file and the options of the command; a mark writes them with underscores.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import pytest

from lab.errors import InputError, nearest
from lab.vocabulary import Backend, Family, ProxyMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from enum import StrEnum

    from lab.fixes import Fix
    from lab.kubeproxy.program import ProxyProgram
    from lab.kubeproxy.said import Called, Settings
    from lab.topology.model import Topology
    from lab.trial.batch import ProxyChoice

Choice = TypeVar("Choice", bound="StrEnum")

#: What may be asked for besides the settings of kube-proxy: what it means, and its values where they are few.
KEYS: Final = {
    "proxy_mode": ("kube-proxy's mode", list(ProxyMode)),
    "proxy_version": ("whose rules, such as v1.14, v1.33.6 or v1.33.6-gke.1", None),
    "backend": ("in iptables mode, which program loads the rules", list(Backend)),
    "family": ("the address family", list(Family)),
    "fix": ("the change to the nodes", None),
    "service": ("which Service is asked, instead of the first: [namespace/]name[:port]", None),
    "kube_proxy_config": ("kube-proxy's own file, a KubeProxyConfiguration", None),
    "kube_proxy": ("a kube-proxy program, which writes the nodes' rules instead of the lab", None),
}

#: Seconds that a guest may take where nobody says.
GUEST_LIMIT: Final = 1800.0


def add_options(parser: pytest.Parser) -> None:
    """Add the ``--lab-...`` options."""
    from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS

    group = parser.getgroup("lab", "kube-proxy-lab (for what a test's mark `lab_topology` leaves open)")
    for key, (meaning, choices) in KEYS.items():
        group.addoption(f"--lab-{key.replace('_', '-')}", choices=choices, help=meaning)
    for row in (SETTINGS[field] for field in TOPOLOGYS):
        group.addoption(f"--lab-{row.option}", metavar=row.metavar or "true|false", help=row.what)
    group.addoption(
        "--lab-keep",
        action="store_true",
        help="failing tests' labs stay until `lab down`; `lab status` lists them (root)",
    )
    group.addoption(
        "--lab-shell-on-failure", action="store_true", help="open a shell on the lab's node when a test fails"
    )
    group.addoption(
        "--lab-kernels",
        metavar="NAMES",
        help="run the tests in a guest for each of these kernels, such as 5.10,6.1,newest (see `lab kernels list`)",
    )
    group.addoption(
        "--lab-kernels-limit",
        type=float,
        metavar="SECONDS",
        help=f"how long each of these guests may take ({GUEST_LIMIT:.0f})",
    )


class Layer(NamedTuple):
    """What one place asks for: the options, a mark, a call.

    :param called: says what a word is called there.
    """

    values: Mapping[str, object]
    called: Callable[[str], str]


@dataclass(frozen=True)
class Asked:
    """All that is asked for; what is said nearest to the test comes last, and counts."""

    layers: tuple[Layer, ...]

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - whatever somebody wrote there
        layer = self._layer(key)
        return None if layer is None else layer.values[key]

    def _layer(self, key: str) -> Layer | None:
        return next((layer for layer in reversed(self.layers) if key in layer.values), None)

    def and_then(self, values: Mapping[str, object], called: Callable[[str], str]) -> Asked:
        """Return this with what another place asks for besides."""
        return Asked((*self.layers, Layer(values, called)))

    @contextlib.contextmanager
    def place(self, key: str, errors: type[InputError] = InputError) -> Iterator[None]:
        """Put into an error where the word was said that it is about.

        :param errors: those that are about it.
        :raises InputError: it was raised in the block.
        """
        try:
            yield
        except errors as error:
            layer = self._layer(key)
            if layer is None:
                raise
            raise error.said_in(layer.called(key)) from None


def check_options(config: pytest.Config) -> None:
    """Check what argparse does not: versions, fixes, and the settings of kube-proxy.

    :raises InputError: for the first that cannot be.
    """
    asked = Asked((_options(config),))
    if any(asked[key] is not None for key in ("kube_proxy_config", *setting_keys())):
        settings_of(asked, config.invocation_params.dir)
    proxy_of(asked)
    if asked["kube_proxy"] is not None and not Path(asked["kube_proxy"]).is_file():
        raise InputError(f"--lab-kube-proxy: there is no program {asked['kube_proxy']}")
    if asked["fix"] is not None:
        fix_of(asked)


def asked_for(item: pytest.Item) -> Asked:
    """Return what the options and the marks of a test ask for, the nearest mark last."""
    layers = [_options(item.config)]
    for mark in reversed(list(item.iter_markers("lab_topology"))):
        given = {**mark.kwargs, **({"topology": mark.args[0]} if mark.args else {})}
        layers.append(Layer(given, "lab_topology({}=...)".format))
    return Asked(tuple(layers))


def _options(config: pytest.Config) -> Layer:
    """Return what the options say; a file is where pytest was started."""
    given: dict[str, object] = {key: config.getoption(f"lab_{key}") for key in (*KEYS, *setting_keys())}
    for key in ("kube_proxy_config", "kube_proxy"):
        if file := given.get(key):
            given[key] = config.invocation_params.dir / str(file)
    return Layer(given, lambda word: f"--lab-{word.replace('_', '-')}")


def setting_keys() -> Iterable[str]:
    """Return the names of the settings of kube-proxy that may be given of a topology."""
    from lab.kubeproxy.settings import SETTINGS, TOPOLOGYS

    return [SETTINGS[field].word for field in TOPOLOGYS]


# --- what they mean ---------------------------------------------------------------------------------


def lab_of(asked: Asked, directory: Path) -> tuple[Topology, Family | None, Fix, str | None]:
    """Return what a lab is built from: topology, address family, fix and the Service to ask.

    :param directory: where relative paths begin.
    :raises InputError: for the first that cannot be.
    """
    from lab.topology.with_settings import with_proxy

    topology = topology_of(asked["topology"] or "kube-proxy", directory)
    topology = with_proxy(topology, *proxy_of(asked), with_program(asked, settings_of(asked, directory), directory))
    return topology, family_of(asked), fix_of(asked), service_of(asked)


def proxy_of(asked: Asked) -> ProxyChoice:
    """Return mode, version and backend of the nodes' kube-proxy, None for what nobody asks for."""
    from lab.kubeproxy.releases import find_release

    version = asked["proxy_version"]
    with asked.place("proxy_version"):
        name = None if version is None else find_release(str(version)).name
    return _choice(ProxyMode, asked, "proxy_mode"), name, _choice(Backend, asked, "backend")


def settings_of(asked: Asked, directory: Path) -> Settings:
    """Return the settings of the nodes' kube-proxy.

    :raises InputError: one is not known, or its value cannot be.
    """
    from lab.kubeproxy.configuration import read_configuration
    from lab.kubeproxy.said import NOTHING_SAID, from_words
    from lab.kubeproxy.settings import find_word

    file = asked["kube_proxy_config"]
    read = NOTHING_SAID if file is None else read_configuration(str(directory / str(file)))
    for layer in asked.layers:
        its = {key: value for key, value in layer.values.items() if key not in {*KEYS, "topology"}}
        read += from_words({find_word(key).field: value for key, value in its.items()}, _by_word(layer))
    return read


def with_program(asked: Asked, settings: Settings, directory: Path) -> Settings:
    """Return the settings, and with them the kube-proxy program that is asked for; it is asked for its version.

    :raises InputError: it is no kube-proxy.
    """
    if asked["kube_proxy"] is None:
        return settings
    with asked.place("kube_proxy"):
        return dataclasses.replace(settings, program=_program(str(directory / str(asked["kube_proxy"]))))


@cache
def _program(path: str) -> ProxyProgram:
    from lab.fabric.program import ask_version
    from lab.kubeproxy.program import ProxyProgram

    return ProxyProgram(path, ask_version(path))


def _by_word(layer: Layer) -> Called:
    return lambda row: layer.called(row.word)


def family_of(asked: Asked) -> Family | None:
    """Return the address family, None where nobody asks for one."""
    return _choice(Family, asked, "family")


def fix_of(asked: Asked) -> Fix:
    """Return the fix; none where nobody asks for one."""
    from lab import fixes

    fix = asked["fix"] or fixes.NONE
    with asked.place("fix"):
        return fix if isinstance(fix, fixes.Fix) else fixes.find(str(fix))


def service_of(asked: Asked) -> str | None:
    """Return the name of the Service to ask, None for the first."""
    return None if asked["service"] is None else str(asked["service"])


def topology_of(reference: object, directory: Path) -> Topology:
    """Return the topology that a name, a file, YAML text or a Topology stands for."""
    from lab.topology.model import Topology

    if isinstance(reference, Topology):
        return reference
    if isinstance(reference, str | Path):
        return _read(reference, directory)
    raise InputError(f"no topology: {reference!r}", cure="give a name, a file, YAML text or a Topology")


def _choice(kind: type[Choice], asked: Asked, key: str) -> Choice | None:
    value = asked[key]
    if value is None or value in list(kind):
        return None if value is None else kind(str(value))
    with asked.place(key):
        raise InputError(f"there is no {value!r}", cure=nearest(str(value), kind))


@cache
def _read(reference: str | Path, directory: Path) -> Topology:
    from lab.topology.reader import load, parse, shipped

    if isinstance(reference, str) and "\n" in reference:
        return parse(reference)
    path = directory / reference
    if reference in dict(shipped()) or not (path.exists() or path.suffix):
        return load(str(reference))
    return load(path)
