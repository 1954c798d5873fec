# SPDX-License-Identifier: MIT
"""Which flows somebody wants to see: those with an address at one of their ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self

from lab.errors import InputError

if TYPE_CHECKING:
    from lab.observed.flows import Flow

#: An end as it is written; an address of IPv6 without a port is none of these.
_END: Final = re.compile(r"(?:\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<address>[0-9.]+)|(?=:\d))(?::(?P<port>[0-9]+))?")


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
        matched = _END.fullmatch(text)
        try:
            address = (matched["bracketed"] or matched["address"] or "") if matched else text
            found = cls(str(ip_address(address)) if address else "", _port(matched["port"] if matched else None))
        except ValueError:
            cure = "write 10.0.0.1, 10.0.0.1:80, [fd00::1]:80 or :80"
            raise InputError(f"{text!r} is no address", cure=cure) from None
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


def _port(text: str | None) -> int | None:
    number = int(text) if text else None
    if number is not None and not 0 < number < 1 << 16:
        raise ValueError(text)
    return number
