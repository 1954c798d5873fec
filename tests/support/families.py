"""Which cases are of one family alone."""

from __future__ import annotations

from typing import Final

#: IPv6 validates no source.
OF_IPV4: Final = frozenset({"source-filtered", "source-filtered-loosely", "source-conflicts"})
