# SPDX-License-Identifier: MIT
"""The settings of a node by which its conntrack judges, and lists of them: what `sysctl -a` prints, or `lab collect`.

What they mean: Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from lab.capture.explanation import Remark
from lab.errors import InputError
from lab.kubeproxy.sysctls import CLOSE_WAIT, ESTABLISHED
from lab.kubeproxy.sysctls import KERNELS as KUBE_PROXYS

#: As `sysctl`, files below /etc/sysctl.d and `grep -r . /proc/sys/net` have them, and what older kernels call them.
_LINE: Final = re.compile(r"-?(?:/proc/sys/)?((?:net|kernel|fs|vm|user|dev|debug|abi|crypto)[./][^\s=:]+) ?[=:]\s?(.*)")
_OURS: Final = re.compile(r"net/(?:netfilter/nf|ipv4/netfilter/ip)_conntrack_tcp_(\w+)")
_TIMEOUTS: Final = MappingProxyType(
    {
        **{name: name.upper() for name in ("syn_sent", "syn_recv", "established", "fin_wait", "close_wait")},
        **{name: name.upper() for name in ("last_ack", "time_wait", "close", "syn_sent2", "unacknowledged")},
    }
)


@dataclass(frozen=True)
class Sysctls:
    """What a node has set; the kernel's defaults where nothing is known.

    :param be_liberal: nothing is INVALID by the window (``nf_conntrack_tcp_be_liberal``).
    :param loose: an entry is made of packets from the middle of a connection (``nf_conntrack_tcp_loose``).
    :param ignores_wrong_resets: (``nf_conntrack_tcp_ignore_invalid_rst``).
    :param timeouts: how long an entry lives without a packet, in seconds, by its state, as far as it is told; of one
        with something not acknowledged it is no more than ``UNACKNOWLEDGED``.
    """

    be_liberal: bool = False
    loose: bool = True
    ignores_wrong_resets: bool = False
    timeouts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def lives(self, state: str) -> int:
        """Return how long an entry lives in a state, in seconds: by what is set, or by the kernel's default."""
        return self.timeouts.get(state, KERNELS[state])


#: The kernel's own timeouts, in seconds (tcp_timeouts of nf_conntrack_proto_tcp.c), with those that kube-proxy sets.
KERNELS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "SYN_SENT": 120,
        "SYN_RECV": 60,
        "ESTABLISHED": KUBE_PROXYS[ESTABLISHED],
        "FIN_WAIT": 120,
        "CLOSE_WAIT": KUBE_PROXYS[CLOSE_WAIT],
        "LAST_ACK": 30,
        "TIME_WAIT": 120,
        "CLOSE": 10,
        "SYN_SENT2": 120,
        "UNACKNOWLEDGED": 300,
    }
)
DEFAULTS: Final = Sysctls()
_SWITCHES: Final[Mapping[str, Callable[[Sysctls, int], Sysctls]]] = MappingProxyType(
    {
        "be_liberal": lambda one, value: replace(one, be_liberal=value != 0),
        "loose": lambda one, value: replace(one, loose=value != 0),
        "ignore_invalid_rst": lambda one, value: replace(one, ignores_wrong_resets=value != 0),
    }
)
#: What is said of a switch that is not as the kernel has it.
_MEANINGS: Final = {
    ("be_liberal", True): "nothing of TCP is INVALID by the window there",
    ("loose", False): "what comes from the middle of a connection without an entry makes none there: it is INVALID",
    ("ignore_invalid_rst", True): "a RST behind what was acknowledged is let through there",
}


@dataclass(frozen=True)
class Setting:
    """One of those that are used.

    :param name: behind ``nf_conntrack_tcp_``.
    :param line: of its file.
    """

    name: str
    value: int
    file: str
    line: int

    @property
    def state(self) -> str:
        """The state of which it is the timeout; empty where it is none."""
        return _TIMEOUTS.get(self.name.removeprefix("timeout_"), "") if self.name.startswith("timeout_") else ""


