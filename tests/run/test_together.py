"""Small steps are made several in a call, and nothing tells but the time that they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import differing, values_of

STEPS = 3000


def data(case: zoo.Case) -> toolshed.data.Stream:
    """A batch of its own for each step."""
    return toolshed.data.from_function(lambda n: {**case.batch, "x": case.batch["x"] * (1 + n % 7)}, 40)


def run_of(case: zoo.Case, batches: Any = None, **options: Any) -> toolshed.Run:
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-4)
    metrics = toolshed.metrics.collection(error=toolshed.metrics.Mean("loss_total"))
    batches = data(case) if batches is None else batches
    return toolshed.Run(case.model, optimizer, case.loss_fn, batches, metrics=metrics, **options)


@pytest.fixture(scope="module")
def trained() -> toolshed.Run:
    case = zoo.dropout_mlp()
    run = run_of(case, eval_data=[case.batch])
    run.train(STEPS, wait=True)
    assert run._engine.clock.together > 1
    return run


def test_the_state_is_that_of_steps_made_one_by_one(trained: toolshed.Run):
    run = trained
    step = run.trainer.build_step(fields=(), donate=False)
    run.goto(0)
    state, batches = run.state, iter(data(zoo.dropout_mlp()).repeat())
    for _ in range(STEPS):
        state, _ = step(state, next(batches))
    run.goto(STEPS)
    assert differing(values_of(run.state), values_of(state)) == []


def test_every_step_has_its_loss_and_every_window_its_mean(trained: toolshed.Run):
    history = trained.history
    losses = history.series("train/loss")
    np.testing.assert_array_equal(losses.steps, np.arange(1, STEPS + 1))
    means = history.series("train/error")
    np.testing.assert_array_equal(means.steps, np.arange(40, STEPS + 1, 40))
    expected = losses.values.reshape(-1, 40).mean(axis=1)
    np.testing.assert_allclose(means.values, expected, rtol=1e-4)
    np.testing.assert_array_equal(history.series("eval/loss").steps, means.steps)
    norms = history.series("optim/grad_norm").steps
    np.testing.assert_array_equal(norms, np.arange(1, STEPS + 1, 50))


@pytest.mark.parametrize("step", [1, 1234, 2999])
def test_any_step_between_can_be_gone_to(trained: toolshed.Run, step: int):
    trained.goto(step)
    assert int(trained.state.step) == step
    loss = trained.explain(step).loss_total
    known = trained.history.series("train/loss").values[step - 1]
    np.testing.assert_allclose(loss, known, rtol=1e-5)


def test_data_that_fails_stops_the_run_behind_the_last_batch_that_it_gave():
    case = zoo.mlp()

    def batches() -> Iterator[Any]:
        for _ in range(2500):
            yield case.batch
        raise OSError("the disk is gone")

    run = run_of(case, batches())
    with pytest.raises(OSError, match="the disk is gone"):
        run.train(9000, wait=True)
    assert run._engine.clock.together > 1
    assert int(run.state.step) == 2500
    assert run.history.last("train/loss")[0] == 2500


def test_a_batch_of_another_shape_is_a_step_of_its_own():
    case = zoo.mlp()
    short = {name: values[:3] for name, values in case.batch.items()}
    run = run_of(case, [case.batch] * 9 + [short])
    with pytest.warns(toolshed.errors.RetraceWarning, match="compiled again: batch"):
        run.train(2000, wait=True)
    assert run._engine.clock.together > 1
    assert int(run.state.step) == 2000
