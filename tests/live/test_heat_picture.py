"""The heat map in the picture of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.live.scripted import ScriptedRun, watch
from toolshed.live.drawing import Bitmap, Text
from toolshed.live.heat import heats
from toolshed.live.heat_picture import CELLS, ROWS, draw_heat, height_of, pixels, scale_of


def seen(values: Any) -> Any:
    """A map of given values, [rows][steps], looked at in every second step."""
    values = np.asarray(values, np.float32)
    run = ScriptedRun()
    history = watch(run, len(values), [])
    for place, column in enumerate(values.T):
        history.append("main", 1 + 2 * place, np.stack([column, column], axis=1))
    (one,) = heats(run.watched, {})
    return one._replace(every=2)


def test_the_scale_goes_from_the_least_to_the_largest_magnitude_in_halves_of_a_decade():
    assert scale_of(np.array([[2e-3, -0.5]])) == (-3.0, 0.0)
    assert scale_of(np.array([[4e-3, 2e-3, 0, np.nan, np.inf]])) == (-3.0, -2.0)
    assert scale_of(np.array([[1.0, 1.0]])) == (0.0, 0.5)
    assert scale_of(np.array([[np.nan, 0.0]])) == (-1.0, 0.0)


def test_colours_go_from_dark_blue_to_yellow_and_other_values_have_marks_of_their_own():
    sheet = pixels(seen([[1e-4, 1.0, 0.0, np.nan]]), 0.0, 8.0, -4.0, 0.0)[0]
    at = lambda step: sheet[int(step / 8 * len(sheet))].tolist()  # noqa: E731
    assert at(0.5) == [250, 250, 250], "before the first look nothing is known"
    assert at(2) == [0, 34, 78]
    assert at(4) == [254, 232, 56]
    assert at(6) == [225, 227, 230]
    assert {tuple(pixel) for pixel in sheet[int(7 / 8 * len(sheet)) + 1 :].tolist()} == {
        (196, 22, 28),
        (255, 255, 255),
    }


def test_it_names_its_rows_and_says_how_many_there_are():
    run = ScriptedRun()
    watch(run, 60, range(1, 400), every=1)
    (one,) = heats(run.watched, {}, rows=ROWS, cells=CELLS)
    items = list(draw_heat(one, 16.0, 100.0, 800.0, 0.0, 400.0))
    texts = [item.text for item in items if isinstance(item, Text)]
    assert texts[0] == "grads/** · rms, 24 of 60 arrays"
    assert texts[1:25] == [f"layer_{row}/Linear.weights" for row in range(24)]
    assert max(item.y for item in items if isinstance(item, Text)) < 100 + height_of(one)
    assert [item.pixels.shape[0] for item in items if isinstance(item, Bitmap)] == [24, 1]


def test_a_watch_that_has_seen_nothing_is_drawn_empty():
    run = ScriptedRun()
    watch(run, 2, [])
    (one,) = heats(run.watched, {})
    assert (pixels(one, 0.0, 1.0, -1.0, 0.0) == 250).all()
