"""Futures: what a run would do with other hyperparameters is what it then does."""

from __future__ import annotations

import numpy as np
import optax
import pytest

import toolshed
from tests.run.test_rates import new_run
from toolshed.errors import RunError

RATES = [1e-3, 1e-2, 1e-1]


def test_one_after_another_each_future_is_what_then_happens_bit_for_bit():
    run = new_run()
    run.train(6, wait=True)
    futures = toolshed.what_if(run, 7, learning_rate=RATES, at_once=False)
    assert futures.step == 6
    assert futures.steps.tolist() == list(range(7, 14))
    for number, rate in enumerate(RATES):
        run.goto(6, "main")
        run.edit(learning_rate=rate)
        run.train(7, wait=True)
        losses = run.history.series("train/loss").values[-7:]
        assert losses.tolist() == futures.losses[number].tolist()
    assert len(np.unique(futures.losses[:, -1])) == 3


def test_at_once_they_agree_to_rounding():
    run = new_run()
    run.train(3, wait=True)
    apart = toolshed.what_if(run, 6, learning_rate=RATES, at_once=False)
    together = toolshed.what_if(run, 6, learning_rate=RATES)
    np.testing.assert_allclose(together.losses, apart.losses, rtol=1e-5)
    assert together.values == tuple({"learning_rate": rate} for rate in RATES)


def test_the_past_and_the_best_are_told():
    run = new_run()
    run.train(5, wait=True)
    futures = toolshed.what_if(run, 4, learning_rate=[1e9, 1e-2, 0.0])
    assert futures.past.steps.tolist() == [1, 2, 3, 4, 5]
    assert futures.past.values.tolist() == run.history.series("train/loss").values.tolist()
    assert futures.best == 1
    assert futures.label(1) == "learning_rate 0.01"
    lines = repr(futures).splitlines()
    assert lines[0] == "3 futures of 4 steps from step 5"
    assert lines[2].startswith("  learning_rate 0.01 ")
    assert lines[2].endswith("← best")
    assert new_run().history.names == []
    assert len(toolshed.what_if(new_run(), 1, learning_rate=[0.1]).past.steps) == 0


def test_several_hyperparameters_change_together():
    run = new_run(optax.inject_hyperparams(optax.sgd)(learning_rate=1e-2, momentum=0.9))
    futures = toolshed.what_if(run, 5, learning_rate=[1e-2, 1e-2], momentum=[0.9, 0.0])
    assert futures.label(1) == "learning_rate 0.01, momentum 0"
    assert futures.losses[0, 0] == futures.losses[1, 0]  # before the first update they are one
    assert futures.losses[0, -1] != futures.losses[1, -1]


@pytest.mark.parametrize(
    ("arguments", "values", "message"),
    [
        ((3,), {"learning_rate": [1]}, r"^Expected a Run, got int 3\."),
        ((None, 0), {"learning_rate": [1]}, r"^steps is 0; expected a whole number from 1\."),
        ((None,), {}, r"^what_if got none; expected as many values"),
        ((None,), {"learning_rate": []}, r"^what_if got 0 for learning_rate; expected"),
        (
            (None,),
            {"learning_rate": [1, 2], "b": [1]},
            r"^what_if got 2 for learning_rate, 1 for b; expected",
        ),
        ((None,), {"rate": [1]}, r"^There is no hyperparameter 'rate' .* Did you mean 'learning_rate'\?"),
        ((None,), {"learning_rate": ["fast"]}, r"^learning_rate is str; expected one number"),
    ],
)
def test_a_wrong_call_is_an_error_that_says_what_was_expected(arguments, values, message):
    first, *rest = arguments
    with pytest.raises(RunError, match=message):
        toolshed.what_if(new_run() if first is None else first, *rest, **values)
