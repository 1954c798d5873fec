# SPDX-License-Identifier: MIT
"""How an outcome looks, whatever it is written in."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from lab.tones import FINE, HARMLESS, OOPS
from lab.verdict import Outcome


class Tone(StrEnum):
    """How a cell looks, by what became of the connection."""

    FINE = "fine"
    HARMLESS = "harmless"
    HARMFUL = "harmful"
    NOTHING = "nothing"


#: A terminal's style of each.
STYLES: Final = {Tone.FINE: FINE, Tone.HARMLESS: HARMLESS, Tone.HARMFUL: OOPS, Tone.NOTHING: ""}

# By name; an outcome that is not here ends a connection or a question.
_TONES: Final[dict[str, Tone]] = {
    "connected": Tone.FINE,
    "delivered": Tone.FINE,
    "dropped": Tone.FINE,
    "leaked": Tone.HARMLESS,
    "retried": Tone.HARMLESS,
}


def tone_of(outcome: Outcome) -> Tone:
    """Return how an outcome looks."""
    return _TONES.get(outcome, Tone.HARMFUL)


def style_of(outcome: Outcome) -> str:
    """Return an outcome's style in a terminal."""
    return STYLES[tone_of(outcome)]
