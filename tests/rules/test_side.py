"""What chains and maps lead to, and whose they are."""

from __future__ import annotations

import pytest

from lab.rules.normal import items
from lab.rules.read_dump import read
from lab.rules.side import Side
from lab.vocabulary import Family

IPTABLES = """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SVC-B - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SEP-C - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.0.0.1/32 -m comment --comment "shop/web:http cluster IP" -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-B
-A KUBE-SERVICES -d 10.0.0.2/32 -j KUBE-SVC-B
-A KUBE-SERVICES -d 10.0.0.1/32 -j DROP
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SVC-B -m comment --comment "shop/mail:smtp" -j KUBE-SEP-B
-A KUBE-SEP-A -j ACCEPT
-A KUBE-SEP-B -j DROP
COMMIT
"""
NFT = """\
table ip kube-proxy {
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.0.0.1 . tcp . 80 comment "shop/web:http" : goto service-AAAAAAAA-shop/web/tcp/http,
        10.0.0.1 . tcp . 81 comment "shop/web:http" : drop }
    }
    chain services {
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr 10.0.0.3 jump service-AAAAAAAA-shop/web/tcp/http
        ip daddr 10.0.0.3 jump plain
        ip daddr 10.0.0.4 jump plain
        ip daddr 10.0.0.3 goto plain
        ip daddr 10.0.0.3 drop
    }
    chain plain {
        drop
    }
    chain service-AAAAAAAA-shop/web/tcp/http {
        accept
    }
}
"""


@pytest.fixture
def side():
    return Side(read(IPTABLES, "dump", Family.IPV4))


@pytest.fixture
def nft():
    return Side(read(NFT, "dump", Family.IPV4))


def find(side, place, words):
    [found] = [
        item
        for item in items(side.dump.containers[place], side.dump.mode)
        if words in item.text and item.text[0] != "("
    ]
    return found


SERVICES = ("nat", "KUBE-SERVICES")
CHAIN = ("ip kube-proxy", "services")


def test_an_outline_is_the_same_whatever_is_done_where_it_leads(side):
    to_a, to_b, other, drop = (
        find(side, SERVICES, words) for words in ("web:http", "0.1/32 -j KUBE-SVC-B", "0.2/32 -j KUBE-SVC-B", "-j DROP")
    )
    assert side.outline(SERVICES, to_a) == side.outline(SERVICES, to_b)  # a comment is none of it
    assert side.form(SERVICES, to_a) != side.form(SERVICES, to_b)
    assert side.outline(SERVICES, to_b) != side.outline(SERVICES, other)
    assert side.outline(SERVICES, to_b) != side.outline(SERVICES, drop)


def test_an_outline_of_nft_is_the_same_whatever_is_done_where_it_leads(nft):
    to_web, to_plain, other, goto, drop = (
        find(nft, CHAIN, words) for words in ("jump service", "0.3 jump plain", "0.4 jump", "goto plain", "0.3 drop")
    )
    assert nft.outline(CHAIN, to_web) == nft.outline(CHAIN, to_plain)
    assert nft.form(CHAIN, to_web) != nft.form(CHAIN, to_plain)
    for one in (other, goto, drop):
        assert nft.outline(CHAIN, to_plain) != nft.outline(CHAIN, one)


@pytest.mark.parametrize("name", ["side", "nft"])
def test_outlines_are_equal_where_forms_are(request, name):
    """So that forms need not be asked where outlines are not."""
    one = request.getfixturevalue(name)
    known = {}
    for place, container in one.dump.containers.items():
        for item in items(container, one.dump.mode):
            known.setdefault((place, one.form(place, item)), set()).add(one.outline(place, item))
    assert len(known) > 5
    assert all(len(outlines) == 1 for outlines in known.values())


def test_an_elements_outline_forgets_the_chain_that_it_names(nft):
    place = ("ip kube-proxy", "service-ips")
    leads, drops = (find(nft, place, words) for words in (". 80 ", ". 81 "))
    assert "service-AAAAAAAA-shop/web/tcp/http" not in str(nft.outline(place, leads))
    assert nft.outline(place, leads) != nft.outline(place, drops)


def test_a_chain_is_for_the_service_that_it_or_what_leads_to_it_names(side):
    assert side.services_of(("nat", "KUBE-SVC-B")) == {"shop/mail"}  # by its own words
    assert side.services_of(("nat", "KUBE-SVC-A")) == {"shop/web"}  # by the jump to it
    assert side.services_of(("nat", "KUBE-SEP-A")) == {"shop/web"}  # by the jump to what leads to it
    assert side.services_of(("nat", "KUBE-SEP-C")) == frozenset()  # nothing leads there


def test_what_is_for_all_services_is_for_none(side, nft):
    assert side.services_of(SERVICES) == frozenset()  # though a rule in it names one
    assert nft.services_of(CHAIN) == frozenset()
    assert nft.services_of(("ip kube-proxy", "service-ips")) == frozenset()


def test_a_chain_of_nft_says_whose_it_is_by_its_name(nft):
    assert nft.services_of(("ip kube-proxy", "service-AAAAAAAA-shop/web/tcp/http")) == {"shop/web"}


def test_of_one_place_is_known_what_is_known_of_all(side, nft):
    for one in (side, nft):
        for place in one.dump.containers:
            assert one.services_of(place) == one.services[place]


def test_what_says_whose_it_is_is_known_without_a_look_at_the_rest(side, monkeypatch):
    def refuse(_side):
        raise AssertionError("all was looked at")

    monkeypatch.setattr(Side, "services", property(refuse))
    assert side.services_of(("nat", "KUBE-SVC-B")) == {"shop/mail"}
    with pytest.raises(AssertionError):
        side.services_of(("nat", "KUBE-SVC-A"))
