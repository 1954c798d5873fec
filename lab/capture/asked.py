# SPDX-License-Identifier: MIT
"""What there is to tell of datagrams when all of them are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeAlias

from lab.capture import hops, icmp
from lab.capture.brief import Brief
from lab.capture.exchange import Datagram, Exchange
from lab.capture.explanation import Explained, Finding, Place, Point
from lab.capture.naming import Naming
from lab.verdict import Outcome

_SHOWN: Final = 5  # packets of one kind
_AT_ONCE: Final = 1_000_000_000  # ns between two of several clients that may have been in a race
_TOGETHER: Final = 1_000_000  # ns between two of one socket, of which a resolver sends A and AAAA one after the other
#: Ports to which datagrams go and nothing comes back: discard, SNMP traps, syslog, NetFlow, IPFIX, sFlow, Jaeger,
#: StatsD, GELF.
_ONE_WAY: Final = frozenset({9, 162, 514, 2055, 4739, 6343, 6831, 6832, 8125, 12201})


#: A question, and its answer, which did not come back.
_Lost: TypeAlias = tuple[Datagram, Datagram]


@dataclass(frozen=True)
class _Others:
    """What is known of everybody who asked one address.

    :param masqueraded: by the port that they are masqueraded to.
    :param is_translated: whether anybody's questions were seen going elsewhere.
    :param on_the_way: where these were seen before that.
    """

    masqueraded: dict[int, list[Exchange]]
    is_translated: bool
    on_the_way: frozenset[Point]


def explained(exchanges: Iterable[Exchange | Brief], named: Naming, last: int | None = None) -> Iterator[Explained]:
    """Yield what each exchange's datagrams tell of it, and of the others'.

    :param last: when the capture ended, in nanoseconds.
    """
    every = list(exchanges)
    alike: dict[tuple[object, ...], list[Exchange]] = defaultdict(list)
    for one in every:
        if isinstance(one, Exchange):  # of a brief one there is nothing that would tell of others
            alike[one.section, one.target].append(one)
    others = {target: _others(ones) for target, ones in alike.items()}
    for one in every:
        if isinstance(one, Brief) and not (one.waiting or one.unanswered):
            yield one.explained()
        else:
            whole = one.tell() if isinstance(one, Brief) else one  # not kept: there may be many
            yield _explained(whole, others.get((whole.section, whole.target), _NOBODY), named, last)


_NOBODY: Final = _Others({}, is_translated=False, on_the_way=frozenset())


def _others(exchanges: list[Exchange]) -> _Others:
    masqueraded: dict[int, list[Exchange]] = defaultdict(list)
    for one in exchanges:
        for peer in one.peers:
            masqueraded[peer.port].append(one)
    on_the_way = frozenset[Point]().union(*(one.on_the_way for one in exchanges))
    return _Others(masqueraded, any(one.endpoints for one in exchanges), on_the_way)


def _explained(one: Exchange, others: _Others, named: Naming, last: int | None) -> Explained:
    endpoint = next(reversed(one.endpoints), None)
    lost = one.lost(last)
    lacks = _lacks_answers(one, lost)
    return Explained(
        client=one.client,
        target=one.target,
        endpoint=endpoint,
        peer=next(reversed(one.peers), one.client),
        begins=True,
        packets=one.count,
        points=named.points(one.points),
        section=one.section,
        outcome=_outcome(one, lacks=lacks),
        findings=(
            *_strange(one, named),
            *_doubled(one, named),
            *icmp.findings(one, named),
            *(_unanswered(one, lost, others, named) if lacks else ()),
        ),
        untold=tuple(_untold(one, named)),
        protocol="UDP",
    )


def _untold(one: Exchange, named: Naming) -> Iterator[str]:
    if one.again is not None and not any(datagram.doubled for datagram in one.odd):
        yield (
            f"Packet {named.where(one.again)} is there once more: a copy that came along, or the same on its way out"
            " again. A capture without link headers does not tell which way a frame went (`lab show"
            " promiscuous-bridge`)."
        )


def _outcome(one: Exchange, *, lacks: bool) -> Outcome:
    if any(datagram.doubled for datagram in one.odd):
        return Outcome.DUPLICATED
    if any(datagram.leaked for datagram in one.odd):
        return Outcome.LEAKED
    if any(error.is_refusal for error in one.errors.values()):
        return Outcome.REFUSED
    return Outcome.LOST if lacks else Outcome.DELIVERED


def _lacks_answers(one: Exchange, lost: Sequence[_Lost]) -> bool:
    """Check whether somebody waits for an answer: of DNS each question has one, of others nobody knows."""
    address = ip_address(one.target.address)
    if address.is_multicast or one.target.address.endswith(".255") or one.target.port in _ONE_WAY:
        return False
    came = one.answers - (len(lost) + one.unreturned if lost else 0)
    return bool(one.waiting or one.unanswered or lost) and (one.target.port == 53 or came <= 0)


def _strange(one: Exchange, named: Naming) -> Iterator[Finding]:
    for datagram in one.odd:
        leaked = datagram.leaked
        if leaked is not None:
            words = (
                f"an answer from a stranger: {named.where(leaked)} comes from {datagram.packet.source}, and the"
                f" client only knows {one.target}; its socket does not take that"
            )
            yield Finding("leak", words, (datagram.places[0], leaked), hops=hops.of_datagram(one, datagram))


def _doubled(one: Exchange, named: Naming) -> Iterator[Finding]:
    for datagram in one.odd:
        twice = datagram.doubled
        if twice is not None:
            where = f" at {twice.point}" if twice.point else ""
            words = f"{named.packet(twice)} is the same as before once more{where}: a copy came along as well"
            yield Finding("duplicate", words, (datagram.places[0], twice), case="promiscuous-bridge")


def _unanswered(one: Exchange, lost: Sequence[_Lost], others: _Others, named: Naming) -> Iterator[Finding]:
    if any(datagram.leaked for datagram in one.odd):
        return
    for question, answer in lost[:_SHOWN]:
        first, last = question.places[0], answer.places[-1]
        words = (
            f"{named.packet(first)}, {question.packet.payload_length:,} bytes: its answer did not come back to where it"
            f" was asked: lost, dropped, or not captured; the answer was seen last {_seen(last, named)}"
        )
        yield Finding("unanswered", words, (first, *answer.places[:_SHOWN]))
    for question in one.waiting[:_SHOWN]:
        last = question.places[-1]
        where = f"; it was seen last {_seen(last, named)}" if last.point or last != question.places[0] else ""
        why, case = _why(one, question, others)
        words = f"{named.packet(question.places[0])}, {question.packet.payload_length:,} bytes: no answer{where}{why}"
        yield Finding("unanswered", words, tuple(question.places[:_SHOWN]), case=case)
    more = max(len(one.waiting) - _SHOWN, 0) + one.unanswered
    more += max(len(lost) - _SHOWN, 0) + (one.unreturned if lost else 0)
    if more > 0:
        yield Finding("unanswered", f"{more:,} more are not answered", ())


def _seen(place: Place, named: Naming) -> str:
    return f"at {place.point} ({named.packet(place)})" if place.point else f"as {named.packet(place)}"


_RACES: Final = "; {} at the same time{}: a race, which the later one loses"


def _why(one: Exchange, question: Datagram, others: _Others) -> tuple[str, str]:
    """Return why a question may have no answer, in words, and the case that it is."""
    sent = question.places[0].time
    if one.is_untranslated(question):
        for other in others.masqueraded.get(one.client.port, ())[:_SHOWN]:
            if other is not one and _at_once(other.asked, sent, _AT_ONCE):
                return _RACES.format(f"{other.client} asked", " and is masqueraded to the same port"), "snat-port-race"
        if others.is_translated and {form[0] for form in question.forms} <= others.on_the_way:
            if one.endpoints and _at_once((time for time in one.asked if time != sent), sent, _TOGETHER):
                what = _RACES.format("another question left the same socket", ", and it was translated")
                return what, "dns-race-two-endpoints"
            if any(error.is_refusal for error in one.errors.values()):
                return "; the node refuses it, where others are translated: no endpoint is left", "udp-scaled-to-zero"
            return "; it came no further than to the node, where others are translated", ""
        if one.translated is not None and one.translated < sent:
            what = "; it went on untranslated, as those before it did not: the service is gone"
            return what, "udp-service-deleted"
        if others.is_translated:
            what = "; it went on untranslated, as others do not: its entry is older than the service"
            return what, "udp-before-service"
        return "", ""
    endpoint = next((address for address in one.endpoints if address in question.destinations), None)
    answered = one.answered.get(endpoint) if endpoint is not None else None
    if answered is None:
        return "", ""
    whom = f"; {endpoint}, to whom its entry leads, answered"
    if answered > sent:
        return f"{whom} others later, so it is there", ""
    if any(other.places[0].time < answered for other in one.waiting):
        return f"{whom} others before, and not all of them", ""
    return f"{whom} before: it may be gone", "stale-udp-entry"


def _at_once(times: Iterable[int], moment: int, bound: int) -> bool:
    return any(abs(time - moment) < bound for time in times)
