# SPDX-License-Identifier: MIT
"""What was said of a kube-proxy: settings with the place that said each, and whether they fit its mode and release."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from lab.errors import InputError
from lab.kubeproxy.gates import unfit_gate, warn_of_gates
from lab.kubeproxy.settings import SETTINGS, ProxySetting
from lab.kubeproxy.values import BadValueError, spell
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.kubeproxy.program import ProxyProgram
    from lab.kubeproxy.releases import Release

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
        return f"--{self.setting.option}={spell(self.value)}"


@dataclass(frozen=True)
class Settings:
    """What was said of a kube-proxy, the last word on each setting being the one that counts.

    :param mode: which mode a KubeProxyConfiguration asks for.
    :param document: that KubeProxyConfiguration as it was read.
    :param program: which kube-proxy program is to write the rules; None for the lab itself.
    """

    said: tuple[Said, ...] = ()
    mode: ProxyMode | None = None
    document: Mapping[str, Any] | None = None
    program: ProxyProgram | None = None

    def __add__(self, later: Settings) -> Settings:
        return Settings(
            self.said + later.said,
            later.mode or self.mode,
            later.document or self.document,
            later.program or self.program,
        )

    def get(self, field: str) -> Said | None:
        """Return what was said of a setting, whatever the mode."""
        return next((one for one in reversed(self.said) if one.setting.field == field), None)

    def without(self, *fields: str) -> Settings:
        """Return the others."""
        return replace(self, said=tuple(one for one in self.said if one.setting.field not in fields))

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


def plain(value: Any) -> Any:  # noqa: ANN401 - each setting has its own type
    """Return a value as :class:`~lab.kubeproxy.options.ProxyOptions` has it: networks as text."""
    return tuple(one if isinstance(one, tuple) else str(one) for one in value) if isinstance(value, tuple) else value


def unfit(setting: ProxySetting, value: object, mode: ProxyMode, release: Release) -> BadValueError | None:
    """Return why a kube-proxy of this mode and release cannot be given a value; None where it can."""
    if setting.mode not in (None, mode):
        return BadValueError(f"is for {setting.mode} mode: {mode} mode makes nothing of it", "leave it away")
    if lacking := next((change for change in setting.changes(value) if change not in release), None):
        what = "it" if lacking.name == setting.since else spell(value)
        return BadValueError(
            f"kube-proxy {release.name} does not know {what}", f"v1.{lacking.minor} is the first that does"
        )
    if setting.field != "feature_gates":
        return None
    return next(filter(None, (unfit_gate(name, on, mode, release) for name, on in value)), None)  # type: ignore[attr-defined]


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


def _is_default(one: Said) -> bool:
    from lab.kubeproxy.options import ProxyOptions

    return bool(plain(one.value) == getattr(ProxyOptions, one.setting.field))
