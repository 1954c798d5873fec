# SPDX-License-Identifier: MIT
"""Which flows somebody wants to see: those with an address at one of their ends."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from lab.errors import InputError

if TYPE_CHECKING:
    from lab.observed.flows import Flow


@dataclass(frozen=True)
class Wanted:
    """An end that flows are to have, translated or not.

    :param address: empty for any; ``port``: None for any.
    """

    address: str = ""
    port: int | None = None

    @classmethod
    def of(cls, text: str | None) -> Self:
        """Read ``ADDRESS``, ``ADDRESS:PORT``, ``[ADDRESS]:PORT`` or ``:PORT``.

        :raises InputError: it is none.
        """
        if not text:
            return cls()
        address, port = text, ""
        if text.startswith("["):
            address, _, port = text[1:].partition("]")
            port = port.removeprefix(":")
        elif text.count(":") == 1:
            address, _, port = text.partition(":")
        try:
            number = int(port) if port else None
            found = cls(str(ip_address(address)) if address else "", number)
        except ValueError:
            number = found = None
        if found is None or (number is not None and not 0 < number < 1 << 16) or text.endswith(":"):
            cure = "write 10.0.0.1, 10.0.0.1:80, [fd00::1]:80 or :80"
            raise InputError(f"{text!r} is no address", cure=cure)
        return found

    @property
    def is_any(self) -> bool:
        """Whether every flow is wanted."""
        return not self.address and self.port is None

    def has(self, flow: Flow | None) -> bool:
        """Check whether a flow is wanted."""
        return flow is not None and any(
            self.address in ("", end.address) and self.port in (None, end.port) for end in flow.ends
        )
