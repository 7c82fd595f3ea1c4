"""Questions of front ends for the histograms of an array."""

from __future__ import annotations

import gc
import json
from typing import Any

import numpy as np

from tests.live.scripted import ScriptedRun, watch
from tests.live.test_dashboard import until
from toolshed.errors import RunError
from toolshed.live.ridges import STEPS, Ridges


class Asked(ScriptedRun):
    """A run that has histograms."""

    def histograms(self, path: str, *, most: int) -> dict[int, np.ndarray]:
        self.asked.append((path, {"most": most}))
        if path.endswith("layer_1/Linear.weights"):
            raise RunError("by the test")
        return {1: np.arange(49), 5: np.zeros(49, np.int64)}


def ask(run: Any, **question: Any) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    ridges = Ridges(run, answers.append)
    ridges.ask({"view": "a", "number": 3, "pattern": "grads/**", "row": 0, **question})
    until(lambda: answers)
    assert json.loads(json.dumps(answers[0])) == answers[0]
    return answers[0]


def test_an_answer_has_the_counts_by_step():
    run = Asked()
    watch(run, 2, [1])
    path = "grads/model/layer_0/Linear.weights"
    answer = ask(run)
    assert answer == {
        "kind": "ridges", "view": "a", "number": 3, "path": path,
        "steps": [1, 5], "counts": [list(range(49)), [0] * 49],
    }  # fmt: skip
    assert run.asked == [(path, {"most": STEPS})]


def test_what_goes_wrong_is_the_answer():
    run = Asked()
    watch(run, 2, [1])
    assert ask(run, row=1)["error"] == "by the test"
    assert ask(run, row=7)["error"] == "IndexError: tuple index out of range"
    assert ask(run, pattern="<b>")["error"] == "KeyError: '<b>'"


def test_it_does_not_keep_the_run_alive():
    run, answers = Asked(), []
    ridges = Ridges(run, answers.append)
    del run
    gc.collect()
    ridges.ask({"view": "a", "number": 1, "pattern": "grads/**", "row": 0})
    until(lambda: ridges._pace._thread is None)
    assert answers == []