class Listed:
    """The sysctls of one file.

    :ivar used: those by which is judged; ``others``: how many are of no interest here.
    """

    def __init__(self, file: str) -> None:
        self.used: list[Setting] = []
        self.others = 0
        self.first = 0
        self._file = file

    def take(self, text: str, number: int) -> bool:
        """Take a line into account; return whether it is of a list of sysctls.

        :raises InputError: it is one by which is judged, and its value is no number.
        """
        if text.startswith("sysctl: "):  # what could not be read
            return True
        found = _LINE.fullmatch(text.strip())
        if found is None:
            return False
        self.first = self.first or number
        ours = _OURS.fullmatch(found[1].replace(".", "/"))
        setting = Setting(ours[1], 0, self._file, number) if ours else None
        if setting is None or not (setting.name in _SWITCHES or setting.state):
            self.others += 1
            return True
        try:
            self.used.append(replace(setting, value=int(found[2])))
        except ValueError:
            words = f"{found[1]}: {found[2]!r} is no number"
            raise InputError(words, source=self._file, line=number, cure="give what `sysctl -a` prints") from None
        return True

    def check(self) -> None:
        """Refuse a list by which nothing can be judged.

        :raises InputError: it has sysctls, and none that conntrack judges TCP by.
        """
        if self.others and not self.used:
            words = "has sysctls in it, and none by which conntrack judges TCP"
            cure = "sysctl -a | grep nf_conntrack_tcp"
            raise InputError(words, source=self._file, line=self.first, cure=cure)

    @property
    def notes(self) -> Iterator[str]:
        """What was not used, in a sentence."""
        if self.used and self.others:
            yield (
                f"{self._file}: of {len(self.used) + self.others:,} sysctls {len(self.used)} are used, by which"
                " conntrack judges TCP; the others change nothing of what is told here"
            )


def put_together(lists: Iterable[Listed]) -> tuple[Sysctls, tuple[Setting, ...]]:
    """Return what a node has set by one or more lists, and the settings.

    :raises InputError: two of them have different values for one.
    """
    known: dict[str, Setting] = {}
    for one in lists:
        for setting in one.used:
            before = known.setdefault(setting.name, setting)
            if before.value != setting.value:
                words = (
                    f"nf_conntrack_tcp_{setting.name} is {setting.value} here, and {before.value} in {before.file},"
                    f" line {before.line}"
                )
                cure = "explain what is of one node by itself, with that node's sysctls"
                raise InputError(words, source=setting.file, line=setting.line, cure=cure)
    made = DEFAULTS
    for setting in known.values():
        switch = _SWITCHES.get(setting.name)
        made = switch(made, setting.value) if switch else made
    timeouts = {setting.state: setting.value for setting in known.values() if setting.state}
    return replace(made, timeouts=MappingProxyType(timeouts)), tuple(known.values())


def remarks(settings: Iterable[Setting]) -> Iterator[Remark]:
    """Yield what follows from settings that are not the kernel's own, or that all of a file are."""
    settings = tuple(settings)
    for file in dict.fromkeys(one.file for one in settings):
        found = list(_remarks(one for one in settings if one.file == file))
        if not found:
            words = "the sysctls by which conntrack judges TCP are the kernel's defaults"
            first = next(one.line for one in settings if one.file == file)
            found.append(Remark(file, "sysctls", words, (first,), 1, is_wrong=False))
        yield from found


def _remarks(settings: Iterable[Setting]) -> Iterator[Remark]:
    for one in settings:
        meaning = _MEANINGS.get((one.name, one.value != 0))
        words = f"nf_conntrack_tcp_{one.name}={one.value}: "
        if meaning is not None:
            yield Remark(one.file, "sysctl", f"{words}{meaning}", (one.line,), 1, is_wrong=False)
        elif one.state and one.value != KERNELS[one.state]:
            of = "with something not acknowledged" if one.state == "UNACKNOWLEDGED" else f"in {one.state}"
            what = f"an entry {of} lives {one.value:,} s there; the kernel's default is {KERNELS[one.state]:,} s"
            yield Remark(one.file, "sysctl", f"{words}{what}", (one.line,), 1, is_wrong=False)
