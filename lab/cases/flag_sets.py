# SPDX-License-Identifier: MIT
"""Sets of flags that no stack sends: conntrack refuses them before it looks at the window."""

from __future__ import annotations

from typing import Final

from lab.cases.case import (
    KILLS_UNLESS_DROPPED,
    LEAKS_UNLESS_DROPPED,
    Case,
    Expectations,
    Injection,
    expect_number_0,
    on_every_kernel,
)
from lab.cases.demands import alone
from lab.evidence.flags import is_taken, sets
from lab.evidence.packet import flags_of
from lab.scenario import ConnectionScenario, ScriptedScenario

_REASON: Final = "invalid tcp flag combination"
_WITHOUT_NUMBER: Final = "RST,ACK"  # the answer to what acknowledges nothing: its own number is 0 (RFC 9293, 3.10.7.1)
_VALID_FLAGS: Final = "net/netfilter/nf_conntrack_proto_tcp.c, tcp_valid_flags"
_KILLS: Final = on_every_kernel(KILLS_UNLESS_DROPPED)
_LEAKS: Final = on_every_kernel(LEAKS_UNLESS_DROPPED)


def _member(
    name: str,
    title: str,
    story: str,
    flags: str,
    answer: str,
    expectations: Expectations,
    *threads: str,
    payload: bytes = b"",
) -> Case[ConnectionScenario]:
    """Return the case of one set of flags, sent by the server with exact numbers.

    :param answer: the flags of what the client's stack says to it; empty where it says nothing.
    """
    return Case(
        name=name,
        title=title,
        story=story,
        threads=(_VALID_FLAGS, *threads),
        scenario=ConnectionScenario,
        steps=Injection(
            lambda scenario: scenario.from_server(0, payload, flags=flags),
            answer=answer,
            stranger=answer,
            reason=_REASON,
            besides=expect_number_0 if answer == _WITHOUT_NUMBER else None,
        ),
        expectations=expectations,
    )


SYN_FIN: Final = _member(
    "syn-fin",
    "SYN, FIN and ACK at once, with exact numbers",
    "Conntrack refuses combinations of flags that no TCP sends, before it looks at the window. The client answers the"
    " stranger with a RST whose number is the exact one, and the server's kernel ends the connection. Being liberal is"
    " about the window and does not help here; the drop rule does.",
    "SFA",
    "RST",
    _KILLS,
)

SYN_ACK_URG: Final = _member(
    "syn-ack-urg",
    "SYN, ACK and URG at once, with exact numbers",
    "A SYN may be urgent and so may an ACK, but conntrack takes no SYN,ACK that is. It has an acknowledgement, so the"
    " stranger's RST has the exact number. Of the 23 refused sets three kill like that: this one, and SYN,FIN,ACK with"
    " and without URG.",
    "SAU",
    "RST",
    _KILLS,
)

NO_ACK: Final = _member(
    "no-ack-flag",
    "data without the ACK flag",
    "In an established connection every segment has the ACK flag, and conntrack refuses one without it. It leaks, and"
    " the client answers a segment without acknowledgement by a RST with number 0. That is not what the server waits"
    " for, so nothing happens.",
    "P",
    _WITHOUT_NUMBER,
    _LEAKS,
    "RFC 9293, 3.10.7.1",
    payload=b"no ack",
)

FIN_PSH_URG: Final = _member(
    "fin-psh-urg",
    "FIN, PSH and URG at once, as a scanner sends them",
    "Without an acknowledgement it is refused, and goes on untranslated: nmap -sX through a masquerading firewall shows"
    " the world the addresses behind it. The stranger's RST has number 0, so nothing dies.",
    "FPU",
    _WITHOUT_NUMBER,
    _LEAKS,
    "firewalld/firewalld#961",
    "RFC 9293, 3.10.7.1",
)

FIN_RST_ACK: Final = _member(
    "fin-rst-ack",
    "FIN, RST and ACK at once, with exact numbers",
    "Of the 23 refused sets 14 have RST, and no stack answers one of these. It leaks and nothing comes of it, though a"
    " RST alone with this number would have ended the client's connection.",
    "FRA",
    "",
    _LEAKS,
    "RFC 9293, 3.5.2",
)


async def _all_sets(scenario: ScriptedScenario) -> None:
    await scenario.handshake()
    sent = {letters: scenario.server.send(letters, 1) for letters in sets()}
    scenario.judge(sent["FPU"])
    judged = await scenario.judged()
    refused = {one.packet.likeness for one in judged if one.reason.startswith(_REASON)}
    invalid = {one.packet.likeness for one in judged if one.state == "invalid"}
    wanted = {packet.likeness for letters, packet in sent.items() if not is_taken(flags_of(letters))}
    others = [letters for letters, packet in sent.items() if packet.likeness in refused ^ wanted]
    scenario.expect(
        "the kernel's reason for each set that tcp_valid_flags refuses, and for no other", refused == wanted, others
    )
    scenario.expect("what is refused to be INVALID", refused <= invalid, f"{len(refused - invalid)} are not")


ALL: Final = Case(
    name="flag-sets",
    title="every set of FIN, SYN, RST, PSH, ACK and URG, one after the other",
    story=(
        "Conntrack takes nine sets, with or without PSH: SYN, SYN,URG, SYN,ACK, RST, RST,ACK, FIN,ACK, FIN,ACK,URG, ACK"
        " and ACK,URG. The other 23 are INVALID in whatever state the entry is, so NAT leaves them alone. Three of them"
        " kill, for they have ACK and no RST; six are answered by a RST of number 0, and the 14 with RST by nothing."
    ),
    threads=(_VALID_FLAGS, "firewalld/firewalld#961"),
    scenario=ScriptedScenario,
    steps=_all_sets,
    expectations=_LEAKS,
    demands=(alone,),
)

CASES: Final = (SYN_FIN, SYN_ACK_URG, NO_ACK, FIN_PSH_URG, FIN_RST_ACK, ALL)
