"""Drawings for papers and notebooks: what stands in them, what they refuse, what they follow."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from toolshed.errors import ToolshedError
from toolshed.insight import leaf_statistics
from toolshed.views import figures
from toolshed.views.look import DARK, LIGHT


class Rates(NamedTuple):
    rates: Any = np.geomspace(1e-4, 1.0, 5)
    losses: Any = np.array([2.0, 1.5, 1.0, 9.0, np.inf])
    smoothed: Any = np.array([2.0, 1.6, 1.1, 6.0, np.nan])
    suggested: float | None = 1e-3
    lowest: float | None = 1e-2
    diverged: bool = True


class Futures(NamedTuple):
    step: int = 10
    steps: Any = np.arange(11, 15)
    values: Any = ({"learning_rate": 0.1}, {"learning_rate": 9.0})
    losses: Any = np.array([[1.0, 0.9, 0.8, 0.7], [1.0, 50.0, np.inf, np.nan]])
    past: Any = (np.arange(1, 11), np.linspace(2, 1, 10))
    best: int = 0

    def label(self, place: int) -> str:
        return f"learning_rate {self.values[place]['learning_rate']}"


class Seen(NamedTuple):
    pattern: str = "grads/**"
    statistics: tuple[str, ...] = ("rms", "absmax")
    paths: tuple[str, ...] = ("grads/a/w", "grads/b/w")
    rows: int = 3

    def values(self, statistic: str) -> Any:
        return np.arange(self.rows) * 10, np.full((self.rows, 2), 1e-3)


GRADS = {
    "a": {"w": jnp.array([1e-3, -1e-3])},
    "b": {"w": jnp.array([jnp.nan, 1.0])},
    "c": {"w": jnp.zeros(2)},
}
DRAWINGS = {
    "gradient_flow": lambda **options: figures.gradient_flow(GRADS, **options),
    "update_ratios": lambda **options: figures.update_ratios({"w": ([1, 2], [1e-3, 2e-3])}, **options),
    "ridges": lambda **options: figures.ridges(leaf_statistics(GRADS), **options),
    "heat_map": lambda **options: figures.heat_map([[1.0, -2.0], [np.nan, 0.0]], **options),
    "history_map": lambda **options: figures.history_map(Seen(), **options),
    "confusion_matrix": lambda **options: figures.confusion_matrix([[8, 2], [1, 9]], **options),
    "learning_rates": lambda **options: figures.learning_rates(Rates(), **options),
    "futures": lambda **options: figures.futures(Futures(), **options),
    "curves": lambda **options: figures.curves({"train/loss": ([1, 2], [2.0, 1.0])}, **options),
}


@pytest.mark.parametrize("name", list(DRAWINGS))
def test_a_drawing_follows_the_theme_and_touches_no_pyplot_state(name: str):
    figure = DRAWINGS[name]()
    assert figure.get_facecolor()[:3] == pytest.approx((1, 1, 1))
    html = figure._repr_html_()
    assert html.count("data:image/png;base64,") == 2
    assert 'data-jp-theme-light="false"' in html
    dark = DRAWINGS[name](dark=True)
    assert dark.get_facecolor()[0] < 0.1
    assert dark._repr_html_() is None
    assert dark._repr_png_()[0].startswith(b"\x89PNG")
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_the_gradient_flow_has_a_row_for_each_parameter_in_order():
    axes = DRAWINGS["gradient_flow"]().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a/w", "b/w", "c/w"]
    dots, zeros, bad = axes.lines
    assert list(dots.get_xdata()) == pytest.approx([1e-3, 1.0])  # of finite values
    assert list(zeros.get_ydata()) == [2]
    assert list(bad.get_ydata()) == [1]


def test_ridges_are_scaled_one_by_one_and_leave_out_what_is_empty():
    counts = np.zeros(49, np.int64)
    counts[30] = 7
    axes = figures.ridges({"step 1": counts, "step 2": counts * 1000, "step 3": counts * 0}).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["step 1", "step 2"]


def test_a_matrix_of_both_signs_has_a_scale_around_zero():
    low, high = DRAWINGS["heat_map"]().axes[0].images[0].get_clim()
    assert (low, high) == (-2.0, 2.0)
    assert figures.heat_map([[1.0, 3.0]]).axes[0].images[0].get_clim() == (1.0, 3.0)


def test_a_confusion_matrix_writes_counts_and_colours_shares():
    axes = DRAWINGS["confusion_matrix"]().axes[0]
    assert {text.get_text() for text in axes.texts} == {"8", "2", "1", "9"}
    assert np.asarray(axes.images[0].get_array()) == pytest.approx(np.array([[0.8, 0.2], [0.1, 0.9]]))


def test_a_sweep_shows_the_suggestion_and_is_not_flattened_by_its_end():
    axes = DRAWINGS["learning_rates"]().axes[0]
    assert "ended early" in axes.get_title(loc="left")
    assert "suggested: 1e-3" in "".join(text.get_text() for text in axes.get_legend().get_texts()).replace(
        "0.001", "1e-3"
    )
    assert axes.get_ylim()[1] < 9  # the first is 2, the lowest 1.1


def test_the_best_future_stands_out_and_an_exploding_one_flattens_nothing():
    axes = DRAWINGS["futures"]().axes[0]
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["so far", "learning_rate 0.1 · best", "learning_rate 9.0 · not finite"]
    assert axes.get_ylim()[1] < 10


def test_text_is_never_mathematics_nor_a_command():
    figure = figures.heat_map([[1.0]], rows=["$x^"], columns=["\x1b[31m_{"], title="$\\frac", x="$", y="$_")
    figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: figures.gradient_flow({"a": "text"}), "no array of numbers to draw"),
        (lambda: figures.update_ratios({}), "no ratios to draw"),
        (lambda: figures.ridges({"a": np.ones(3)}), r"histogram of a has the shape \(3,\)"),
        (lambda: figures.ridges({"a": np.zeros(49)}), "no histogram with a finite value"),
        (lambda: figures.heat_map([1.0]), "Expected a matrix of numbers"),
        (lambda: figures.heat_map([[1.0]], rows=["a", "b"]), "2 names for 1 rows"),
        (lambda: figures.history_map(Seen(), "norm"), "no 'norm' in this watch; it has rms, absmax"),
        (lambda: figures.history_map(Seen(rows=0)), "Nothing was seen of 'grads/"),
        (lambda: figures.confusion_matrix([[1, 2]]), "1 by 2; expected a square one"),
        (lambda: figures.confusion_matrix([[1]], labels="ab"), "2 labels for 1 classes"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_that_says_why(draw: Any, words: str):
    with pytest.raises(ToolshedError, match=words):
        draw()


def test_the_looks_are_those_of_the_curves():
    assert figures.heat_map([[1.0]], dark=True).axes[0].get_title(loc="left") == ""
    assert (LIGHT.ground, DARK.ground) == ("#ffffff", "#111111")
