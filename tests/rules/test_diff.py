"""What two dumps have alike, and where they are unlike: what the search for causes asks thousands of times."""

from __future__ import annotations

from collections import Counter

import pytest

from lab.rules.diff import alike, compare, sharing, unlike, unlike_places
from lab.rules.effects import Effect
from lab.rules.read_dump import read
from lab.vocabulary import Family

HEAD = [
    ":FORWARD ACCEPT [0:0]",
    *(f":KUBE-{name} - [0:0]" for name in ("FORWARD", "SVC-A", "SVC-B", "SVC-C")),
    "-A FORWARD -j KUBE-FORWARD",
]
TO_A = "-A KUBE-FORWARD -d 10.0.0.1/32 -j KUBE-SVC-A"
TO_B = "-A KUBE-FORWARD -d 10.0.0.1/32 -j KUBE-SVC-B"
A, B, C = (f"-A KUBE-SVC-{name} -s 10.9.0.0/16 -j DROP" for name in "ABC")


def dump(*lines):
    return read("\n".join(["*filter", *HEAD, *lines, "COMMIT", ""]), "dump", Family.IPV4)


def place(name):
    return ("filter", f"KUBE-{name}")


def test_what_is_printed_alike_is_the_nodes_own():
    ours, theirs = dump(TO_A, A, B), dump(TO_A, A, B.replace("DROP", "ACCEPT"))
    shared = sharing(ours, theirs)
    assert shared.containers[place("SVC-A")] is theirs.containers[place("SVC-A")]
    assert shared.containers[place("SVC-B")] is ours.containers[place("SVC-B")]
    assert compare(shared, theirs) == compare(ours, theirs)


def test_what_the_node_lacks_stays():
    ours, theirs = dump(TO_A, ":KUBE-SVC-D - [0:0]"), dump(TO_A)
    assert sharing(ours, theirs).containers.keys() == ours.containers.keys()


# A node's rules, and the chains in which they differ from A, B, and the jump to A.
UNLIKE = {
    "nothing": ([TO_A, A, B], []),
    "another rule": ([TO_A, A, B.replace("DROP", "ACCEPT")], ["SVC-B"]),
    "a rule twice": ([TO_A, A, A, B], ["SVC-A"]),
    "one less, one more": ([TO_A, B, C], ["SVC-A", "SVC-C"]),
    "missing and extra in one chain": ([TO_B, A, B], ["FORWARD"]),
}


@pytest.mark.parametrize(("theirs", "places"), UNLIKE.values(), ids=UNLIKE)
def test_places_are_given_once_each_where_something_differs(theirs, places):
    ours, theirs = dump(TO_A, A, B), dump(*theirs)
    assert list(unlike_places(ours, theirs)) == [place(name) for name in places]
    differences = compare(ours, theirs).differences
    assert {(one.table, one.name) for one in differences} == {place(name) for name in places}
    assert bool(unlike(ours, theirs)) is bool(differences)
    assert (alike(ours, theirs) is None) is bool(differences)


def test_an_order_that_counts_differs():
    one, other = "-A KUBE-SVC-A -s 10.1.0.0/16 -j DROP", "-A KUBE-SVC-A -s 10.1.2.0/24 -j ACCEPT"
    ours, theirs = dump(one, other), dump(other, one)
    assert sum(unlike(ours, theirs).values()) == 1
    assert list(unlike_places(ours, theirs)) == [place("SVC-A")]
    assert alike(ours, theirs) is None


def test_places_with_no_more_than_was_known_are_left_out():
    ours = dump(TO_A, A)
    base = unlike(ours, dump(TO_A))
    assert list(unlike_places(ours, dump(TO_A), known=base)) == []
    assert list(unlike_places(ours, dump(TO_A, B), known=base)) == [place("SVC-B")]
    # Twice is more than once.
    assert list(unlike_places(dump(TO_A, A, A), dump(TO_A), known=base)) == [place("SVC-A")]
    assert list(unlike_places(ours, dump(TO_A), known=Counter())) == [place("SVC-A")]


def test_comments_differ_unless_they_are_not_asked_for():
    ours, theirs = (
        dump(f'-A KUBE-SVC-A -m comment --comment "{words}" -j DROP') for words in ("has no endpoints", "no endpoints")
    )
    assert list(unlike_places(ours, theirs)) == [place("SVC-A")]
    assert not list(unlike_places(ours, theirs, uncommented=True))
    assert not unlike(ours, theirs, uncommented=True)


def test_what_is_extra_alone_is_traffic_and_never_the_same_by_other_names():
    """The chain B does what A does here, and the node's A does something else: that B is led to is more, not the same.

    What the node says in other words it would have to lack in kube-proxy's.
    """
    ours = dump(TO_A, "-A KUBE-SVC-A -p tcp -j ACCEPT", "-A KUBE-SVC-B -p tcp -j ACCEPT")
    theirs = dump(TO_A, TO_B, "-A KUBE-SVC-A -p tcp -j DROP", "-A KUBE-SVC-B -p tcp -j ACCEPT")
    for one, other, kind in ((ours, theirs, "extra"), (theirs, ours, "missing")):
        effects = {(str(each.kind), each.name): each.effect for each in compare(one, other).differences}
        assert effects == {(kind, "KUBE-FORWARD"): Effect.TRAFFIC, ("different", "KUBE-SVC-A"): Effect.TRAFFIC}


def test_what_one_side_says_by_another_name_is_the_same():
    """The counterpart: B is led to instead of A."""
    ours = dump(TO_A, "-A KUBE-SVC-A -p tcp -j ACCEPT", "-A KUBE-SVC-B -p tcp -j ACCEPT")
    theirs = dump(TO_B, "-A KUBE-SVC-A -p tcp -j ACCEPT", "-A KUBE-SVC-B -p tcp -j ACCEPT")
    assert {one.effect for one in compare(ours, theirs).differences} == {Effect.FORM}
