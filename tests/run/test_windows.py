"""A window shows the true extremes and means of what lies between two steps, and loses no NaN."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.run import columns
from toolshed.run.columns import columns_of
from toolshed.run.pyramid import Pyramid
from toolshed.run.track import Track
from toolshed.run.windows import Piece, Window, column_width, join, thin


def line(steps: np.ndarray, values: np.ndarray, cuts: list[int]) -> list[Piece]:
    """Steps and values as a line of several tracks, each with something before and after what is meant."""
    pieces, places = [], [0, *sorted(cuts), len(steps)]
    for start, stop in itertools.pairwise(places):
        if start < stop:
            before = np.arange(steps[start] - 3, steps[start])
            track = Track.empty().append(before, np.full(3, 1e9, np.float32))
            track = track.append(steps[start:stop], values[start:stop])
            track = track.append(steps[stop - 1 : stop] + 1, np.full(1, np.nan, np.float32))
            pieces.append(Piece(track, 3, 3 + stop - start))
    return pieces


def check(window: Window, steps: np.ndarray, values: np.ndarray, points: int) -> None:
    """Each column against all its values. A column goes from its step to the next one's."""
    assert len(window.steps) <= points
    assert (window.steps.dtype, window.low.dtype, window.high.dtype) == (np.int64, np.float32, np.float32)
    assert (np.diff(window.steps) > 0).all()
    assert np.isin(window.steps, steps).all()
    finite = np.isfinite(values)
    column = np.searchsorted(window.steps, steps[finite], side="right") - 1
    assert column.min(initial=0) >= 0
    assert np.unique(column).tolist() == list(range(len(window.steps)))
    low, high = np.full(len(window.steps), np.inf), np.full(len(window.steps), -np.inf)
    np.minimum.at(low, column, values[finite])
    np.maximum.at(high, column, values[finite])
    assert window.low.tolist() == low.tolist()
    assert window.high.tolist() == high.tolist()
    total = np.bincount(column, values[finite], len(window.steps))
    mean = total / np.bincount(column, minlength=len(window.steps))
    assert window.mean.dtype == np.float32
    np.testing.assert_allclose(window.mean, mean, rtol=1e-6, atol=1e-7)


@settings(deadline=None, max_examples=200)
@given(
    number=st.integers(1, 4000),
    density=st.sampled_from(["every", "even", "random", "clustered"]),
    share=st.sampled_from([0.0, 0.01, 0.6, 1.0]),
    points=st.integers(2, 300),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    seed=st.integers(0, 2**32 - 1),
)
def test_columns_have_the_true_extremes_of_all_values(number, density, share, points, cuts, seed):
    rng = np.random.default_rng(seed)
    gaps = {
        "every": np.ones(number, np.int64),
        "even": np.full(number, 100),
        "random": rng.integers(1, 50, number),
        "clustered": np.where(rng.random(number) < 0.02, 10_000, 1),
    }[density]
    steps = 5 + np.cumsum(gaps)
    values = rng.standard_normal(number).astype(np.float32)
    values[rng.random(number) < share] = np.nan
    window = thin(line(steps, values, [min(cut, number) for cut in cuts]), points)
    check(window, steps, values, points)
    odd = steps[np.isnan(values)]
    assert np.isin(window.nonfinite, odd).all()
    assert len(window.nonfinite) <= points
    assert (len(window.nonfinite) > 0) == (len(odd) > 0)
    if number <= points:
        assert window.nonfinite.tolist() == odd.tolist()


def test_few_values_are_given_as_they_are():
    steps, values = np.array([1, 5, 6, 900]), np.array([1, np.nan, -np.inf, 4], np.float32)
    window = thin(line(steps, values, [2]), 4)
    assert window.steps.tolist() == [1, 900]
    assert window.low.tolist() == window.high.tolist() == window.mean.tolist() == [1, 4]
    assert window.nonfinite.tolist() == [5, 6]


def test_columns_are_equally_wide_in_steps():
    """100 steps in at most 11 columns: 10 a column, and that is 5·2 already."""
    steps = np.arange(0, 100)
    window = thin(line(steps, steps.astype(np.float32), []), 11)
    assert window.steps.tolist() == list(range(0, 100, 10))
    assert window.low.tolist() == list(range(0, 100, 10))
    assert window.high.tolist() == list(range(9, 100, 10))
    assert window.mean.tolist() == [4.5 + 10 * column for column in range(10)]


def test_a_nan_is_marked_in_the_column_where_it_is_and_counts_for_no_extreme():
    values = np.arange(1000, dtype=np.float32)
    values[[0, 1, 555]] = np.nan
    window = thin(line(np.arange(1000), values, []), 11)
    assert window.nonfinite.tolist() == [0, 555]  # the first of each column of 100 (112 of 7·2⁴)
    assert np.isfinite([window.low, window.high]).all()
    assert window.low[0] == 2
    assert window.mean[0] == (2 + 111) / 2  # of 2 to 111


def test_a_column_of_nan_alone_is_left_out_and_marked():
    values = np.arange(1000, dtype=np.float32)
    values[224:336] = np.inf  # the third column of 112
    window = thin(line(np.arange(1000), values, []), 11)
    assert 224 not in window.steps
    assert len(window.steps) == 8  # of 9 columns of 112
    assert window.nonfinite.tolist() == [224]


