"""What is tried is made once, however often and with whatever else it is tried."""

from __future__ import annotations

import dataclasses

import pytest

from lab.errors import LabError
from lab.rules.attempts import IMPOSSIBLE, Attempts
from lab.rules.read_dump import read
from lab.rules.source import Choice
from lab.rules.whatifs import WhatIf
from lab.vocabulary import Family, ProxyMode

TEXT = "*filter\n:KUBE-FORWARD - [0:0]\n:KUBE-SVC-A - [0:0]\n-A KUBE-FORWARD -j DROP\nCOMMIT\n"


class Emptied:
    """Takes all rules out of a dump, and counts how often."""

    def __init__(self):
        self.dumps = []

    def __call__(self, dump):
        self.dumps.append(dump)
        containers = {place: dataclasses.replace(one, lines=[]) for place, one in dump.containers.items()}
        return dataclasses.replace(dump, containers=containers)


@pytest.fixture
def found():
    return read(TEXT, "dump", Family.IPV4)


@pytest.fixture
def attempts(make_proxy, found):
    proxy = make_proxy(Choice(ProxyMode.IPTABLES, "v1.32"))
    return Attempts(proxy, found, lambda _proxy, dump: (found, dump))


def test_the_nodes_rules_are_changed_once_whatever_else_is_tried(attempts, found):
    change = Emptied()
    emptied = WhatIf("emptied", "", "", dump=change)
    named = WhatIf("named", "", "", proxy=lambda proxy: dataclasses.replace(proxy, node="other"))
    alone, both = attempts.applied({"emptied": emptied}), attempts.applied({"named": named, "emptied": emptied})
    assert both[0].node == "other"
    assert alone[1] is both[1]
    assert len(change.dumps) == 1
    assert attempts.applied({"named": named})[1] is found


def test_what_changes_the_nodes_rules_is_applied_to_what_another_left(attempts, found):
    first, second = Emptied(), Emptied()
    emptied, again = WhatIf("emptied", "", "", dump=first), WhatIf("again", "", "", dump=second)
    left = attempts.applied({"emptied": emptied})[1]
    attempts.applied({"emptied": emptied, "again": again})
    attempts.applied({"again": again})
    assert len(first.dumps) == 1
    assert [id(one) for one in second.dumps] == [id(left), id(found)]


def test_what_differs_is_counted_once(attempts):
    emptied = {"emptied": WhatIf("emptied", "", "", dump=Emptied())}
    assert attempts.size({}) == 0
    assert attempts.size(emptied) == 1
    assert attempts.differing(emptied) is attempts.differing(dict(emptied))


def test_what_cannot_be_written_differs_in_all(make_proxy, found):
    def sides(_proxy, _dump):
        raise LabError("no such release")

    attempts = Attempts(make_proxy(Choice(ProxyMode.IPTABLES, "v1.32")), found, sides)
    assert attempts.differing({}) is None
    assert attempts.size({}) == IMPOSSIBLE
