"""The figures of a history: the current line, and faintly what other branches did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.run.histories import with_branches
from toolshed.errors import HistoryError
from toolshed.run import History
from toolshed.views import Mark
from toolshed.views.look import LIGHT


def faint_lines(figure: Any) -> list[list[float]]:
    return [
        np.asarray(line.get_ydata()).tolist()
        for line in figure.axes[0].lines
        if line.get_color() == LIGHT.faint and len(line.get_xdata())
    ]


def test_a_plot_has_the_current_line_and_what_other_branches_did_since_they_parted():
    kept = with_branches()
    kept.switch("c")
    figure = kept.plot()
    current = [line for line in figure.axes[0].lines if line.get_color() == LIGHT.splits["train"]]
    assert np.asarray(current[-1].get_ydata()).tolist() == [1, 2, 3, 204, 305, 306]
    # main after 3, b after 4, and d: each from the last value on that the current line has too
    assert faint_lines(figure) == [[3, 4, 5, 6], [204, 205], [2, 403]]
    assert figure.get_supxlabel() == "1  step 3: b leaves main\n2  step 4: c leaves b"


def test_a_plot_of_the_first_branch_has_no_beginnings_of_branches():
    kept = with_branches()
    kept.switch("main")
    figure = kept.plot(marks=[Mark(2, "saved", "tag 'best'")])
    assert figure.get_supxlabel() == "1  step 2: tag 'best'"
    assert len(faint_lines(figure)) == 3


def test_a_plot_takes_names_and_titles_of_panels():
    kept = History()
    for name in ("train/loss", "eval/loss", "train/accuracy", "optim/grad_norm"):
        kept.append(name, [1, 2], [3.0, 4.0])
    titles = lambda *names, **options: [  # noqa: E731
        axes.get_title("left") for axes in kept.plot(*names, **options).axes
    ]
    assert titles() == ["loss", "accuracy", "optim/grad_norm"]
    assert titles(["optim/grad_norm", "loss"]) == ["optim/grad_norm", "loss"]
    assert titles("accuracy") == ["accuracy"]
    assert len(kept.plot(["loss"]).legends[0].get_texts()) == 2
    assert kept.plot(["train/loss"], log=True, smoothing=0.5, dark=True).axes[0].get_yscale() == "log"
    with pytest.raises(
        HistoryError, match=r"^There are no values named 'los'\. Did you mean '(train|eval)/loss'"
    ):
        kept.plot(["los"])
    assert History().plot().axes[0].texts[0].get_text() == "no values yet"
