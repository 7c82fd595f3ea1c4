"""Values of one's own in a run's history, logged from cells and from loss functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.run.small import data, events_of, new_run, values
from toolshed.errors import RunError


def test_values_of_ones_own_are_logged_at_the_present_step():
    run = new_run()
    run.log("my/start", 1)
    run.train(3, wait=True)
    for name, value in (
        ("my/float", 0.25),
        ("my/bool", True),
        ("my/jax", jnp.float32(2.5)),
        ("my/numpy", np.int64(7)),
        ("my/bfloat16", jnp.bfloat16(1.5)),
        ("lonely", float("nan")),
    ):
        run.log(name, value)
    run.wait()
    assert values(run, "my/start") == {0: 1.0}
    assert [values(run, f"my/{name}")[3] for name in ("float", "bool", "jax", "numpy", "bfloat16")] == [
        0.25,
        1.0,
        2.5,
        7.0,
        1.5,
    ]
    assert np.isnan(values(run, "lonely")[3])


def test_a_name_that_is_logged_twice_at_one_step_is_told_once():
    run = new_run()
    run.train(2, wait=True)
    for value in (1.0, 2.0, 3.0):
        run.log("my/number", value)
    run.wait()
    assert values(run, "my/number") == {2: 1.0}
    notes = [event.text for event in events_of(run, "note")]
    assert len(notes) == 1
    assert notes[0].startswith("A value was not written down. my/number: step 2 on branch 'main', which has")


def test_a_loss_function_logs_through_a_callback_and_not_a_value_that_is_traced():
    run: Any = None
    refused: list[str] = []

    def loss_fn(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        try:
            run.log("my/mean", x.mean())
        except RunError as error:
            refused.append(str(error))
        jax.debug.callback(lambda value: run.log("my/loss", value), loss)
        return loss, state, aux

    run = toolshed.Run(zoo.mlp().model, optax.sgd(0.01), loss_fn, list(data()), norms_every=0)
    run.train(1, wait=True)
    run.wait()
    assert refused[0].startswith("my/mean is a value that jax is tracing; there is no number yet. Let the")
    assert "my/mean" not in run.history.names
    assert values(run, "my/loss").popitem()[1] == pytest.approx(values(run, "train/loss")[1])


def test_logging_in_a_tight_loop_does_not_fill_memory():
    run = new_run()
    run.train(1, wait=True)
    for number in range(4000):
        run.log(f"my/{number % 3}", number)
    assert run._publisher._writing.waiting < 1500
    run.wait()
