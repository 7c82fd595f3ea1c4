"""Maps of what is watched: true to what was seen, in bounded size."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.live.scripted import ScriptedRun, watch
from toolshed.live.heat import CELLS, COLUMNS, MAPS, ROWS, heats, pack_heats, thin


def unpack(frame: bytes) -> tuple[dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    """What ``decodeMaps`` does, once more."""
    length = int(np.frombuffer(frame, "<u4", 1)[0])
    header, at, maps = json.loads(frame[8 : 8 + length]), 8 + length, []
    for one in header["maps"]:
        rows, columns = len(one["rows"]), one["columns"]
        steps = one["first"] + np.frombuffer(frame, "<u4", columns, at).astype(np.int64)
        values = np.frombuffer(frame, "<f4", rows * columns, at + 4 * columns).reshape(rows, columns)
        at += 4 * columns * (rows + 1)
        maps.append((steps, values))
    assert at == len(frame), "every byte is accounted for"
    return header, maps


def test_few_looks_are_all_there_and_come_out_of_the_frame_the_same():
    run = ScriptedRun()
    seen = watch(run, 3, range(1, 101, 10), every=10)
    header, ((steps, values),) = unpack(pack_heats(heats(run.watched, {}), 0))
    assert steps.tolist() == list(range(1, 101, 10))
    np.testing.assert_array_equal(values, seen.values("rms")[1].T)
    (one,) = header["maps"]
    assert one["rows"] == list(seen.paths)
    assert one["rows"][0][one["cut"] :] == "layer_0/Linear.weights"
    assert (one["pattern"], one["statistic"], one["statistics"]) == ("grads/**", "rms", ["rms", "absmax"])
    assert (one["start"], one["total"], one["every"]) == (0, 3, 10)


def test_a_watch_that_has_seen_nothing_is_an_empty_map():
    run = ScriptedRun()
    watch(run, 3, [])
    header, ((steps, values),) = unpack(pack_heats(heats(run.watched, {}), 0))
    assert header["maps"][0]["columns"] == len(steps) == 0
    assert values.shape == (3, 0)


def test_another_statistic_and_other_rows_are_chosen():
    run = ScriptedRun()
    seen = watch(run, 50, range(1, 6))
    choice = {"watched": {"grads/**": {"statistic": "absmax", "start": 40}}}
    (one,) = heats(run.watched, choice)
    assert (one.statistic, one.start, one.total) == ("absmax", 40, 50)
    assert one.paths == seen.paths[40:]
    np.testing.assert_array_equal(one.values, seen.values("absmax")[1].T[40:])


@pytest.mark.parametrize(
    "choice",
    [None, 3, {"grads/**": 3}, {"grads/**": {"statistic": "<b>", "start": -1}}, {"grads/**": {"start": 99}}],
)
def test_a_choice_that_makes_no_sense_is_none(choice):
    run = ScriptedRun()
    watch(run, 3, range(1, 6))
    (one,) = heats(run.watched, {"watched": choice})
    assert (one.statistic, one.start, len(one.paths)) == ("rms", 0, 3)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.floats(width=32)),
    st.integers(2, 20),
    st.integers(1, 1000),
    st.integers(1, 7),
)
def test_each_column_has_what_is_largest_in_magnitude_in_it(values, columns, first, every):
    steps = first + every * np.arange(len(values), dtype=np.int64)
    starts, thinned = thin(steps, values, columns)
    assert len(starts) <= columns
    edges = np.searchsorted(steps, [*starts, 10**9])
    for column, (start, stop) in enumerate(itertools.pairwise(edges)):
        for row in range(values.shape[1]):
            part, found = values[start:stop, row], thinned[column, row]
            if np.isnan(part).any():
                assert np.isnan(found)
            else:
                assert abs(found) == np.abs(part).max()
                assert found in part


def test_a_frame_is_bounded_whatever_is_watched():
    run = ScriptedRun()
    for number in range(7):
        watch(run, 300, range(1, 600), pattern=f"grads/{'long' * 100}/{number}/**")
    maps = heats(run.watched, {})
    assert len(maps) == MAPS
    assert {len(one.paths) for one in maps} == {ROWS}
    assert sum(one.values.size for one in maps) <= CELLS
    frame = pack_heats(maps, 3)
    assert len(frame) < 100_000
    assert unpack(frame)[0]["left_out"] == 3


def test_a_long_run_has_as_many_columns_as_a_screen():
    run = ScriptedRun()
    watch(run, 5, range(1, 1000))
    (one,) = heats(run.watched, {})
    assert COLUMNS / 2 <= len(one.steps) <= COLUMNS
