"""What there is to see of a run, in bounded size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.live.scripted import branched, event, log_training, training
from toolshed.live import scene
from toolshed.run import History


def test_a_history_without_values_is_an_empty_scene():
    empty = scene.whole(History())
    assert (empty.first, empty.last, empty.names, empty.panels, empty.lines) == (0, 0, (), (), ())


def test_a_scene_shows_the_true_extremes_of_a_long_history():
    history, values = History(), np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[54_321], values[77_777] = 50, -50
    history.append("train/loss", np.arange(1, 100_001), values)
    whole = scene.whole(history)
    (line,) = whole.lines
    assert (whole.first, whole.last) == (1, 100_000)
    assert len(line.window.steps) <= scene.LINE_COLUMNS
    assert (line.window.low.min(), line.window.high.max()) == (-50, 50)
    assert line.last == values[-1]


def test_the_columns_of_all_lines_together_are_bounded():
    history = History()
    for i in range(60):
        history.append(f"mine/{i}", np.arange(50_000), np.arange(50_000))
    for branch in range(10):
        history.begin_branch(f"b{branch}", at=40_000)
        for i in range(60):
            history.append(f"mine/{i}", np.arange(40_001, 50_000), np.arange(40_001, 50_000))
    lines = scene.whole(history).lines
    assert sum(len(line.window.steps) for line in lines) <= 1.2 * scene.COLUMNS
    assert {line.branch for line in lines if not line.current} == {"b8"}, "the newest branch but the current"


def test_other_branches_begin_where_they_and_the_current_line_part():
    whole = scene.whole(branched().history)
    starts = {
        (line.branch, line.current): (int(line.window.steps[0]), int(line.window.steps[-1]))
        for line in whole.lines
        if whole.names[line.place] == "train/loss"
    }
    assert starts[("b2", True)][0] == 1
    assert starts[("main", False)][0] == 500
    assert starts[("b1", False)][0] == 300
    assert whole.last == 1000, "the axis holds the other branches, too"


def test_the_grandparent_is_shown_from_where_the_line_left_it():
    history = History()
    history.append("a", [1, 2, 3, 4, 5, 6], np.ones(6))
    history.begin_branch("child", at=4)
    history.append("a", [5, 6], [2.0, 2.0])
    history.begin_branch("grandchild", at=2)  # leaves the child before the child left main
    history.append("a", [3], [3.0])
    known = {branch.name: branch for branch in history.branches}
    assert scene.lineage(known, "grandchild") == {"child": 2, "main": 2}
    assert scene.lineage(known, "main") == {}


def test_a_value_that_is_not_finite_is_a_mark_of_its_line():
    history = History()
    history.append("train/loss", [1, 2, 3], [1.0, np.nan, np.inf])
    (line,) = scene.whole(history).lines
    assert line.window.nonfinite.tolist() == [2, 3]
    assert line.last == np.inf


def test_a_line_of_nothing_but_nan_is_still_there():
    history = History()
    history.append("train/loss", [1, 2], [np.nan, np.nan])
    (line,) = scene.whole(history).lines
    assert line.window.steps.tolist() == []
    assert line.window.nonfinite.tolist() == [1, 2]


def test_a_part_has_the_resolution_that_was_asked_for():
    history = History()
    log_training(history, 0, 50_000)
    shown = scene.part(history, [0, 99], 20_000, 20_100, 500)
    (line,) = shown.lines  # there is no value 99
    assert line.window.steps.tolist() == list(range(20_000, 20_101))
    np.testing.assert_array_equal(line.window.low, history.series("train/loss").values[19_999:20_100])


# --- marks ------------------------------------------------------------------------------------------


def test_marks_tell_the_branches_that_are_not_the_current_line():
    run = branched()
    faint = [(mark["text"], mark["faint"]) for mark in scene.marks(run.events, run.history)]
    assert faint == [
        ("b1 leaves main", True),
        ("b2 leaves main", False),
        ("learning_rate 0.001 → 0.01", True),  # on main, after the current line left it
    ]


def test_an_event_of_an_ancestor_before_the_line_left_it_is_not_faint():
    run = branched()
    (mark,) = scene.marks((event("saved", 500, "saved"),), run.history)
    assert not mark["faint"]


def test_marks_of_values_that_are_not_finite_say_whose_they_are():
    run = training()
    place = run.history.names.index("train/accuracy")
    (mark,) = scene.marks(
        (event("nonfinite", 7, "train/accuracy is NaN", name="train/accuracy"),), run.history
    )
    assert mark["id"] == place


def test_marks_are_bounded_and_keep_what_is_looked_for():
    events = [event("nonfinite", step, "NaN", name="train/loss") for step in range(5000)]
    events.insert(2500, event("edited", 2500, "learning_rate"))
    marks = scene.marks(events, training().history)
    assert len(marks) <= scene.MARKS
    steps = [mark["step"] for mark in marks]
    assert steps == sorted(steps)
    assert steps[:3] == [0, 1, 2], "where it went wrong"
    assert steps[-1] == 4999
    assert [mark["step"] for mark in marks if mark["kind"] == "edited"] == [2500]


def test_a_long_text_is_cut():
    (mark,) = scene.marks((event("note", 1, "x" * 10_000),), History())
    assert len(mark["text"]) == scene.TEXT
    assert mark["text"].endswith("x…")


# --- the header -------------------------------------------------------------------------------------


def test_the_head_is_json_also_where_a_number_is_not_finite():
    run = training()
    run.hyperparameters = {"learning_rate": float("nan"), "clip": float("inf")}
    run.set(remaining=float("inf"), steps_per_second=np.float32(3))
    head = json.loads(json.dumps(scene.head(run), allow_nan=False))
    assert head["hyperparameters"] == {"learning_rate": "NaN", "clip": "Infinity"}
    assert (head["remaining"], head["steps_per_second"]) == ("Infinity", 3.0)
    assert (head["step"], head["goal"], head["status"]) == (1234, 5000, "training")


@pytest.mark.parametrize("text", ["", "x", "x" * 240])
def test_a_short_text_stays_as_it_is(text):
    assert scene.clip(text) == text
