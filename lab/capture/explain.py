# SPDX-License-Identifier: MIT
"""Explaining captures and text: from their packets and lines to what is to be told of them."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from lab.capture import asked, icmp
from lab.capture.connection import Connection
from lab.capture.datagrams import Datagrams
from lab.capture.explanation import Explanation, Place, Remark
from lab.capture.findings import explained
from lab.capture.fitting import fitting
from lab.capture.following import Follower
from lab.capture.frames import Frame
from lab.capture.headers import quoted_ends
from lab.capture.joined import Entries
from lab.capture.kernel_log import Logged
from lab.capture.listing import Listed
from lab.capture.naming import Naming
from lab.capture.order import in_order
from lab.capture.ordinary import Ordinary
from lab.capture.reader import Reader
from lab.capture.remarks import Owners, remarks
from lab.capture.sysctls import put_together
from lab.capture.sysctls import remarks as of_sysctls
from lab.capture.text import Text
from lab.capture.unseen import unseen
from lab.capture.ways import Missed
from lab.errors import InputError
from lab.evidence.packet import UDP, SocketAddress
from lab.reasons import Release
from lab.vocabulary import Behaviour

_SHOWN: Final = 5  # connections with gaps, and gaps of each


def explain(
    readers: Sequence[Reader],
    behaviour: Behaviour,
    texts: Sequence[Text] = (),
    *,
    assumed: bool = False,
    release: Release | None = None,
) -> Explanation:
    """Return what captures tell, which are of one time and so are read as one, and what text tells beside them.

    :param assumed: nobody said how the kernel judges: what depends on it is answered for both kinds in text.
    :param release: the node's kernel, where somebody said which: what others write alone contradicts that.
    :raises InputError: one of them is none, or broken; or none has a packet.
    """
    readers = [*readers, *printed(texts, alone=not readers)]
    listed = {entry.key: (text.name, entry) for text in texts for entry in text.entries if entry.protocol == "tcp"}
    sysctls, settings = put_together(text.sysctls for text in texts)
    wanted = {_key(line.packet): line.packet for text in texts for line in text.log if line.packet}
    translations = _translations(entry for _name, entry in listed.values())
    datagrams = Datagrams()
    everybody = _Everybody(Follower(behaviour, datagrams, translations, sysctls, sparing=not wanted), datagrams)
    seen: dict[Logged, Place] = {}
    files, lined = tuple(one.name for one in readers), tuple(one.name for one in readers if one.is_text)
    named = Naming(files, lined)
    notes = [note for text in texts for note in text.notes]
    with _uncollected():
        for frame, file in in_order(readers, everybody.follower.plain, notes):
            everybody.see(frame, file)
            if wanted and frame.packet.tcp is not None:
                _look(frame, file, wanted, seen)
    _refuse_bare(readers)
    notes += [*(note for reader in readers for note in reader.notes), *everybody.notes]
    last = max((reader.last for reader in readers if reader.last is not None), default=None)
    guessed = {(text.name, number) for text in texts for number in text.printed.unnumbered}
    lacks = _Lacks()
    connections = [
        one.explained() if isinstance(one, Ordinary) else explained(one, behaviour, named, guessed, last)
        for one in lacks.of(everybody.follower.connections)
    ]
    notes += lacks.notes(named)
    entries = Entries(texts, named)
    where = {logged: named.in_full(place) for logged, place in seen.items()}
    owners = _owners(entry for _name, entry in listed.values())
    told = (
        *(entries.join(one) for one in connections),
        *asked.explained(everybody.datagrams.exchanges, named, last),
    )
    notes += unseen(told, texts)
    return Explanation(
        behaviour=behaviour,
        packets=sum(reader.read for reader in readers) + everybody.follower.plain.taken + datagrams.taken,
        connections=told,
        notes=tuple(notes),
        files=files,
        printed=lined,
        remarks=(
            *fitting(_of_texts(texts, None if assumed else behaviour, release, where, owners), texts, told, named),
            *of_sysctls(settings),
        ),
    )


def _refuse_bare(readers: Sequence[Reader]) -> None:
    """Refuse captures of which none has a packet; one beside others tells that nothing came there.

    :raises InputError: none has.
    """
    if not readers or not all(reader.is_bare for reader in readers):
        return
    first = readers[0]
    if first.is_empty:
        raise InputError("is empty", source=first.name, cure="give a capture: pcap or pcapng")
    raise InputError("has no packet in it", source=first.name, cure="capture with less of a filter, or longer")


def _of_texts(
    texts: Iterable[Text],
    behaviour: Behaviour | None,
    release: Release | None,
    where: Mapping[Logged, str],
    owners: Owners,
) -> Iterator[Remark]:
    for text in texts:
        yield from remarks(text, behaviour, where, owners, release)


@dataclass
class _Everybody:
    """Those who follow what is captured.

    :ivar strangers: ICMP errors about packets that were not seen.
    """

    follower: Follower
    datagrams: Datagrams
    strangers: int = 0

    def see(self, frame: Frame, file: str) -> None:
        """Give a packet to whom it concerns."""
        if frame.packet.tcp is not None:
            self.follower.see(frame, file)
        elif frame.packet.protocol == UDP:
            self.datagrams.see(frame, file)
        else:
            quoted = quoted_ends(frame.data, frame.at)
            assert quoted is not None
            owner = self.follower.of(frame.section, *quoted) or self.datagrams.of(frame.section, *quoted)
            if owner is not None:
                icmp.take(owner, frame, file)
            else:
                self.strangers += 1

    @property
    def notes(self) -> Iterator[str]:
        """What whoever reads on has to know, in sentences."""
        if self.strangers:
            yield f"ICMP errors about packets that are not there: {self.strangers:,}"
        forgotten = self.follower.forgotten + self.datagrams.forgotten
        if forgotten:
            yield f"{forgotten:,} connections that came first were given up, to bound memory"


@dataclass
class _Lacks:
    """What is missing of connections.

    :ivar unscaled: how windows are scaled is not known of one.
    :ivar gaps: of which the capture has gaps, and ``missed``: packets that one point has and not one before it.
    """

    unscaled: bool = False
    gaps: list[Connection] = field(default_factory=list)
    missed: list[tuple[Connection, Missed]] = field(default_factory=list)

    def of(self, connections: Iterable[Connection | Ordinary]) -> Iterator[Connection | Ordinary]:
        """Yield connections, and take each into account when it has been told of."""
        for one in connections:
            yield one
            self.unscaled = self.unscaled or (one if isinstance(one, Ordinary) else one.conntrack).unscaled
            if isinstance(one, Connection) and one.gaps.found:
                self.gaps.append(one)
            if isinstance(one, Connection):
                self.missed += [(one, missed) for missed in one.ways.missed()]

    def notes(self, named: Naming) -> Iterator[str]:
        """Yield it in sentences."""
        if self.unscaled:
            yield (
                "the SYN's options were cut off by the snaplen (tcpdump -s 96 keeps them): how windows are scaled is"
                " not known, and they are taken to be as large as they can be"
            )
        for one in self.gaps[:_SHOWN]:
            missing = [gap.words(named) for gap in one.gaps.found[:_SHOWN]]
            more = f", and {len(one.gaps.found) - _SHOWN:,} more" if len(one.gaps.found) > _SHOWN else ""
            yield (
                f"{one.client} > {one.target}: the capture has a gap: {', '.join(missing)}{more} are not in it; what"
                " rests on them is not judged"
            )
        if len(self.gaps) > _SHOWN:
            yield f"the capture has gaps in {len(self.gaps) - _SHOWN:,} connections more"
        for one, missed in self.missed[:_SHOWN]:
            yield f"{one.client} > {one.target}: {missed.words(named)}"
        if len(self.missed) > _SHOWN:
            count = sum(missed.packets.count for _one, missed in self.missed[_SHOWN:])
            yield f"so did {count:,} packets of other connections"


def _key(packet: Logged) -> tuple[object, ...]:
    return (packet.source, packet.destination, packet.sequence, packet.acknowledgement, (packet.flags or 0) & 0x3F)


def _look(frame: Frame, file: str, wanted: dict[tuple[object, ...], Logged], seen: dict[Logged, Place]) -> None:
    """Note where a packet that a line of a log is about is in a capture."""
    packet, tcp = frame.packet, frame.packet.tcp
    assert tcp is not None
    found = wanted.get((packet.source, packet.destination, tcp.sequence, tcp.acknowledgement, tcp.flags))
    if found is not None:
        seen.setdefault(found, Place(file, frame.number, frame.time, frame.interface))


def printed(texts: Sequence[Text], *, alone: bool) -> Iterator[Reader]:
    """Yield the captures that tcpdump's text was printed from.

    :raises InputError: several are to be read as one, and the times of one have no day.
    """
    printed = [text.printed for text in texts if text.printed.numbers]
    for one in printed:
        if not one.dated and not (alone and len(printed) == 1):
            raise InputError(
                "its times have no day, and so have no order with those of the others",
                source=one.name,
                cure="tcpdump -n -tttt",
            )
        yield Reader(io.BufferedReader(io.BytesIO(one.capture())), one.name, one.numbers)


def _translations(entries: Iterator[Listed]) -> dict[tuple[SocketAddress, SocketAddress], Listed]:
    found = {}
    for entry in entries:
        if entry.is_translated:
            found[entry.original] = found[entry.reply[::-1]] = entry
    return found


def _owners(entries: Iterable[Listed]) -> dict[tuple[SocketAddress, SocketAddress], str]:
    """Return whose the packets between two addresses are, in words, as far as entries that translate tell."""
    found = {}
    for entry in entries:
        (client, target), (endpoint, peer) = entry.original, entry.reply
        if endpoint != target:
            whole = f"{client} > {target}"
            found[client, endpoint] = f"of {whole}, and sent past the VIP: a RST there answers a packet that leaked"
            found[endpoint, peer] = f"from the endpoint of {whole}"
            found[client, target] = f"its entry leads to {endpoint}"
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Have no garbage looked for meanwhile: there is little in circles, and looking took a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
