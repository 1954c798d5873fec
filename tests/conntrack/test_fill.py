"""A full table is the namespace's own: nobody else's is fuller, nobody hears of it, and the limit is what it was."""

from contextlib import ExitStack, closing, suppress

import pytest

from lab.conntrack.fill import Filler
from lab.conntrack.netlink import ConntrackEvents, ConntrackTable, creation
from lab.errors import MissingError
from lab.evidence.packet import UDP, SocketAddress
from lab.netns import Namespace, Nft

pytestmark = pytest.mark.lab_kernel

LIMIT, COUNT = "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count"
FLOW = SocketAddress("10.0.0.2", 5353), SocketAddress("10.0.1.2", 53)
TRACKING = "table inet lab {\nchain every {\ntype filter hook prerouting priority 0;\nct state new\n}\n}\n"


@pytest.fixture
def namespace():
    with closing(Namespace.create()) as made, closing(Nft(made)) as nft:
        nft.run(TRACKING)
        yield made


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield lambda filler: stack.enter_context(closing(filler))


def test_a_table_is_filled_to_the_limit_and_again_when_there_is_room(namespace, opened):
    with closing(ConntrackTable(namespace)) as table, closing(ConntrackEvents(namespace)) as events:
        limit = namespace.sysctl(LIMIT)
        assert table.create(creation(UDP, *FLOW, assured=True, timeout=60))
        filler = opened(Filler(namespace, assured=True))
        filler.fill()
        assert namespace.sysctl(COUNT) == namespace.sysctl(LIMIT) == limit
        other = FLOW[0], SocketAddress("10.0.1.2", 54)
        assert not table.create(creation(UDP, *other, assured=True, timeout=60))
        entry = table.entry(UDP, *FLOW)
        assert entry is not None
        assert table.delete(entry)
        assert table.create(creation(UDP, *other, assured=True, timeout=60))
        entry = table.entry(UDP, *other)
        assert entry is not None
        table.delete(entry)
        filler.fill()
        assert namespace.sysctl(COUNT) == limit
        told = {event.entry.original for event in events.read()}
        assert told <= {FLOW, other}


def test_what_is_not_assured_makes_room(namespace, opened):
    with closing(ConntrackTable(namespace)) as table:
        opened(Filler(namespace, assured=False)).fill()
        assert table.create(creation(UDP, *FLOW, assured=True, timeout=60))
        assert table.statistics()["early_drop"] > 0


def test_what_the_kernel_collects_meanwhile_is_made_again(namespace, opened, monkeypatch):
    """Its collector takes away what is not assured, once any namespace's table of assured ones has refused somebody."""
    filler = opened(Filler(namespace, assured=False))
    make, rounds = filler._make, []

    def collected(channel):
        make(channel)
        rounds.append(namespace.sysctl(COUNT))
        if len(rounds) == 1:
            filler._table.flush()

    monkeypatch.setattr(filler, "_make", collected)
    filler.fill()
    assert len(rounds) > 1
    assert namespace.sysctl(COUNT) == namespace.sysctl(LIMIT)


def test_another_namespace_has_room(namespace, opened):
    with closing(Namespace.create()) as other, closing(Nft(other)) as nft, closing(ConntrackTable(other)) as table:
        nft.run(TRACKING)
        opened(Filler(namespace, assured=True)).fill()
        assert other.sysctl(COUNT) == "0"
        assert table.create(creation(UDP, *FLOW, assured=True, timeout=60))


def test_closing_empties_the_table_at_once(namespace):
    with closing(Filler(namespace, assured=True)) as filler:
        filler.fill()
    assert namespace.sysctl(COUNT) == "0"


def test_the_limit_is_never_written(namespace, opened, monkeypatch):
    written = []
    write = Namespace.set_sysctls
    monkeypatch.setattr(Namespace, "set_sysctls", lambda self, values: (written.extend(values), write(self, values)))
    with suppress(MissingError):
        opened(Filler(namespace, assured=True)).fill()
    assert LIMIT not in written


@pytest.mark.parametrize("limit", ["0", "50000000"])
def test_a_limit_that_cannot_be_reached_is_said_to_be(namespace, monkeypatch, limit):
    monkeypatch.setattr(Namespace, "sysctl", lambda self, key: limit)
    with pytest.raises(MissingError, match=rf"conntrack's limit is {int(limit):,} entries here"):
        Filler(namespace, assured=True)
