"""Walks from events and rules alone: what is told, what is folded away, and whom it names."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from lab.errors import LabError
from lab.evidence.traced import BaseChain, Chain, Told, TraceEvent, walk_of
from lab.evidence.walk import Place, Rule
from lab.report.walks import drawn

FAMILY = "ip"


class Rules:
    """Rules of one table, by chain; handles count from 100."""

    def __init__(self, **chains):
        self._chains = {name.replace("_", "-"): rules for name, rules in chains.items()}
        self.asked = []

    def chain(self, _family, _table, name):
        self.asked.append(name)
        rules = self._chains.get(name, [])
        return Chain(tuple(Rule(n, text) for n, text in enumerate(rules, 1)), tuple(range(100, 100 + len(rules))))

    def base(self, _family, _table, name):
        return BaseChain("forward", 0) if name == "FORWARD" else BaseChain("", 0)

    def drops(self, family, table):
        places = (
            Place(family, table, name, rule) for name in self._chains for rule in self.chain(family, table, name).rules
        )
        return [place for place in places if place.rule.drops_invalid]


def packet(source="10.0.1.2", destination="10.0.0.2"):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0)
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    return head + addresses + struct.pack("!HHIIBBHHH", 80, 34567, 1, 1, 0x50, 0x10, 100, 0, 0)


def event(chain, position, verdict, target="", *, headers=b"", mark=0, is_policy=False):
    handle = None if position is None else 99 + position
    return TraceEvent(1, FAMILY, "filter", chain, handle, is_policy, verdict, target, mark, headers)


def walked(rules, *events, state="invalid"):
    return walk_of("node", Told(events, state), rules, lambda _table, _chain: "")


def lines(walk, *, full=False):
    return [line.plain for line in drawn([walk], full=full)]


NOTHING, MARKED = "-m mark --mark 0x1 -j ACCEPT", "-j MARK --set-xmark 0x4000/0x4000"
INVALID = "-m conntrack --ctstate INVALID -j DROP"


def test_the_way_back_is_to_behind_the_rule_that_jumped():
    rules = Rules(FORWARD=["-j A", "-j B", NOTHING], A=[NOTHING, NOTHING], B=[MARKED])
    walk = walked(
        rules,
        event("FORWARD", 1, "jump", "A", headers=packet()),
        event("A", None, "continue"),
        event("FORWARD", 2, "jump", "B"),
        event("B", 1, "continue", mark=0x4000),
        event("FORWARD", None, "accept", is_policy=True, mark=0x4000),
    )
    told = [(step.chain, step.rule and step.rule.position, step.verdict, len(step.missed)) for step in walk.steps]
    assert told == [
        ("FORWARD", 1, "jump", 0),
        ("A", None, "return", 2),
        ("FORWARD", 2, "jump", 0),
        ("B", 1, "continue", 0),
        ("FORWARD", None, "accept", 1),
    ]
    assert [step.is_policy for step in walk.steps] == [False, False, False, False, True]
    assert walk.hooks[0].hook == "forward"


def test_what_led_to_nothing_is_folded_away():
    rules = Rules(FORWARD=["-j A", "-j B", NOTHING], A=[NOTHING], B=["-j C"], C=[MARKED])
    events = (
        event("FORWARD", 1, "jump", "A", headers=packet()),
        event("FORWARD", 2, "jump", "B"),
        event("B", 1, "jump", "C"),
        event("C", 1, "continue", mark=0x4000),
        event("FORWARD", None, "accept", is_policy=True, mark=0x4000),
    )
    folded = lines(walked(rules, *events))
    assert not any(" A  " in line for line in folded)
    assert [line.split()[-3:] for line in folded[1:4]] == [
        ["2", "-j", "B"],
        ["1", "-j", "C"],
        ["MARK", "--set-xmark", "0x4000/0x4000"],
    ]
    assert any(line.endswith("= now mark 0x4000") for line in folded)
    assert any("no match" in line for line in lines(walked(rules, *events), full=True))


def test_of_goto_nobody_comes_back_to_who_said_it():
    rules = Rules(FORWARD=["goto A", INVALID], A=[NOTHING])
    walk = walked(
        rules,
        event("FORWARD", 1, "goto", "A", headers=packet()),
        event("FORWARD", None, "accept", is_policy=True),
    )
    assert [(step.chain, step.verdict, len(step.missed)) for step in walk.steps] == [
        ("FORWARD", "goto", 0),
        ("A", "return", 1),
        ("FORWARD", "accept", 0),  # the rule behind goto was not asked
    ]


@pytest.mark.parametrize(
    ("rules", "events", "seen"),
    [
        # behind it in the same chain, and in one that is jumped to from there
        ({"FORWARD": ["-j ACCEPT", "-j A", INVALID], "A": [INVALID]}, [("FORWARD", 1, "accept")], ["FORWARD", "A"]),
        # before it: it was asked
        ({"FORWARD": [INVALID, "-j ACCEPT"]}, [("FORWARD", 2, "accept")], []),
        # in a chain to which nothing leads
        ({"FORWARD": ["-j ACCEPT"], "A": [INVALID]}, [("FORWARD", 1, "accept")], []),
        # behind the rule that jumped, when it was accepted further in
        (
            {"FORWARD": ["-j A", "-j B"], "A": ["-j ACCEPT"], "B": [INVALID]},
            [("FORWARD", 1, "jump", "A"), ("A", 1, "accept")],
            ["B"],
        ),
        # whoever comes to a policy has seen all of them
        ({"FORWARD": ["-j A"], "A": [NOTHING]}, [("FORWARD", 1, "jump", "A"), ("FORWARD", None, "accept")], []),
    ],
)
def test_drops_that_never_saw_the_packet_are_those_it_would_have_come_to(rules, events, seen):
    first, *others = events
    walk = walked(
        Rules(**rules),
        event(*first, headers=packet()),
        *(event(*one, is_policy=one[1] is None) for one in others),
    )
    assert [place.chain for place in walk.unseen_drops] == seen
    assert len(walk.accepted_by) == bool(seen)


def test_only_of_what_is_invalid_a_drop_of_such_is_sought():
    rules = Rules(FORWARD=["-j ACCEPT", INVALID])
    walk = walked(rules, event("FORWARD", 1, "accept", headers=packet()), state="established")
    assert (walk.unseen_drops, walk.accepted_by) == ((), ())


def test_a_policy_that_drops_is_the_fate():
    walk = walked(Rules(FORWARD=[NOTHING]), event("FORWARD", None, "drop", headers=packet(), is_policy=True))
    assert walk.fate.is_policy
    assert walk.hooks[0].after is None
    assert lines(walk)[-1] == "  DROPPED by the policy of filter FORWARD"


def test_of_very_many_rules_that_were_asked_the_last_are_told():
    rules = Rules(FORWARD=[NOTHING] * 1000 + ["-j ACCEPT"])
    [step] = walked(rules, event("FORWARD", 1001, "accept", headers=packet())).steps
    assert [rule.position for rule in step.missed] == [*range(977, 1001)]
    assert step.more == 976
    assert any(
        "976 rules did not match" in line
        for line in lines(walked(rules, event("FORWARD", 1001, "accept", headers=packet())), full=True)
    )


def test_rules_that_became_others_are_an_error_and_no_guess():
    with pytest.raises(LabError, match="does not have any more"):
        walked(Rules(FORWARD=[NOTHING]), event("FORWARD", 7, "accept", headers=packet()))
    with pytest.raises(LabError, match="where no rule that it told of leads"):
        walked(Rules(FORWARD=[NOTHING]), event("FORWARD", 1, "continue", headers=packet()), event("B", 1, "accept"))


@pytest.mark.parametrize(
    ("text", "drops"),
    [
        (INVALID, True),
        ("-m state --state INVALID -j DROP", True),
        ("-m conntrack --ctstate RELATED,INVALID -m nfacct --nfacct-name x -j DROP", True),
        ("ct state invalid counter drop", True),
        ('ct state { invalid, untracked } drop comment "x"', True),
        ("-m conntrack --ctstate INVALID -j LOG", False),
        ("-m conntrack --ctstate NEW -j DROP", False),
        ("-m conntrack ! --ctstate INVALID -j DROP", False),
        ("ct state != invalid drop", False),
        ("ct state established accept", False),
    ],
)
def test_which_rules_are_for_dropping_what_is_invalid(text, drops):
    assert Rule(1, text).drops_invalid is drops