@settings(deadline=None, max_examples=300)
@given(span=st.integers(1, 2**50), points=st.integers(2, 5000), start=st.integers(0, 2**50))
def test_columns_cover_a_span_from_anywhere_on_and_are_not_much_wider_than_need_be(span, points, start):
    width = column_width(span, points)
    assert (start + span - 1) // width - start // width + 1 <= points
    assert width <= 1.25 * -(-span // (points - 1))


def test_columns_stay_where_they_are_while_a_line_grows():
    """From 800,001 to 1,000,000 steps in 1,001 columns the width is 2⁷·7 = 896, then 2⁷·8 = 1,024."""
    widths = {column_width(span, 1001) for span in range(800_001, 1_000_000, 1000)}
    assert widths == {896, 1024}


def grown(track: Track, number: int, seed: int) -> Track:
    """The track with so many more values, some of them NaN, at steps that may be far from each other."""
    rng = np.random.default_rng(seed)
    gaps = np.ones(number, np.int64) if seed % 2 else np.where(rng.random(number) < 0.1, 40, 1)
    values = np.where(rng.random(number) < 0.02, np.nan, rng.standard_normal(number))
    last = int(track.steps_at(track.length - 1)) if track.length else -1
    return track.append(last + np.cumsum(gaps), values.astype(np.float32))


looks = st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([1, 3, 8, 50, 400, 3000]))


@settings(deadline=None, max_examples=60)
@given(
    growth=st.lists(st.tuples(st.integers(1, 600), st.lists(looks, max_size=6)), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 2),
    stride=st.sampled_from([1, 2]),
)
def test_a_track_that_is_looked_at_as_it_grows_has_the_columns_of_a_new_one(growth, seed, stride):
    known, seen = Track.empty(), []
    for turn, (number, asked) in enumerate(growth):
        known = grown(known, number, seed + stride * turn)
        seen += [(known, *look) for look in asked]
        for track, *ends, width in seen[-8:]:  # older and shorter tracks, too
            start, stop = sorted(int(end * track.length) for end in ends)
            if start < stop:
                new = Track.empty().append(*track.cut(0, track.length))
                one, other = (columns_of(of, start, stop, width) for of in (track, new))
                np.testing.assert_allclose(one.total, other.total, rtol=1e-12, atol=1e-12)
                for field in ("begin", "low", "high", "finite", "steps", "odd"):
                    np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert len(known.kept.columns) <= columns._WIDTHS


def test_a_part_of_a_column_is_not_taken_for_the_columns_behind_it():
    track = Track.empty().append(np.arange(100), np.arange(100, dtype=np.float32))
    assert columns_of(track, 5, 100, 10).low.tolist() == [5, *range(10, 100, 10)]
    assert columns_of(track, 5, 8, 10).high.tolist() == [7]


def test_a_second_look_costs_what_came_since_the_first(monkeypatch: pytest.MonkeyPatch):
    edges: list[int] = []
    summarize = Pyramid.summarize

    def counting(pyramid: Pyramid, some: np.ndarray):
        edges.append(len(some))
        return summarize(pyramid, some)

    monkeypatch.setattr(Pyramid, "summarize", counting)
    track = Track.empty().append(np.arange(900_000), np.ones(900_000, np.float32))
    thin([Piece(track, 0, 900_000)], 1001)
    track = track.append(np.arange(900_000, 910_000), np.ones(10_000, np.float32))
    window = thin([Piece(track, 0, 910_000)], 1001)
    # In columns of 1,024 steps 900,000 are 878 and a part; that part and 10,000 more are 10 and a part.
    assert edges == [880, 12]
    assert len(window.steps) == 889


def test_what_is_done_to_a_window_changes_no_later_one():
    track = Track.empty().append(np.arange(10_000), np.ones(10_000, np.float32))
    window = thin([Piece(track, 0, 10_000)], 101)
    expected = [array.tolist() for array in window]
    for _ in range(2):
        for array in window:
            array[:] = 7
        window = thin([Piece(track, 0, 10_000)], 101)
        assert [array.tolist() for array in window] == expected


def test_a_window_that_moves_on_with_a_line_keeps_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(columns, "_MOST", 100)
    track = Track.empty()
    for _ in range(40):
        track = grown(track, 50, seed=1)
        start = max(0, track.length - 200)
        window = thin([Piece(track, start, track.length)], 101)
        check(window, *(array[start:] for array in track.cut(0, track.length)), 101)
    assert {width: len(kept.low) for width, kept in track.kept.columns.items()} == {2: 100}


@pytest.mark.parametrize("cuts", [[], [3]])
def test_a_line_is_joined_in_order(cuts):
    steps = np.array([2, 4, 6, 7, 9])
    series = join(line(steps, steps.astype(np.float32), cuts))
    assert series.steps.tolist() == series.values.tolist() == steps.tolist()


def test_the_line_of_nothing_is_empty():
    assert [array.tolist() for array in join([])] == [[], []]
    assert [array.tolist() for array in thin([], 10)] == [[], [], [], [], []]
