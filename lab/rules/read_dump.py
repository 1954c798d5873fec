# SPDX-License-Identifier: MIT
"""Reads dumps of rules, whichever program printed them: what in them is kube-proxy's.

:mod:`lab.rules.pieces` cuts them out of what is around them, :mod:`lab.rules.frame` completes what is a part, and what
``nft -j list`` prints is read by :mod:`lab.rules.json_dump`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.errors import InputError
from lab.kubeproxy.nftables import table_of
from lab.rules import iptables_dump, nft_dump
from lab.rules.frame import framed
from lab.rules.pieces import CURE, Form, cut, refuse_others
from lab.vocabulary import ProxyMode

if TYPE_CHECKING:
    from lab.rules.dump import Dump
    from lab.rules.pieces import Piece
    from lab.vocabulary import Family


@dataclass(frozen=True)
class Given:
    """The rules that a file has.

    :param source: what to call it in errors.
    """

    source: str
    pieces: tuple[Piece, ...] = field(repr=False)

    @property
    def mode(self) -> ProxyMode:
        """The proxy mode of the first of them."""
        return self.pieces[0].mode

    def of_json(self) -> Piece | None:
        """Return what is nft's JSON; None where nothing is."""
        return next((one for one in self.pieces if one.form is Form.JSON), None)

    def read(self, family: Family, mode: ProxyMode | None = None) -> Dump:
        """Read what is kube-proxy's.

        :param mode: that of the first where none is given.
        :raises InputError: with the line, where it is cut off, or has nothing of kube-proxy in this family.
        """
        mode = mode or self.mode
        pieces = [one for one in self.pieces if one.mode is mode and one.form is not Form.JSON]
        if mode is ProxyMode.NFTABLES:
            of_table = [one for one in pieces if f"table {table_of(family)} {{" in one.text]
            if len(of_table) > 1:
                message = f"another dump with the table {table_of(family)} begins here"
                raise InputError(message, source=self.source, line=of_table[1].line, cure="give one of them")
            return nft_dump.read((of_table or pieces)[0].text, self.source, family)
        chosen, notes = iptables_dump.of_family(pieces, family, self.source)
        return iptables_dump.read(framed(chosen, self.source), self.source, family, notes)


def given(text: str, source: str) -> Given:
    """Find the rules in a text.

    :param source: what to call it in errors.
    :raises InputError: there are none, or something else stands among them; with the line.
    """
    pieces, others = cut(text, source)
    if others:
        refuse_others(others, source)
    if not pieces:
        raise InputError("empty: there are no rules in it", source=source, cure=CURE)
    return Given(source, tuple(pieces))


def read(text: str, source: str, family: Family) -> Dump:
    """Read a dump that is text.

    :param source: what to call it in errors.
    :raises InputError: with the line, where it is no dump, is cut off, or has nothing of kube-proxy in this family.
    """
    return given(text, source).read(family)
