"""The rotating covers leave out nothing that they promise to try, whatever the seed."""

from __future__ import annotations

import itertools

import pytest

from tests.support import cover

ROWS, COLUMNS, PLACES = range(97), list("abcdefghij"), range(8)


@pytest.fixture(params=range(20))
def seed(request, monkeypatch):
    monkeypatch.delenv(cover.FULL, raising=False)
    monkeypatch.setenv(cover.SEED, str(request.param))


def chosen(places=lambda row: PLACES):
    return cover.pairs(ROWS, COLUMNS, places)


def test_every_pair_is_there_once_and_in_order(seed):
    assert [(row, column) for row, column, _place in chosen()] == list(itertools.product(ROWS, COLUMNS))


def test_every_row_and_every_column_comes_to_every_place(seed):
    tried = chosen()
    assert {(row, place) for row, _column, place in tried} == set(itertools.product(ROWS, PLACES))
    assert {(column, place) for _row, column, place in tried} == set(itertools.product(COLUMNS, PLACES))


def test_a_row_is_only_at_its_own_places(seed):
    tried = chosen(lambda row: PLACES[:4] if row in (3, 4) else PLACES)
    assert {place for row, _column, place in tried if row in (3, 4)} == set(PLACES[:4])


def test_seeds_differ_and_a_seed_repeats(monkeypatch):
    monkeypatch.delenv(cover.FULL, raising=False)
    made = []
    for seed in ("1", "2", "1"):
        monkeypatch.setenv(cover.SEED, seed)
        made.append((chosen(), cover.sample(range(100), 5), [cover.some(range(100), of=str(one)) for one in range(5)]))
    assert made[0] == made[2]
    assert all(one != other for one, other in zip(made[0], made[1], strict=True))


def test_seeds_bring_each_pair_to_every_place(monkeypatch):
    monkeypatch.delenv(cover.FULL, raising=False)
    tried = set()
    for seed in range(100):
        monkeypatch.setenv(cover.SEED, str(seed))
        tried |= {place for row, column, place in chosen() if (row, column) == (11, "c")}
    assert tried == set(PLACES)


def product():
    return [{"version": v, "mode": m, "family": f} for v, m, f in itertools.product(range(9), range(4), range(2))]


def test_a_spread_has_every_value_of_every_axis_and_little_more(seed):
    points = product()
    numbers = cover.spread(points, of="it")
    assert {value for number in numbers for value in points[number].items()} == {v for p in points for v in p.items()}
    assert list(numbers) == sorted(set(numbers))
    assert len(numbers) == 9


def test_seeds_bring_a_spread_to_every_point(monkeypatch):
    monkeypatch.delenv(cover.FULL, raising=False)
    tried = set()
    for seed in range(100):
        monkeypatch.setenv(cover.SEED, str(seed))
        tried |= set(cover.spread(product(), of="it"))
    assert tried == set(range(72))


def test_a_full_run_leaves_nothing_out(monkeypatch):
    monkeypatch.setenv(cover.FULL, "1")
    assert chosen() == list(itertools.product(ROWS, COLUMNS, PLACES))
    assert cover.sample(range(100), 5) == cover.some(range(100), of="it") == range(100)
    assert list(cover.spread(product(), of="it")) == list(range(72))
