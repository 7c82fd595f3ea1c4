"""What a pyramid says of groups is what numpy finds by looking at every value."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.run import pyramid
from toolshed.run.pyramid import FAN, Pyramid

SPECIAL = [np.nan, np.inf, -np.inf, np.float32(3e38), np.float32(-3e38), 0.0, -0.0]


def random_values(rng: np.random.Generator, number: int, share: float = 0.0) -> np.ndarray:
    """Normal numbers, a share of them replaced by special ones."""
    values = rng.standard_normal(number).astype(np.float32)
    odd = rng.random(number) < share
    values[odd] = rng.choice(np.array(SPECIAL, np.float32), number)[odd]
    return values


def in_blocks(values: np.ndarray, sizes: list[int]) -> Pyramid:
    """The pyramid of some values, appended in blocks of the given sizes in turn."""
    row, at, turn = Pyramid.empty(), 0, 0
    while at < len(values):
        size = max(1, sizes[turn % len(sizes)])
        row, at, turn = row.append(values[at : at + size]), at + size, turn + 1
    return row


def check(row: Pyramid, values: np.ndarray, edges: np.ndarray) -> None:
    got = row.summarize(edges)
    assert [array.dtype for array in got] == [np.float32, np.float32, np.float64]
    parts = [values[start:stop] for start, stop in itertools.pairwise(edges)]
    parts = [part[np.isfinite(part)].astype(np.float64) for part in parts]
    assert got.low.tolist() == [part.min(initial=np.inf) for part in parts]
    assert got.high.tolist() == [part.max(initial=-np.inf) for part in parts]
    # sums in another order: as far apart as the rounding of each addition, at most
    rounding = 1e-16 * np.array([len(part) * np.abs(part).sum() for part in parts])
    assert (np.abs(got.total - [part.sum() for part in parts]) <= rounding).all()


@settings(deadline=None, max_examples=150)
@given(
    number=st.integers(0, 5000),
    sizes=st.lists(st.sampled_from([1, 2, 31, 32, 33, 100, 1024, 1500]), min_size=1, max_size=4),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    columns=st.integers(1, 60),
    at_once=st.sampled_from([0, 1, 8, 512]),
    seed=st.integers(0, 2**32 - 1),
)
def test_columns_are_those_of_every_value_whatever_their_width(number, sizes, share, columns, at_once, seed):
    """The columns are of any width, also empty; with 0 at once each level is gone through."""
    rng = np.random.default_rng(seed)
    values = random_values(rng, number, share)
    edges = np.sort(rng.integers(0, number + 1, columns + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "AT_ONCE", at_once)
        patch.setattr(pyramid, "AT_ONCE_MIXED", at_once)
        check(in_blocks(values, sizes), values, edges)


@pytest.mark.parametrize("number", [FAN**2 - 1, FAN**2, FAN**2 + 1, 3 * FAN**2, FAN**3 + 5])
@pytest.mark.parametrize("width", [1, FAN - 1, FAN, FAN + 1, 7 * FAN, FAN**2])
def test_columns_at_and_beside_the_borders_of_groups_are_exact(number, width, monkeypatch):
    monkeypatch.setattr(pyramid, "AT_ONCE", 0)
    values = random_values(np.random.default_rng(width), number)
    for offset in (0, 1, FAN - 1):
        edges = np.append(np.arange(offset, number, width)[-40:], number)
        check(in_blocks(values, [number]), values, edges)


def test_one_extreme_value_is_found_wherever_it_is(monkeypatch):
    """The columns are cut anew for each of the places, and a spike must be in the right one."""
    monkeypatch.setattr(pyramid, "AT_ONCE", 0)
    number, edges = 2100, np.arange(0, 2101, 150)
    for place in range(0, number, 7):
        values = np.zeros(number, np.float32)
        values[place] = 1
        low, high, total = in_blocks(values, [333]).summarize(edges)
        assert np.flatnonzero(high).tolist() == np.flatnonzero(total).tolist() == [place // 150]
        assert not low.any()


def test_values_keep_their_bits():
    values = np.array([0x7FC0BEEF, 0xFFC00001, 0x7F800000, 0x80000000, 1], np.uint32).view(np.float32)
    row = in_blocks(np.tile(values, 50), [3, 70])
    assert row.values[: row.length].view(np.uint32).tolist() == np.tile(values, 50).view(np.uint32).tolist()


def test_a_longer_row_leaves_the_shorter_one_as_it_was():
    rng = np.random.default_rng(0)
    values = random_values(rng, 4000, 0.1)
    rows = [Pyramid.empty()]
    for start in range(0, 4000, 37):
        rows.append(rows[-1].append(values[start : start + 37]))
    for row in rows[1:]:
        assert row.values[: row.length].tobytes() == values[: row.length].tobytes()
        check(row, values, np.linspace(0, row.length, 8).astype(np.int64))


def test_an_append_that_was_broken_off_and_made_again_leaves_nothing_behind():
    values = random_values(np.random.default_rng(0), 3000)
    row = in_blocks(values[:1000], [1000])
    row.append(np.full(1999, 9, np.float32))  # never taken
    row = row.append(values[1000:])
    check(row, values, np.linspace(0, 3000, 20).astype(np.int64))


def test_a_row_takes_little_more_than_its_values():
    row = in_blocks(np.zeros(1_000_000, np.float32), [100_000])
    used = 4 * row.length + sum(16 * (row.length // FAN ** (k + 1)) for k in range(len(row.levels)))
    assert used / row.length < 4.52
    assert row.nbytes / row.length < 4.52 * 1.26  # a quarter of room to grow


def test_appending_costs_the_same_however_long_the_row_is():
    """Copies to grow are counted, not timed: over a million values they are fewer than six per value."""
    row, copied, block = Pyramid.empty(), 0, np.zeros(1000, np.float32)
    for _ in range(1000):
        before = row.values
        row = row.append(block)
        copied += 0 if row.values is before else row.length
    assert copied < 6 * row.length


def test_columns_of_a_long_row_do_not_look_at_all_of_it():
    """Faster than one minimum over all of 2²⁴ values, in the best of several tries."""
    row = Pyramid.empty()
    for _ in range(16):
        row = row.append(np.zeros(2**20, np.float32))
    edges = np.linspace(0, row.length, 2001).astype(np.int64)

    def best(work) -> float:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(lambda: row.summarize(edges)) < best(lambda: row.values[: row.length].min())
