"""Histograms over time: those of the states that were there, and the run is as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.run.small import data, new_run, until
from tests.training.by_hand import differing, values_of
from toolshed.errors import ContextKeyError, DataError, RunError
from toolshed.insight import HISTOGRAM_EDGES, leaf_statistics

WEIGHTS = "Affine_0/Linear.weights"


def trained(**options: Any) -> Any:
    run = new_run(snapshot_every=4, **options)
    run.train(10, wait=True)
    return run


def weights(run: Any, field: str) -> str:
    name = next(path for path in run.state.params if path.endswith(WEIGHTS))
    return f"{field}/{name}"


def test_parameters_are_those_of_the_snapshots_and_of_now():
    run = trained()
    path = weights(run, "params")
    found = run.histograms(path)
    assert list(found) == [0, 4, 8, 10]
    for step, counts in found.items():
        run.goto(step)
        values = np.asarray(run.state.params[path.removeprefix("params/")])
        expected, _ = np.histogram(values, HISTOGRAM_EDGES[HISTOGRAM_EDGES != 0])  # no value is exactly 0
        middle = len(expected) // 2
        assert counts.sum() == values.size
        assert counts[:middle].tolist() == expected[:middle].tolist()


def test_gradients_are_those_of_the_one_step_after_each_snapshot():
    run = trained()
    before, path = values_of(run.state), weights(run, "grads")
    found = run.histograms(path)
    assert list(found) == [1, 5, 9]
    for step, counts in found.items():
        leaf = run.explain(step)[path]
        assert counts.tolist() == leaf_statistics({"g": leaf})["g"].histogram.tolist()
    assert int(run.state.step) == 10
    assert differing(values_of(run.state), before) == []


def test_a_branch_has_its_ancestors_up_to_where_it_left_them():
    run = trained()
    run.goto(4)
    run.step(3)
    assert list(run.histograms(weights(run, "params"))) == [0, 4, 6, 7]
    assert list(run.histograms(weights(run, "grads"))) == [1, 5, 7]


def test_of_many_steps_some_are_taken_evenly():
    run = new_run(snapshot_every=1)
    run.train(20, wait=True)
    assert list(run.histograms(weights(run, "params"), most=3)) == [0, 10, 20]


def test_training_goes_on_meanwhile():
    run = new_run(snapshot_every=50)
    run.train(wait=False)
    until(lambda: len(run.timeline.here.snapshots) > 2)
    found = run.histograms(weights(run, "grads"))
    assert len(found) > 2
    assert run.status == "training"
    run.stop()
    run.wait()


def test_what_cannot_be_had_is_an_error_that_says_why():
    run = trained()
    with pytest.raises(ContextKeyError, match=r"^\"?No 'params/nothing' in this state\."):
        run.histograms("params/nothing")
    with pytest.raises(ContextKeyError, match=r"No 'grads/nothing' in this Context\."):
        run.histograms("grads/nothing")
    with pytest.raises(RunError, match=r"^grads is no array but dict; name one of the arrays in it\."):
        run.histograms("grads")
    with pytest.raises(RunError, match=r"^No step was made yet, so there is nothing to be seen of grads/w\."):
        new_run().histograms("grads/w")
    with pytest.raises(RunError, match=r"^most is 0; expected a whole number from 1"):
        run.histograms("grads/w", most=0)


def test_data_that_can_be_read_only_forwards_give_parameters_alone():
    run = new_run(iter(list(data()) * 3))
    run.train(6, wait=True)
    assert list(run.histograms(weights(run, "params"))) == [0, 6]
    with pytest.raises(DataError, match=r"^This run's data can be read only forwards"):
        run.histograms(weights(run, "grads"))
