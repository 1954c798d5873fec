# SPDX-License-Identifier: MIT
"""Explaining captures and text: from their packets and lines to what is to be told of them."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.capture import asked, icmp
from lab.capture.datagrams import Datagrams
from lab.capture.explanation import Explanation, Place, Remark
from lab.capture.fitting import fitting
from lab.capture.following import Follower
from lab.capture.frames import Frame
from lab.capture.headers import quoted_ends
from lab.capture.joined import Entries
from lab.capture.kernel_log import Logged
from lab.capture.listing import Listed
from lab.capture.naming import Naming
from lab.capture.order import in_order
from lab.capture.reader import Reader
from lab.capture.remarks import Owners, remarks
from lab.capture.sysctls import put_together
from lab.capture.sysctls import remarks as of_sysctls
from lab.capture.telling import Abridged, Telling
from lab.capture.text import Text
from lab.capture.unseen import unseen
from lab.errors import InputError
from lab.evidence.packet import UDP, SocketAddress
from lab.reasons import Release
from lab.vocabulary import Behaviour


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
    files, lined = tuple(one.name for one in readers), tuple(one.name for one in readers if one.is_text)
    named = Naming(files, lined)
    abridged = Abridged()
    guessed = {(text.name, number) for text in texts for number in text.printed.unnumbered}
    telling, datagrams = Telling(abridged, behaviour, named, guessed), Datagrams()
    follower = Follower(behaviour, datagrams, telling, translations, sysctls, sparing=not wanted)
    everybody = _Everybody(follower, datagrams)
    seen: dict[Logged, Place] = {}
    notes = [note for text in texts for note in text.notes]
    with _uncollected():
        for frame, file in in_order(readers, everybody.follower.plain, notes):
            everybody.see(frame, file)
            if wanted and frame.packet.tcp is not None:
                _look(frame, file, wanted, seen)
    _refuse_bare(readers)
    notes += [*(note for reader in readers for note in reader.notes), *everybody.notes]
    last = max((reader.last for reader in readers if reader.last is not None), default=None)
    follower.tell(last)
    notes += telling.notes
    for number, one in enumerate(asked.explained(datagrams.exchanges, named, last)):
        abridged.add(number, one)
    entries = Entries(texts, named)
    where = {logged: named.in_full(place) for logged, place in seen.items()}
    owners = _owners(entry for _name, entry in listed.values())
    told = tuple(entries.join(one) for one in abridged.kept)
    notes += unseen(told, texts)
    return Explanation(
        behaviour=behaviour,
        packets=sum(reader.read for reader in readers) + everybody.follower.plain.taken + datagrams.taken,
        connections=told,
        notes=tuple(notes),
        files=files,
        printed=lined,
        counted=tuple(abridged.counted),
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
        if self.follower.forgotten:
            yield (
                f"{self.follower.forgotten:,} connections were given up before the capture's end, to bound memory: what"
                " was found of them by then is told, and what came later as of others"
            )
        if self.datagrams.forgotten:
            yield (
                f"{self.datagrams.forgotten:,} exchanges by UDP that came first were given up, to bound memory:"
                f" {self.datagrams.open:,} of them had questions that nobody had answered, and are not told"
            )


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
