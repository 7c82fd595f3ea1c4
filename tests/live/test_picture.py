"""The picture of a run: what it shows is what the history holds."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.live.scripted import ScriptedRun, branched, event, training, watch
from tests.live.test_autopsies import DATA
from toolshed.live import autopsies, scene
from toolshed.live.chart import ALARM, COLORS
from toolshed.live.drawing import Bitmap, Drawing, Line, Shape, Text, to_svg
from toolshed.live.heat import heats
from toolshed.live.picture import COLUMNS, PANELS, describe, draw, sentence


def picture(run: ScriptedRun, **settings: Any) -> Drawing:
    whole, marks = scene.whole(run.history, columns=COLUMNS), scene.marks(run.events, run.history)
    told = autopsies.newest(run.events)
    return draw(scene.head(run), whole, marks, settings, maps=heats(run.watched, settings), autopsy=told)


def texts(drawing: Drawing) -> list[str]:
    return [item.text for item in drawing.items if isinstance(item, Text)]


def curves(drawing: Drawing, color: str) -> list[Line]:
    return [
        item for item in drawing.items if isinstance(item, Line) and item.color == color and item.width <= 1.5
    ]


def test_a_run_without_values_says_so():
    assert "No values yet." in texts(picture(ScriptedRun()))


def test_it_says_what_the_header_says():
    said = texts(picture(training()))
    assert said[:2] == [
        "digits",
        "training at step 1,234 of 5,000 · epoch 2.37 · 0:12 · 812 steps/s · on main",
    ]
    assert "loss" in said
    assert any(text.startswith("train 0.") for text in said)


def test_a_run_in_one_line():
    text = "training at step 1,234 of 5,000 · epoch 2.37 · 0:12 · 812 steps/s · on main"
    assert sentence(scene.head(training())) == text
    assert sentence(scene.head(ScriptedRun())) == "ready at step 0 · 0:00 · on main"


def test_a_failure_is_said_in_red():
    run = training()
    run.set(status="failed", message="NonFiniteError: the loss of step 7 is NaN.")
    (line,) = [item for item in picture(run).items if isinstance(item, Text) and "NonFinite" in item.text]
    assert line.color == ALARM


def test_a_straight_line_is_drawn_straight_and_from_end_to_end():
    run = ScriptedRun()
    run.history.append("train/loss", [0, 10, 20], [3.0, 2.0, 1.0])
    (line,) = curves(picture(run), COLORS[0])
    (x0, y0), (x1, y1), (x2, y2) = line.points.tolist()
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y1 - y0 == pytest.approx(y2 - y1)
    assert y2 > y0, "less is lower"


def test_on_a_logarithmic_axis_a_decay_is_straight():
    run = ScriptedRun()
    run.history.append("train/loss", [0, 1, 2], [100.0, 10.0, 1.0])
    (line,) = curves(picture(run, log=["loss"]), COLORS[0])
    y = line.points[:, 1]
    assert y[1] - y[0] == pytest.approx(y[2] - y[1])
    (line,) = curves(picture(run), COLORS[0])
    y = line.points[:, 1]
    assert y[1] - y[0] != pytest.approx(y[2] - y[1])


def test_a_logarithmic_axis_without_positive_values_is_no_error():
    run = ScriptedRun()
    run.history.append("train/loss", [0, 1, 2], [-1.0, 0.0, -1.0])
    picture(run, log=["loss"])


def test_a_single_value_is_a_point_in_the_middle():
    run = ScriptedRun()
    run.history.append("train/loss", [7], [2.5])
    drawing = picture(run)
    (dot,) = [item for item in drawing.items if isinstance(item, Shape)]
    assert dot.points[:, 0].mean() == pytest.approx(drawing.width / 2, abs=30)


def test_values_that_are_not_finite_are_crosses():
    run = ScriptedRun()
    run.history.append("train/loss", [1, 2, 3, 4], [1.0, np.nan, 2.0, np.inf])
    strokes = [item for item in picture(run).items if isinstance(item, Line) and item.color == ALARM]
    assert len(strokes) == 2 * 2
    assert "train inf" in texts(picture(run))


def test_the_dashboard_s_choice_of_panels_and_lines_is_kept():
    run = training()
    assert "accuracy" in texts(picture(run))
    chosen = texts(picture(run, panels={"accuracy": False, "optim/update_norm": True}, off=["loss\neval"]))
    assert "accuracy" not in chosen
    assert "optim/update_norm" in chosen
    assert not any(text.startswith("eval") for text in chosen)


def test_other_branches_are_faint_and_can_be_left_out():
    def strengths(*hidden: str) -> set[float]:
        return {line.opacity for line in curves(picture(branched(), off=list(hidden)), COLORS[0])}

    titles = ("loss", "accuracy", "optim/learning_rate", "optim/grad_norm")
    assert strengths() == strengths("loss\nothers") == {1.0, 0.35}
    assert strengths(*(f"{title}\nothers" for title in titles)) == {1.0}


def test_marks_stand_at_their_steps():
    run = ScriptedRun()
    run.history.append("train/loss", [0, 50, 100], [1.0, 1.0, 1.0])
    run.events = (event("edited", 50, "learning_rate"), event("edited", 999, "outside of the axis"))
    items = picture(run).items
    (line,) = curves(picture(run), COLORS[0])
    (mark,) = [item for item in items if isinstance(item, Shape) and item.color not in COLORS]
    assert mark.points[:, 0].mean() == pytest.approx(line.points[1, 0], abs=1)


def test_very_many_panels_are_not_all_drawn():
    run = ScriptedRun()
    for i in range(30):
        run.history.append(f"mine/{i}", [1, 2], [1.0, 2.0])
    titles = [text for text in texts(picture(run)) if re.fullmatch(r"mine/\d+", text)]
    assert len(titles) == PANELS


def test_hostile_names_are_text():
    run = training(name="</svg><script>alert(1)</script>")
    run.history.append('"><img src=x onerror=alert(1)>\u202e\x00', [1, 2], [1.0, 2.0])
    run.set(message="<b>&")
    sheet = ElementTree.fromstring(to_svg(picture(run)))
    assert {node.tag.rpartition("}")[2] for node in sheet.iter()} == {"svg", "rect", "path", "text"}


def test_the_picture_of_a_long_run_is_small():
    run = ScriptedRun()
    steps = np.arange(1, 300_001)
    for name in ("train/loss", "eval/loss", "train/accuracy", "eval/accuracy", "optim/grad_norm"):
        run.history.append(name, steps, np.random.default_rng(0).standard_normal(len(steps)))
    assert len(to_svg(picture(run))) < 60_000


def test_in_words_it_names_the_newest_metrics():
    run = training()
    whole = scene.whole(run.history)
    words = describe(scene.head(run), whole)
    assert words.startswith("digits: training at step 1,234 of 5,000")
    loss = run.history.last("train/loss")[1]
    assert f"train/loss {loss:.4g}" in words
    assert "optim" not in words


def test_the_autopsy_stands_above_the_charts_with_the_fields_that_are_not_finite():
    run = training()
    plain = picture(run)
    run.events = (event("autopsy", 1235, **DATA),)
    drawing = picture(run)
    said = texts(drawing)
    title = said.index("Autopsy of step 1,235: log gives -∞ for finite arguments")
    assert said[title + 1 : title + 4] == [
        "at train.py:12 in loss_fn",
        "return jnp.log(p)",
        "operand params/w float32[4], 0 there, from 0 to 1",
    ]
    assert said[title + 4 : title + 6] == [
        "batch 7 of epoch 1",
        "x float32[4,2]: 3 NaN, 0 infinite, in example 0, 1, 3 and 2 more",
    ]
    assert drawing.height > plain.height


def test_what_is_watched_is_drawn_below_in_few_bytes():
    run = training()
    watch(run, 12, range(1, 1234, 10), every=10)
    drawing = picture(run)
    assert "grads/** · rms" in texts(drawing)
    (cells, _) = [item for item in drawing.items if isinstance(item, Bitmap)]
    assert cells.y > max(item.points[:, 1].max() for item in curves(drawing, COLORS[0]))
    svg = to_svg(drawing)
    assert len(svg) < 80_000
    assert "image" in {node.tag.rpartition("}")[2] for node in ElementTree.fromstring(svg).iter()}
