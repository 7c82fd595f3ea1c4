"""Several runs in one figure: each with a colour and a style of its own, in all panels."""

from __future__ import annotations

import io

import numpy as np
import pytest

from toolshed.errors import ToolshedError
from toolshed.views import compare_curves

STEPS = np.arange(1, 6)


def line(height: float) -> tuple[np.ndarray, np.ndarray]:
    return STEPS, np.full(5, height, np.float32)


def test_each_run_has_the_same_look_in_each_panel_and_none_has_another_s():
    runs = {f"run {n}": {"train/loss": line(n), "eval/loss": line(-n)} for n in range(9)}
    runs["run 3"].pop("eval/loss")
    figure = compare_curves(runs)
    first, second = figure.axes
    looks = [(one.get_color(), one.get_linestyle()) for one in first.lines]
    assert len(set(looks)) == 9
    assert [(one.get_color(), one.get_linestyle()) for one in second.lines] == looks[:3] + looks[4:]
    assert [one.get_ydata()[0] for one in first.lines] == list(range(9))


def test_names_are_text():
    figure = compare_curves({"$x^2$ <b>": {"a": line(1.0)}})
    figure.savefig(io.BytesIO())
    assert figure.legends[0].get_texts()[0].get_text() == r"\$x^2\$ <b>"


def test_nothing_in_common_is_said_and_nonsense_refused():
    assert compare_curves({}).axes[0].texts[0].get_text() == "no values in common"
    with pytest.raises(ToolshedError, match=r"smoothing=1\.0; expected a number from 0 to below 1"):
        compare_curves({}, smoothing=1.0)
