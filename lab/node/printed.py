# SPDX-License-Identifier: MIT
"""What programs print of a node besides rules, known by its lines: sysctls, versions, the kernel's log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from lab.errors import InputError
from lab.topology.names import with_slashes

_SYSCTL: Final = re.compile(
    r"(?:/proc/sys/)?((?:net|kernel|fs|vm|user|dev|debug|abi|crypto)[./][^\s=:]+)\s?[=:]\s?(.*)"
)
_SYSCTL_FAILED: Final = re.compile(r"sysctl: .*")
_UNAME: Final = re.compile(r"Linux (\S+) (\d+\.\d+\S*) .*")
_IPTABLES: Final = re.compile(r"(ip6?tables) v(\S+)(?: \((\S+)\))?")
_NFT: Final = re.compile(r"nftables v(\S+).*")
_KUBE_PROXY: Final = re.compile(r"(?:Kubernetes|kube-proxy) (v\d+\.\d+\.\S+)")
_OTHER_PROGRAM: Final = re.compile(r"(conntrack|ipset|ip) (?:v|utility, iproute2-)([\d.]+)\b.*")
_CONFIG: Final = re.compile(r"(CONFIG_\w+)=(.*)")
_COUNTS: Final = re.compile(r"cpu=\d+\s+(?:\w+=\d+\s*)+")
_COUNT: Final = re.compile(r"(\w+)=(\d+)")
_STATISTICS: Final = re.compile(r"entries\s+\w+\s+found.*")
_HEXADECIMALS: Final = re.compile(r"(?:[0-9a-f]{8}\s*){6,}")
_LOGGED: Final = re.compile(r"(?:<\d+>|\[ *\d+\.\d+\]|\[\w{3} \w{3} .*\]|\w{3} +\d+ [\d:]{8} |\d{4}-\d\d-\d\d[T ]).*")


class Printed:
    """What was found.

    :param sysctls: of the network, keys with slashes.
    :param counts: of conntrack, by the names of ``conntrack -S``, over all processors.
    """

    def __init__(self) -> None:
        self.sysctls: dict[str, str] = {}
        self.programs: dict[str, str] = {}
        self.kernel = self.host = ""
        self.kernel_config: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.log: list[str] = []
        self.notes: list[str] = []
        self._columns: list[str] = []

    def read(self, lines: Sequence[str], source: str, first: int) -> None:
        """Read lines of one or more programs.

        :param first: the number of the first line.
        :raises InputError: with the line, where none of them prints such a thing.
        """
        for number, line in enumerate(lines, first):
            if not any(take(self, line) for take in _TAKING):
                message = "nothing that is known of a node"
                cure = "give what iptables-save, nft list ruleset, sysctl or ip -j print, or `lab collect`'s node.tar"
                raise InputError(message, source=source, line=number, cure=cure)

    def _sysctl(self, line: str) -> bool:
        if _SYSCTL_FAILED.fullmatch(line):
            self.notes.append(line)
            return True
        found = _SYSCTL.fullmatch(line)
        if found and (key := with_slashes(found[1])).startswith("net/"):
            self.sysctls[key] = found[2].strip()
        return found is not None

    def _kernels(self, line: str) -> bool:
        if found := _UNAME.fullmatch(line):
            self.host, self.kernel = found.groups()
            return True
        if found := _CONFIG.fullmatch(line):
            self.kernel_config[found[1]] = found[2]
            return True
        return False

    def _version(self, line: str) -> bool:
        if found := _IPTABLES.fullmatch(line):
            by = {"nf_tables": "-nft", "legacy": "-legacy"}.get(found[3] or "", "")
            self.programs.setdefault(found[1], found[2] + (f" ({found[3]})" if found[3] else ""))
            if by:
                self.programs[found[1] + by] = found[2]
        elif found := _NFT.fullmatch(line):
            self.programs["nft"] = found[1]
        elif found := _KUBE_PROXY.fullmatch(line):
            self.programs["kube-proxy"] = found[1]
        elif found := _OTHER_PROGRAM.fullmatch(line):
            self.programs[found[1]] = found[2]
        return found is not None

    def _counted(self, line: str) -> bool:
        """Take what ``conntrack -S`` prints, or /proc/net/stat/nf_conntrack has, a line for each processor."""
        if _COUNTS.fullmatch(line):
            self.counts.update({name: int(value) for name, value in _COUNT.findall(line) if name != "cpu"})
        elif _STATISTICS.fullmatch(line):
            self._columns = line.split()
        elif self._columns and _HEXADECIMALS.fullmatch(line):
            numbers = (int(word, 16) for word in line.split())
            self.counts.update(
                {name: value for name, value in zip(self._columns, numbers, strict=False) if name != "entries"}
            )
        else:
            return False
        return True

    def _logged(self, line: str) -> bool:
        if found := _LOGGED.fullmatch(line):
            self.log.append(line)
        return found is not None


_TAKING: Final[tuple[Callable[[Printed, str], bool], ...]] = (
    Printed._sysctl,
    Printed._kernels,
    Printed._version,
    Printed._counted,
    Printed._logged,
)
