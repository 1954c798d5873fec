"""A reset in the window that is not exact."""

from __future__ import annotations

from typing import Final

from lab.cases.case import ACCEPTED_ALWAYS, Case, on_every_kernel
from lab.stage import Stage


async def _play(stage: Stage) -> None:
    await stage.establish()
    await stage.inject(stage.from_server(1, flags="R"))
    await stage.go_on()


CASE: Final = Case(
    name="reset-inexact",
    title="a RST from the server one number ahead",
    story=(
        "It is in the window, so conntrack accepts and translates it. The client's kernel takes only the "
        "exact number for a reset and answers with a challenge acknowledgement. Conntrack however has taken "
        "it for the end, and shortens the entry's life until more traffic comes."
    ),
    threads=(
        "RFC 5961, 3.2",
        "torvalds/linux be0502a3f2e9",
    ),
    play=_play,
    expectations=on_every_kernel(ACCEPTED_ALWAYS),
)
