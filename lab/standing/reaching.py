# SPDX-License-Identifier: MIT
"""Asking the Services of a lab that stands by real connections, and handing what came of it to whoever asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from lab.errors import InputError, LabError
from lab.evidence.reach import Target
from lab.results.reach import Reaches
from lab.trial.reach import Chosen, reach_standing
from lab.vocabulary import Family

if TYPE_CHECKING:
    import asyncio

    from lab.fabric.lab import Lab


def reach(lab: Lab, family: str | None, chosen: dict[str, Any], gone: asyncio.Future[bytes], *, traced: bool) -> str:
    """Ask everything that is chosen, and return what came of it as JSON.

    :param family: the first that the lab has, when None.
    :param chosen: a :class:`lab.trial.reach.Chosen` that came by JSON.
    :param gone: done when nobody waits for the answer any more.
    :param traced: have the kernel tell which rule decided.
    :raises InputError: nothing of the kind can be asked there.
    :raises LabError: an instrument failed, or nobody waits.
    """

    def step() -> None:
        if gone.done():
            raise LabError("nobody waits for the answer")

    asked = Family(family) if family else lab.families[0]
    if asked not in lab.families:
        raise InputError(f"this lab was built without {asked}")
    targets = tuple(Target(target) for target in chosen["targets"])
    lists = {name: tuple(chosen[name]) for name in ("clients", "protocols")}
    wanted = Chosen(**{**chosen, **lists, "targets": targets})
    return TypeAdapter(Reaches).dump_json(reach_standing(lab, asked, wanted, step, traced=traced)).decode()


def from_json(text: str) -> Reaches:
    """Return what :func:`reach` has written."""
    return TypeAdapter(Reaches).validate_json(text)
