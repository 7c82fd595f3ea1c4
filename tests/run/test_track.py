"""A track gives back the steps and values that it was given, from as few bytes as it can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.run.track import Track


def in_blocks(steps: np.ndarray, values: np.ndarray, size: int) -> Track:
    track = Track.empty()
    for at in range(0, len(steps), size):
        track = track.append(steps[at : at + size], values[at : at + size])
    return track


STRIDES = st.lists(st.sampled_from([1, 1, 1, 2, 100, 2**31]), min_size=1, max_size=60)


@settings(deadline=None, max_examples=150)
@given(
    first=st.sampled_from([0, 1, 77, 2**31 - 20, 2**40]),
    strides=st.one_of(STRIDES, st.integers(1, 9).map(lambda stride: [stride] * 50)),
    size=st.integers(1, 25),
)
def test_any_steps_come_back_and_are_found(first, strides, size):
    steps = first + np.cumsum([0, *strides])
    values = np.arange(len(steps), dtype=np.float32)
    track = in_blocks(steps, values, size)
    got = track.cut(0, track.length)
    assert (got.steps.dtype, got.values.dtype) == (np.int64, np.float32)
    assert got.steps.tolist() == steps.tolist()
    assert got.values.tolist() == values.tolist()
    asked = np.unique(np.concatenate([steps, steps + 1, steps - 1, [-(2**62), 0, 2**31 - 1, 2**31, 2**62]]))
    assert track.before(asked).tolist() == [int((steps < step).sum()) for step in asked]


def test_even_steps_take_no_memory_and_uneven_ones_four_bytes_each():
    values = np.zeros(100_000, np.float32)
    even = in_blocks(np.arange(0, 700_000, 7), values, 1000)
    assert even.steps is None
    steps = np.arange(100_000)
    steps[60_000:] += 1
    uneven = in_blocks(steps, values, 1000)
    assert uneven.steps.dtype == np.int32
    assert 4 * 100_000 <= uneven.nbytes - even.nbytes <= 5 * 100_000
    late = in_blocks(steps + 2**33, values, 1000)
    assert late.steps.dtype == np.int64


def test_steps_that_pass_what_four_bytes_hold_go_on_in_eight():
    steps = 2**31 + np.array([-9, -5, -4, -1, 0, 1, 7])
    track = in_blocks(steps, np.zeros(7, np.float32), 2)
    assert track.steps.dtype == np.int64
    assert track.cut(0, 7).steps.tolist() == steps.tolist()
    assert track.before(steps).tolist() == list(range(7))


def test_each_value_that_is_not_finite_is_remembered():
    values = np.zeros(1000, np.float32)
    values[[0, 3, 4, 500, 999]] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
    track = in_blocks(np.arange(1000), values, 70)
    assert track.odd[: track.odd_count].tolist() == [0, 3, 4, 500, 999]
    # the first of each column: of 0-2, 3-9, 10-499 and 500-999
    assert track.odd_in(np.array([0, 3, 10, 500, 1000])).tolist() == [0, 3, -1, 500]


def test_what_was_cut_out_cannot_be_written_to():
    track = in_blocks(np.arange(5), np.zeros(5, np.float32), 2)
    with pytest.raises(ValueError, match="read-only"):
        track.cut(1, 3).values[0] = 1


def test_a_longer_track_leaves_the_shorter_one_as_it_was():
    steps = np.cumsum(np.arange(1, 300))
    values = np.where(np.arange(299) % 5, np.float32(2), np.float32(np.nan))
    tracks = [Track.empty()]
    for at in range(0, 299, 13):
        tracks.append(tracks[-1].append(steps[at : at + 13], values[at : at + 13]))
    for track in tracks[1:]:
        n = track.length
        assert track.cut(0, n).steps.tolist() == steps[:n].tolist()
        assert track.odd[: track.odd_count].tolist() == list(range(0, n, 5))
