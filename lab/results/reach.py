# SPDX-License-Identifier: MIT
"""What became of the questions to Services, client by address, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lab.evidence.packet import SocketAddress
from lab.evidence.reach import Question, Reached, Target
from lab.verdict.reach import Expected, surprises
from lab.vocabulary import Family


@dataclass(frozen=True)
class Client:
    """A row: who asks, and where it is."""

    host: str
    place: str

    def __str__(self) -> str:
        return f"{self.host}, {self.place}"


@dataclass(frozen=True)
class Asked:
    """A column: an address of a Service.

    :param service: the Service's port, as ``namespace/name:port``.
    """

    service: str
    target: Target
    address: SocketAddress
    protocol: str

    def __str__(self) -> str:
        return f"{self.target} {self.address}/{self.protocol}"


@dataclass(frozen=True)
class Cell:
    """What became of one client's questions to one address.

    :param enough: after how many questions each endpoint would have answered.
    """

    client: Client
    asked: Asked
    reached: tuple[Reached, ...]
    expected: Expected | None
    enough: int

    @property
    def question(self) -> Question:
        """What was asked."""
        return self.reached[0].question

    @cached_property
    def surprises(self) -> tuple[str, ...]:
        """What is not as expected."""
        return tuple(surprises(self.expected, self.reached, self.enough)) if self.expected else ()

    @property
    def counts(self) -> dict[str, int]:
        """How often it was what, in words."""
        return dict(sorted(Counter(one.words for one in self.reached).items()))

    @property
    def likeness(self) -> tuple[str, ...]:
        """What another kube-proxy's cell is compared by."""
        return tuple(self.counts)


@dataclass(frozen=True)
class Reaches:
    """All cells of one lab.

    :param proxies: which kube-proxy its nodes have, such as ``iptables v1.33``.
    :param remarks: what has to be known, in sentences.
    :param again: by which options `lab trace` has the same lab; empty where it cannot.
    :param repeats: how often each question was asked by request; 0 for as often as it takes.
    """

    topology: str
    proxies: str
    family: Family
    cells: tuple[Cell, ...]
    remarks: tuple[str, ...] = ()
    repeats: int = 0
    again: str = ""

    def trace(self, cell: Cell) -> str:
        """Return the command that shows which rules a cell's packet meets; empty where there is none."""
        asked = cell.asked
        if not self.again or asked.protocol == "sctp":
            return ""
        protocol = f" --protocol {asked.protocol}" if asked.protocol != "tcp" else ""
        return f"lab trace {self.again} --from {cell.client.host} --to {asked.address}{protocol}"

    @property
    def clients(self) -> tuple[Client, ...]:
        """The rows."""
        return tuple(dict.fromkeys(cell.client for cell in self.cells))

    @property
    def asked(self) -> tuple[Asked, ...]:
        """The columns, of each Service in the order of :class:`Target`."""
        found = dict.fromkeys(cell.asked for cell in self.cells)
        services = list(dict.fromkeys(asked.service for asked in found))
        targets = list(Target)
        return tuple(sorted(found, key=lambda one: (services.index(one.service), targets.index(one.target))))

    def cell(self, client: Client, asked: Asked) -> Cell | None:
        """Return a cell; None where the client has no such question."""
        return self._by_place.get((client, asked))

    @cached_property
    def _by_place(self) -> dict[tuple[Client, Asked], Cell]:
        return {(cell.client, cell.asked): cell for cell in self.cells}

    @property
    def unexpected(self) -> Iterator[Cell]:
        """The cells that are not as expected."""
        return (cell for cell in self.cells if cell.surprises)

    @property
    def good(self) -> bool:
        """Whether each is as expected."""
        return not any(self.unexpected)


@dataclass(frozen=True)
class ReachReport:
    """Everything that one call of `lab reach` found out, or what several files of them hold.

    :param kernel: its release, as ``uname -r``.
    :param reaches: one for each kube-proxy.
    :param when: it was found out, in seconds since the epoch; 0 where nobody knows.
    :param command: what repeats it; empty likewise.
    """

    lab: str
    kernel: str
    reaches: tuple[Reaches, ...]
    when: int = 0
    command: str = ""

    @property
    def good(self) -> bool:
        """Whether each cell is as expected."""
        return all(one.good for one in self.reaches)
