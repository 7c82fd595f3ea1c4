"""What is in a figure of curves: read from its artists, and drawn, since drawing raises what is wrong."""

from __future__ import annotations

import io
import sys
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from toolshed.errors import ToolshedError
from toolshed.views import Mark, curves
from toolshed.views.lines import smooth
from toolshed.views.look import DARK, LIGHT

STEPS = np.arange(1, 101)
LOSS = (STEPS, np.linspace(3, 1, 100).astype(np.float32))
EVAL = (STEPS[19::20], np.linspace(2.9, 1.4, 5).astype(np.float32))
BOTH = {"train/loss": LOSS, "eval/loss": EVAL}


def drawn(figure: Any) -> bytes:
    """The figure as a picture; what cannot be drawn fails here."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def lines(axes: Any, color: str) -> list[tuple[list[float], list[float]]]:
    """The lines (not the signs) of a colour: their x and y."""
    return [
        (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axes.lines
        if to_hex(line.get_color()) == color.lower() and line.get_linestyle() == "-" and len(line.get_xdata())
    ]


def signs(axes: Any, marker: str) -> list[float]:
    """Where on the x axis a panel has signs of a kind."""
    found = [line for line in axes.lines if line.get_marker() == marker and line.get_linestyle() == "None"]
    return [x for line in found for x in np.asarray(line.get_xdata()).tolist()]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def titles(figure: Any) -> list[str]:
    return [axes.get_title("left") for axes in figure.axes]


def y_labels(axes: Any) -> list[str]:
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    return [label.get_text() for tick, label in ticks if low <= tick <= high]


def test_train_and_eval_of_a_metric_are_in_one_panel():
    figure = curves({**BOTH, "optim/grad_norm": LOSS})
    assert titles(figure) == ["loss", "optim/grad_norm"]
    first, second = figure.axes
    (train,) = lines(first, LIGHT.splits["train"])
    assert train == (LOSS[0].tolist(), LOSS[1].tolist())
    (evaluated,) = lines(first, LIGHT.splits["eval"])
    assert evaluated == (EVAL[0].tolist(), EVAL[1].tolist())
    assert lines(second, LIGHT.splits["train"]) == []
    assert len(lines(second, LIGHT.splits[None])) == 1
    assert legend(figure) == ["train", "eval"]
    assert first.get_xlim() == second.get_xlim()
    drawn(figure)


def test_eval_is_told_from_train_without_colour():
    first = curves(BOTH).axes[0]
    markers = [line.get_marker() for line in first.lines if line.get_linestyle() == "-"]
    assert markers == ["None", "o"]


def test_no_smoothing_draws_each_line_once_and_smoothing_keeps_the_raw_line_faint():
    rng = np.random.default_rng(0)
    noisy = (STEPS, rng.standard_normal(100).astype(np.float32))
    assert len(lines(curves({"train/loss": noisy}).axes[0], LIGHT.splits["train"])) == 1
    figure = curves({"train/loss": noisy}, smoothing=0.8)
    raw, average = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 100)
    np.testing.assert_array_equal(raw.get_ydata(), noisy[1])
    np.testing.assert_allclose(average.get_ydata(), smooth(*noisy, 0.8))
    assert raw.get_alpha() < 0.5
    assert raw.get_zorder() < average.get_zorder()
    assert legend(figure) == ["train", "as logged"]


def test_eval_now_and_then_is_not_smoothed_by_the_weight_of_each_step():
    figure = curves(BOTH, smoothing=0.8)  # 0.8²⁰ is 0.01
    (evaluated,) = lines(figure.axes[0], LIGHT.splits["eval"])
    assert evaluated[1] == EVAL[1].tolist()


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5, float("nan")])
def test_a_smoothing_that_is_none_is_an_error(smoothing):
    with pytest.raises(ToolshedError) as caught:
        curves(BOTH, smoothing=smoothing)
    assert str(caught.value) == (f"smoothing={smoothing}; expected a number from 0 to below 1, such as 0.9.")


def test_values_that_are_not_finite_are_crosses_and_gaps():
    values = LOSS[1].copy()
    values[[9, 10, 49]] = [np.nan, np.inf, -np.inf]
    figure = curves({"train/loss": (STEPS, values), "train/other": LOSS})
    assert signs(figure.axes[0], "x") == [10, 11, 50]
    assert signs(figure.axes[1], "x") == []
    (line,) = lines(figure.axes[0], LIGHT.splits["train"])
    assert np.flatnonzero(np.isnan(line[1])).tolist() == [9, 10, 49]
    assert legend(figure) == ["train", "NaN or infinite"]
    drawn(figure)


def test_a_value_between_two_gaps_is_a_dot():
    values = np.array([1, np.nan, 2, np.nan, 3, 4], np.float32)
    figure = curves({"train/loss": (np.arange(6), values)})
    assert signs(figure.axes[0], "o") == [0, 2]


def test_a_line_of_nothing_but_nan_can_be_drawn():
    for log in (False, True):
        figure = curves({"train/loss": (STEPS, np.full(100, np.nan, np.float32))}, log=log, smoothing=0.9)
        assert len(signs(figure.axes[0], "x")) == 100
        drawn(figure)


def test_a_log_scale_marks_what_it_cannot_show():
    values = LOSS[1].copy()
    values[[3, 4]] = [0, -1]
    figure = curves({"train/loss": (STEPS, values), "train/other": LOSS}, log=True)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]
    assert signs(figure.axes[0], "v") == [4, 5]
    assert "0 or below" in legend(figure)
    drawn(figure)
    linear = curves({"train/loss": (STEPS, values)})
    assert linear.axes[0].get_yscale() == "linear"
    assert signs(linear.axes[0], "v") == []


def test_a_log_scale_for_some_panels_and_none_where_nothing_is_positive():
    series = {"train/loss": LOSS, "train/accuracy": LOSS, "x": (STEPS, -LOSS[1])}
    scales = [axes.get_yscale() for axes in curves(series, log=["loss", "x"]).axes]
    assert scales == ["log", "linear", "linear"]


def test_marks_cross_all_panels_and_their_texts_stand_below():
    marks = [
        Mark(50, "edited", "learning_rate 0.001 → 0.0003"),
        Mark(20, "saved"),
        Mark(30, "branched", "b leaves main"),
        Mark(40, "note", "of a kind that is no mark"),
    ]
    figure = curves({"train/loss": LOSS, "x": LOSS}, marks=marks)
    for axes in figure.axes:
        assert sorted(line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2) == [
            20,
            30,
            50,
        ]
        assert [(text.get_position()[0], text.get_text()) for text in axes.texts] == [(30, "1"), (50, "2")]
    assert figure.get_supxlabel() == ("1  step 30: b leaves main\n2  step 50: learning_rate 0.001 → 0.0003")
    assert legend(figure) == ["train", "edit", "branch", "saved"]
    drawn(figure)


def test_marks_close_together_share_their_numbers_and_of_many_the_first_are_told():
    marks = [Mark(10 + step, "edited", f"edit {step}") for step in range(3)]
    marks += [Mark(30 + 5 * turn, "edited", "later") for turn in range(9)]
    figure = curves({"train/loss": LOSS}, marks=marks)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1–3", "4", "5", "6", "7", "8", "9", "10"]
    assert figure.get_supxlabel().splitlines()[-1] == "and 2 more"


def test_very_many_marks_do_not_hide_the_curves():
    figure = curves({"train/loss": LOSS}, marks=[Mark(step, "saved") for step in range(100)])
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(marks) == 60  # the first of each of 60 places
    assert max(line.get_ydata()[1] for line in marks) < 0.1


def test_other_branches_are_faint_and_behind():
    other = (STEPS[50:], LOSS[1][50:] * 1.2)
    figure = curves(BOTH, others={"train/loss": [other], "eval/loss": []})
    (line,) = lines(figure.axes[0], LIGHT.faint)
    assert line == (other[0].tolist(), other[1].tolist())
    assert legend(figure) == ["train", "eval", "other branches"]
    faint, *strong = sorted(
        (line.get_zorder(), to_hex(line.get_color()))
        for line in figure.axes[0].lines
        if len(line.get_xdata())
    )
    assert faint[1] == LIGHT.faint
    assert faint[0] < strong[0][0]


def test_names_are_text():
    names = ["a $x^2$ {", "b\nc\x1b[31m", "<script>alert(1)</script>", "_hidden", "long " * 40]
    figure = curves(dict.fromkeys(names, LOSS), marks=[Mark(3, "edited", "$\\frac{\n")])
    got = titles(figure)
    assert got[:4] == ["a $x^2$ {", "b c", "<script>alert(1)</script>", "_hidden"]
    assert len(got[4]) < 40
    assert "…" in got[4]
    assert not any(axes.title.get_parse_math() for axes in figure.axes if axes.title.get_text())
    drawn(figure)  # a formula that cannot be parsed would raise here
    svg = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(svg, format="svg")
    assert "<script>" not in svg.getvalue()
    assert "&lt;script&gt;" in svg.getvalue()


def test_units_stand_beside_the_title():
    memory = np.linspace(6.1e9, 6.3e9, 100).astype(np.float32)
    figure = curves(
        {"speed/steps_per_second": LOSS, "memory/device_bytes": (STEPS, memory), "train/loss": LOSS}
    )
    assert [axes.get_title("right") for axes in figure.axes] == ["steps/s", "GB", ""]
    labels = y_labels(figure.axes[1])
    assert labels[0].startswith("6.1")
    assert not any(letter in "".join(labels) for letter in "kMGe")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0", "0.25", "0.50", "0.75", "1.00"]),
        (0, 3e-4, ["0", "1e−4", "2e−4", "3e−4"]),
        (14_000, 15_000, ["14.00k", "14.25k", "14.50k", "14.75k", "15.00k"]),
        (-2, 2, ["−2", "−1", "0", "1", "2"]),
        (0, 4e6, ["0", "1M", "2M", "3M", "4M"]),
    ],
)
def test_numbers_along_the_axis_are_short_and_round(low, high, expected):
    figure = curves({"x": (STEPS, np.linspace(low, high, 100))})
    assert y_labels(figure.axes[0]) == expected


@pytest.mark.parametrize("log", [False, True])
def test_numbers_along_the_axis_tell_neighbours_apart(log):
    for low, high in ((0.97512, 0.97514), (1e6, 1e6 + 1), (1e-9, 3e-9), (1, 1.0001), (2.1, 20.5), (0.3, 40)):
        labels = y_labels(curves({"x": (STEPS, np.linspace(low, high, 100))}, log=log).axes[0])
        assert len(set(labels)) == len(labels) >= 2


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 20])
def test_steps_are_written_below_the_last_panel_of_each_column(count):
    figure = curves({f"value {index}": LOSS for index in range(count)})
    assert len(figure.axes) == count
    columns = figure.axes[0].get_gridspec().ncols
    assert columns <= 3
    written = [index for index, axes in enumerate(figure.axes) if axes.get_xlabel() == "step"]
    assert written == list(range(max(0, count - columns), count))
    drawn(figure)


def test_nothing_and_single_values_can_be_drawn():
    figure = curves({})
    assert [text.get_text() for text in figure.axes[0].texts] == ["no values yet"]
    drawn(figure)
    empty = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    drawn(curves({"train/loss": empty, "one": (np.array([5]), np.array([2.0], np.float32))}, smoothing=0.9))
    drawn(curves({"train/loss": empty}, log=True, marks=[Mark(3, "error", "no step was made")]))


def test_a_million_points_make_a_small_figure_with_the_true_extremes():
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    values[123_456] = 50
    figure = curves({"train/loss": (np.arange(1_000_000), values)}, smoothing=0.99)
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) < 10_000
    assert max(np.nanmax(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_ydata())) == 50
    file = io.BytesIO()
    figure.savefig(file, format="pdf")
    assert len(file.getvalue()) < 300_000


def luminance(color: str) -> float:
    """Of WCAG 2.2, "relative luminance"."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_text_stand_out_from_the_ground(look):
    """Contrast at least 3 for lines and 7 for text, as WCAG 2.2 asks (1.4.11 and 1.4.6)."""

    def contrast(color: str) -> float:
        bright, dim = sorted([luminance(color), luminance(look.ground)], reverse=True)
        return (bright + 0.05) / (dim + 0.05)

    assert min(contrast(color) for color in look.splits.values()) >= 3
    assert contrast(look.ink) >= 7
    assert contrast(look.grid) < 2  # the control: rules are to stay behind


def test_dark_is_dark_and_light_is_light():
    for dark, look in ((False, LIGHT), (True, DARK)):
        figure = curves(BOTH, dark=dark)
        assert to_hex(figure.get_facecolor()) == to_hex(figure.axes[0].get_facecolor()) == look.ground
        assert lines(figure.axes[0], look.splits["train"])


def test_no_state_of_pyplot_is_used_and_no_setting_is_changed(monkeypatch):
    before = dict.items(mpl.rcParams.copy())
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    drawn(curves(BOTH, smoothing=0.5, log=True))
    assert dict.items(mpl.rcParams) == before


def test_a_figure_shows_itself_in_a_notebook():
    data, size = curves(BOTH)._repr_png_()
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    assert (width, height) == (2 * size["width"], 2 * size["height"])  # sharp on screens of two dots a pixel
